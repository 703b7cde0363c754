//! The verbs that ask a running service: what they answer, and the codes they end with.

mod batch;
mod follow;

use std::time::Duration;

use hyper::Method;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;

use crate::cli::answering;
use crate::http::config;
use crate::support::program::{Ran, ask, ask_with, program, run};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::tls::{Authority, Offer, TlsReceiver};
use crate::support::{until, within};

/// A service with a receiver for its webhooks.
async fn service() -> (Receiver, TestServer) {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    (receiver, server)
}

fn failing() -> Behaviour {
    Behaviour::Answer(Answer::of(410))
}

#[tokio::test]
async fn a_launch_says_by_its_code_what_became_of_the_task() {
    let (receiver, server) = service().await;
    let launch = ["launch", "a", "--input", "@two apples", "--content-type", "text/plain", "--wait", "30s"];
    let ran = ask(server.base(), &launch).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(ran.json()["state"], "success");
    let call = &receiver.calls()[0];
    assert_eq!(
        (&call.body[..], &call.headers["content-type"]),
        (&b"two apples"[..], &"text/plain".parse().unwrap())
    );

    let again = ask(server.base(), &launch).await;
    assert_eq!(again.code, Some(0), "asking again is safe");
    assert_eq!((&again.json()["launched"], &again.json()["reason"]), (&false.into(), &"success".into()));

    receiver.on("b", [failing()]);
    let ran = ask(server.base(), &["launch", "b", "--wait", "30", "--idempotency-key", "k"]).await;
    assert_eq!((ran.code, &ran.json()["error"]["kind"]), (Some(10), &"status".into()), "{ran:?}");
    let ran = ask(server.base(), &["launch", "b", "--idempotency-key", "k"]).await;
    assert_eq!((ran.code, &ran.json()["reason"]), (Some(10), &"same_request".into()), "{ran:?}");

    receiver.on("c", [Behaviour::NeverAnswer]);
    let ran = ask(server.base(), &["launch", "c", "--wait", "300ms"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(14), &"working".into()), "{ran:?}");
    let ran = ask(server.base(), &["launch", "c"]).await;
    assert_eq!((ran.code, &ran.json()["launched"]), (Some(0), &false.into()), "{ran:?}");

    let ran = ask(server.base(), &["launch", "a", "--handler", "echo"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(12), ""), "{ran:?}");
    assert!(ran.err.contains("a belongs to the handler hook"), "{ran:?}");
    let ran = ask(server.base(), &["launch", "d", "--handler", "nobody"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("No handler is named \"nobody\""), "{ran:?}");
}

#[tokio::test]
async fn an_input_comes_from_a_file_from_standard_input_or_from_the_line() {
    let (receiver, server) = service().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, b"from\0a file").unwrap();
    let ran = ask(server.base(), &["launch", "a", "--wait", "30", "--input", file.to_str().unwrap()]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = ask_with(server.base(), &["launch", "b", "--wait", "30", "--input", "-"], b"from stdin").await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let bodies: Vec<_> = receiver.calls().into_iter().map(|call| call.body).collect();
    assert_eq!(bodies, ["from\0a file", "from stdin"]);
    let ran = ask(server.base(), &["launch", "c", "--input", "/nonexistent"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("/nonexistent"), "{ran:?}");
}

#[tokio::test]
async fn status_tells_of_one_task_and_of_many() {
    let (receiver, server) = service().await;
    receiver.on("b", [failing()]);
    for id in ["a", "b"] {
        server.client().post(&format!("/tasks/{id}?wait=30"), "").await;
    }
    let ran = ask(server.base(), &["status", "a"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(0), &"success".into()), "{ran:?}");
    let ran = ask(server.base(), &["status", "b"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(10), &"failed".into()), "{ran:?}");
    let ran = ask(server.base(), &["status", "nobody"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(11), "No task with the id nobody is known.\n"), "{ran:?}");
    let ran = ask(server.base(), &["status", "a", "nobody", "b"]).await;
    let states: Vec<_> = ran.lines().iter().map(|line| line["state"].clone()).collect();
    assert_eq!((ran.code, states), (Some(11), vec!["success".into(), "not_found".into(), "failed".into()]));

    let table = ask(server.base(), &["status", "a", "b", "--output", "table"]).await;
    let lines: Vec<_> = table.out.lines().collect();
    assert!(lines[0].starts_with("ID  STATE    HANDLER  RUN  SINCE"), "{table:?}");
    assert!(lines[1].starts_with("a   success  hook     1    20"), "{table:?}");
    assert!(lines[2].starts_with("b   failed   hook     1") && lines[2].contains("status: "), "{table:?}");
}

#[tokio::test]
async fn what_is_done_to_a_task_says_by_its_code_whether_it_was() {
    let (receiver, server) = service().await;
    let base = server.base();
    receiver.on("f", [failing(), Behaviour::Answer(Answer::of(200))]);
    receiver.on("w", [Behaviour::NeverAnswer]);
    server.client().post("/tasks/f?wait=30", "").await;
    server.client().post("/tasks/w", "").await;
    receiver.wait_for(2).await;

    let ran = ask(base, &["cancel", "w", "--wait", "30"]).await;
    assert_eq!((ran.code, &ran.json()["error"]["kind"]), (Some(0), &"canceled".into()), "{ran:?}");
    let ran = ask(base, &["cancel", "w"]).await;
    assert_eq!(ran.code, Some(12), "{ran:?}");
    let ran = ask(base, &["forget", "w"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(0), &"not_found".into()), "{ran:?}");

    // One that is refused keeps no other from it.
    let ran = ask(base, &["retry", "w", "f", "--wait", "30"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(11), &"success".into()), "{ran:?}");
    assert!(ran.err.contains("No task with the id w"), "{ran:?}");
    let ran = ask(base, &["retry", "f"]).await;
    assert_eq!(ran.code, Some(12), "{ran:?}");
    assert!(ran.err.contains("f is success"), "{ran:?}");
    let ran = ask(base, &["revoke", "f", "--wait", "30"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(0), &"not_found".into()), "{ran:?}");
    let ran = ask(base, &["revoke", "f"]).await;
    assert_eq!(ran.code, Some(11), "{ran:?}");
}

#[tokio::test]
async fn a_cancel_of_a_run_that_succeeds_all_the_same_is_no_failure() {
    let folder = TempDir::new().unwrap();
    let ready = folder.path().join("ready");
    let script = "trap \"exit 0\" TERM; : > $1; sleep 600 & wait";
    let command = format!("command = [\"sh\", \"-c\", '{script}', \"sh\", {:?}]", ready.to_str().unwrap());
    let server =
        TestServer::start(&format!("[handlers.calm]\ntype = \"command\"\n{command}\ndefault = true"));
    assert_eq!(ask(server.base(), &["launch", "a"]).await.code, Some(0));
    until("its trap to be set", || ready.exists()).await;
    let ran = ask(server.base(), &["cancel", "a", "--wait", "30"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(0), &"success".into()), "{ran:?}");
}

#[tokio::test]
async fn a_revoke_is_waited_for_and_one_that_fails_is_told() {
    let receiver = Receiver::start().await;
    let revoke = format!("\n[handlers.hook.revoke]\nurl = \"{}\"\n", receiver.url("/undo/{id}"));
    let server = TestServer::start(&format!("{}{revoke}", config(&receiver)));
    let ok = || Behaviour::Answer(Answer::of(200));
    let gate = Gate::new();
    receiver.on("a", [ok(), Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    receiver.on("b", [ok(), failing()]);
    for id in ["a", "b"] {
        server.client().post(&format!("/tasks/{id}?wait=30"), "").await;
    }
    let ran = ask(server.base(), &["revoke", "a", "--wait", "300ms"]).await;
    assert_eq!((ran.code, &ran.json()["phase"]), (Some(14), &"revoking".into()), "{ran:?}");
    gate.open();
    let ran = ask(server.base(), &["wait", "a"]).await;
    assert_eq!(ran.code, Some(11), "{ran:?}");
    let ran = ask(server.base(), &["revoke", "b", "--wait", "30"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(10), &"success".into()), "{ran:?}");
    assert_eq!(ran.json()["revoke_error"]["error"]["kind"], "status", "{ran:?}");
}

#[tokio::test]
async fn a_list_gives_every_match_and_ends_quietly_where_nobody_reads_on() {
    let (_receiver, server) = service().await;
    let lines: Vec<_> = (0..3_000).map(|n| format!("{{\"id\":\"t-{n}\",\"handler\":\"absent\"}}")).collect();
    let ndjson = [("content-type", "application/x-ndjson")];
    server.client().send(Method::POST, "/tasks", &ndjson, lines.join("\n")).await;
    within("all have failed", async {
        while server.client().get("/stats").await.json()["tasks"]["failed"] != 3_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let ran =
        ask(server.base(), &["list", "--state", "failed", "--handler", "absent", "--error-kind", "spawn"])
            .await;
    assert_eq!((ran.code, ran.lines().len()), (Some(0), 3_000));
    let ran = ask(server.base(), &["list", "--prefix", "t-12", "--output", "ids", "--limit", "5"]).await;
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 5), "{ran:?}");
    assert!(ran.out.lines().all(|id| id.starts_with("t-12")), "{ran:?}");
    let ran = ask(server.base(), &["list", "--in-doubt"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{ran:?}");
    let ran = ask(server.base(), &["list", "--state", "lost"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("there are working, success and failed"), "{ran:?}");

    let mut child = program(&[("TASK_RECORDER_URL", server.base())], &["list"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).await.unwrap();
    drop(out);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    let status = within("its end", child.wait()).await.unwrap();
    assert!(first.contains("\"id\":\"t-"), "{first}");
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn what_has_come_is_seen_where_the_rest_does_not_come() {
    let receiver = Receiver::start().await;
    let lines = "{\"id\":\"a\",\"state\":\"success\"}\n{\"id\":\"b\",\"state\":\"failed\"}\n{}";
    receiver.by_default(Behaviour::HangUpInBody(Answer::of(200).body(lines)));
    let ran = ask(&receiver.url(""), &["list", "--output", "table"]).await;
    assert_eq!(ran.code, Some(13), "{ran:?}");
    let rows: Vec<_> = ran.out.lines().map(|row| &row[..4]).collect();
    assert_eq!(rows, ["ID  ", "a   ", "b   "], "{ran:?}");
    assert!(ran.err.contains("broke off"), "{ran:?}");
}

/// As both may be one terminal, or one file.
#[tokio::test]
async fn what_has_come_is_written_before_an_error_is() {
    let receiver = Receiver::start().await;
    let gone = Answer::of(404).body("{\"type\":\"/problems/not-found\",\"detail\":\"No b.\"}");
    receiver.on("", [Behaviour::Answer(Answer::of(204)), Behaviour::Answer(gone)]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = || std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    let url = receiver.url("");
    let mut command = program(&[("TASK_RECORDER_URL", &url)], &["forget", "a", "b", "--output", "ids"]);
    command.stdout(open()).stderr(open());
    let status = within("its end", command.status()).await.unwrap();
    let said = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(11), "a\nNo b.\n"));
}

#[tokio::test]
async fn a_service_that_is_not_there_and_one_that_never_answers_are_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let ran = ask(&base, &["status", "a", "--answer-within", "1s"]).await;
    assert_eq!(ran.code, Some(13), "{ran:?}");
    assert!(ran.err.contains("no answer within 1s"), "{ran:?}");
    drop(listener);
    for arguments in [
        &["launch", "a"][..],
        &["launch", "--batch", "-"],
        &["status", "a"],
        &["list"],
        &["wait", "a"],
        &["retry", "a"],
        &["cancel", "a"],
        &["revoke", "a"],
        &["forget", "a"],
        &["bulk", "retry", "--state", "failed"],
        &["bulk", "follow", "1"],
        &["watch"],
    ] {
        let ran = ask(&base, arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(13), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.starts_with(&format!("cannot reach {base}: ")), "{arguments:?}: {ran:?}");
        assert!(ran.err.to_lowercase().contains("refused"), "{arguments:?}: {ran:?}");
    }
}

#[tokio::test]
async fn what_is_no_id_and_no_url_is_refused_before_anybody_is_asked() {
    for arguments in
        [&["launch", "a/b"][..], &["status", ".."], &["wait", "a", ""], &["retry", "ä"], &["launch"]]
    {
        let ran = ask("http://127.0.0.1:9", arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
    }
    for url in ["127.0.0.1:8080", "ftp://host", "http://me:secret@host", "http://host?a=b", "/tasks"] {
        let ran = ask(url, &["status", "a"]).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{url}: {ran:?}");
        assert!(ran.err.contains("is no URL of a service"), "{url}: {ran:?}");
    }
    let ran = ask("https://127.0.0.1:9", &["status", "a", "--ca-file", "/dev/null"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("/dev/null") && ran.err.contains("it holds none"), "{ran:?}");
}

const NO_TOKEN: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/problem+json\r\ncontent-length: 68\r\n\r\n\
                        {\"type\":\"/problems/unauthorized\",\"detail\":\"The token is not known here.\"}";

#[tokio::test]
async fn a_token_comes_from_the_environment_or_a_file_and_one_that_is_refused_has_a_code() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "from-the-file\n").unwrap();
    let file = file.to_str().unwrap();
    let asked = async |variables: &[(&str, &str)], arguments: &[&str]| -> (Ran, String) {
        let length = NO_TOKEN.split_once("\r\n\r\n").unwrap().1.len();
        let answer: &'static str = NO_TOKEN.replace("length: 68", &format!("length: {length}")).leak();
        let (at, request) = answering(answer);
        let mut all = vec!["--url".to_owned(), format!("http://{at}")];
        all.splice(0..0, arguments.iter().map(|one| (*one).to_owned()));
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let ran = run(variables, &all).await;
        (ran, request.join().unwrap().to_lowercase())
    };
    let (ran, request) = asked(&[], &["status", "a"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(15), "The token is not known here.\n"), "{ran:?}");
    assert!(request.starts_with("get /tasks/a/status http/1.1\r\n"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
    let variable = [("TASK_RECORDER_TOKEN", "from-the-environment")];
    let (_, request) = asked(&variable, &["status", "a"]).await;
    assert!(request.contains("authorization: bearer from-the-environment\r\n"), "{request}");
    let (ran, request) = asked(&variable, &["status", "a", "--token-file", file]).await;
    assert!(request.contains("authorization: bearer from-the-file\r\n"), "{request}");
    assert!(!ran.err.contains("from-the-file"), "{ran:?}");

    let ran = run(&[], &["status", "a", "--token-file", "/dev/null"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(2), "/dev/null holds no token\n"));
    // A shell that asks with a token may start a service too.
    assert_eq!(run(&variable, &["check-config"]).await.code, Some(0));
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_say_and_nothing_else() {
    let made = run(&[], &["token", "new", "--name", "ci", "--scopes", "read,launch"]).await;
    let secret = made.out.lines().find(|line| line.starts_with("tr_")).unwrap_or_else(|| panic!("{made:?}"));
    let (_, lines) = made.out.split_once("[tokens.ci]").unwrap();
    let receiver = Receiver::start().await;
    let limits = "handlers = [\"hook\"]";
    let server = TestServer::start(&format!("{}\n[tokens.ci]{lines}\n{limits}\n", config(&receiver)));
    let variables = [("TASK_RECORDER_URL", server.base()), ("TASK_RECORDER_TOKEN", secret)];
    let ran = run(&variables, &["launch", "a", "--wait", "30"]).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(0), &"success".into()), "{ran:?}");
    assert_eq!(run(&variables, &["list"]).await.lines().len(), 1);
    for refused in [
        &["revoke", "a"][..],
        &["bulk", "revoke", "--handler", "hook"],
        &["launch", "b", "--handler", "echo"],
    ] {
        let ran = run(&variables, refused).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(15), ""), "{ran:?}");
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("lines");
    std::fs::write(&file, "{\"id\":\"c\"}\n{\"id\":\"d\",\"handler\":\"echo\"}\n").unwrap();
    let ran = run(&variables, &["launch", "--batch", file.to_str().unwrap()]).await;
    assert_eq!((ran.code, ran.lines().len()), (Some(15), 2), "{ran:?}");
    let ran = ask(server.base(), &["status", "a"]).await;
    assert_eq!(ran.code, Some(15), "{ran:?}");
}

#[tokio::test]
async fn an_https_service_is_trusted_by_the_authorities_of_a_file() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    // It answers with what it is sent.
    let service = TlsReceiver::start(&authority.issue("localhost"), Offer::Both, None).await;
    let folder = TempDir::new().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ours, theirs) = (file("ours", &authority.pem), file("theirs", &stranger.pem));
    let url = service.url("/");
    let launch = ["launch", "a", "--input", "@{\"id\":\"a\",\"state\":\"success\"}"];
    let ran = ask(&url, &[&launch[..], &["--ca-file", &ours]].concat()).await;
    assert_eq!((ran.code, &ran.json()["state"]), (Some(0), &"success".into()), "{ran:?}");
    for arguments in [launch.to_vec(), [&launch[..], &["--ca-file", &theirs]].concat()] {
        let ran = ask(&url, &arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(13), ""), "{ran:?}");
        assert!(ran.err.contains("certificate"), "{ran:?}");
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn an_answer_of_somebody_else_is_told_as_that() {
    let (at, _asked) = answering("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\nno\x1b[2J");
    let ran = ask(&format!("http://{at}"), &["status", "a"]).await;
    assert_eq!(ran.code, Some(13), "{ran:?}");
    assert!(ran.err.contains("answers 502") && ran.err.contains("no [2J"), "{ran:?}");
    let (at, _asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>");
    let ran = ask(&format!("http://{at}"), &["status", "a"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("does not answer as a task-recorder does"), "{ran:?}");
}

#[tokio::test]
async fn completions_and_the_manual_page_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&[], &["completions", shell]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains("launch") && ran.out.contains("idempotency-key"), "{shell}");
    }
    let ran = run(&[], &["man"]).await;
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.starts_with(".ie") && ran.out.contains("task\\-recorder\\-launch"), "{}", ran.out);
    assert!(ran.out.contains("14 the time to wait was up"), "{}", ran.out);
}
