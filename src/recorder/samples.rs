//! Runs for the tests of the parts of a recorder, by the store alone.

use std::sync::Arc;

use jiff::Timestamp;

use crate::store::{Claim, Claimed, Moved, Store};
use crate::task::{Attempt, Failure, HandlerName, Input, Request, Task, TaskId};

/// Another run of the id, with an input.
pub(super) async fn claimed(store: &dyn Store, id: &TaskId) -> Claim {
    let request = Request::new(HandlerName::in_process(), Input::new(None, "in".into()));
    let Claimed::Started(claim) = store.claim(id, request.into()).await.unwrap() else { panic!("{id}") };
    claim
}

/// What the run comes to.
pub(super) async fn settled(store: &dyn Store, claim: Claim, failure: Option<Failure>) -> Arc<Task> {
    let (now, run) = (Timestamp::now(), claim.task().run);
    let attempt = Attempt { run, attempt: 1, started: now, ended: now, code: None, failure, answer: None };
    done(store.settle(claim, attempt, None).await.unwrap())
}

pub(super) fn done(moved: Moved) -> Arc<Task> {
    match moved {
        Moved::Done(task) => task,
        Moved::Refused(refused) => panic!("{refused:?}"),
    }
}
