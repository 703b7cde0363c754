//! Without tokens: who is kept out all the same, and where the service does not start.

use std::process::{Command, Output};

use hyper::Method;

use super::{HANDLERS, hash, token, with};
use crate::config::{Written, good};
use crate::support::server::TestServer;

fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_task-recorder"));
    command.args(arguments).envs(environment.iter().copied()).env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served_under_its_own_names() {
    let server = TestServer::start(&format!("[server]\nhosts = [\"recorder.internal\"]\n{HANDLERS}"));
    let client = server.client();
    let ask = async |headers: &[(&str, &str)]| client.send(Method::POST, "/tasks/x", headers, "").await;
    for host in [
        "localhost",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.0.0.2",
        "[::1]",
        "[::1]:80",
        "recorder.internal:9",
    ] {
        assert!(ask(&[("host", host)]).await.status.is_success(), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[::2]",
        "a@localhost",
        "",
    ] {
        let detail = ask(&[("host", host)]).await.problem(421, "unknown-host");
        assert!(detail.contains("server.hosts"), "{detail}");
    }
    for origin in ["http://localhost:3000", "https://127.0.0.1", "http://recorder.internal"] {
        assert!(ask(&[("origin", origin)]).await.status.is_success(), "{origin}");
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", ""] {
        ask(&[("origin", origin)]).await.problem(403, "foreign-origin");
    }
}

/// A load balancer or a container engine asks under the address of the container.
#[tokio::test]
async fn probes_are_answered_under_any_name() {
    let config = format!("[server]\nallow_anonymous = true\nhosts = [\"recorder.internal\"]\n{HANDLERS}");
    let server = TestServer::start(&config);
    let client = server.client();
    let headers = [("host", "10.1.2.3:8080"), ("origin", "https://evil.example")];
    for path in ["/livez", "/readyz", "/version", "/openapi.json", "/docs"] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(client.send(method, path, &headers, "").await.status, 200, "{path}");
        }
        client.send(Method::POST, path, &headers, "").await.problem(421, "unknown-host");
    }
    for path in ["/stats", "/metrics", "/tasks", "/handlers", "/events", "/nothing"] {
        client.send(Method::GET, path, &headers, "").await.problem(421, "unknown-host");
        client.send(Method::GET, path, &headers[1..], "").await.problem(403, "foreign-origin");
    }
}

#[tokio::test]
async fn with_tokens_the_names_do_not_matter() {
    let server = TestServer::start(&format!("{HANDLERS}{}", token("r", "scopes = [\"read\"]")));
    let headers =
        [("host", "evil.example"), ("origin", "https://evil.example"), ("authorization", "Bearer s-r")];
    assert_eq!(server.client().send(Method::GET, "/stats", &headers, "").await.status, 200);
}

#[test]
fn it_does_not_listen_to_others_without_tokens_unless_it_is_told_to() {
    let file = Written::new("[server]\nlisten = \"0.0.0.0:0\"\n");
    let path = file.path().to_str().unwrap();
    for (arguments, place) in [
        (&["--config", path][..], format!("{path}:2:10: ")),
        (&["check-config", "--config", path], format!("{path}:2:10: ")),
        (&["--listen", "[::]:0"], "flag --listen: ".to_owned()),
    ] {
        let output = run(&[], arguments);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.starts_with(&place), "{said}");
        for part in ["no tokens", "task-recorder token new", "server.allow_anonymous = true"] {
            assert!(said.contains(part), "{said}");
        }
    }
    let told = run(&[("TASK_RECORDER_SERVER_ALLOW_ANONYMOUS", "true")], &["check-config", "--config", path]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let tokens = good(&format!("[server]\nlisten = \"0.0.0.0:0\"\n{}", token("r", "scopes = [\"read\"]")));
    assert!(tokens.is_guarded().is_ok());
    for local in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert!(good(&format!("[server]\nlisten = \"{local}\"")).is_guarded().is_ok(), "{local}");
    }
}

#[test]
fn what_the_config_refuses_is_not_printed_as_a_token() {
    for (prefix, why) in [("", "it is empty"), ("a b", "' '"), ("a/", "'/'")] {
        let arguments = ["token", "new", "--name", "ci", "--scopes", "read", "--prefix", prefix];
        let output = run(&[], &arguments);
        assert_eq!((text(&output.stdout), output.status.code()), ("", Some(2)), "{prefix:?}");
        let said = text(&output.stderr);
        assert!(said.contains("--prefix") && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_new_token_works_with_the_lines_that_were_printed() {
    let arguments = [
        "token",
        "new",
        "--name",
        "ci",
        "--scopes",
        "read,launch",
        "--handlers",
        "a",
        "--prefix",
        "x-",
        "--expires",
        "2100-01-01T00:00:00Z",
    ];
    let output = run(&[], &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let secret = printed.lines().find(|line| line.starts_with("tr_")).unwrap();
    let (_, lines) = printed.split_once("[tokens.ci]").unwrap();
    assert!(!lines.contains(secret));
    let config = format!("{HANDLERS}[tokens.ci]{lines}");
    let file = Written::new(&config);
    for verb in ["print-config", "check-config"] {
        let shown = run(&[], &[verb, "--config", file.path().to_str().unwrap()]);
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        assert!(!text(&shown.stdout).contains(&hash(secret)), "{}", text(&shown.stdout));
    }
    let server = TestServer::start(&config);
    let client = server.client();
    assert_eq!(with(&client, secret, Method::POST, "/tasks/x-1?wait=30", "").await.status, 200);
    with(&client, secret, Method::POST, "/tasks/y-1", "").await.problem(403, "out-of-reach");
    let other = run(&[], &arguments);
    assert!(!text(&other.stdout).contains(secret), "each secret is another one");
}

#[test]
fn a_token_that_is_wrong_is_told_with_its_place_and_without_its_secret() {
    let right = hash("one");
    let secret = "tr_0123456789abcdef";
    for (lines, place, said) in [
        ("scopes = [\"read\"]".to_owned(), "1:9: ", "[tokens.ci] has no `hash`"),
        (format!("hash = \"{right}\""), "1:9: ", "[tokens.ci] has no `scopes`"),
        (format!("hash = \"{secret}\"\nscopes = [\"read\"]"), "2:8: ", "this is the secret itself"),
        ("hash = []\nscopes = [\"read\"]".to_owned(), "2:8: ", "give \"sha256:\" and 64"),
        (format!("hash = \"{right}\"\nscopes = []"), "3:10: ", "a list of scopes"),
        (
            format!("hash = \"{right}\"\nscopes = [\"red\"]"),
            "3:11: ",
            "there are read, launch, operate, admin",
        ),
        (
            format!("hash = \"{right}\"\nscopes = [\"read\"]\nhandlers = [\"chrge\"]"),
            "4:12: ",
            "did you mean `charge`?",
        ),
        (format!("hash = \"{right}\"\nscopes = [\"read\"]\nprefixes = [\"a/\"]"), "4:13: ", "it holds '/'"),
        (
            format!("hash = \"{right}\"\nscopes = [\"read\"]\nexpires = 2027-01-31"),
            "4:11: ",
            "a time with its offset",
        ),
        (format!("hash = \"{right}\"\nscopes = [\"read\"]\nscope = 1"), "4:1: ", "did you mean `scopes`?"),
    ] {
        let charge = "[handlers.charge]\ntype = \"command\"\ncommand = [\"cat\"]";
        let file = Written::new(format!("[tokens.ci]\n{lines}\n{charge}"));
        let error = file.load(&[]).expect_err(&lines).to_string();
        assert!(error.contains(said), "{error}");
        assert!(error.contains(&format!("test.toml:{place}")), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
    let file = Written::new(format!("[tokens.\"a b\"]\nhash = \"{right}\"\nscopes = [\"read\"]"));
    assert!(file.load(&[]).unwrap_err().to_string().contains("is no name for a token"));
}
