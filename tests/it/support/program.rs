//! The real binary, asked something: what it says, and the code it ends with.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::within;

/// What it said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Every line of its output as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parsed = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"));
        self.out.lines().map(parsed).collect()
    }

    /// The one line of its output as JSON.
    pub(crate) fn json(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines.remove(0)
    }
}

/// With nothing in its environment but this.
pub(crate) fn program(environment: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_task-recorder"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    ended(program(environment, arguments)).await
}

/// Asks the service at this address.
pub(crate) async fn ask(base: &str, arguments: &[&str]) -> Ran {
    run(&[("TASK_RECORDER_URL", base)], arguments).await
}

/// The same, with this on standard input.
pub(crate) async fn ask_with(base: &str, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = program(&[("TASK_RECORDER_URL", base)], arguments);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let write = async move { stdin.write_all(input).await.unwrap() };
    let ((), output) = within("the program", async { tokio::join!(write, child.wait_with_output()) }).await;
    ran(output.unwrap())
}

pub(crate) async fn ended(mut command: Command) -> Ran {
    ran(within("the program", command.output()).await.unwrap())
}

pub(crate) fn ran(output: std::process::Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
