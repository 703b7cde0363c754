//! The config in motion: what a reload changes, what it does not, and that nobody feels it.

mod refused;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{Answer, Client};
use crate::support::receiver::{self, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::sse::Events;
use crate::support::{until, within};
use crate::tokens::{token, with};

fn webhook(name: &str, url: &str, more: &str) -> String {
    format!("[handlers.{name}]\ntype = \"webhook\"\nurl = \"{url}\"\n{more}\n")
}

async fn reload(client: &Client) -> Answer {
    client.post("/admin/reload", "").await
}

async fn reloaded(client: &Client) -> Value {
    let answer = reload(client).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn until_state(client: &Client, id: &str, state: &str) -> Value {
    within(state, async {
        loop {
            let task = client.get(&format!("/tasks/{id}?wait=1")).await.json();
            if task["state"] == state {
                return task;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_reload_under_load_fails_no_request_and_changes_what_it_says() {
    let (before, after) = (Receiver::start().await, Receiver::start().await);
    let server = TestServer::start(&webhook("h", &before.url("/{id}"), "default = true"));
    let client = server.client();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for worker in 0..8 {
        let (client, stop, sent) = (client.clone(), Arc::clone(&stop), Arc::clone(&sent));
        load.spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let answer = client.post(&format!("/tasks/w{worker}-{number}?wait=30"), "x").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.json()["state"], "success", "{}", answer.text());
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (one, other) = (
        webhook("h", &before.url("/{id}"), "default = true"),
        webhook("h", &after.url("/{id}"), "default = true"),
    );
    for round in 0..20 {
        server.reconfigure(if round % 2 == 0 { &other } else { &one });
        let until = sent.load(Ordering::Relaxed) + 10;
        assert_eq!(reloaded(&client).await["handlers"], json!(["h"]));
        within("some load", async {
            while sent.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(worker) = load.join_next().await {
        worker.unwrap();
    }
    let (one, other) = (before.calls().len(), after.calls().len());
    assert!(one > 0 && other > 0, "both were called: {one}, {other}");
    assert_eq!(one + other, sent.load(Ordering::Relaxed), "each launch was one call");
    let last = before.calls().len();
    assert_eq!(client.post("/tasks/last?wait=30", "").await.json()["state"], "success");
    assert_eq!(before.calls().len(), last + 1, "the last reload holds");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_as_check_config_tells_it() {
    let receiver = Receiver::start().await;
    let good = webhook("h", &receiver.url("/{id}"), "default = true");
    let server = TestServer::start(&good);
    let client = server.client();
    let bad = format!(
        "{}concurency = 3\n[handlers.x]\ntype = \"command\"\n",
        webhook("new", "http://127.0.0.1:1/", "")
    );
    server.reconfigure(&bad);
    let answer = reload(&client).await;
    answer.problem(422, "invalid-config");
    let errors = answer.json()["errors"].clone();
    let errors: Vec<&str> = errors.as_array().unwrap().iter().map(|error| error.as_str().unwrap()).collect();
    assert!(errors[0].starts_with("config.toml:5:1: unknown key `concurency`"), "{errors:?}");
    assert!(errors[1].starts_with("config.toml:6:11: [handlers.x] has no `command`"), "{errors:?}");
    server.hang_up();
    until("the log", || server.logged("config not reloaded")).await;
    for broken in ["[handlers", "\u{0}"] {
        server.reconfigure(broken);
        reload(&client).await.problem(422, "invalid-config");
    }
    let names = client.get("/handlers").await.json();
    assert_eq!((&names["handlers"][0]["name"], &names["handlers"][1]), (&"h".into(), &Value::Null));
    assert_eq!(client.post("/tasks/a?wait=30", "").await.json()["state"], "success");
    client.post("/tasks/b?handler=new", "").await.problem(404, "unknown-handler");
}

#[tokio::test]
async fn a_hang_up_signal_reloads_and_keys_that_wait_for_a_restart_are_named() {
    let server = TestServer::start("");
    let client = server.client();
    server.reconfigure(&format!(
        "[server]\nlisten = \"127.0.0.1:9\"\nwait_max = \"1m\"\n[store]\nhot_tasks = 7\n{}",
        webhook("h", "http://127.0.0.1:1/", "")
    ));
    server.hang_up();
    until("the reload", || server.logged("config reloaded")).await;
    assert_eq!(client.get("/handlers").await.json()["handlers"][0]["name"], "h");
    assert!(server.logged("server.wait_max, store.hot_tasks"), "{}", server.log());
    let answer = reloaded(&client).await;
    // A flag says where it listens, so the file does not matter there.
    assert_eq!(
        answer,
        json!({"handlers": ["h"], "tokens": [], "needs_restart": ["server.wait_max", "store.hot_tasks"]})
    );
}

#[tokio::test]
async fn limits_take_effect_on_what_waits_already() {
    let receiver = Receiver::start().await;
    let gate = Gate::new();
    receiver.by_default(Behaviour::AnswerAfter(gate.clone(), receiver::Answer::of(200)));
    let config = |more: &str| webhook("h", &receiver.url("/{id}"), &format!("default = true\n{more}"));
    let server = TestServer::start(&config("concurrency = 1\nqueue = 8"));
    let client = server.client();
    for number in 0..9 {
        assert_eq!(client.post(&format!("/tasks/t{number}"), "").await.status, 202);
    }
    client.post("/tasks/t9", "").await.problem(429, "queue-full");
    receiver.wait_for(1).await;
    server.reconfigure(&config("concurrency = 4\nqueue = 9"));
    reloaded(&client).await;
    receiver.wait_for(4).await;
    let counts = client.get("/handlers").await.json()["handlers"][0].clone();
    assert_eq!((&counts["running"], &counts["queued"]), (&4.into(), &5.into()));
    for number in 9..13 {
        assert_eq!(client.post(&format!("/tasks/t{number}"), "").await.status, 202);
    }
    client.post("/tasks/t13", "").await.problem(429, "queue-full");
    // One start an hour: after the next one nothing starts, until the rate is taken away again.
    server.reconfigure(&config("concurrency = 100\nrate = \"1/h\""));
    reloaded(&client).await;
    receiver.wait_for(5).await;
    let counts = client.get("/handlers").await.json()["handlers"][0].clone();
    assert_eq!((&counts["running"], &counts["queued"]), (&5.into(), &8.into()));
    server.reconfigure(&config("concurrency = 100\nrate = \"1000/s\""));
    reloaded(&client).await;
    receiver.wait_for(13).await;
    gate.open();
    for number in 0..13 {
        until_state(&client, &format!("t{number}"), "success").await;
    }
}

#[tokio::test]
async fn what_runs_ends_as_it_began_and_the_next_attempt_is_the_new_config() {
    let (before, after) = (Receiver::start().await, Receiver::start().await);
    let gate = Gate::new();
    before.by_default(Behaviour::AnswerAfter(gate.clone(), receiver::Answer::of(503)));
    let retry = "default = true\nretry = { attempts = 3, initial = \"1ms\" }";
    let server = TestServer::start(&webhook("h", &before.url("/{id}"), retry));
    let client = server.client();
    assert_eq!(client.post("/tasks/t", "").await.status, 202);
    before.wait_for(1).await;
    server.reconfigure(&webhook("h", &after.url("/{id}"), retry));
    reloaded(&client).await;
    assert_eq!(client.get("/tasks/t/status").await.json()["phase"], "running");
    gate.open();
    let task = until_state(&client, "t", "success").await;
    let statuses: Vec<_> =
        task["attempts"].as_array().unwrap().iter().map(|one| &one["http_status"]).collect();
    assert_eq!(statuses, [503, 200]);
    assert_eq!((before.calls().len(), after.calls().len()), (1, 1));
}

#[tokio::test]
async fn what_waits_for_a_handler_that_is_gone_fails_and_what_runs_ends() {
    let receiver = Receiver::start().await;
    let gate = Gate::new();
    receiver.on("running", [Behaviour::AnswerAfter(gate.clone(), receiver::Answer::of(200))]);
    receiver.on("refused", [Behaviour::AnswerAfter(gate.clone(), receiver::Answer::of(503))]);
    receiver.on("backing", [Behaviour::Answer(receiver::Answer::of(503))]);
    let h = webhook(
        "h",
        &receiver.url("/{id}"),
        "concurrency = 2\nretry = { initial = \"1h\", max_interval = \"1h\" }",
    );
    let server = TestServer::start(&h);
    let client = server.client();
    for id in ["backing", "running", "refused", "queued"] {
        assert_eq!(client.post(&format!("/tasks/{id}?handler=h"), "").await.status, 202);
        if id == "backing" {
            within("the pause", async {
                while client.get("/tasks/backing/status").await.json()["phase"] != "backing_off" {}
            })
            .await;
        }
    }
    receiver.wait_for(3).await;
    server.reconfigure(&webhook("other", "http://127.0.0.1:1/", ""));
    assert_eq!(reloaded(&client).await["handlers"], json!(["other"]));
    for id in ["queued", "backing"] {
        let task = until_state(&client, id, "failed").await;
        assert_eq!(task["error"]["kind"], "interrupted");
        assert_eq!(task["in_doubt"], false);
        let message = task["error"]["message"].as_str().unwrap();
        assert!(message.contains("the handler h was taken out of the config"), "{message}");
    }
    assert_eq!(client.get("/tasks/running/status").await.json()["phase"], "running");
    client.post("/tasks/more?handler=h", "").await.problem(404, "unknown-handler");
    client.post("/tasks/queued/retry", "").await.problem(409, "unknown-handler");
    gate.open();
    until_state(&client, "running", "success").await;
    // It fails as it was answered, and is not tried again.
    let refused = until_state(&client, "refused", "failed").await;
    assert_eq!((&refused["error"]["kind"], &refused["attempts"][1]), (&"status".into(), &Value::Null));
    assert_eq!(receiver.calls().len(), 3);

    server.reconfigure(&h);
    reloaded(&client).await;
    receiver.on("queued", [Behaviour::Answer(receiver::Answer::of(200))]);
    assert_eq!(client.post("/tasks/queued/retry?wait=30", "").await.json()["state"], "success");
}

#[tokio::test]
async fn a_handler_that_comes_back_is_still_paused_and_notices_begin_with_a_reload() {
    let receiver = Receiver::start().await;
    let h = webhook("h", &receiver.url("/{id}"), "");
    let mut server = TestServer::start(&h);
    let client = server.client();
    assert_eq!(client.post("/handlers/h/pause", "").await.status, 200);
    let none = "[handlers]\n";
    for config in [none, &h, none] {
        server.reconfigure(config);
        reloaded(&client).await;
        let paused = client.get("/handlers").await.json()["handlers"][0]["paused"].clone();
        assert_eq!(paused, if config == none { Value::Null } else { true.into() });
    }
    // Also by a process that has not seen it go.
    server.kill();
    server.restart();
    let client = server.client();
    server.reconfigure(&format!("{h}[handlers.h.on_success]\nurl = \"{}\"\n", receiver.url("/told/{id}")));
    reloaded(&client).await;
    assert_eq!(client.post("/tasks/a?handler=h", "").await.json()["phase"], "queued");
    assert_eq!(client.get("/handlers").await.json()["handlers"][0]["paused"], true);
    assert_eq!(client.post("/handlers/h/resume", "").await.status, 200);
    receiver.wait_for(2).await;
    assert_eq!(receiver.calls()[1].target, "/told/a");
}

#[tokio::test]
async fn tokens_come_and_go_and_an_open_stream_ends_with_its_token() {
    let admin = token("boss", "scopes = [\"admin\"]");
    let reader = token("reader", "scopes = [\"read\", \"launch\"]");
    let handler = "[handlers.h]\ntype = \"command\"\ncommand = [\"cat\"]\ndefault = true\n";
    let server = TestServer::start(handler);
    let client = server.client();
    server.reconfigure(&format!("{handler}{admin}{reader}"));
    assert_eq!(reloaded(&client).await["tokens"], json!(["boss", "reader"]));
    client.get("/stats").await.problem(401, "token-required");
    reload(&client).await.problem(401, "token-required");
    let mut events = Events::open(server.base(), "/events", &[("authorization", "Bearer s-reader")]).await;
    assert_eq!(with(&client, "s-reader", Method::POST, "/tasks/a?wait=30", "").await.status, 200);
    assert_eq!(within("an event", events.next()).await.unwrap().data["id"], "a");

    let writer = token("writer", "scopes = [\"launch\"]");
    server.reconfigure(&format!("{handler}{admin}{writer}"));
    assert_eq!(with(&client, "s-boss", Method::POST, "/admin/reload", "").await.status, 200);
    with(&client, "s-reader", Method::GET, "/stats", "").await.problem(401, "invalid-token");
    assert_eq!(with(&client, "s-writer", Method::POST, "/tasks/b?wait=30", "").await.status, 200);
    let rest = within("the end of the stream", events.rest()).await;
    assert!(rest.iter().all(|told| told.data["id"] == "a"), "nothing is told behind the reload: {rest:?}");
}
