//! A start after a crash where much was under way.

use std::sync::Arc;
use std::time::Duration;

use task_recorder::recorder::Recorder;
use task_recorder::store::{Claimed, EmbeddedOptions, Store};
use tempfile::TempDir;

use crate::stores::{id, launch, open_embedded};
use crate::support::server::TestServer;
use crate::support::within;

#[tokio::test]
async fn more_interrupted_runs_than_the_queue_takes_are_recovered() {
    let folder = TempDir::new().unwrap();
    let options = EmbeddedOptions { queue_max: 1, ..EmbeddedOptions::default() };
    let store = open_embedded(folder.path(), &options);
    for number in 0..200 {
        let claimed = store.claim(&id(&format!("t-{number}")), launch("x")).await.unwrap();
        assert!(matches!(claimed, Claimed::Started(_)));
    }
    store.close().await;
    drop(store);

    let recorder = Recorder::new(Arc::new(open_embedded(folder.path(), &options)));
    let report = within("the recovery", recorder.recover()).await.unwrap();
    assert_eq!((report.interrupted, recorder.counts().total().failed), (200, 200));
}

/// Else a wall clock that was set back between the two would have it wait for as long.
#[tokio::test]
async fn after_a_restart_no_pause_is_longer_than_the_longest_one() {
    let config = |pause: &str| {
        format!(
            "[handlers.h]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\ndefault = true\n\
             retry = {{ attempts = 2, initial = \"{pause}\", max_interval = \"{pause}\" }}\n"
        )
    };
    let mut server = TestServer::start(&config("1h"));
    let client = server.client();
    assert_eq!(client.post("/tasks/order-42", "").await.status, 202);
    within("the first attempt", async {
        while client.get("/tasks/order-42/status").await.json()["phase"] != "backing_off" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.kill();
    server.reconfigure(&config("1ms"));
    server.restart();
    let status = server.client().get("/tasks/order-42/status?wait=2m").await.json();
    assert_eq!(status["state"], "failed", "{status}");
}
