//! The trace of a launch: kept with the run, passed on by each attempt, told in the record and in the log.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::Value;

use crate::stores::open_to_read;
use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Call, Receiver};
use crate::support::server::TestServer;
use crate::support::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER_PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn config(receiver: &Receiver) -> String {
    let url = format!("url = \"{}\"\n", receiver.url("/"));
    format!(
        "[log]\nlevel = \"debug\"\n\
         [handlers.w]\ntype = \"webhook\"\ndefault = true\n{url}retry = {{ initial = \"1ms\" }}\n\
         [handlers.w.revoke]\n{url}[handlers.w.on_success]\n{url}\
         [handlers.c]\ntype = \"command\"\ncommand = [\"printenv\", \"TRACEPARENT\"]\n"
    )
}

async fn launch(client: &Client, path: &str, parents: &[&str]) -> Value {
    let headers: Vec<_> = parents.iter().map(|parent| ("traceparent", *parent)).collect();
    let answer = client.send(Method::POST, path, &headers, "in").await;
    assert!(answer.status.is_success(), "{}", answer.text());
    answer.json()
}

async fn record(client: &Client, id: &str) -> Value {
    client.get(&format!("/tasks/{id}")).await.json()
}

/// Trace, span and flags of a call.
fn parts(call: &Call) -> (String, String, String) {
    let text = call.headers.get("traceparent").unwrap_or_else(|| panic!("{call:?}")).to_str().unwrap();
    let [version, trace, span, flags] = text.split('-').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((version, span.len()), ("00", 16), "{text}");
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

#[tokio::test]
async fn each_attempt_revoke_and_notice_is_a_span_of_the_trace_of_the_launch() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    receiver.on("a", [503, 503, 200].map(|status| Behaviour::Answer(Answer::of(status))));
    let task = launch(&client, "/tasks/a?wait=30s", &[PARENT]).await;
    assert_eq!(task["state"], "success", "{task}");
    receiver.wait_for(4).await;
    assert_eq!(record(&client, "a").await["trace_id"], TRACE);
    let revoked = client.post("/tasks/a/revoke?wait=30s", "").await;
    assert_eq!(revoked.json()["state"], "not_found", "{}", revoked.text());

    let calls = receiver.calls();
    assert_eq!(calls.len(), 5, "three attempts, a notice, a revoke");
    let spans: BTreeSet<_> = calls.iter().map(|call| parts(call).1).collect();
    assert_eq!(spans.len(), 5, "each has its own: {spans:?}");
    assert!(!spans.contains(&PARENT[36..52]));
    for call in &calls {
        let (trace, _, flags) = parts(call);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"), "{call:?}");
    }

    let of_run = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "attempt ended").then_some(line)
    };
    until("the lines of the log", || server.log().matches("attempt ended").count() >= 3).await;
    let lines: Vec<Value> = server.log().lines().filter_map(of_run).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, attempt) in lines.iter().zip(1..) {
        let told = (&line["trace.id"], &line["task.id"], &line["run"], &line["attempt"]);
        assert_eq!(told, (&TRACE.into(), &"a".into(), &1.into(), &attempt.into()), "{line}");
    }

    // Revoked, it begins anew.
    launch(&client, "/tasks/a?wait=30s", &[]).await;
    assert_eq!(record(&client, "a").await.get("trace_id"), None);
}

#[tokio::test]
async fn it_survives_a_kill_and_a_row_without_one_holds_none() {
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&config(&receiver));
    let client = server.client();
    assert!(client.post("/handlers/w/pause", "").await.status.is_success());
    launch(&client, "/tasks/traced", &[PARENT]).await;
    launch(&client, "/tasks/plain", &[]).await;
    server.kill();
    let rows = |id: &str| -> Vec<String> {
        let journal = open_to_read(&server.folder().join("data/journal.db"));
        let mut statement = journal.prepare("SELECT detail FROM changes WHERE id = ?").unwrap();
        let rows = statement.query_map([id], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let (traced, plain) = (rows("traced"), rows("plain"));
    assert!(!traced.is_empty() && traced.iter().all(|row| row.contains(PARENT)), "{traced:?}");
    assert!(!plain.is_empty() && !plain.iter().any(|row| row.contains("trace")), "{plain:?}");

    server.restart();
    let client = server.client();
    assert!(client.post("/handlers/w/resume", "").await.status.is_success());
    let task = client.get("/tasks/traced?wait=30s").await.json();
    assert_eq!((&task["state"], &task["trace_id"]), (&"success".into(), &TRACE.into()), "{task}");
    client.get("/tasks/plain?wait=30s").await;
    // Two launches and two notices.
    receiver.wait_for(4).await;
    for call in receiver.calls() {
        match call.headers["task-id"].to_str().unwrap() {
            "traced" => assert_eq!(parts(&call).0, TRACE),
            _ => assert_eq!(call.headers.get("traceparent"), None, "{call:?}"),
        }
    }
}

#[tokio::test]
async fn one_that_is_not_valid_counts_as_none() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    let zeros = format!("00-{:032}-00f067aa0ba902b7-01", 0);
    let upper = PARENT.to_uppercase();
    for (parents, number) in
        [&["nonsense"][..], &[&zeros], &[&upper], &["ff-x"], &[""], &[PARENT, PARENT]].iter().zip(1..)
    {
        let id = format!("t{number}");
        let task = launch(&client, &format!("/tasks/{id}?wait=30s"), parents).await;
        assert_eq!(task["state"], "success", "{parents:?}");
        assert_eq!(record(&client, &id).await.get("trace_id"), None, "{parents:?}");
    }
    assert!(receiver.calls().iter().all(|call| !call.headers.contains_key("traceparent")));
}

#[tokio::test]
async fn a_retry_a_batch_and_a_command_have_theirs() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    receiver.on("a", [410, 410, 200].map(|status| Behaviour::Answer(Answer::of(status))));
    launch(&client, "/tasks/a?wait=30s", &[PARENT]).await;
    launch(&client, "/tasks/a/retry?wait=30s", &[]).await;
    assert_eq!(record(&client, "a").await["trace_id"], TRACE, "that of the last run");
    launch(&client, "/tasks/a/retry?wait=30s", &[OTHER_PARENT]).await;
    assert_eq!(record(&client, "a").await["trace_id"], OTHER);
    receiver.wait_for(4).await;
    let traces: Vec<_> = receiver.calls().iter().map(|call| parts(call).0).collect();
    assert_eq!(traces, [TRACE, TRACE, OTHER, OTHER], "three runs and a notice");

    let headers = [("content-type", "application/x-ndjson"), ("traceparent", PARENT)];
    let lines = "{\"id\":\"b1\"}\n{\"id\":\"b2\"}\n";
    let batch = client.send(Method::POST, "/tasks", &headers, lines).await;
    assert_eq!(batch.text().lines().count(), 2, "{}", batch.text());
    for id in ["b1", "b2"] {
        assert_eq!(record(&client, id).await["trace_id"], TRACE);
    }

    launch(&client, "/tasks/c?handler=c&wait=30s", &[PARENT]).await;
    let output = client.get("/tasks/c/result").await;
    assert!(output.text().starts_with(&format!("00-{TRACE}-")), "{}", output.text());
    assert_ne!(output.text().trim(), PARENT, "with a span of its own");
    let without = launch(&client, "/tasks/d?handler=c&wait=30s", &[]).await;
    assert_eq!(without["state"], "failed", "printenv finds no variable: {without}");
}
