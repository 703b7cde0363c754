//! A start after a crash where much was under way.

use std::sync::Arc;

use task_recorder::recorder::Recorder;
use task_recorder::store::{Claimed, EmbeddedOptions, Store};
use tempfile::TempDir;

use crate::stores::{id, launch, open_embedded};
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
