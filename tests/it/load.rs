//! Many clients at once: nothing runs twice, nothing is missed, and every count agrees.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hyper::Method;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::http::config;
use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;

const CLIENTS: usize = 64;
const IDS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_ids_run_once_each_and_the_failed_ones_once_more() {
    let receiver = Arc::new(Receiver::start().await);
    let server = TestServer::start(&format!("{}\n[store]\nhot_tasks = 2000\n", config(&receiver)));
    let client = server.client();
    for number in (0..IDS).step_by(10) {
        let once = [Behaviour::Answer(Answer::of(500)), Behaviour::Answer(Answer::of(200))];
        receiver.on(&format!("t-{number}"), once);
    }
    let ids: Vec<String> = (0..IDS).map(|number| format!("t-{number}")).collect();
    let begun = Instant::now();
    launch_all(&client, &ids).await;
    receiver.wait_for(IDS).await;
    rest(&client).await;
    let calls = receiver.calls().len();
    eprintln!("{IDS} ids over {CLIENTS} connections in {:.1?}: {calls} calls", begun.elapsed());
    assert_eq!(calls, IDS);
    assert!(ids.iter().all(|id| receiver.count(id) == 1), "an id ran twice");

    let stats = client.get("/stats").await.json();
    assert_eq!(
        stats["tasks"],
        serde_json::json!({"working": 0, "success": IDS * 9 / 10, "failed": IDS / 10})
    );
    eprintln!("stats: {}", stats["tasks"]);
    let failed = listed(&client, "failed").await;
    assert_eq!(failed, ids.iter().step_by(10).cloned().collect());
    assert_eq!(listed(&client, "success").await.len(), IDS * 9 / 10);

    launch_all(&client, &failed.into_iter().collect::<Vec<_>>()).await;
    rest(&client).await;
    eprintln!("after launching the failed ones again: {} calls", receiver.calls().len());
    assert_eq!(receiver.calls().len(), IDS + IDS / 10);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(receiver.count(id), if number % 10 == 0 { 2 } else { 1 }, "{id}");
    }
    assert_eq!(listed(&client, "success").await.len(), IDS);
    assert_eq!(listed(&client, "failed").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_launches_of_one_id_at_once_one_calls_the_receiver_in_each_of_200_rounds() {
    const ROUNDS: usize = 200;
    let receiver = Arc::new(Receiver::start().await);
    let server = TestServer::start(&config(&receiver));
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let launched = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = server.client();
        let (barrier, launched) = (Arc::clone(&barrier), Arc::clone(&launched));
        clients.spawn(async move {
            for round in 0..ROUNDS {
                barrier.wait().await;
                let answer = client.post(&format!("/tasks/round-{round}"), "").await;
                match answer.status.as_u16() {
                    202 => assert!(answer.json()["launched"].as_bool().unwrap()),
                    200 => {
                        assert!(!answer.json()["launched"].as_bool().unwrap());
                        continue;
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
                launched.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    clients.join_all().await;
    rest(&server.client()).await;
    eprintln!("{ROUNDS} rounds of {CLIENTS} launches of one id: {} calls", receiver.calls().len());
    assert_eq!(launched.load(Ordering::Relaxed), ROUNDS);
    assert_eq!(receiver.calls().len(), ROUNDS);
    assert!((0..ROUNDS).all(|round| receiver.count(&format!("round-{round}")) == 1));
}

/// Launches each id once, over all connections at once.
async fn launch_all(client: &Client, ids: &[String]) {
    let ids: Arc<[String]> = ids.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, ids, next) = (client.clone(), Arc::clone(&ids), Arc::clone(&next));
        clients.spawn(async move {
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = client.post(&format!("/tasks/{id}"), "x").await;
                assert_eq!(answer.status, 202, "{}", answer.text());
            }
        });
    }
    clients.join_all().await;
}

/// Waits until nothing works any more.
async fn rest(client: &Client) {
    loop {
        let oldest = client.get("/stats").await.json()["oldest_working"]["id"].clone();
        let Some(id) = oldest.as_str() else { return };
        client.get(&format!("/tasks/{id}/status?wait=30")).await;
    }
}

async fn listed(client: &Client, state: &str) -> BTreeSet<String> {
    let path = format!("/tasks?state={state}");
    let lines = client.send(Method::GET, &path, &[("accept", "text/plain")], "").await;
    let ids: BTreeSet<String> = lines.text().lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), lines.text().lines().count(), "an id is listed twice");
    ids
}
