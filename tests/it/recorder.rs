//! The recorder where things go wrong around it: work that cannot be dropped, a store that is busy.

use std::sync::Arc;
use std::time::Duration;

use task_recorder::recorder::{Launch, Recorder};
use task_recorder::store::{Claimed, EmbeddedOptions, MemoryStore, Store};
use task_recorder::task::ErrorKind;
use tempfile::TempDir;

use crate::stores::{id, launch, open_embedded, within};

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("on purpose, while it is dropped");
    }
}

#[tokio::test]
async fn work_that_panics_when_a_stop_drops_it_is_settled_all_the_same() {
    let store = Arc::new(MemoryStore::new());
    let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
    let work = async {
        let _guard = PanicsWhenDropped;
        std::future::pending::<Result<(), String>>().await
    };
    let launched = recorder.launch(id("dropped"), work).await.unwrap();
    assert!(matches!(launched, Launch::Started(_)));
    within("the stop", recorder.stop(Duration::ZERO)).await;
    let task = recorder.status(&id("dropped")).await.unwrap().unwrap();
    assert_eq!(task.failure().map(|failure| failure.kind), Some(ErrorKind::Panic), "{task:?}");
}

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
    assert_eq!(within("the recovery", recorder.recover()).await, Ok(200));
    assert_eq!(recorder.counts().total().failed, 200);
}
