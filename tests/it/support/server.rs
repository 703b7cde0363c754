//! The real binary as a process: started on a free port, killed or stopped, started again on the same data.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;

const START_MAX: Duration = Duration::from_mins(2);

/// A running service with a folder of its own. Dropping it kills it.
pub(crate) struct TestServer {
    folder: TempDir,
    environment: Vec<(String, String)>,
    child: Child,
    base: String,
    log: Arc<Mutex<String>>,
}

impl TestServer {
    /// Starts with this config file, on the embedded store.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("config.toml"), config).expect("a config file");
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(pair).collect();
        let (child, base, log) =
            launch(folder.path(), &environment).unwrap_or_else(|error| panic!("{error}"));
        Self { folder, environment, child, base, log }
    }

    /// Where its config and its records are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts in a folder that holds a config file, and perhaps data.
    pub(crate) fn start_in(folder: TempDir) -> Self {
        let (child, base, log) = launch(folder.path(), &[]).unwrap_or_else(|error| panic!("{error}"));
        Self { folder, child, base, log, environment: Vec::new() }
    }

    /// Where it keeps its records.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Has another config at its next start.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.folder.path().join("config.toml"), config).expect("a config file");
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    /// Starts again on the same data. The port is another one.
    pub(crate) fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same. Fails with its log where it ends before it listens.
    pub(crate) fn try_restart(&mut self) -> Result<(), String> {
        assert!(self.ended().is_some(), "it still runs");
        (self.child, self.base, self.log) = launch(self.folder.path(), &self.environment)?;
        Ok(())
    }

    /// How it has ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    /// Whether it has logged this since its last start.
    pub(crate) fn logged(&self, text: &str) -> bool {
        self.log.lock().expect("the log").contains(text)
    }

    /// Whether no part of it has died since its last start.
    pub(crate) fn is_sound(&self) -> bool {
        !self.logged("panicked") || self.logged("\"message\":\"run panicked\"")
    }

    /// Replaces the config for the next start.
    pub(crate) fn reconfigure(&self, config: &str) {
        std::fs::write(self.folder.path().join("config.toml"), config).expect("a config file");
    }

    /// Asks it to stop, as `docker stop` does.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// `kill -9`, without waiting for the end.
    pub(crate) fn kill_now(&self) {
        self.signal(Signal::KILL);
    }

    /// Asks it to read its config again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a signal");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let is_running = matches!(self.child.try_wait(), Ok(None));
        if is_running {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("--- what the service logged\n{log}");
        } else {
            assert!(self.is_sound(), "a part of the service died:\n{log}");
        }
    }
}

/// Fails with its log where it does not get as far as to listen.
fn launch(
    folder: &Path,
    environment: &[(String, String)],
) -> Result<(Child, String, Arc<Mutex<String>>), String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_task-recorder"))
        .args(["--config", "config.toml", "--listen", "127.0.0.1:0"])
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the service starts");
    let log = Arc::new(Mutex::new(String::new()));
    let (found, address) = mpsc::channel();
    let stdout = child.stdout.take().expect("its output");
    let stderr = child.stderr.take().expect("its errors");
    let (out, err) = (Arc::clone(&log), Arc::clone(&log));
    std::thread::spawn(move || collect(stdout, &out, &found));
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = writeln!(err.lock().expect("the log"), "stderr: {line}");
        }
    });
    match address.recv_timeout(START_MAX) {
        Ok(address) => Ok((child, format!("http://{address}"), log)),
        Err(error) => {
            child.kill().expect("a process to kill");
            let status = child.wait().expect("its end");
            let log = log.lock().expect("the log");
            Err(format!("the service did not start ({error}, {status}):\n{log}"))
        }
    }
}

fn collect(stdout: ChildStdout, log: &Mutex<String>, found: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry["message"] == "listening" {
            let address = entry["listen"].as_str().unwrap_or_default().to_owned();
            let _ = found.send(address);
        }
        let _ = writeln!(log.lock().expect("the log"), "{line}");
    }
}
