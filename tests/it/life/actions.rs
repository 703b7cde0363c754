//! Safe launches, retry, cancel, revoke and forget over HTTP: every code.

use hyper::Method;
use serde_json::json;

use crate::support::client::{Answer as Told, Client};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;

async fn start() -> (Receiver, TestServer, Client) {
    let receiver = Receiver::start().await;
    let (work, undo) = (receiver.url("/do/{id}"), receiver.url("/undo/{id}"));
    let config = format!(
        "[handlers.hook]\ntype = \"webhook\"\nurl = \"{work}\"\ndefault = true\nretry = {{ attempts = 1 }}\n\
         [handlers.undone]\ntype = \"webhook\"\nurl = \"{work}\"\nretry = {{ attempts = 1 }}\n\
         [handlers.undone.revoke]\nurl = \"{undo}\"\n"
    );
    let server = TestServer::start(&config);
    let client = server.client();
    (receiver, server, client)
}

fn answers(code: u16) -> [Behaviour; 1] {
    [Behaviour::Answer(Answer::of(code))]
}

async fn launch(client: &Client, path: &str, headers: &[(&str, &str)]) -> Told {
    client.send(Method::POST, path, headers, "the input").await
}

/// An id that is working, one that has succeeded, and one that has failed.
async fn three(receiver: &Receiver, client: &Client) -> Gate {
    let gate = Gate::new();
    receiver.on("working", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    receiver.on("failed", answers(500));
    assert_eq!(client.post("/tasks/working", "").await.status, 202);
    for id in ["success", "failed"] {
        let told = client.post(&format!("/tasks/{id}?wait=30"), "").await;
        assert_eq!((told.status.as_u16(), told.json()["state"].as_str()), (200, Some(id)));
    }
    receiver.wait_for(3).await;
    gate
}

#[tokio::test]
async fn an_idempotency_key_launches_once_whatever_became_of_it() {
    let (receiver, _server, client) = start().await;
    let key = [("idempotency-key", "a-1")];
    receiver.on("order", answers(500));
    assert_eq!(launch(&client, "/tasks/order?wait=30", &key).await.json()["state"], "failed");
    for headers in [&key[..], &[key[0], ("if-none-match", "*")], &[key[0], ("if-match", "\"1\"")]] {
        let again = launch(&client, "/tasks/order", headers).await;
        let body = again.json();
        assert_eq!(again.status, 200, "{body}");
        assert_eq!((&body["launched"], &body["reason"]), (&json!(false), &json!("same_request")));
        assert_eq!((&body["state"], &body["error"]["kind"]), (&json!("failed"), &json!("status")));
    }
    launch(&client, "/tasks/order?on_duplicate=error", &key).await.problem(409, "duplicate");
    assert_eq!(receiver.count("order"), 1);
    receiver.on("order", answers(200));
    let other = launch(&client, "/tasks/order?wait=30", &[("idempotency-key", "a-2")]).await.json();
    assert_eq!((&other["state"], &other["run"]), (&json!("success"), &json!(2)));
    assert_eq!(launch(&client, "/tasks/order", &key).await.json()["reason"], "same_request");
    // A key is of one id.
    assert_eq!(launch(&client, "/tasks/another", &key).await.status, 202);

    let long = "x".repeat(256);
    for keys in [&[("idempotency-key", "")][..], &[("idempotency-key", &long)], &[key[0], key[0]]] {
        launch(&client, "/tasks/refused", keys).await.problem(400, "invalid-header");
    }
    client.get("/tasks/refused").await.problem(404, "not-found");
}

#[tokio::test]
async fn conditions_on_the_record_are_412_where_they_do_not_hold() {
    let (receiver, _server, client) = start().await;
    let gate = three(&receiver, &client).await;
    for id in ["working", "success", "failed"] {
        let told = launch(&client, &format!("/tasks/{id}"), &[("if-none-match", "*")]).await;
        told.problem(412, "precondition-failed");
        assert_eq!((told.json()["state"].as_str(), told.json()["id"].as_str()), (Some(id), Some(id)));
        launch(&client, &format!("/tasks/{id}"), &[("if-match", "\"99\"")])
            .await
            .problem(412, "precondition-failed");
    }
    for tag in ["*", "\"1\""] {
        launch(&client, "/tasks/unknown", &[("if-match", tag)]).await.problem(412, "precondition-failed");
    }
    for (name, value) in
        [("if-match", "1"), ("if-match", "W/\"1\""), ("if-match", "\"x\""), ("if-none-match", "\"1\"")]
    {
        launch(&client, "/tasks/failed", &[(name, value)]).await.problem(400, "invalid-header");
    }
    client.get("/tasks/unknown").await.problem(404, "not-found");

    // The tag that an answer gave, among others.
    let etag = client.get("/tasks/failed/status").await.header("etag").unwrap().to_owned();
    let tags = format!("\"77\", {etag}");
    let again = launch(&client, "/tasks/failed?wait=30", &[("if-match", &tags)]).await;
    assert_eq!((again.status.as_u16(), &again.json()["run"]), (200, &json!(2)));
    assert_ne!(again.header("etag"), Some(etag.as_str()));
    launch(&client, "/tasks/failed", &[("if-match", &tags)]).await.problem(412, "precondition-failed");
    // Where the condition holds, the state decides.
    let success = launch(&client, "/tasks/success", &[("if-match", "*")]).await;
    assert_eq!((success.status.as_u16(), &success.json()["reason"]), (200, &json!("success")));
    assert_eq!(launch(&client, "/tasks/unknown", &[("if-none-match", "*")]).await.status, 202);
    gate.open();
}

#[tokio::test]
async fn who_asks_for_it_is_told_of_a_duplicate_with_409() {
    let (receiver, _server, client) = start().await;
    let gate = three(&receiver, &client).await;
    for id in ["working", "success"] {
        let told = launch(&client, &format!("/tasks/{id}?on_duplicate=error&wait=30"), &[]).await;
        told.problem(409, "duplicate");
        assert_eq!(told.json()["state"], id, "at once, also where it would wait");
    }
    let again = launch(&client, "/tasks/failed?on_duplicate=error", &[]).await;
    assert_eq!((again.status.as_u16(), &again.json()["launched"]), (202, &json!(true)));
    launch(&client, "/tasks/new?on_duplicate=ignore", &[]).await.problem(400, "invalid-parameter");
    gate.open();
}

#[tokio::test]
async fn a_move_that_is_not_possible_is_404_or_409_and_changes_nothing() {
    let (receiver, _server, client) = start().await;
    let gate = three(&receiver, &client).await;
    let (post, delete) = (Method::POST, Method::DELETE);
    for (method, id, verb, status, code) in [
        (&post, "working", "/retry", 409, "not-failed"),
        (&post, "success", "/retry", 409, "not-failed"),
        (&post, "unknown", "/retry", 404, "not-found"),
        (&post, "success", "/cancel", 409, "not-working"),
        (&post, "failed", "/cancel", 409, "not-working"),
        (&post, "unknown", "/cancel", 404, "not-found"),
        (&post, "working", "/revoke", 409, "not-success"),
        (&post, "failed", "/revoke", 409, "not-success"),
        (&post, "unknown", "/revoke", 404, "not-found"),
        (&delete, "working", "", 409, "not-failed"),
        (&delete, "success", "", 409, "not-failed"),
        (&delete, "unknown", "", 404, "not-found"),
    ] {
        let before = client.get(&format!("/tasks/{id}")).await;
        let told = client.send(method.clone(), &format!("/tasks/{id}{verb}"), &[], "").await;
        told.problem(status, code);
        let state = if id == "unknown" { "not_found" } else { id };
        assert_eq!((&told.json()["state"], &told.json()["id"]), (&json!(state), &json!(id)));
        assert_eq!(client.get(&format!("/tasks/{id}")).await.body, before.body);
    }
    for path in ["/tasks/failed/retry?wiat=1", "/tasks/failed/cancel?wait=x", "/tasks/failed/revoke?force=1"]
    {
        client.post(path, "").await.problem(400, "invalid-parameter");
    }
    client.send(delete, "/tasks/failed?wait=1", &[], "").await.problem(400, "invalid-parameter");
    client.post("/handlers/nobody/pause", "").await.problem(404, "unknown-handler");
    client.post("/handlers/nobody/resume", "").await.problem(404, "unknown-handler");
    assert_eq!(receiver.calls().len(), 3);
    gate.open();
}

#[tokio::test]
async fn a_failed_task_is_tried_again_with_its_input_and_forgotten() {
    let (receiver, _server, client) = start().await;
    receiver.on("order", [500, 500, 200].map(|code| Behaviour::Answer(Answer::of(code))));
    launch(&client, "/tasks/order?wait=30", &[("content-type", "text/x-order")]).await;
    let first = client.post("/tasks/order/retry", "not the input").await;
    assert_eq!((first.status.as_u16(), first.header("location")), (202, Some("/tasks/order")));
    assert_eq!((&first.json()["launched"], &first.json()["run"]), (&json!(true), &json!(2)));
    client.get("/tasks/order/status?wait=30").await;
    let second = client.post("/tasks/order/retry?wait=30", "").await;
    assert_eq!(
        (second.status.as_u16(), &second.json()["state"], &second.json()["run"]),
        (200, &json!("success"), &json!(3))
    );
    for call in receiver.calls() {
        assert_eq!(
            (&call.body[..], &call.headers["content-type"]),
            (&b"the input"[..], &"text/x-order".parse().unwrap())
        );
    }

    receiver.on("other", answers(410));
    launch(&client, "/tasks/other?wait=30", &[]).await;
    let forgotten = client.send(Method::DELETE, "/tasks/other", &[], "").await;
    assert_eq!((forgotten.status.as_u16(), forgotten.body.len()), (204, 0));
    client.get("/tasks/other").await.problem(404, "not-found");
    client.send(Method::DELETE, "/tasks/other", &[], "").await.problem(404, "not-found");
    client.post("/tasks/other/retry", "").await.problem(404, "not-found");
    // It is free, also for another handler.
    assert_eq!(launch(&client, "/tasks/other?handler=undone&wait=30", &[]).await.json()["run"], 2);
}

#[tokio::test]
async fn a_working_task_is_canceled_and_its_request_is_cut() {
    let (receiver, _server, client) = start().await;
    receiver.on("order", [Behaviour::NeverAnswer, Behaviour::Answer(Answer::of(200))]);
    launch(&client, "/tasks/order", &[]).await;
    receiver.wait_for(1).await;
    let canceled = client.post("/tasks/order/cancel", "").await;
    assert_eq!((canceled.status.as_u16(), &canceled.json()["phase"]), (202, &json!("canceling")));
    receiver.wait_for_cut(1).await;
    let status = client.get("/tasks/order/status?wait=30").await.json();
    assert_eq!((&status["error"]["kind"], &status["in_doubt"]), (&json!("canceled"), &json!(true)));
    client.post("/tasks/order/cancel", "").await.problem(409, "not-working");
    assert_eq!(client.post("/tasks/order/retry?wait=30", "").await.json()["state"], "success");

    receiver.on("waited-for", [Behaviour::NeverAnswer]);
    launch(&client, "/tasks/waited-for", &[]).await;
    receiver.wait_for(3).await;
    let canceled = client.post("/tasks/waited-for/cancel?wait=30", "").await;
    assert_eq!((canceled.status.as_u16(), &canceled.json()["state"]), (200, &json!("failed")));

    // While the handler is paused it waits, and is canceled at once.
    assert_eq!(client.post("/handlers/hook/pause", "").await.json(), json!({"name": "hook", "paused": true}));
    assert_eq!(launch(&client, "/tasks/paused", &[]).await.json()["phase"], "queued");
    let canceled = client.post("/tasks/paused/cancel", "").await;
    assert_eq!((canceled.status.as_u16(), &canceled.json()["state"]), (202, &json!("failed")));
    assert_eq!(canceled.json()["in_doubt"], false);
    assert_eq!(client.post("/handlers/hook/resume", "").await.json()["paused"], false);
    assert_eq!(client.post("/tasks/paused/retry?wait=30", "").await.json()["state"], "success");
    assert_eq!(receiver.count("paused"), 1);
}

#[tokio::test]
async fn a_success_is_revoked_by_its_handler_and_stands_where_that_fails() {
    let (receiver, _server, client) = start().await;
    let (ok, gate) = (Behaviour::Answer(Answer::of(200)), Gate::new());
    let fails = Behaviour::Answer(Answer::of(409));
    let slow = Behaviour::AnswerAfter(gate.clone(), Answer::of(204));
    receiver.on("order", [ok.clone(), fails, slow, ok]);
    launch(&client, "/tasks/order?handler=undone&wait=30", &[]).await;
    let failed = client.post("/tasks/order/revoke?wait=30", "").await;
    let body = failed.json();
    assert_eq!((failed.status.as_u16(), &body["state"]), (200, &json!("success")), "{body}");
    let error = &body["revoke_error"];
    assert_eq!((&error["error"]["kind"], &error["in_doubt"]), (&json!("status"), &json!(false)), "{body}");

    let revoking = client.post("/tasks/order/revoke", "").await;
    assert_eq!((revoking.status.as_u16(), &revoking.json()["phase"]), (202, &json!("revoking")));
    assert!(revoking.json().get("revoke_error").is_none());
    receiver.wait_for(3).await;
    client.post("/tasks/order/revoke", "").await.problem(409, "revoking");
    for method in [Method::POST, Method::PUT] {
        let told = client.send(method, "/tasks/order?handler=undone", &[], "").await;
        told.problem(409, "revoking");
        assert_eq!(told.json()["state"], "success");
    }
    gate.open();
    client.get("/tasks/order/status?wait=30").await.problem(404, "not-found");
    let again = launch(&client, "/tasks/order?handler=undone&wait=30", &[]).await.json();
    assert_eq!((&again["state"], &again["run"]), (&json!("success"), &json!(2)));
    assert_eq!(client.get("/tasks/order").await.json()["revoked"], 1);
    let targets: Vec<_> = receiver.calls().into_iter().map(|call| call.target).collect();
    assert_eq!(targets, ["/do/order", "/undo/order", "/undo/order", "/do/order"]);

    // Without an action it is gone at once.
    launch(&client, "/tasks/plain?wait=30", &[]).await;
    let revoked = client.post("/tasks/plain/revoke", "").await;
    assert_eq!(
        (revoked.status.as_u16(), revoked.json()),
        (200, json!({"id": "plain", "state": "not_found"}))
    );
    client.get("/tasks/plain").await.problem(404, "not-found");
    client.post("/tasks/plain/revoke", "").await.problem(404, "not-found");
}
