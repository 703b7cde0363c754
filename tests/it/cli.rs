//! The real binary: what it prints, and the codes it ends with.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use task_recorder::store::EmbeddedOptions;
use tempfile::TempDir;

use crate::config::Written;
use crate::stores::open_embedded;

/// Runs the binary with nothing in its environment but `environment`.
fn run_with(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_task-recorder"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the binary runs")
}

fn run(arguments: &[&str]) -> Output {
    run_with(&[], arguments)
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("no exit code: {:?}", output.status))
}

/// A service that gives one answer, whatever it is asked; joined, it gives back what it was asked.
pub(crate) fn answering(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("an address");
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a request") > 0 {
            request.extend(byte);
        }
        stream.write_all(answer.as_bytes()).expect("the answer is taken");
        String::from_utf8(request).expect("UTF-8")
    });
    (at, asked)
}

#[test]
fn check_config_names_file_and_handlers() {
    let output = run(&["check-config"]);
    assert_eq!((out(&output), code(&output)), ("ok: built-in config, 1 handler: echo\n", 0));

    let command = "type = \"command\"\ncommand = [\"true\"]\n";
    let file = Written::new(format!("[handlers.b]\n{command}[handlers.a]\n{command}"));
    let path = file.path().to_str().expect("UTF-8");
    let expected = format!("ok: {path}, 2 handlers: b, a\n");
    for arguments in [["check-config", "--config", path], ["--config", path, "check-config"]] {
        let output = run(&arguments);
        assert_eq!((out(&output), code(&output)), (expected.as_str(), 0), "{}", err(&output));
    }
    let output = run_with(&[("TASK_RECORDER_CONFIG", path)], &["check-config"]);
    assert_eq!(out(&output), expected);
}

#[test]
fn a_bad_config_ends_every_verb_with_code_2() {
    let file = Written::new("[server]\nlistn = 1\ngrace = 1\n");
    let path = file.path().to_str().expect("UTF-8");
    for verb in ["check-config", "print-config", "serve"] {
        let output = run(&[verb, "--config", path]);
        assert_eq!((out(&output), code(&output)), ("", 2));
        assert!(err(&output).contains(&format!("{path}:2:1: unknown key `listn`")), "{}", err(&output));
        assert_eq!(err(&output).lines().count(), 2, "{}", err(&output));
    }
    let output = run(&["--config", path]);
    assert_eq!(code(&output), 2, "serve is what is meant without a verb");
    let output = run_with(&[("TASK_RECORDER_FOO", "1")], &["check-config"]);
    assert_eq!(code(&output), 2);
    let output = run(&["check-config", "--listen", "nowhere"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).starts_with("flag --listen: "), "{}", err(&output));
}

#[test]
fn print_config_prints_a_config() {
    let output = run_with(&[("TASK_RECORDER_STORE", "memory")], &["print-config", "--listen", "0.0.0.0:80"]);
    assert_eq!(code(&output), 0);
    let text = out(&output);
    assert!(text.contains("listen = \"0.0.0.0:80\" # flag --listen\n"), "{text}");
    assert!(text.contains("path = \"memory\" # environment variable TASK_RECORDER_STORE\n"), "{text}");

    let file = Written::new(text);
    let again = run(&["print-config", "--config", file.path().to_str().expect("UTF-8")]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(values(out(&again)), values(text), "{}", err(&again));
}

#[test]
fn flags_that_do_not_exist_end_with_code_2() {
    for arguments in [&["--nonsense"][..], &["nonsense"], &["--config"], &["check-config", "extra"]] {
        let output = run(arguments);
        assert_eq!((out(&output), code(&output)), ("", 2), "{arguments:?}");
        assert!(err(&output).contains("--help"), "{}", err(&output));
    }
}

#[test]
fn version_and_help_say_what_they_have_to() {
    let output = run(&["--version"]);
    let expected = concat!("task-recorder ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((out(&output), code(&output)), (expected, 0));
    let output = run(&["--help"]);
    assert_eq!(code(&output), 0);
    let words = [
        "check-config",
        "print-config",
        "healthcheck",
        "--listen",
        "TASK_RECORDER_STORE",
        "Exit codes:",
        "  5  ",
    ];
    for word in words {
        assert!(out(&output).contains(word), "{word} is not in\n{}", out(&output));
    }
}

#[test]
fn a_bad_rust_log_is_refused_before_anything_starts() {
    let output = run_with(&[("RUST_LOG", "info=what=ever")], &["--store", "memory"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("RUST_LOG is no filter"), "{}", err(&output));
}

#[test]
fn healthcheck_asks_the_service_whether_it_is_ready() {
    let (at, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let output = run(&["healthcheck", "--listen", &format!("0.0.0.0:{}", at.port())]);
    assert_eq!((out(&output), code(&output)), (format!("ready: {at}\n").as_str(), 0), "{}", err(&output));
    let asked = asked.join().expect("the service lives").to_lowercase();
    assert!(asked.starts_with("get /readyz http/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {at}\r\n")), "{asked}");

    let (at, _asked) = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\ndrain\ning");
    let output = run(&["healthcheck", "--listen", &at.to_string()]);
    assert_eq!((out(&output), code(&output)), ("", 1));
    let expected =
        format!("{at} answers 503 Service Unavailable: drain ing (the address comes from flag --listen)\n");
    assert_eq!(err(&output), expected);

    let (at, _asked) = answering("SSH-2.0-OpenSSH\r\n");
    let output = run(&["healthcheck", "--listen", &at.to_string()]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).starts_with(&format!("no answer from {at}: ")), "{}", err(&output));
}

#[test]
fn healthcheck_without_a_service_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("an address");
    drop(listener);
    let output = run(&["healthcheck", "--listen", &at.to_string()]);
    assert_eq!((out(&output), code(&output)), ("", 1));
    assert!(err(&output).starts_with(&format!("cannot connect to {at}: ")), "{}", err(&output));

    let output = run(&["healthcheck", "--listen", "127.0.0.1:0"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("port is 0"), "{}", err(&output));
}

#[test]
fn healthcheck_judges_the_service_and_not_the_config() {
    let ready = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let wrong = "[log]\nlevel = 7\n[handlers.a]\ntyp = \"command\"\n[tokens.t]\n";
    let broken = "[handlers.a\n";
    for rest in ["", wrong, broken] {
        let (at, _asked) = answering(ready);
        let file = Written::new(format!("[server]\nlisten = \"{at}\"\nnonsense = 1\n{rest}"));
        let output = run(&["healthcheck", "--config", file.path().to_str().unwrap()]);
        assert_eq!((out(&output), code(&output)), (format!("ready: {at}\n").as_str(), 0), "{}", err(&output));
    }
    // Neither a flag nor a variable needs a file, and other variables do not matter.
    let (at, _asked) = answering(ready);
    let output = run(&["healthcheck", "--config", "/nowhere", "--listen", &at.to_string()]);
    assert_eq!((err(&output), code(&output)), ("", 0));
    let (at, _asked) = answering(ready);
    let at = at.to_string();
    let variables =
        [("TASK_RECORDER_LISTEN", &*at), ("TASK_RECORDER_CONFIG", "/nowhere"), ("TASK_RECORDER_FOO", "1")];
    let output = run_with(&variables, &["healthcheck"]);
    assert_eq!((err(&output), code(&output)), ("", 0));
    let output = run_with(&[("TASK_RECORDER_LISTEN", "nowhere")], &["healthcheck"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).starts_with("environment variable TASK_RECORDER_LISTEN: "), "{}", err(&output));
}

#[test]
fn healthcheck_says_where_the_address_came_from() {
    let said = |text: &str| {
        let file = Written::new(text);
        let path = file.path().to_str().unwrap();
        let output = run(&["healthcheck", "--config", path]);
        assert_eq!((out(&output), code(&output)), ("", 1));
        err(&output).replace(path, "test.toml")
    };
    let given = said("[server]\nlisten = \"127.0.0.1:0\"");
    assert!(given.ends_with("(the address comes from test.toml:2:10)\n"), "{given}");
    let (wrong, broken) = (said("[server]\nlisten = \"localhost\""), said("[server\n"));
    for said in [&wrong, &broken] {
        assert!(said.contains("127.0.0.1:8080") && said.contains("it is the default, because"), "{said}");
    }
    assert!(wrong.contains("test.toml:2:10: `listen` is \"localhost\""), "{wrong}");
    assert!(broken.contains("test.toml:1:8: this is not valid TOML"), "{broken}");
    let output = run(&["healthcheck", "--config", "/nowhere"]);
    assert!(err(&output).contains("it is the default, because flag --config: "), "{}", err(&output));
}

/// Starts the service where it cannot start: the exit code, and what it says.
fn refused(command: &mut Command) -> (i32, String) {
    let command = command.env_clear().stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("its errors")).lines();
    // One that starts after all says nothing, and would run for ever.
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(lines.next().and_then(Result::ok)));
    let said = is_done.recv_timeout(Duration::from_secs(30));
    if said.is_err() {
        child.kill().expect("a process to kill");
    }
    let status = child.wait().expect("its end");
    let said = said.expect("it started").unwrap_or_default();
    (status.code().expect("an exit code"), said)
}

fn service(store: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_task-recorder"));
    command.arg("--store").arg(store).args(["--listen", listen]);
    command
}

#[test]
fn what_keeps_the_service_from_starting_is_told_once_with_a_code_of_its_own() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("file"));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let (code, said) = refused(&mut service(&data, &at));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&at) && said.contains("stop what uses it"), "{said}");
    let open = Written::new("[server]\nallow_anonymous = true");
    let (code, said) = refused(service(&data, "192.0.2.1:80").arg("--config").arg(open.path()));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("192.0.2.1:80") && !said.contains("stop what uses it"), "{said}");
    assert!(!data.exists(), "a port that cannot be had leaves the data alone");

    std::fs::write(&file, "").unwrap();
    let (code, said) = refused(&mut service(&file, "127.0.0.1:0"));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("file") && said.matches("(os error").count() == 1, "{said}");

    let store = open_embedded(&data, &EmbeddedOptions::default());
    let (code, said) = refused(&mut service(&data, "127.0.0.1:0"));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    drop(store);
}

#[test]
fn a_folder_with_files_that_this_user_cannot_write_is_refused() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    drop(open_embedded(&data, &EmbeddedOptions::default()));
    let grant = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for path in [folder.path(), &data] {
        grant(path, 0o777);
    }
    grant(&data.join("lock"), 0o666);
    grant(&data.join("archive.db"), 0o666);
    grant(&data.join("journal.db"), 0o444);
    // Root may write everything, so it runs the binary as nobody, from where nobody can read it.
    let binary = folder.path().join("task-recorder");
    std::fs::copy(env!("CARGO_BIN_EXE_task-recorder"), &binary).unwrap();
    let mut command = Command::new(&binary);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command.arg("--store").arg(&data).args(["--listen", "127.0.0.1:0"]);
    let (code, said) = refused(&mut command);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("journal.db is read-only"), "{said}");
}
