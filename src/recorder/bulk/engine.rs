//! The work of a bulk operation: takes some tasks in hand, notes that, acts on them, and goes on until none are left.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::operation::{Became, InHand, Operation};
use super::{BulkAction, forget_old};
use crate::recorder::{Launch, LaunchError, Recorder};
use crate::store::{Moved, StoreError};
use crate::sync::time::sleep;
use crate::task::{ErrorKind, Phase, State, Task, Undo};

/// How many tasks are taken in hand at a time: a note, so an fsync, for all of them.
const IN_HAND: usize = 256;
/// How many of them are acted on at once.
const AT_ONCE: usize = 64;
/// How long it waits for a full queue or a store that cannot write, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Acts on every task of the operation. Returns early where the recorder stops; the next start goes on.
pub(super) async fn run(recorder: Recorder, operation: Arc<Operation>) {
    if work(&recorder, &operation).await.is_none() {
        return;
    }
    if held_up(&recorder, || operation.end(&recorder.inner.store)).await.is_some() {
        let bulk = operation.view();
        let (number, action, state) = (bulk.number, bulk.action.as_str(), bulk.state.as_str());
        let (done, skipped, failed) = (bulk.done, bulk.skipped, bulk.failed);
        tracing::info!(number, action, state, done, skipped, failed, "bulk operation ended");
        forget_old(&recorder.inner).await;
    }
}

/// None where the recorder or the store ends first.
async fn work(recorder: &Recorder, operation: &Operation) -> Option<()> {
    loop {
        // After a restart there are some in hand already.
        stream::iter(operation.in_hand())
            .for_each_concurrent(AT_ONCE, |hand| async move {
                if let Some(became) = act(recorder, operation, &hand).await {
                    operation.count(&hand, became);
                }
            })
            .await;
        if recorder.is_draining() {
            return None;
        }
        if operation.canceling.is_cancelled() {
            return Some(());
        }
        let Some(query) = operation.query(IN_HAND) else { return Some(()) };
        let page = held_up(recorder, || recorder.list(&query)).await?;
        operation.take(&page.tasks, page.next);
        if !page.tasks.is_empty() {
            held_up(recorder, || operation.note(&recorder.inner.store)).await?;
        }
    }
}

/// Tries until the store does what it is asked. None where the recorder or the store ends first.
async fn held_up<T, F: Future<Output = Result<T, StoreError>>>(
    recorder: &Recorder,
    mut ask: impl FnMut() -> F,
) -> Option<T> {
    let mut pause = PAUSE_MIN;
    loop {
        match ask().await {
            Ok(value) => return Some(value),
            Err(StoreError::Dead(_) | StoreError::Closed) => return None,
            Err(error) => tracing::warn!(%error, "a bulk operation waits for the store"),
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = recorder.inner.draining.cancelled() => return None,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Does it to one task, as soon as there is room. None where it is not done because the operation or the recorder stops.
async fn act(recorder: &Recorder, operation: &Operation, hand: &InHand) -> Option<Became> {
    let mut pause = PAUSE_MIN;
    loop {
        if operation.canceling.is_cancelled() || recorder.is_draining() {
            return None;
        }
        match once(recorder, operation.action(), hand).await {
            Ok(became) => return became,
            Err(
                LaunchError::QueueFull | LaunchError::Store(StoreError::Busy | StoreError::Unavailable(_)),
            ) => {}
            Err(LaunchError::Draining | LaunchError::Store(StoreError::Dead(_) | StoreError::Closed)) => {
                return None;
            }
            Err(error @ LaunchError::UnknownHandler) => {
                return Some(Became::Failed(format!("{error}: it is not configured any more")));
            }
            Err(error @ LaunchError::Store(StoreError::Unreadable(_))) => {
                return Some(Became::Failed(error.to_string()));
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = operation.canceling.cancelled() => {}
            () = recorder.inner.draining.cancelled() => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether the task has stayed in its state since it was listed; after that its conditional write decides.
async fn once(recorder: &Recorder, action: BulkAction, hand: &InHand) -> Result<Option<Became>, LaunchError> {
    let task = recorder.status(&hand.id).await?;
    if task.is_none_or(|task| task.entered != hand.entered) {
        return Ok(Some(Became::Skipped));
    }
    let id = &hand.id;
    let moved = match action {
        BulkAction::Retry => {
            return Ok(Some(match recorder.try_retry(id.clone(), None).await? {
                Launch::Started(_) => Became::Done,
                Launch::Refused(_) => Became::Skipped,
            }));
        }
        BulkAction::Cancel => recorder.cancel(id).await?,
        BulkAction::Forget => recorder.forget(id).await?,
        BulkAction::Revoke => match recorder.revoke(id).await? {
            Moved::Done(task) if task.is_revoking() => return revoked(recorder, hand).await,
            moved => moved,
        },
    };
    Ok(Some(match moved {
        Moved::Done(_) => Became::Done,
        Moved::Refused(_) => Became::Skipped,
    }))
}

/// Waits for the end of a revoke. None where the recorder stops first: then the next start looks what came of it.
async fn revoked(recorder: &Recorder, hand: &InHand) -> Result<Option<Became>, LaunchError> {
    let task = tokio::select! {
        task = recorder.wait(&hand.id, Duration::MAX) => task?,
        () = recorder.inner.draining.cancelled() => return Ok(None),
    };
    Ok(Some(task.and_then(|task| failed_revoke(&task, hand)).unwrap_or(Became::Done)))
}

/// The failure of a revoke that has left the success standing.
fn failed_revoke(task: &Task, hand: &InHand) -> Option<Became> {
    match &task.state {
        State::Success { undo: Some(Undo::Failed(failure)), .. } if task.entered == hand.entered => {
            Some(Became::Failed(failure.message.clone()))
        }
        _ => None,
    }
}

/// Finds out what the last process has done to the tasks that it had in hand. What it has not touched stays in hand.
pub(super) async fn take_stock(recorder: &Recorder, operation: &Operation) -> Result<(), StoreError> {
    let action = operation.action();
    for hand in operation.in_hand() {
        let task = recorder.status(&hand.id).await?;
        if let Some(became) = has_become(action, task.as_deref(), &hand) {
            operation.count(&hand, became);
        }
    }
    let bulk = operation.view();
    let (number, action, done) = (bulk.number, bulk.action.as_str(), bulk.done);
    tracing::info!(number, action, done, matched = bulk.matched, "bulk operation goes on");
    Ok(())
}

fn has_become(action: BulkAction, task: Option<&Task>, hand: &InHand) -> Option<Became> {
    let Some(task) = task else {
        return Some(match action {
            BulkAction::Revoke | BulkAction::Forget => Became::Done,
            BulkAction::Retry | BulkAction::Cancel => Became::Skipped,
        });
    };
    let is_where_it_was = task.entered == hand.entered;
    let is_canceled = task.run == hand.run
        && (task.phase() == Some(Phase::Canceling)
            || task.failure().is_some_and(|failure| failure.kind == ErrorKind::Canceled));
    match action {
        BulkAction::Retry if task.run > hand.run => Some(Became::Done),
        BulkAction::Cancel if is_canceled => Some(Became::Done),
        // A revoke that was cut off may have had its effect: it is not begun again by itself.
        BulkAction::Revoke if is_where_it_was && task.revision != hand.revision => {
            Some(failed_revoke(task, hand).unwrap_or(Became::Skipped))
        }
        _ if is_where_it_was => None,
        _ => Some(Became::Skipped),
    }
}
