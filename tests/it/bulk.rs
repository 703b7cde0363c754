//! Bulk operations through the real binary, also killed in the middle.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Value, json};

use crate::http::config;
use crate::support::batch::{batch, lines};
use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;
use crate::support::within;

async fn start() -> (Receiver, TestServer, Client) {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    (receiver, server, client)
}

async fn bulk(client: &Client, body: Value) -> Value {
    let begun = client.post("/bulk", body.to_string()).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let view = begun.json();
    assert_eq!(begun.header("location").unwrap(), format!("/bulk/{}", view["op"]));
    assert_eq!((&view["action"], &view["state"]), (&body["action"], &json!("running")));
    view
}

/// The operation once every task is through.
async fn ended(client: &Client, op: &Value) -> Value {
    within("the operation to end", async {
        loop {
            let view = client.get(&format!("/bulk/{op}")).await.json();
            if !view["ended"].is_null() {
                return view;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

fn counts(view: &Value) -> [u64; 4] {
    ["matched", "done", "skipped", "failed"].map(|count| view[count].as_u64().unwrap())
}

/// Launches them and waits until none works any more.
async fn settled(client: &Client, prefix: &str, count: usize) {
    let lines = lines(0..count, |n| json!({"id": format!("{prefix}-{n}"), "input": n}));
    let answers = batch(client, "/tasks", lines).await;
    assert!(answers.iter().all(|one| one["status"] == 202));
    rest(client).await;
}

async fn rest(client: &Client) {
    loop {
        let oldest = client.get("/stats").await.json()["oldest_working"]["id"].clone();
        let Some(id) = oldest.as_str() else { return };
        client.get(&format!("/tasks/{id}/status?wait=30")).await;
    }
}

#[tokio::test]
async fn what_a_bulk_operation_is_for_has_to_be_said() {
    let (_receiver, _server, client) = start().await;
    for (body, code, hint) in [
        (json!({"action": "retry"}), "missing-filter", "\"failed\""),
        (json!({"action": "revoke", "filter": {}}), "missing-filter", "\"success\""),
        (json!({"action": "cancel", "filter": null}), "missing-filter", "\"working\""),
        (json!({"action": "retry", "filter": {"prefix": "", "handler": null}}), "missing-filter", "retry"),
        (
            json!({"action": "retry", "filter": {"state": "success"}}),
            "invalid-parameter",
            "failed, not success",
        ),
        (
            json!({"action": "forget", "filter": {"state": ["failed", "working"]}}),
            "invalid-parameter",
            "working",
        ),
        (
            json!({"action": "cancel", "filter": {"state": "failed"}}),
            "invalid-parameter",
            "working, not failed",
        ),
        (json!({"action": "revoke", "filter": {"in_doubt": true}}), "invalid-parameter", "in_doubt"),
        (json!({"action": "retry", "filter": {"prefix": false}}), "invalid-parameter", "prefix"),
        (json!({"action": "retry", "filter": {"handler": ["hook"]}}), "invalid-parameter", "handler"),
        (json!({"action": "retry", "filter": {"until": [null, null]}}), "invalid-parameter", "until"),
        (json!({"action": "retry", "filter": {"sate": "failed"}}), "invalid-parameter", "\"state\""),
        (json!({"action": "retry", "filter": {"state": "broken"}}), "invalid-parameter", "broken"),
        (json!({"action": "retry", "filter": {"error_kind": "oops"}}), "invalid-parameter", "timeout"),
        (json!({"action": "retry", "filter": {"until": 5}}), "invalid-parameter", "RFC 3339"),
        (json!({"action": "retry", "filter": {"prefix": "a", "limit": 3}}), "invalid-parameter", "limit"),
        (json!({"action": "retry", "filter": {"prefix": "a"}, "max": 0}), "invalid-parameter", "max"),
        (json!({"action": "retry", "filter": {"prefix": "a"}, "max": -1}), "invalid-body", "-1"),
        (json!({"action": "run", "filter": {"prefix": "a"}}), "invalid-body", "retry"),
        (json!({"filter": {"prefix": "a"}}), "invalid-body", "action"),
        (json!({"action": "retry", "filter": {"prefix": "a"}, "dryrun": true}), "invalid-body", "dry_run"),
        (json!([]), "invalid-body", "line 1"),
        (json!(["retry", {"prefix": "a"}]), "invalid-body", "expected an object"),
    ] {
        let detail = client.post("/bulk", body.to_string()).await.problem(400, code);
        assert!(detail.contains(hint), "{body}: {detail}");
    }
    assert_eq!(client.get("/bulk").await.json(), json!({"operations": []}));
    for path in ["/bulk/1", "/bulk/x", "/bulk/-1"] {
        client.get(path).await.problem(404, "unknown-operation");
        client.post(&format!("{path}/cancel"), "").await.problem(404, "unknown-operation");
    }
}

#[tokio::test]
async fn a_retry_runs_what_matched_when_it_began_once_and_nothing_else() {
    let (receiver, server, client) = start().await;
    receiver.by_default(Behaviour::Answer(Answer::of(404)));
    settled(&client, "again", 300).await;
    settled(&client, "other", 10).await;
    receiver.by_default(Behaviour::Answer(Answer::of(200)));
    settled(&client, "fine", 10).await;
    // These fail again, and are not tried once more because of that.
    for number in (0..300).step_by(3) {
        receiver.on(&format!("again-{number}"), [Behaviour::Answer(Answer::of(410))]);
    }
    let filter = json!({"prefix": "again", "handler": "hook", "error_kind": "status", "in_doubt": false});
    let dry = json!({"action": "retry", "filter": filter, "dry_run": true});
    assert_eq!(client.post("/bulk", dry.to_string()).await.json(), json!({"matched": 300}));
    let few = json!({"action": "retry", "filter": {"state": "error"}, "dry_run": true, "max": 7});
    assert_eq!(client.post("/bulk", few.to_string()).await.json(), json!({"matched": 7}));
    assert_eq!(receiver.calls().len(), 320);

    let begun = bulk(&client, json!({"action": "retry", "filter": filter})).await;
    let expected = json!({
        "state": "failed", "prefix": "again", "handler": "hook", "error_kind": "status", "in_doubt": false
    });
    assert_eq!((&begun["filter"], &begun["matched"]), (&expected, &json!(300)));
    let over = ended(&client, &begun["op"]).await;
    assert_eq!((&over["state"], counts(&over)), (&json!("done"), [300, 300, 0, 0]));
    rest(&client).await;
    assert!((0..300).all(|number| receiver.count(&format!("again-{number}")) == 2));
    assert!((0..10).all(|number| receiver.count(&format!("other-{number}")) == 1));
    assert!((0..10).all(|number| receiver.count(&format!("fine-{number}")) == 1));
    assert_eq!(client.get("/stats").await.json()["tasks"]["failed"], 110);

    let oldest = bulk(&client, json!({"action": "retry", "filter": {"prefix": "again"}, "max": 7})).await;
    assert_eq!(counts(&ended(&client, &oldest["op"]).await), [7, 7, 0, 0]);
    rest(&client).await;
    assert_eq!(receiver.calls().len(), 627);
    client.post("/bulk/1/cancel", "").await.problem(409, "not-running");
    let listed = client.get("/bulk").await.json();
    let ops: Vec<_> = listed["operations"].as_array().unwrap().iter().map(|one| &one["op"]).collect();
    assert_eq!(ops, [2, 1]);
    drop(server);
}

#[tokio::test]
async fn cancel_revoke_and_forget_work_on_many() {
    let (receiver, _server, client) = start().await;
    settled(&client, "good", 300).await;
    receiver.by_default(Behaviour::Answer(Answer::of(404)));
    settled(&client, "bad", 20).await;
    receiver.by_default(Behaviour::NeverAnswer);
    let lines = lines(0..300, |n| json!({"id": format!("long-{n}")}));
    batch(&client, "/tasks", lines).await;
    receiver.wait_for(620).await;

    let canceled = bulk(&client, json!({"action": "cancel", "filter": {"handler": "hook"}})).await;
    assert_eq!(counts(&ended(&client, &canceled["op"]).await), [300, 300, 0, 0]);
    rest(&client).await;
    let kinds = client.get("/tasks?error_kind=canceled&limit=1000").await.json();
    assert_eq!(kinds["tasks"].as_array().unwrap().len(), 300);

    let revoked = bulk(&client, json!({"action": "revoke", "filter": {"prefix": "good-1"}})).await;
    assert_eq!(counts(&ended(&client, &revoked["op"]).await), [111, 111, 0, 0]);
    client.get("/tasks/good-100").await.problem(404, "not-found");
    assert_eq!(client.get("/tasks/good-200/status").await.json()["state"], "success");

    let since = client.get("/tasks?state=failed&limit=1").await.json()["tasks"][0]["since"].clone();
    let forget = json!({"action": "forget", "filter": {"state": "failed", "since": since}});
    assert_eq!(counts(&ended(&client, &bulk(&client, forget).await["op"]).await), [320, 320, 0, 0]);
    let stats = client.get("/stats").await.json();
    assert_eq!(stats["tasks"], json!({"working": 0, "success": 189, "failed": 0}));
}

#[tokio::test]
async fn what_fails_is_told_by_id_and_reason() {
    let (receiver, mut server, client) = start().await;
    receiver.by_default(Behaviour::Answer(Answer::of(404)));
    settled(&client, "lost", 150).await;
    server.kill();
    server.reconfigure("[handlers.echo]\ntype = \"command\"\ncommand = [\"cat\"]\n");
    server.restart();
    let client = server.client();
    let begun = bulk(&client, json!({"action": "retry", "filter": {"state": "failed"}})).await;
    let over = ended(&client, &begun["op"]).await;
    assert_eq!((&over["state"], counts(&over)), (&json!("done"), [150, 0, 0, 150]));
    let failures = over["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 100);
    assert!(failures[0]["id"].as_str().unwrap().starts_with("lost-"));
    assert!(failures[0]["reason"].as_str().unwrap().contains("not configured"), "{}", failures[0]);
    assert!(client.get("/bulk").await.json()["operations"][0].get("failures").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_retry_goes_on_after_kill_9_in_the_middle() {
    // BULK_IDS=10000 for a longer one.
    let ids = std::env::var("BULK_IDS").ok().and_then(|ids| ids.parse().ok());
    killed_in_the_middle(ids.unwrap_or(2_000)).await;
}

async fn killed_in_the_middle(ids: usize) {
    let receiver = Receiver::start().await;
    // Small commits, so that the operation is slow enough to be hit.
    let config = format!("{}\n[store]\nbatch_max = 4\nhot_tasks = 500\n", config(&receiver));
    let mut server = TestServer::start(&config);
    let client = server.client();
    settled(&client, "fine", 100).await;
    receiver.by_default(Behaviour::Answer(Answer::of(404)));
    settled(&client, "again", ids).await;
    receiver.by_default(Behaviour::Answer(Answer::of(200)));

    let begun = bulk(&client, json!({"action": "retry", "filter": {"state": "failed"}})).await;
    receiver.wait_for(100 + ids + ids / 4).await;
    server.kill_now();
    server.kill();
    let calls_at_kill = receiver.calls().len() - 100 - ids;
    server.restart();
    let client = server.client();
    assert!(server.logged("bulk operation goes on"), "it was over before the kill");
    let resumed = client.get(&format!("/bulk/{}", begun["op"])).await.json();
    let over = ended(&client, &begun["op"]).await;
    rest(&client).await;

    let [matched, done, skipped, failed] = counts(&over);
    assert_eq!((&over["state"], matched), (&json!("done"), ids as u64));
    assert_eq!([done, skipped, failed], [matched, 0, 0], "each is counted once");
    assert_eq!((&over["started"], &over["filter"]), (&begun["started"], &begun["filter"]));

    let accept = [("accept", "application/x-ndjson")];
    let everything = client.send(Method::GET, "/tasks", &accept, "").await;
    let records: BTreeMap<String, Value> = everything
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|task| (task["id"].as_str().unwrap().to_owned(), task))
        .collect();
    assert_eq!(records.len(), ids + 100);
    let mut interrupted = 0;
    for (id, task) in &records {
        let calls = receiver.count(id);
        match (id.starts_with("fine"), task["state"].as_str().unwrap()) {
            (true, state) => assert_eq!((state, calls), ("success", 1), "{id}"),
            (false, "success") => assert_eq!((&task["run"], calls), (&json!(2), 2), "{id}"),
            (false, _) => {
                // In flight at the kill: whether it was called is in doubt, and it did not run again by itself.
                assert_eq!(
                    (&task["error"]["kind"], &task["in_doubt"]),
                    (&json!("interrupted"), &json!(true))
                );
                assert!(task["run"] == 2 && (1..=2).contains(&calls), "{id}: {task}, {calls} calls");
                interrupted += 1;
            }
        }
    }
    assert!(interrupted < ids / 2, "{interrupted}");
    let known = resumed["done"].as_u64().unwrap();
    eprintln!(
        "{ids} ids: {calls_at_kill} called at the kill, {known} done after it, {interrupted} interrupted"
    );

    // What was interrupted is a matter for whoever asks for it.
    let again = bulk(&client, json!({"action": "retry", "filter": {"error_kind": "interrupted"}})).await;
    assert_eq!(counts(&ended(&client, &again["op"]).await)[1], interrupted as u64);
    rest(&client).await;
    assert_eq!(client.get("/stats").await.json()["tasks"]["success"], ids + 100);
}
