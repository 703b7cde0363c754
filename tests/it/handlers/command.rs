//! Commands: what they are given, what is kept, and that each one comes to an end with all that it started.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use task_recorder::handler::command::CommandSettings;
use task_recorder::handler::{Action, Command, Handler};
use task_recorder::task::{Code, ErrorKind, Outcome, Task};
use tokio_util::sync::CancellationToken;

use super::{assert_failed, handler, output};
use crate::support::{task, until, within};

const LONG: Duration = Duration::from_mins(1);
const MIB: usize = 1024 * 1024;

fn settings(argv: &[&str]) -> CommandSettings {
    CommandSettings {
        argv: argv.iter().map(|argument| argument.parse().unwrap()).collect(),
        env: vec!["PATH".to_owned()],
        cwd: None,
        timeout: LONG,
        kill_after: LONG,
        success: vec![0],
        output_bytes_max: 1000,
    }
}

fn sh(script: &str) -> CommandSettings {
    settings(&["sh", "-c", script])
}

fn command(settings: CommandSettings) -> Handler {
    handler(Action::Command(Command::new(settings)))
}

async fn run_with(settings: CommandSettings, input: Vec<u8>) -> Outcome {
    within("the command", command(settings).run(&task("t", None, input), 1, &CancellationToken::new())).await
}

async fn run(settings: CommandSettings) -> Outcome {
    run_with(settings, Vec::new()).await
}

/// Whether it runs; a process that has ended and was not reaped yet does not.
fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

async fn assert_dies(pid: i32) {
    until("a process to die", || !is_alive(pid)).await;
}

#[tokio::test]
async fn arguments_are_rendered_one_by_one_and_no_shell_sees_them() {
    let arguments = ["printf", "[%s]", "{id}", "$HOME; {run}.{attempt}", "", "*", "{{}}"];
    let handler = command(settings(&arguments));
    let outcome = handler.run(&task("a=b", None, ""), 2, &CancellationToken::new()).await;
    assert_eq!((outcome.result.clone(), outcome.code), (Ok(()), Some(Code::ExitCode(0))));
    assert_eq!(output(&outcome), "[a=b][$HOME; 1.2][][*][{}]");
    let kept = outcome.output.unwrap();
    assert_eq!((kept.media_type.as_deref(), kept.truncated), (Some("text/plain; charset=utf-8"), false));
}

#[tokio::test]
async fn the_environment_is_the_allowed_part_and_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let handler = command(CommandSettings {
        env: vec!["PATH".to_owned(), "NOT_SET_ANYWHERE".to_owned()],
        cwd: Some(folder.path().to_owned()),
        ..settings(&["env"])
    });
    let run = async |media_type| {
        let outcome = handler.run(&task("t", media_type, ""), 4, &CancellationToken::new()).await;
        let mut lines: Vec<_> = output(&outcome).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert_eq!(run(None).await, [&path, "TASK_ATTEMPT=4", "TASK_ID=t", "TASK_RUN=1"]);
    assert_eq!(run(Some("a/b; c=d")).await.get(3).unwrap(), "TASK_INPUT_TYPE=a/b; c=d");

    let traced = Task { trace: Some(TRACE.parse().unwrap()), ..task("t", None, "") };
    let outcome = handler.run(&traced, 1, &CancellationToken::new()).await;
    let environment = output(&outcome);
    let passed_on = environment.lines().find_map(|line| line.strip_prefix("TRACEPARENT=")).unwrap();
    assert!(passed_on.starts_with(&TRACE[..36]) && passed_on.ends_with("-01"), "{passed_on}");
    assert_ne!(passed_on, TRACE, "with a span of its own");

    let outcome = run_in(folder.path()).await;
    assert_eq!(Path::new(output(&outcome).trim_end()), folder.path().canonicalize().unwrap());
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn run_in(folder: &Path) -> Outcome {
    run(CommandSettings { cwd: Some(folder.to_owned()), ..settings(&["pwd", "-P"]) }).await
}

#[tokio::test]
async fn a_large_input_goes_through_while_the_output_is_read() {
    let input: Vec<u8> = (0..MIB).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let whole = CommandSettings { output_bytes_max: 2 * MIB, ..settings(&["cat"]) };
    let outcome = run_with(whole, input.clone()).await;
    assert_eq!(outcome.result, Ok(()));
    let kept = outcome.output.unwrap();
    assert_eq!((kept.media_type, kept.truncated), (None, false));
    assert!(kept.bytes == input);

    let kept = run_with(settings(&["cat"]), input.clone()).await.output.unwrap();
    assert_eq!((kept.truncated, &kept.bytes[..]), (true, &input[MIB - 1000..]));
}

#[tokio::test]
async fn an_input_that_nobody_reads_is_no_failure() {
    for script in ["true", "exec <&-; echo x", "head -c 1 >/dev/null"] {
        assert_eq!(run_with(sh(script), vec![0; MIB]).await.result, Ok(()), "{script}");
    }
}

#[tokio::test]
async fn the_input_goes_on_after_the_outputs_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let script = "exec >&- 2>&-; cat > copy";
    let settings = CommandSettings { cwd: Some(folder.path().to_owned()), ..sh(script) };
    assert_eq!(run_with(settings, vec![7; MIB]).await.result, Ok(()));
    assert!(std::fs::read(folder.path().join("copy")).unwrap() == vec![7; MIB]);
}

#[tokio::test]
async fn the_exit_code_decides_and_the_last_words_explain() {
    let outcome = run(sh("echo out; seq 1000 >&2; echo 'disk full' >&2; exit 3")).await;
    assert_failed(&outcome, ErrorKind::ExitCode, false, "exit code 3; it said: ");
    assert_failed(&outcome, ErrorKind::ExitCode, false, "1000\ndisk full");
    assert!(outcome.result.unwrap_err().message.chars().count() < 600);
    assert_eq!(outcome.code, Some(Code::ExitCode(3)));
    let outcome = run(CommandSettings { success: vec![0, 3], ..sh("echo out; exit 3") }).await;
    assert_eq!((outcome.result.clone(), output(&outcome)), (Ok(()), "out\n".to_owned()));
    let outcome = run(CommandSettings { success: vec![3], ..sh("exit 0") }).await;
    assert_failed(&outcome, ErrorKind::ExitCode, false, "exit code 0");
}

#[tokio::test]
async fn a_signal_ends_it_in_doubt() {
    let outcome = run(sh("echo out; kill -KILL $$")).await;
    assert_failed(&outcome, ErrorKind::Signal, true, "signal 9 (KILL");
    assert_eq!((outcome.code, output(&outcome)), (Some(Code::Signal(9)), "out\n".to_owned()));
}

#[tokio::test]
async fn a_command_that_is_told_to_end_before_it_begins_is_not_started() {
    let ending = CancellationToken::new();
    ending.cancel();
    let outcome = command(sh("echo out")).run(&task("t", None, ""), 1, &ending).await;
    assert_failed(&outcome, ErrorKind::Canceled, false, "told to end before it was started");
    assert_eq!((outcome.code, outcome.output), (None, None));
}

#[tokio::test]
async fn the_end_of_an_endless_output_is_kept() {
    let timeout = Duration::from_millis(300);
    let outcome = run(CommandSettings { timeout, ..sh("yes & exec yes >&2") }).await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "did not end within 300ms");
    assert_eq!(outcome.code, Some(Code::Signal(15)));
    let kept = outcome.output.unwrap();
    assert_eq!((kept.truncated, kept.bytes.len()), (true, 1000));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group_by_term() {
    let timeout = Duration::from_secs(1);
    let outcome = run(CommandSettings { timeout, ..sh("sleep 600 & echo $!; wait") }).await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "ended by TERM");
    assert_eq!(outcome.code, Some(Code::Signal(15)));
    assert_dies(output(&outcome).trim().parse().unwrap()).await;
}

#[tokio::test]
async fn term_leaves_time_to_clean_up() {
    let timeout = Duration::from_secs(1);
    let script = "trap 'echo cleaned; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let outcome = run(CommandSettings { timeout, ..sh(script) }).await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "ended by TERM");
    assert_eq!((outcome.code, output(&outcome)), (Some(Code::ExitCode(5)), "ready\ncleaned\n".to_owned()));
}

#[tokio::test]
async fn who_ignores_term_is_killed_with_the_whole_group() {
    let (timeout, kill_after) = (Duration::from_secs(1), Duration::from_millis(100));
    let script = "trap '' TERM; sleep 600 & echo $!; while :; do sleep 600; done";
    let outcome = run(CommandSettings { timeout, kill_after, ..sh(script) }).await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "and was killed");
    assert_eq!(outcome.code, Some(Code::Signal(9)));
    assert_dies(output(&outcome).trim().parse().unwrap()).await;
}

#[tokio::test]
async fn what_it_leaves_behind_neither_holds_the_run_up_nor_outlives_it() {
    for script in [
        "sleep 600 & echo $!",
        "sleep 600 >/dev/null 2>&1 & echo $!",
        "trap '' TERM HUP; sleep 600 & echo $!",
    ] {
        let began = Instant::now();
        let outcome = run(sh(script)).await;
        assert_eq!(outcome.result, Ok(()), "{script}");
        assert!(began.elapsed() < LONG / 2);
        assert_dies(output(&outcome).trim().parse().unwrap()).await;
    }
}

#[tokio::test]
async fn who_leaves_the_group_may_stay_and_does_not_hold_the_run_up() {
    let began = Instant::now();
    let outcome = run_with(sh("exec setsid -f sh -c 'echo $$; exec sleep 600'"), vec![0; MIB]).await;
    assert_eq!(outcome.result, Ok(()));
    assert!(began.elapsed() < LONG / 2);
    let pid: i32 = output(&outcome).trim().parse().unwrap();
    assert!(is_alive(pid));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn one_that_has_ended_after_term_was_not_killed_whoever_holds_its_outputs() {
    let (timeout, kill_after) = (Duration::from_secs(1), Duration::from_secs(2));
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'exit 0' TERM
        setsid -f sh -c 'echo $$; : > ready; exec sleep 600'
        while :; do sleep 0.01; done";
    let settings = || CommandSettings { cwd: Some(folder.path().to_owned()), kill_after, ..sh(script) };
    let outcome = run(CommandSettings { timeout, ..settings() }).await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "did not end within 1s and was ended by TERM");
    assert_eq!(outcome.code, Some(Code::ExitCode(0)));
    kill_helper(&outcome);

    // One that is told to end, and ends well, has done its work.
    std::fs::remove_file(folder.path().join("ready")).unwrap();
    let handler = command(settings());
    let (task, ending, ready) = (task("t", None, ""), CancellationToken::new(), folder.path().join("ready"));
    let tell = async {
        until("the command to be ready", || ready.exists()).await;
        ending.cancel();
    };
    let (outcome, ()) = tokio::join!(handler.run(&task, 1, &ending), tell);
    assert_eq!((outcome.result.clone(), outcome.code), (Ok(()), Some(Code::ExitCode(0))));
    kill_helper(&outcome);
}

fn kill_helper(outcome: &Outcome) {
    if let Ok(pid) = output(outcome).trim().parse() {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn a_helper_that_ends_a_little_later_is_heard() {
    let outcome = run(sh("(sleep 0.05; echo late) & echo soon")).await;
    assert_eq!(output(&outcome), "soon\nlate\n");
}

#[tokio::test]
async fn a_dropped_run_kills_the_group_and_leaves_no_zombie() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $$ $! > pids.new; mv pids.new pids; wait";
    let handler = command(CommandSettings { cwd: Some(folder.path().to_owned()), ..sh(script) });
    let task = task("t", None, "");
    let file = folder.path().join("pids");
    let ending = CancellationToken::new();
    tokio::select! {
        outcome = handler.run(&task, 1, &ending) => panic!("{outcome:?}"),
        () = until("the command to start", || file.exists()) => (),
    }
    let pids = std::fs::read_to_string(file).unwrap();
    let pids: Vec<i32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    for pid in &pids {
        assert_dies(*pid).await;
    }
    let leader = format!("/proc/{}", pids[0]);
    until("the command to be reaped", || !Path::new(&leader).exists()).await;
}

#[tokio::test]
async fn no_run_leaves_a_zombie() {
    let outcome = run(sh("echo $$")).await;
    assert!(!Path::new("/proc").join(output(&outcome).trim()).exists());
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let made = "printf 'echo hi\\n' > plain; printf '#!/no/such\\n' > orphan; cp plain closed; chmod +x plain orphan";
    run_made(folder.path(), made).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let nowhere = CommandSettings { cwd: Some(folder.path().join("no")), ..settings(&["true"]) };
    let on_a_file = CommandSettings { cwd: Some(folder.path().join("plain")), ..settings(&["true"]) };
    let long = "x".repeat(MIB);
    for (settings, says) in [
        (settings(&["no-such-program"]), "no-such-program is in no folder of the service's PATH"),
        (settings(&[""]), "names no program"),
        (settings(&[&path("missing")]), "does not exist"),
        (settings(&[&path("closed")]), "chmod +x"),
        (settings(&[&path("plain")]), "#!/bin/sh"),
        (settings(&[&path("orphan")]), "interpreter that does not exist"),
        (settings(&[&path("")]), "is a folder"),
        (settings(&["true", &long]), "too long"),
        (settings(&["true", "\0"]), "was not started"),
        (nowhere, "the working directory"),
        (on_a_file, "is no folder"),
    ] {
        let outcome = run(settings).await;
        assert_failed(&outcome, ErrorKind::Spawn, false, says);
        assert_eq!((outcome.code, outcome.output), (None, None));
    }
    let here = CommandSettings { cwd: Some(folder.path().to_owned()), ..settings(&["./closed"]) };
    assert_failed(&run(here).await, ErrorKind::Spawn, false, "chmod +x");
}

/// Makes files by a command of their own, so that this process never has one open for writing that it will run.
async fn run_made(folder: &Path, script: &str) {
    let settings = CommandSettings { cwd: Some(folder.to_owned()), ..sh(script) };
    assert_eq!(run(settings).await.result, Ok(()));
}
