//! That what the config says of a handler's attempts, limits and revoke action reaches its runs, in the real binary.

use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;

/// A webhook with these keys.
fn config(receiver: &Receiver, keys: &str) -> String {
    let url = receiver.url("/do/{id}");
    format!("[handlers.hook]\ntype = \"webhook\"\ndefault = true\nurl = \"{url}\"\n{keys}\n")
}

fn answers(statuses: &[u16]) -> Vec<Behaviour> {
    statuses.iter().map(|status| Behaviour::Answer(Answer::of(*status))).collect()
}

#[tokio::test]
async fn a_run_has_the_attempts_of_its_handler_also_in_doubt_where_that_is_asked_for() {
    let receiver = Receiver::start().await;
    let retry = "retry = { attempts = 3, initial = \"1ms\" }";
    let certain = TestServer::start(&config(&receiver, retry));
    let in_doubt = TestServer::start(&config(&receiver, &format!("{retry}\nretry_in_doubt = true")));
    for (server, id, statuses, state, calls) in [
        (&certain, "third", &[503, 429, 200][..], "success", 3),
        (&certain, "never", &[503], "failed", 3),
        (&certain, "doubt", &[500, 200], "failed", 1),
        (&in_doubt, "again", &[500, 200], "success", 2),
    ] {
        receiver.on(id, answers(statuses));
        let answer = server.client().post(&format!("/tasks/{id}?wait=30s"), "").await;
        assert_eq!(answer.json()["state"], state, "{}", answer.text());
        assert_eq!(receiver.count(id), calls, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_revoke_calls_the_revoke_action_of_the_handler() {
    let receiver = Receiver::start().await;
    let undo = receiver.url("/undo/{id}");
    let revoke = format!("[handlers.hook.revoke]\nurl = \"{undo}\"\nmethod = \"DELETE\"");
    let server = TestServer::start(&config(&receiver, &revoke));
    let client = server.client();
    client.post("/tasks/order-1?wait=30s", "two apples").await;
    let revoked = client.post("/tasks/order-1/revoke?wait=30s", "").await;
    assert_eq!(revoked.json()["state"], "not_found", "{}", revoked.text());
    let calls = receiver.calls();
    let calls: Vec<_> =
        calls.iter().map(|call| (call.method.as_str(), call.target.as_str(), call.body.as_ref())).collect();
    assert_eq!(
        calls,
        [("POST", "/do/order-1", &b"two apples"[..]), ("DELETE", "/undo/order-1", &b"two apples"[..]),]
    );
}

#[tokio::test]
async fn beyond_its_concurrency_and_queue_a_handler_takes_no_launch() {
    let receiver = Receiver::start().await;
    receiver.on("first", [Behaviour::NeverAnswer]);
    let server = TestServer::start(&config(&receiver, "concurrency = 1\nqueue = 1"));
    let client = server.client();
    client.post("/tasks/first", "").await;
    assert_eq!(client.post("/tasks/second", "").await.json()["phase"], "queued");
    client.post("/tasks/third", "").await.problem(429, "queue-full");
}

#[tokio::test]
async fn another_input_is_refused_where_the_handler_insists_on_the_same() {
    let receiver = Receiver::start().await;
    receiver.on("order-1", answers(&[404]));
    let server = TestServer::start(&config(&receiver, "match_input = true"));
    let client = server.client();
    client.post("/tasks/order-1?wait=30s", "two apples").await;
    client.post("/tasks/order-1", "three apples").await.problem(409, "input-mismatch");
    assert_eq!(client.post("/tasks/order-1", "two apples").await.status, 202);
}
