//! What stores keep beside the tasks, and what rests on it: a paused handler stays paused.

use hyper::Method;
use rusqlite::Connection;
use serde_json::json;
use task_recorder::store::{EmbeddedOptions, EmbeddedStore, MemoryStore, Store, StoreError};
use tempfile::TempDir;

use crate::http::config;
use crate::support::receiver::Receiver;
use crate::support::server::TestServer;

async fn keeps_notes(store: &dyn Store) {
    assert_eq!(store.notes("").await.unwrap(), []);
    for (key, value) in [("b/2", "two"), ("a/1", "one"), ("b/1", ""), ("b/10", "ten"), ("b/2", "two again")] {
        store.put_note(key, Some(value.into())).await.unwrap();
    }
    store.put_note("b/10", None).await.unwrap();
    store.put_note("unknown", None).await.unwrap();
    let note = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
    assert_eq!(store.notes("b/").await.unwrap(), [note("b/1", ""), note("b/2", "two again")]);
    assert_eq!(store.notes("").await.unwrap().len(), 3);
    assert_eq!(store.notes("b").await.unwrap().len(), 2);
    assert_eq!(store.notes("%").await.unwrap(), []);
}

#[tokio::test]
async fn every_store_keeps_notes() {
    let memory = MemoryStore::new();
    keeps_notes(&memory).await;
    memory.close().await;
    assert_eq!(memory.put_note("a", None).await, Err(StoreError::Closed));

    let folder = TempDir::new().unwrap();
    let options = EmbeddedOptions::default();
    let store = EmbeddedStore::open(folder.path(), &options).unwrap();
    keeps_notes(&store).await;
    store.close().await;
    assert_eq!(store.put_note("a", None).await, Err(StoreError::Closed));
    drop(store);
    let store = EmbeddedStore::open(folder.path(), &options).unwrap();
    assert_eq!(store.notes("a/").await.unwrap(), [("a/1".to_owned(), b"one".to_vec())]);
}

#[tokio::test]
async fn a_folder_from_before_there_were_notes_opens() {
    let folder = TempDir::new().unwrap();
    let options = EmbeddedOptions::default();
    drop(EmbeddedStore::open(folder.path(), &options).unwrap());
    let journal = Connection::open(folder.path().join("journal.db")).unwrap();
    journal.execute_batch("DROP TABLE notes").unwrap();
    drop(journal);
    keeps_notes(&EmbeddedStore::open(folder.path(), &options).unwrap()).await;
}

#[tokio::test]
async fn a_paused_handler_is_paused_after_kill_9_until_it_is_resumed() {
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&config(&receiver));
    let client = server.client();
    let paused = client.post("/handlers/hook/pause", "").await;
    assert_eq!((paused.status.as_u16(), paused.json()), (200, json!({"name": "hook", "paused": true})));
    assert_eq!(client.post("/tasks/waits", "").await.status, 202);

    server.kill();
    server.restart();
    let client = server.client();
    let handlers = client.get("/handlers").await.json();
    let told: Vec<_> = handlers["handlers"].as_array().unwrap().iter().map(|one| &one["paused"]).collect();
    assert_eq!(told, [false, false, true]);
    assert_eq!(client.post("/tasks/waits-too", "").await.status, 202);
    assert_eq!(client.post("/tasks/goes?handler=echo&wait=30", "").await.json()["state"], "success");
    for id in ["waits", "waits-too"] {
        assert_eq!(client.get(&format!("/tasks/{id}/status")).await.json()["phase"], "queued");
    }
    assert!(receiver.calls().is_empty());

    let resumed = client.send(Method::POST, "/handlers/hook/resume", &[], "").await;
    assert_eq!(resumed.json()["paused"], false);
    for id in ["waits", "waits-too"] {
        let status = client.get(&format!("/tasks/{id}/status?wait=30")).await.json();
        assert_eq!(status["state"], "success");
    }
    server.kill();
    server.restart();
    let handlers = server.client().get("/handlers").await.json();
    assert_eq!(handlers["handlers"][2]["paused"], false);
}
