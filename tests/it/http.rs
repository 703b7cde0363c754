//! The HTTP interface through a real socket, against the real binary and a real receiver.

use hyper::Method;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use task_recorder::store::{EmbeddedOptions, EmbeddedStore, Store as _};
use task_recorder::task::{Change, State, Task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::{task, within};

/// A webhook that is the default, and a command.
pub(crate) fn config(receiver: &Receiver) -> String {
    format!(
        r#"
        [server]
        body_timeout = "1s"
        header_timeout = "2s"
        wait_max = "60s"
        [handlers.hook]
        type = "webhook"
        url = "{}"
        default = true
        input_max = "64KiB"
        [handlers.echo]
        type = "command"
        command = ["cat"]
        [handlers.absent]
        type = "command"
        command = ["/nonexistent/program"]
        "#,
        receiver.url("/hook/{id}?run={run}")
    )
}

async fn start() -> (Receiver, TestServer, Client) {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    (receiver, server, client)
}

/// The ids on a page.
fn ids(page: &Value) -> Vec<&str> {
    page["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_task_from_launch_to_result() {
    let (receiver, _server, client) = start().await;
    let gate = Gate::new();
    let answer = Answer::of(201).header("content-type", "text/csv").body("a,b\n1,2\n");
    receiver.on("order-42", [Behaviour::AnswerAfter(gate.clone(), answer)]);

    let headers = [("content-type", "application/x-weird; a=\"b\"")];
    let launched = client.send(Method::POST, "/tasks/order-42", &headers, &b"\x00\xff raw"[..]).await;
    assert_eq!(launched.status, 202);
    assert_eq!(launched.header("location"), Some("/tasks/order-42"));
    assert_eq!(launched.header("etag"), Some("\"1\""));
    let body = launched.json();
    assert_eq!(body["id"], "order-42");
    assert_eq!(body["state"], "working");
    assert_eq!(body["launched"], true);
    assert_eq!(body["run"], 1);
    assert!(body.get("reason").is_none());

    receiver.wait_for(1).await;
    let status = client.get("/tasks/order-42/status").await.json();
    assert_eq!(
        (&status["state"], &status["phase"], &status["attempt"]),
        (&"working".into(), &"running".into(), &1.into())
    );
    let no_result = client.get("/tasks/order-42/result").await;
    no_result.problem(409, "no-result");
    assert_eq!(no_result.json()["state"], "working");

    gate.open();
    let waited = client.get("/tasks/order-42/status?wait=30s").await;
    assert_eq!(waited.status, 200);
    assert_eq!(waited.json()["state"], "success");
    assert_eq!(waited.header("etag"), Some("\"2\""));

    let calls = receiver.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].method, "POST");
    assert_eq!(calls[0].target, "/hook/order-42?run=1");
    assert_eq!(&calls[0].body[..], b"\x00\xff raw");
    assert_eq!(calls[0].headers["content-type"], "application/x-weird; a=\"b\"");
    for (name, value) in [("task-id", "order-42"), ("task-run", "1"), ("task-attempt", "1")] {
        assert_eq!(calls[0].headers[name], value);
    }

    let record = client.get("/tasks/order-42").await.json();
    assert_eq!(record["handler"], "hook");
    assert_eq!(record["input"]["size"], 6);
    assert_eq!(record["input"]["media_type"], "application/x-weird; a=\"b\"");
    assert_eq!(record["attempts"][0]["outcome"], "success");
    assert_eq!(record["attempts"][0]["http_status"], 201);
    assert_eq!(record["result"]["size"], 8);
    let since = record["since"].as_str().unwrap();
    assert!(since.ends_with('Z') && since.len() == "2026-01-01T00:00:00.000000Z".len(), "{since}");

    let result = client.get("/tasks/order-42/result").await;
    assert_eq!(result.text(), "a,b\n1,2\n");
    assert_eq!(result.header("content-type"), Some("text/csv"));
    assert_eq!(result.header("task-state"), Some("success"));
    assert_eq!(result.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn a_relaunch_of_a_success_is_told_so_and_changes_nothing() {
    let (receiver, _server, client) = start().await;
    assert_eq!(client.post("/tasks/once?wait=30", "x").await.json()["state"], "success");
    let before = client.get("/tasks/once").await;
    for method in [Method::POST, Method::PUT] {
        let again = client.send(method, "/tasks/once", &[], "another input").await;
        assert_eq!(again.status, 200);
        let body = again.json();
        assert_eq!((&body["launched"], &body["reason"]), (&false.into(), &"success".into()));
        assert_eq!((&body["state"], &body["run"]), (&"success".into(), &1.into()));
    }
    let after = client.get("/tasks/once").await;
    assert_eq!((before.header("etag"), &before.body), (after.header("etag"), &after.body));
    assert_eq!(receiver.count("once"), 1);
}

#[tokio::test]
async fn a_failure_is_explained_and_may_be_launched_again() {
    let (receiver, _server, client) = start().await;
    let refused = Behaviour::Answer(Answer::of(500).body("out of paper"));
    receiver.on("job", [refused, Behaviour::Answer(Answer::of(200))]);
    let failed = client.send(Method::PUT, "/tasks/job?wait=30", &[], "input").await;
    assert_eq!(failed.status, 200);
    let body = failed.json();
    assert_eq!((&body["state"], &body["launched"]), (&"failed".into(), &true.into()));
    assert_eq!((&body["error"]["kind"], &body["in_doubt"]), (&"status".into(), &true.into()));
    assert!(body["error"]["message"].as_str().unwrap().contains("500"), "{body}");
    let result = client.get("/tasks/job/result").await;
    assert_eq!((result.text(), result.header("task-state")), ("out of paper", Some("failed")));

    let mismatch = client.post("/tasks/job?handler=echo", "").await;
    let sentence = mismatch.problem(409, "handler-mismatch");
    assert!(sentence.contains("hook"), "{sentence}");

    let again = client.post("/tasks/job?wait=30", "input").await.json();
    assert_eq!((&again["state"], &again["run"]), (&"success".into(), &2.into()));
    let record = client.get("/tasks/job").await.json();
    assert_eq!(record["attempts"][0]["answer"], "out of paper");
    let runs: Vec<_> = record["attempts"].as_array().unwrap().iter().map(|one| one["run"].as_u64()).collect();
    assert_eq!(runs, [Some(1), Some(2)]);
}

#[tokio::test]
async fn commands_run_and_report() {
    let (_receiver, _server, client) = start().await;
    let headers = [("content-type", "application/json")];
    let launched = client.send(Method::POST, "/tasks/c1?handler=echo&wait=30", &headers, "{\"a\":1}").await;
    assert_eq!(launched.json()["state"], "success");
    assert_eq!(client.get("/tasks/c1/result").await.text(), "{\"a\":1}");
    assert_eq!(client.get("/tasks/c1").await.json()["attempts"][0]["exit_code"], 0);

    let absent = client.post("/tasks/c2?handler=absent&wait=30", "").await.json();
    assert_eq!((&absent["error"]["kind"], &absent["in_doubt"]), (&"spawn".into(), &false.into()));
    assert!(absent["error"]["message"].as_str().unwrap().contains("/nonexistent/program"), "{absent}");
}

#[tokio::test]
async fn ids_that_are_not_allowed_are_refused_with_a_reason() {
    let (receiver, _server, client) = start().await;
    let long = format!("/tasks/{}", "x".repeat(256));
    for (path, hint) in [
        ("/tasks/a/b", "'/'"),
        ("/tasks/a%2Fb", "'/'"),
        ("/tasks/a%2fb", "'/'"),
        ("/tasks/a%252Fb", "'%'"),
        ("/tasks/a%20b", "' '"),
        ("/tasks/a%00b", "'\\0'"),
        ("/tasks/a%0Ab", "'\\n'"),
        ("/tasks/%7F", "'\\u{7f}'"),
        ("/tasks/%FF", "position 1"),
        ("/tasks/caf%C3%A9", "'é'"),
        ("/tasks/..", "`..`"),
        ("/tasks/%2E%2E", "`..`"),
        ("/tasks/.", "`.`"),
        ("/tasks/", "empty"),
        ("/tasks/a*b", "'*'"),
        (long.as_str(), "256 bytes"),
    ] {
        let sentence = client.post(path, "").await.problem(400, "invalid-id");
        assert!(sentence.contains(hint), "{path}: {sentence}");
    }
    let longest = format!("/tasks/{}", "x".repeat(255));
    assert_eq!(client.post(&longest, "").await.status, 202);
    let marks = client.post("/tasks/A_~@=+,:.-%41?wait=30", "").await;
    assert_eq!(marks.json()["id"], "A_~@=+,:.-A");
    assert_eq!(marks.header("location"), Some("/tasks/A_~@=+,:.-A"));
    receiver.wait_for(2).await;
    assert_eq!(client.get("/stats").await.json()["tasks"]["failed"], 0);
}

#[tokio::test]
async fn what_is_unknown_is_refused_with_what_would_be_right() {
    let (receiver, _server, client) = start().await;
    for (path, status, code, hint) in [
        ("/tasks?state=done", 400, "invalid-parameter", "working, success and failed"),
        ("/tasks?sate=failed", 400, "invalid-parameter", "\"state\""),
        ("/tasks?limit=0", 400, "invalid-parameter", "1 to 1000"),
        ("/tasks?limit=1001", 400, "invalid-parameter", "1 to 1000"),
        ("/tasks?limit=many", 400, "invalid-parameter", "1 to 1000"),
        ("/tasks?limit=1&limit=2", 400, "invalid-parameter", "twice"),
        ("/tasks?cursor=zzz", 400, "invalid-cursor", "zzz"),
        ("/tasks?cursor=d5", 400, "invalid-cursor", "d5"),
        ("/tasks?cursor=a%2B5", 400, "invalid-cursor", "a+5"),
        ("/tasks?cursor=a05", 400, "invalid-cursor", "a05"),
        ("/tasks?cursor=a1F", 400, "invalid-cursor", "a1F"),
        ("/tasks?cursor=affffffffffffffff", 400, "invalid-cursor", "affff"),
        ("/tasks?order=up", 400, "invalid-parameter", "asc or desc"),
        ("/tasks?error_kind=oops", 400, "invalid-parameter", "timeout"),
        ("/tasks?in_doubt=maybe", 400, "invalid-parameter", "true or false"),
        ("/tasks?since=yesterday", 400, "invalid-parameter", "RFC 3339"),
        ("/tasks?prefix=a%20b", 400, "invalid-parameter", "position 2"),
        ("/tasks?handler=hok", 404, "unknown-handler", "absent, echo, hook"),
        ("/tasks/x/status?wait=1h", 400, "invalid-parameter", "60 seconds"),
        ("/tasks/x/status?wait=-1", 400, "invalid-parameter", "60 seconds"),
        ("/tasks/x/status?weit=1", 400, "invalid-parameter", "\"wait\""),
        ("/tasks/x/status", 404, "not-found", "x"),
        ("/tasks/x", 404, "not-found", "x"),
        ("/tasks/x/result", 404, "not-found", "x"),
        ("/nowhere", 404, "unknown-route", "/nowhere"),
        ("/", 404, "unknown-route", "/"),
    ] {
        let sentence = client.get(path).await.problem(status, code);
        assert!(sentence.contains(hint), "{path}: {sentence}");
    }
    assert_eq!(client.get("/tasks/x/status").await.json()["state"], "not_found");
    let sentence = client.post("/tasks/x?handler=nobody", "").await.problem(404, "unknown-handler");
    assert!(sentence.contains("absent, echo, hook"), "{sentence}");
    let wrong_method = client.send(Method::PATCH, "/tasks/x", &[], "").await;
    wrong_method.problem(405, "method-not-allowed");
    let allowed = wrong_method.header("allow").unwrap();
    assert!(allowed.contains("POST") && allowed.contains("PUT") && allowed.contains("GET"), "{allowed}");
    let html = client.send(Method::GET, "/tasks", &[("accept", "text/html")], "").await;
    html.problem(406, "not-acceptable");
    assert!(receiver.calls().is_empty());
}

#[tokio::test]
async fn names_that_are_no_text_are_unknown_ones() {
    let (_receiver, _server, client) = start().await;
    client.get("/bulk/%FF").await.problem(404, "unknown-operation");
    client.post("/bulk/%FF/cancel", "").await.problem(404, "unknown-operation");
    client.post("/handlers/%FF/pause", "").await.problem(404, "unknown-handler");
    client.post("/handlers/%C3%28/resume", "").await.problem(404, "unknown-handler");
    assert_eq!(client.post("/handlers/%65cho/pause", "").await.json()["paused"], true);
}

#[tokio::test]
async fn an_input_over_the_limit_is_refused_before_anything_is_recorded() {
    let (receiver, _server, client) = start().await;
    let sentence =
        client.post("/tasks/big", vec![b'x'; (64 << 10) + 1]).await.problem(413, "input-too-large");
    assert!(sentence.contains("65536"), "{sentence}");
    client.get("/tasks/big").await.problem(404, "not-found");
    assert_eq!(client.post("/tasks/big?wait=30", vec![b'x'; 64 << 10]).await.json()["state"], "success");
    assert_eq!(receiver.calls()[0].body.len(), 64 << 10);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_too_much_is_refused_at_once() {
    let (receiver, server, _client) = start().await;
    let head = "POST /tasks/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\nExpect: 100-continue\r\n\r\n";
    let answer = raw(&server, head).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("input-too-large"), "{answer}");
    assert!(receiver.calls().is_empty());
}

#[tokio::test]
async fn waiting_ends_with_the_outcome_or_with_the_time() {
    let (receiver, _server, client) = start().await;
    let gate = Gate::new();
    receiver.on("slow", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    let launched = client.send(Method::POST, "/tasks/slow", &[("prefer", "respond-async, wait=0")], "").await;
    assert_eq!(launched.status, 202);
    assert_eq!(launched.header("preference-applied"), Some("wait=0"));
    let shortened = client.send(Method::GET, "/tasks/none/status", &[("prefer", "wait=9999")], "").await;
    shortened.problem(404, "not-found");
    assert_eq!(client.get("/tasks/slow/status?wait=0").await.json()["state"], "working");

    let waiting = client.post("/tasks/slow?wait=50s", "");
    let (told, ()) = tokio::join!(within("the wait to end", waiting), async { gate.open() });
    assert_eq!(told.status, 200);
    let body = told.json();
    assert_eq!((&body["state"], &body["launched"]), (&"success".into(), &false.into()));
    assert_eq!(receiver.count("slow"), 1);
}

#[tokio::test]
async fn lists_filter_page_and_stream() {
    let (receiver, _server, client) = start().await;
    for number in 0..30 {
        let id = format!("{}-{number:02}", if number % 2 == 0 { "even" } else { "odd" });
        if number % 3 == 0 {
            receiver.on(&id, [Behaviour::Answer(Answer::of(if number % 2 == 0 { 500 } else { 404 }))]);
        }
        client.post(&format!("/tasks/{id}?wait=30"), "").await;
    }
    client.post("/tasks/cmd?handler=echo&wait=30", "").await;

    let failed = client.get("/tasks?state=failed").await.json();
    assert_eq!(
        ids(&failed),
        [
            "even-00", "odd-03", "even-06", "odd-09", "even-12", "odd-15", "even-18", "odd-21", "even-24",
            "odd-27"
        ]
    );
    assert_eq!(failed["next"], Value::Null);
    assert_eq!(failed["tasks"][0]["error"]["kind"], "status");
    let newest = client.get("/tasks?state=error&order=desc&limit=2").await.json();
    assert_eq!(ids(&newest), ["odd-27", "even-24"]);
    let doubtful = client.get("/tasks?in_doubt=true").await.json();
    assert_eq!(ids(&doubtful), ["even-00", "even-06", "even-12", "even-18", "even-24"]);
    assert_eq!(ids(&client.get("/tasks?handler=echo").await.json()), ["cmd"]);
    assert_eq!(
        ids(&client.get("/tasks?prefix=odd-2&state=completed").await.json()),
        ["odd-23", "odd-25", "odd-29"]
    );
    assert_eq!(ids(&client.get("/tasks?error_kind=timeout").await.json()), [""; 0]);
    let since = failed["tasks"][8]["since"].as_str().unwrap();
    assert_eq!(
        ids(&client.get(&format!("/tasks?state=failed&since={since}")).await.json()),
        ["even-24", "odd-27"]
    );
    let until = client.get(&format!("/tasks?state=failed&until={since}&order=desc&limit=1")).await.json();
    assert_eq!(ids(&until), ["odd-21"]);

    for order in ["asc", "desc"] {
        let mut seen = Vec::new();
        let mut path = format!("/tasks?limit=7&order={order}");
        loop {
            let page = client.get(&path).await;
            seen.extend(ids(&page.json()).into_iter().map(str::to_owned));
            let Some(link) = page.header("link") else {
                assert_eq!(page.json()["next"], Value::Null);
                break;
            };
            path = link.trim_start_matches('<').split_once('>').unwrap().0.to_owned();
        }
        assert_eq!(seen.len(), 31, "{order}");
        let plain =
            client.send(Method::GET, &format!("/tasks?order={order}"), &[("accept", "text/plain")], "").await;
        assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(plain.text().lines().collect::<Vec<_>>(), seen);
    }

    let accept = [("accept", "application/x-ndjson")];
    let lines = client.send(Method::GET, "/tasks?state=failed&state=working", &accept, "").await;
    let parsed: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(parsed), failed["tasks"]);
    let few = client.send(Method::GET, "/tasks?limit=3", &accept, "").await;
    assert_eq!(few.text().lines().count(), 3);
}

#[tokio::test]
async fn a_stream_holds_what_was_recorded_while_the_clock_was_ahead() {
    let (_receiver, mut server, client) = start().await;
    client.post("/tasks/e?handler=echo&wait=30", "").await;
    server.kill();
    let store = EmbeddedStore::open(&server.data(), &EmbeddedOptions::default()).unwrap();
    let (state, since) = (State::Success { output: None, undo: None }, Timestamp::now() + 3600.seconds());
    let ahead = Task { state, since, ..task("ahead", None, "") };
    store.change(&ahead.id.clone(), Change::Import(Box::new(ahead))).await.unwrap();
    store.close().await;
    server.restart();
    for order in ["asc", "desc"] {
        let path = format!("/tasks?order={order}");
        let ids = server.client().send(Method::GET, &path, &[("accept", "text/plain")], "").await;
        let mut ids: Vec<_> = ids.text().lines().collect();
        ids.sort_unstable();
        assert_eq!(ids, ["ahead", "e"], "{order}");
    }
}

#[tokio::test]
async fn the_service_tells_about_itself() {
    let (receiver, _server, client) = start().await;
    receiver.by_default(Behaviour::NeverAnswer);
    client.post("/tasks/w", "").await;
    client.post("/tasks/e?handler=echo&wait=30", "").await;
    let stats = client.get("/stats").await.json();
    assert_eq!(stats["tasks"], serde_json::json!({"working": 1, "success": 1, "failed": 0}));
    assert_eq!(stats["handlers"]["hook"]["working"], 1);
    assert_eq!(stats["oldest_working"]["id"], "w");
    let handlers = client.get("/handlers").await.json();
    let names: Vec<_> = handlers["handlers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["absent", "echo", "hook"]);
    assert_eq!(handlers["handlers"][2]["type"], "webhook");
    assert_eq!(handlers["handlers"][2]["default"], true);
    assert_eq!(handlers["handlers"][2]["running"], 1);
    assert_eq!(client.get("/livez").await.json()["live"], true);
    assert_eq!(client.get("/readyz").await.json()["ready"], true);
    assert_eq!(client.get("/version").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let head = client.send(Method::HEAD, "/tasks/w/status", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn handlers_are_shown_without_the_values_in_the_queries_of_their_urls() {
    let server = TestServer::start(
        r#"
        [handlers.hook]
        type = "webhook"
        url = "http://127.0.0.1:9/do/{id}?key=hush&run={run}"
        [handlers.hook.on_success]
        url = "http://127.0.0.1:9/told?hush"
        [handlers.hook.on_failure]
        url = "http://127.0.0.1:9/told?of=hush"
        "#,
    );
    let handlers = server.client().get("/handlers").await;
    let hook = &handlers.json()["handlers"][0];
    assert_eq!(hook["url"], "http://127.0.0.1:9/do/{id}?key=***&run={run}");
    assert_eq!(hook["on_success"], "http://127.0.0.1:9/told?***");
    assert_eq!(hook["on_failure"], "http://127.0.0.1:9/told?of=***");
    assert!(!handlers.text().contains("hush"), "{}", handlers.text());
}

/// Sends raw bytes and reads until the server ends the connection.
async fn raw(server: &TestServer, request: &str) -> String {
    let address = server.base().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the server to end the connection", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_that_proxies_read_differently_are_refused() {
    let (receiver, server, _client) = start().await;
    for request in [
        "POST /tasks/a HTTP/1.1\r\n\r\n",
        "POST /tasks/a HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n",
        "POST /tasks/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ] {
        let answer = raw(&server, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    assert!(receiver.calls().is_empty());
}

#[tokio::test]
async fn clients_that_stall_are_sent_away() {
    let (receiver, server, client) = start().await;
    let slow_head = raw(&server, "POST /tasks/slow HTTP/1.1\r\nHost: localhost\r\nX-");
    let slow_body =
        raw(&server, "POST /tasks/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc");
    let silent = raw(&server, "");
    let (head, body, nothing) = tokio::join!(slow_head, slow_body, silent);
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("body-timeout"), "{body}");
    assert_eq!(nothing, "");
    client.get("/tasks/slow").await.problem(404, "not-found");
    assert!(receiver.calls().is_empty());
}

#[tokio::test]
async fn a_client_that_hangs_up_cuts_nothing() {
    let (receiver, server, client) = start().await;
    let gate = Gate::new();
    receiver.by_default(Behaviour::AnswerAfter(gate.clone(), Answer::of(200)));
    let address = server.base().trim_start_matches("http://").to_owned();
    for number in 0..20 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST /tasks/gone-{number}?wait=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        receiver.wait_for(number + 1).await;
    }
    gate.open();
    for number in 0..20 {
        let status = client.get(&format!("/tasks/gone-{number}/status?wait=30")).await.json();
        assert_eq!(status["state"], "success");
    }
    assert_eq!(receiver.calls().len(), 20);
}
