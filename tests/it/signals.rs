//! Signals at any time in the life of the service: while it starts, while it runs, and again while it stops.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use task_recorder::store::{EmbeddedOptions, Store as _};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::stores::{id, number, open_embedded, open_to_read, run, success};
use crate::support::server::TestServer;
use crate::support::{until, within};

const HANDLER: &str = "type = \"command\"\ncommand = [\"cat\"]\n";

/// A service that opens its store until it is let go on: a file of it is a pipe that nobody writes to.
struct Opening {
    folder: TempDir,
    held_by: PathBuf,
    child: Child,
    log: Lines<BufReader<ChildStdout>>,
}

impl Opening {
    async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let options = EmbeddedOptions { hot_tasks: 0, recent_ids: 1, ..EmbeddedOptions::default() };
        let store = open_embedded(&data, &options);
        run(&store, &id("a"), success()).await;
        let archive = open_to_read(&data.join("archive.db"));
        until("a file of ids", || number(&archive, "SELECT count(*) FROM runs") > 0).await;
        store.close().await;
        drop(archive);
        let file = std::fs::read_dir(data.join("ids")).unwrap().next().unwrap().unwrap().path();
        std::fs::remove_file(&file).unwrap();
        mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        configure(folder.path(), "first");
        let mut child = Command::new(env!("CARGO_BIN_EXE_task-recorder"))
            .args(["--config", "config.toml", "--listen", "127.0.0.1:0"])
            .current_dir(folder.path())
            .env_clear()
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stdout.take().unwrap()).lines();
        let opening = Self { folder, held_by: file, child, log };
        let pid = opening.pid().to_string();
        let lock = data.join("lock");
        until("the lock", || std::fs::read_to_string(&lock).is_ok_and(|text| text.trim() == pid)).await;
        opening
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The file is found to be damaged then, and made anew.
    fn let_go_on(&self) {
        std::fs::write(&self.held_by, "").unwrap();
    }

    /// What it logs, up to this message.
    async fn log_until(&mut self, message: &str) -> Vec<Value> {
        let mut entries: Vec<Value> = Vec::new();
        while entries.last().is_none_or(|last| last["message"] != message) {
            let line = within(message, self.log.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended before it said {message:?}: {entries:#?}"));
            entries.push(serde_json::from_str(&line).unwrap());
        }
        entries
    }

    async fn ended(&mut self) -> Option<i32> {
        within("the end", self.child.wait()).await.unwrap().code()
    }
}

fn configure(folder: &Path, handler: &str) {
    std::fs::write(folder.join("config.toml"), format!("[handlers.{handler}]\n{HANDLER}")).unwrap();
}

/// Also where what it does then blocks a thread that nobody can stop.
#[tokio::test]
async fn a_service_that_is_told_to_stop_while_it_starts_gives_that_up() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut opening = Opening::begin().await;
        opening.signal(signal);
        assert_eq!(opening.ended().await, Some(0), "{signal:?}");
        let log = opening.log_until("stopping before the start was over").await;
        assert!(log.iter().all(|entry| entry["message"] != "listening"), "{log:?}");
        assert_eq!(opening.log.next_line().await.unwrap(), None, "that was the last");
    }
}

#[tokio::test]
async fn a_hang_up_while_it_starts_is_a_reload_once_it_has_started() {
    let mut opening = Opening::begin().await;
    opening.signal(Signal::HUP);
    configure(opening.folder.path(), "second");
    opening.let_go_on();
    let log = opening.log_until("config reloaded").await;
    assert_eq!(log.last().unwrap()["handlers"], "second", "{log:?}");
    assert!(log.iter().any(|entry| entry["message"] == "listening"), "{log:?}");
    opening.signal(Signal::TERM);
    opening.log_until("stopped").await;
    assert_eq!(opening.ended().await, Some(0));
}

#[tokio::test]
async fn a_third_signal_leaves_what_does_not_end_to_the_next_start() {
    let mut server = TestServer::start(
        "[server]\ngrace = \"1h\"\n[handlers.stubborn]\ntype = \"command\"\nkill_after = \"10m\"\n\
         command = [\"sh\", \"-c\", \"trap : TERM; echo $$ >pid; for i in $(seq 600); do sleep 0.1; done\"]\ndefault = true\n",
    );
    assert_eq!(server.client().post("/tasks/a", "").await.status, 202);
    let file = server.folder().join("pid");
    until("the command", || std::fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    for said in ["once more to stop at once", "once more to leave it to the next start"] {
        server.terminate();
        until(said, || server.logged(said)).await;
    }
    server.terminate();
    until("the end", || server.ended().is_some()).await;
    assert_eq!(server.wait().code(), Some(0));
    until("what it has left", || server.logged("left without an outcome")).await;
    assert!(server.logged("\"runs\":1"), "{}", server.log());
    let pid = std::fs::read_to_string(&file).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    until("the end of the command", || !process.exists()).await;

    server.restart();
    let task = server.client().get("/tasks/a/status").await.json();
    assert_eq!((&task["error"]["kind"], &task["in_doubt"]), (&"interrupted".into(), &true.into()));
}
