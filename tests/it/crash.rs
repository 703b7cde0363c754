//! `kill -9` and SIGTERM of the real process, and what the next start finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hyper::Method;
use tokio::task::JoinSet;

use crate::http::config;
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;

#[tokio::test]
async fn a_run_that_a_crash_cut_off_is_failed_interrupted_and_in_doubt() {
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&config(&receiver));
    let client = server.client();
    assert_eq!(client.post("/tasks/done?wait=30", "").await.json()["state"], "success");
    receiver.by_default(Behaviour::NeverAnswer);
    assert_eq!(client.post("/tasks/cut", "the input").await.status, 202);
    receiver.wait_for(2).await;

    server.kill();
    server.restart();
    let client = server.client();
    let cut = client.get("/tasks/cut").await.json();
    assert_eq!((&cut["state"], &cut["run"]), (&"failed".into(), &1.into()));
    assert_eq!((&cut["error"]["kind"], &cut["in_doubt"]), (&"interrupted".into(), &true.into()));
    assert_eq!(cut["input"]["size"], 9);
    assert_eq!(client.get("/tasks/done/status").await.json()["state"], "success");
    assert_eq!(client.get("/stats").await.json()["tasks"]["working"], 0);

    receiver.by_default(Behaviour::Answer(Answer::of(200)));
    let again = client.post("/tasks/cut?wait=30", "the input").await.json();
    assert_eq!((&again["state"], &again["run"]), (&"success".into(), &2.into()));
    assert_eq!(client.post("/tasks/done", "").await.json()["launched"], false);
    assert_eq!((receiver.count("cut"), receiver.count("done")), (2, 1));
}

/// What clients were told before a crash.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) accepted: Mutex<BTreeSet<String>>,
    pub(crate) succeeded: Mutex<BTreeSet<String>>,
}

/// Clients that launch fresh ids and look at earlier ones until the server is gone.
pub(crate) async fn load(
    server: &TestServer,
    next: &Arc<AtomicU64>,
    told: &Arc<Told>,
    kill: impl AsyncFnOnce(),
) {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let (client, next, told) = (server.client(), Arc::clone(next), Arc::clone(told));
        let is_over = Arc::clone(&is_over);
        clients.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let id = format!("t-{number}");
                let path = format!("/tasks/{id}");
                let Ok(launch) = client.try_send(Method::POST, &path, &[], "x").await else { return };
                assert_eq!(launch.status, 202, "{}", launch.text());
                told.accepted.lock().unwrap().insert(id);
                let seen = format!("t-{}", number.saturating_sub(40));
                let path = format!("/tasks/{seen}/status");
                let Ok(status) = client.try_send(Method::GET, &path, &[], "").await else { return };
                if status.status == 200 && status.json()["state"] == "success" {
                    told.succeeded.lock().unwrap().insert(seen);
                }
            }
        });
    }
    kill().await;
    is_over.store(true, Ordering::Relaxed);
    clients.join_all().await;
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_by_kill_9_under_load() {
    let receiver = Receiver::start().await;
    let gate = Gate::new();
    let mut server = TestServer::start(&format!("{}\n[store]\nhot_tasks = 500\n", config(&receiver)));
    let (next, told) = (Arc::new(AtomicU64::new(0)), Arc::new(Told::default()));
    for round in 1..=4 {
        // A few that never end, so that some are certainly in flight.
        for number in 0..5 {
            receiver.on(
                &format!("hang-{round}-{number}"),
                [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))],
            );
            let path = format!("/tasks/hang-{round}-{number}");
            assert_eq!(server.client().post(&path, "").await.status, 202);
            told.accepted.lock().unwrap().insert(format!("hang-{round}-{number}"));
        }
        let calls_before = receiver.calls().len();
        load(&server, &next, &told, async || {
            receiver.wait_for(calls_before + 1_500).await;
            server.kill_now();
        })
        .await;
        server.kill();
        server.restart();
    }
    gate.open();

    let client = server.client();
    let accept = [("accept", "application/x-ndjson")];
    let everything = client.send(Method::GET, "/tasks", &accept, "").await;
    let records: BTreeMap<String, serde_json::Value> = everything
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|task| (task["id"].as_str().unwrap().to_owned(), task))
        .collect();
    assert_eq!(records.len(), everything.text().lines().count(), "an id is listed twice");

    let accepted = std::mem::take(&mut *told.accepted.lock().unwrap());
    let succeeded = std::mem::take(&mut *told.succeeded.lock().unwrap());
    assert!(accepted.len() > 4_000 && succeeded.len() > 1_000, "{} {}", accepted.len(), succeeded.len());
    for id in &accepted {
        assert!(records.contains_key(id), "{id} was answered 202 and is lost");
    }
    for id in &succeeded {
        assert_eq!(records[id]["state"], "success", "{id} was a success");
    }
    let mut interrupted = 0;
    for (id, task) in &records {
        match task["state"].as_str() {
            Some("success") => assert_eq!(receiver.count(id), 1, "{id} succeeded"),
            Some("failed") => {
                assert_eq!(
                    (&task["error"]["kind"], &task["in_doubt"]),
                    (&"interrupted".into(), &true.into())
                );
                interrupted += 1;
            }
            other => panic!("{id} is {other:?}"),
        }
    }
    eprintln!(
        "4 times kill -9 under load: {} answered 202, {} seen as success, {} recorded, {interrupted} interrupted, \
         0 lost, 0 successes undone",
        accepted.len(),
        succeeded.len(),
        records.len()
    );
    assert!(interrupted >= 20, "{interrupted}");
    let stats = client.get("/stats").await.json();
    assert_eq!(stats["tasks"]["failed"], interrupted);
    assert_eq!(stats["tasks"]["success"], records.len() - interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_runs_end_and_records_the_rest() {
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&config(&receiver).replace("[server]", "[server]\ngrace = \"1s\""));
    let client = server.client();
    let gate = Gate::new();
    receiver.on("ends", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    receiver.on("hangs", [Behaviour::NeverAnswer]);
    for id in ["ends", "hangs"] {
        assert_eq!(client.post(&format!("/tasks/{id}"), "").await.status, 202);
    }
    receiver.wait_for(2).await;
    server.terminate();
    gate.open();
    assert_eq!(server.wait().code(), Some(0));

    server.restart();
    let client = server.client();
    assert_eq!(client.get("/tasks/ends/status").await.json()["state"], "success");
    let hangs = client.get("/tasks/hangs/status").await.json();
    assert_eq!((&hangs["state"], &hangs["error"]["kind"]), (&"failed".into(), &"shutdown".into()));
    assert_eq!(hangs["in_doubt"], true);
}
