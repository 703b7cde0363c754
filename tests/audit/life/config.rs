//! The config of the service that is audited.

use std::fmt::Write as _;
use std::path::Path;

use crate::disk::Disk;
use crate::oracle::ATTEMPTS;
use crate::receiver::Receiver;
use crate::shell;
use crate::workload;

pub(super) fn config(receiver: &Receiver, disk: Option<&Disk>, commands: &Path) -> String {
    let path = disk.map_or_else(|| "data".to_owned(), |disk| disk.path().join("data").display().to_string());
    let mut config =
        format!("[server]\ngrace = \"1s\"\n[store]\npath = {path:?}\nhot_tasks = 60\nrecent_ids = 40\n");
    for name in workload::HANDLERS {
        let url = receiver.url("");
        let on_crash = if name == "plain" { "retry" } else { "fail" };
        let kind = if name == "shell" {
            shell::config(commands)
        } else {
            format!("type = \"webhook\"\nurl = \"{url}/run/{{id}}\"\n")
        };
        let _ = write!(
            config,
            "[handlers.{name}]\n{kind}timeout = \"400ms\"\nconcurrency = 12\non_crash = \"{on_crash}\"\n\
             retry = {{ attempts = {ATTEMPTS}, initial = \"5ms\", max_interval = \"30ms\" }}\n"
        );
        if name == "hook" || name == "told" {
            let _ = write!(config, "[handlers.{name}.revoke]\nurl = \"{url}/revoke/{{id}}\"\n");
        }
        if name == "told" {
            for event in ["on_success", "on_failure"] {
                let _ = write!(config, "[handlers.{name}.{event}]\nurl = \"{url}/notice/{{id}}\"\n");
            }
        }
    }
    config
}
