//! The recorder where things go wrong around it: work that cannot be dropped.

use std::sync::Arc;
use std::time::Duration;

use task_recorder::recorder::{Launch, Recorder};
use task_recorder::store::{MemoryStore, Store};
use task_recorder::task::ErrorKind;

use crate::stores::{id, within};

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
