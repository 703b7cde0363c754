//! What Prometheus itself says of the metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::Eventful;

/// `tests/all.sh` says where it is.
fn promtool() -> Command {
    Command::new(std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into()))
}

#[tokio::test]
#[ignore = "needs promtool, which tests/all.sh brings"]
async fn promtool_finds_no_fault() {
    let Eventful { client, .. } = &Eventful::new().await;
    let metrics = client.get("/metrics").await;
    let mut check = promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian: prometheus), or its path in the variable PROMTOOL");
    check.stdin.take().unwrap().write_all(&metrics.body).unwrap();
    let found = check.wait_with_output().unwrap();
    let said = [found.stdout, found.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(found.status.success() && said.trim().is_empty(), "{}: {said}\n{}", found.status, metrics.text());
}
