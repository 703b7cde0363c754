//! `POST /lookup`: many ids at once.

use serde_json::json;

use crate::http::config;
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;

#[tokio::test]
async fn many_ids_are_looked_up_at_once() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    receiver.on("bad", [Behaviour::Answer(Answer::of(404))]);
    receiver.on("slow", [Behaviour::NeverAnswer]);
    for id in ["good", "bad"] {
        client.post(&format!("/tasks/{id}?wait=30"), "").await;
    }
    client.post("/tasks/slow", "").await;
    let ids = json!({"ids": ["none", "bad", "slow", "good", "bad"]}).to_string();
    let found = client.post("/lookup", ids).await;
    assert_eq!(found.status, 200);
    let found = found.json();
    let states: Vec<_> =
        found["tasks"].as_array().unwrap().iter().map(|one| (&one["id"], &one["state"])).collect();
    let told = json!([
        ["none", "not_found"],
        ["bad", "failed"],
        ["slow", "working"],
        ["good", "success"],
        ["bad", "failed"]
    ]);
    assert_eq!(json!(states), told);
    assert_eq!(found["tasks"][0], json!({"id": "none", "state": "not_found"}));
    assert_eq!(found["tasks"][1], client.get("/tasks/bad/status").await.json());
    assert_eq!(client.post("/lookup", "{\"ids\":[]}").await.json(), json!({"tasks": []}));

    let invalid = client.post("/lookup", "{\"ids\":[\"good\",\"a b\",\"c/d\"]}").await;
    assert!(invalid.problem(400, "invalid-id").contains("\"a b\""));
    let many = |count: usize| json!({"ids": vec!["x".repeat(255); count]}).to_string();
    assert_eq!(client.post("/lookup", many(1_000)).await.json()["tasks"].as_array().unwrap().len(), 1_000);
    assert!(client.post("/lookup", many(1_001)).await.problem(400, "invalid-body").contains("1000"));
    client.post("/lookup", many(3_000)).await.problem(413, "body-too-large");
    for wrong in ["", "[]", "{}", "{\"ids\":[1]}", "{\"ids\":[],\"id\":1}", "[[\"good\"]]"] {
        client.post("/lookup", wrong).await.problem(400, "invalid-body");
    }
    client.post("/lookup?id=x", "{\"ids\":[]}").await.problem(400, "invalid-parameter");
}
