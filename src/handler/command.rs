//! A handler that runs a program.
//!
//! Invariant: a run is over when its program is; what it leaves behind in its process group is killed then. Who wants
//! to outlive a run has to leave the group (`setsid`).
//! Invariant: whatever the command does with its pipes, the run ends (tests/it/handlers/command.rs).

mod group;
mod pipes;
mod program;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::group::Group;
use self::pipes::Pipes;
use super::template::{Template, Values};
use crate::task::{Code, ErrorKind, Failure, Outcome, Purpose, Task};

/// How long the outputs may stay open once the program has ended, before those who hold them are killed. What the
/// program itself wrote is in the pipe by then; this is for its helpers that are about to end (`tee`, loggers).
const LEFTOVERS: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone, which is long only while the system itself is stuck (a dead disk).
const KILLED: Duration = Duration::from_secs(5);
const KILLED_BY_US: Code = Code::Signal(Signal::KILL.as_raw());
/// How much of standard error is kept for the message, in bytes and in characters.
const ERRORS_BYTES_MAX: usize = 4 * 1024;
const ERRORS_CHARS_MAX: usize = 500;

/// Which program to run, and how it has to end.
#[derive(Debug)]
pub struct CommandSettings {
    /// The program and its arguments; never empty, never passed through a shell. A program without a `/` is looked up
    /// in the service's own `PATH`.
    pub argv: Vec<Template>,
    /// Names of the service's own environment variables that the command sees; no others are passed on. Besides them
    /// it sees `TASK_ID`, `TASK_RUN`, `TASK_ATTEMPT`, and `TASK_INPUT_TYPE` where the input has a media type,
    /// `TRACEPARENT` where the run belongs to a trace.
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

/// How a run ended.
enum End {
    /// By itself.
    Exit,
    /// After TERM.
    Term(Reason),
    /// After KILL, since TERM did not help.
    Kill(Reason),
}

/// Why a run was ended.
enum Reason {
    /// The time was up.
    Time,
    /// It was told to.
    Told,
}

impl Command {
    /// A command with these settings.
    #[must_use]
    pub fn new(settings: CommandSettings) -> Self {
        Self { settings }
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &CommandSettings {
        &self.settings
    }

    pub(super) async fn run(
        &self,
        task: &Task,
        attempt: u32,
        purpose: Purpose,
        ending: &CancellationToken,
    ) -> Outcome {
        if ending.is_cancelled() {
            let message = "the command was told to end before it was started";
            return Outcome::failed(Failure::without_effect(ErrorKind::Canceled, message));
        }
        let (mut group, mut pipes) = match self.start(task, attempt, purpose) {
            Ok(started) => started,
            Err(message) => return Outcome::failed(Failure::new(ErrorKind::Spawn, message)),
        };
        let end = self.wait(&mut group, &mut pipes, ending).await;
        let status = timeout(KILLED, group.end()).await;
        // Whoever held the outputs is dead by now, or has left the group and is not waited for.
        let _ = timeout(LEFTOVERS, pipes.pump()).await;
        let words = pipes.errors.last_words(ERRORS_CHARS_MAX);
        let status = status.ok().and_then(Result::ok);
        let result = self.judge(end, status).map_err(|failure| saying(failure, &words));
        Outcome { code: status.and_then(code), output: pipes.output.into_output(), result, retry_after: None }
    }

    fn start(&self, task: &Task, attempt: u32, purpose: Purpose) -> Result<(Group, Pipes), String> {
        let settings = &self.settings;
        let values = Values { id: &task.id, run: task.run, attempt };
        let mut argv = settings.argv.iter().map(|argument| argument.render(&values));
        let name = argv.next().unwrap_or_default();
        let program = program::find(&name, std::env::var_os("PATH").as_deref())?;
        let has_input = !task.input.bytes.is_empty();
        let mut command = tokio::process::Command::new(&*program);
        command
            .args(argv.map(Cow::into_owned))
            .env_clear()
            .envs(settings.env.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("TASK_ID", task.id.as_str())
            .env("TASK_RUN", task.run.to_string())
            .env("TASK_ATTEMPT", attempt.to_string())
            .envs(task.call_span(purpose, attempt).map(|span| ("TRACEPARENT", span.to_string())))
            .envs(
                task.input
                    .media_type
                    .as_deref()
                    .map(|media_type| ("TASK_INPUT_TYPE", OsStr::new(media_type))),
            )
            .stdin(if has_input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(cwd) = &settings.cwd {
            command.current_dir(cwd);
        }
        let mut child = command
            .spawn()
            .map_err(|error| program::not_started(&error, &program, settings.cwd.as_deref()))?;
        let input = task.input.bytes.clone();
        let pipes = Pipes::of(&mut child, input, settings.output_bytes_max, ERRORS_BYTES_MAX);
        Ok((Group::of(child), pipes))
    }

    /// Waits until the program has ended, and sees to it that it does.
    async fn wait(&self, group: &mut Group, pipes: &mut Pipes, told: &CancellationToken) -> End {
        let by_itself = timeout(self.settings.timeout, pumping(pipes, group.exited()));
        let reason = tokio::select! {
            biased;
            ended = by_itself => ended.err().map(|_elapsed| Reason::Time),
            () = told.cancelled() => Some(Reason::Told),
        };
        let Some(reason) = reason else {
            pipes.stop_feeding();
            let _ = timeout(LEFTOVERS, pipes.pump()).await;
            return End::Exit;
        };
        group.signal(Signal::TERM);
        let ending = async {
            pumping(pipes, group.exited()).await;
            pipes.stop_feeding();
            // Others of the group may still be ending, which shows as long as they hold the outputs.
            pipes.pump().await;
        };
        match timeout(self.settings.kill_after, ending).await {
            Ok(()) => End::Term(reason),
            Err(_elapsed) => {
                pipes.stop_feeding();
                End::Kill(reason)
            }
        }
    }

    fn is_success(&self, status: Option<ExitStatus>) -> bool {
        matches!(status.and_then(code), Some(Code::ExitCode(code)) if self.settings.success.contains(&code))
    }

    fn judge(&self, end: End, status: Option<ExitStatus>) -> Result<(), Failure> {
        let limit = self.settings.timeout;
        let end = match end {
            // It had ended by then; what was killed is what still held its outputs.
            End::Kill(reason) if status.and_then(code).is_some_and(|code| code != KILLED_BY_US) => {
                End::Term(reason)
            }
            end => end,
        };
        match end {
            End::Exit => (),
            // One that ends well although it was told to end has done its work.
            End::Term(Reason::Told) if self.is_success(status) => (),
            End::Term(Reason::Told) | End::Kill(Reason::Told) => {
                return Err(Failure::new(ErrorKind::Canceled, "the command was told to end"));
            }
            End::Term(Reason::Time) => {
                let message = format!("the command did not end within {limit:?} and was ended by TERM");
                return Err(Failure::new(ErrorKind::Timeout, message));
            }
            End::Kill(Reason::Time) => {
                let message = format!(
                    "the command did not end within {limit:?}, nor within {:?} after TERM, and was killed",
                    self.settings.kill_after
                );
                return Err(Failure::new(ErrorKind::Timeout, message));
            }
        }
        match status.and_then(code) {
            Some(Code::ExitCode(code)) if self.settings.success.contains(&code) => Ok(()),
            Some(Code::ExitCode(code)) => {
                Err(Failure::new(ErrorKind::ExitCode, format!("the command ended with exit code {code}")))
            }
            Some(Code::Signal(signal)) => {
                let name = signal_name(signal);
                Err(Failure::new(ErrorKind::Signal, format!("signal {signal}{name} ended the command")))
            }
            Some(Code::HttpStatus(_)) | None => {
                let message = "the command ended, and the system does not say how";
                Err(Failure::new(ErrorKind::Interrupted, message))
            }
        }
    }
}

/// Feeds and reads the pipes until something else has happened.
async fn pumping(pipes: &mut Pipes, until: impl Future<Output = ()>) {
    let mut until = std::pin::pin!(until);
    tokio::select! {
        biased;
        () = &mut until => (),
        () = pipes.pump() => until.await,
    }
}

fn code(status: ExitStatus) -> Option<Code> {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().map(Code::ExitCode).or_else(|| status.signal().map(Code::Signal))
}

fn saying(failure: Failure, words: &str) -> Failure {
    if words.is_empty() {
        return failure;
    }
    Failure { message: format!("{}; it said: {words}", failure.message), ..failure }
}

fn signal_name(signal: i32) -> &'static str {
    match Signal::from_named_raw(signal) {
        Some(Signal::ABORT) => " (ABRT)",
        Some(Signal::BUS) => " (BUS)",
        Some(Signal::FPE) => " (FPE)",
        Some(Signal::HUP) => " (HUP)",
        Some(Signal::ILL) => " (ILL)",
        Some(Signal::INT) => " (INT)",
        Some(Signal::KILL) => " (KILL: by hand, or for want of memory)",
        Some(Signal::PIPE) => " (PIPE)",
        Some(Signal::SEGV) => " (SEGV)",
        Some(Signal::TERM) => " (TERM)",
        _ => "",
    }
}
