//! The measured process: the service, or this bench started once more with a part of its own. What it takes is read
//! from `/proc`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a start may take; a large store after a crash takes a while.
const START_MAX: Duration = Duration::from_mins(10);
/// A process that takes at most one tick of the clock in this time does nothing.
const QUIET: Duration = Duration::from_millis(500);

/// Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the service in this folder. Returns when it listens.
    pub(crate) fn service(folder: &Path, config: &str) -> Self {
        fs::write(folder.join("config.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_task-recorder"));
        command.args(["--config", "config.toml", "--listen", "127.0.0.1:0"]).current_dir(folder);
        Self::start(command.env_remove("RUST_LOG"))
    }

    /// Starts this bench as another process with these arguments. It says where it listens as the service does.
    pub(crate) fn this_bench(args: &[&str]) -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()).args(args))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (found, address) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            // Read to the end: a pipe that nobody reads would hold the process up.
            for line in lines.map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(listen) = entry["listen"].as_str() {
                    let _ = found.send(listen.parse().unwrap());
                } else if entry["level"] == "ERROR" || entry["level"] == "WARN" {
                    eprintln!("{line}");
                }
            }
        });
        let address = address.recv_timeout(START_MAX).unwrap();
        Self { child, address }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has taken so far.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::of(self.pid())
    }

    /// Bytes of memory that it holds now.
    pub(crate) fn rss_bytes(&self) -> u64 {
        status_bytes(self.pid(), "VmRSS:")
    }

    /// The most bytes of memory that it has held at once.
    pub(crate) fn rss_bytes_peak(&self) -> u64 {
        status_bytes(self.pid(), "VmHWM:")
    }

    /// Returns when it does nothing any more.
    pub(crate) async fn is_quiet(&self) {
        let mut before = self.cpu();
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.cpu();
            if now.0 <= before.0 + 1 {
                return;
            }
            before = now;
        }
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn stop(mut self) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

/// `kill -9`.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of a process, of the user and of the system, in ticks of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu(u64);

impl Cpu {
    /// What this process has taken so far.
    pub(crate) fn own() -> Self {
        Self::of(std::process::id())
    }

    /// What a process has taken so far.
    fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name is in parentheses and may hold spaces; the fields after it are counted from 3 (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let times = fields.split(' ').skip(14 - 3).take(2);
        Self(times.map(|field| field.parse::<u64>().unwrap()).sum())
    }

    /// What was taken since an earlier look.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0 - earlier.0) / u32::try_from(clock_ticks_per_second()).unwrap()
    }
}

/// Bytes of memory that a process holds now.
pub(crate) fn rss_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
