//! The work of a bulk operation: takes some tasks in hand, notes that, acts on them, and goes on until none are left.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::operation::{Became, InHand, Operation};
use super::{BulkAction, forget_old};
use crate::pauses::Pauses;
use crate::recorder::recovery::when_there_is_room;
use crate::recorder::{Launch, LaunchError, Recorder};
use crate::store::{Moved, StoreError};
use crate::sync::time::sleep;
use crate::task::{Change, ErrorKind, Phase, State, Task, Undo};

/// How many tasks are taken in hand at a time: a note, so an fsync, for all of them.
const IN_HAND: usize = 256;
/// How many of them are acted on at once.
const AT_ONCE: usize = 64;
/// How long it waits for a full queue or a store that cannot write, at first and at most.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(10), Duration::from_millis(250));

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
    let mut pauses = PAUSES;
    loop {
        match ask().await {
            Ok(value) => return Some(value),
            Err(StoreError::Dead(_) | StoreError::Closed) => return None,
            Err(error) => tracing::warn!(%error, "a bulk operation waits for the store"),
        }
        tokio::select! {
            () = sleep(pauses.take()) => {}
            () = recorder.inner.draining.cancelled() => return None,
        }
    }
}

/// Does it to one task, as soon as there is room. None where it is not done because the operation or the recorder stops.
async fn act(recorder: &Recorder, operation: &Operation, hand: &InHand) -> Option<Became> {
    let mut pauses = PAUSES;
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
            () = sleep(pauses.take()) => {}
            () = operation.canceling.cancelled() => {}
            () = recorder.inner.draining.cancelled() => {}
        }
    }
}

/// Looks whether the task has stayed in its state since it was listed, which spares a write; the write itself is fenced
/// by the place, because it may leave the state, and come back, in between.
async fn once(recorder: &Recorder, action: BulkAction, hand: &InHand) -> Result<Option<Became>, LaunchError> {
    let task = recorder.status(&hand.id).await?;
    if task.is_none_or(|task| task.entered != hand.entered) {
        return Ok(Some(Became::Skipped));
    }
    let (id, entered) = (&hand.id, Some(hand.entered));
    let moved = match action {
        BulkAction::Retry => {
            return Ok(Some(match recorder.try_retry(id.clone(), None, entered).await? {
                Launch::Started(_) => Became::Done,
                Launch::Refused(_) => Became::Skipped,
            }));
        }
        BulkAction::Cancel => recorder.cancel_at(id, entered).await?,
        BulkAction::Forget => recorder.inner.store.change(id, Change::Forget.fenced(entered)).await?,
        BulkAction::Revoke => match recorder.revoke_at(id, entered).await? {
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

/// Whether a revoke of the success was begun.
fn is_tried(task: &Task) -> bool {
    matches!(task.state, State::Success { undo: Some(_), .. })
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
        let task = when_there_is_room(|| recorder.status(&hand.id)).await?;
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
        // A revoke that was cut off may have had its effect: it is not begun again by itself. Without one it is the details
        // that were dropped meanwhile.
        BulkAction::Revoke if is_where_it_was && task.revision != hand.revision && is_tried(task) => {
            Some(failed_revoke(task, hand).unwrap_or(Became::Skipped))
        }
        _ if is_where_it_was => None,
        _ => Some(Became::Skipped),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::recorder::samples::{claimed, done, settled};
    use crate::store::{MemoryStore, Store};
    use crate::task::{Failure, TaskId};

    async fn changed(store: &MemoryStore, id: &TaskId, change: Change) -> Arc<Task> {
        done(store.change(id, change).await.unwrap())
    }

    /// Another run of the id, which comes to this.
    async fn run(store: &MemoryStore, id: &TaskId, failure: Option<Failure>) -> Arc<Task> {
        settled(store, claimed(store, id).await, failure).await
    }

    fn in_hand(task: &Task) -> InHand {
        InHand { id: task.id.clone(), entered: task.entered, run: task.run, revision: task.revision }
    }

    /// `Some` where the last process has dealt with it, and how.
    fn seen(action: BulkAction, task: Option<&Task>, hand: &InHand) -> Option<String> {
        has_become(action, task, hand).map(|became| match became {
            Became::Done => "done".to_owned(),
            Became::Skipped => "skipped".to_owned(),
            Became::Failed(reason) => reason,
        })
    }

    #[tokio::test]
    async fn what_a_process_has_done_to_a_task_is_seen_by_the_next_one() {
        use BulkAction::{Cancel, Forget, Retry, Revoke};
        let (store, id) = (MemoryStore::new(), "order-42".parse::<TaskId>().unwrap());
        let refused = || Some(Failure::new(ErrorKind::Refused, "nobody answered"));
        let some = |word: &str| Some(word.to_owned());

        let failed = run(&store, &id, refused()).await;
        let hand = in_hand(&failed);
        for action in [Retry, Forget] {
            assert_eq!(seen(action, Some(&failed), &hand), None, "{action:?}: not touched yet");
        }
        for (action, gone) in [(Revoke, "done"), (Forget, "done"), (Retry, "skipped"), (Cancel, "skipped")] {
            assert_eq!(seen(action, None, &hand), some(gone), "{action:?} of what is not found");
        }
        let again = run(&store, &id, refused()).await;
        assert_eq!(seen(Retry, Some(&again), &hand), some("done"));
        assert_eq!(seen(Forget, Some(&again), &hand), some("skipped"));

        let claim = claimed(&store, &id).await;
        let hand = in_hand(claim.task());
        assert_eq!(seen(Cancel, Some(claim.task()), &hand), None);
        let canceling = changed(&store, &id, Change::Cancel { is_notice_due: false }).await;
        assert_eq!(seen(Cancel, Some(&canceling), &hand), some("done"));
        let of_another_run = InHand { run: hand.run - 1, entered: 1, ..hand.clone() };
        assert_eq!(seen(Cancel, Some(&canceling), &of_another_run), some("skipped"));
        for (kind, became) in [(ErrorKind::Canceled, "done"), (ErrorKind::Refused, "skipped")] {
            let state = State::Failed { failure: Failure::new(kind, "it ended"), output: None };
            let ended = Task { state, entered: hand.entered + 9, ..(*canceling).clone() };
            assert_eq!(seen(Cancel, Some(&ended), &hand), some(became));
        }
    }

    #[tokio::test]
    async fn a_revoke_that_was_cut_off_is_not_begun_again() {
        let (store, id) = (MemoryStore::new(), "order-42".parse::<TaskId>().unwrap());
        let success = run(&store, &id, None).await;
        let hand = in_hand(&success);
        assert_eq!(seen(BulkAction::Revoke, Some(&success), &hand), None, "not touched yet");
        let revoking = changed(&store, &id, Change::BeginRevoke).await;
        assert_eq!(seen(BulkAction::Revoke, Some(&revoking), &hand), Some("skipped".to_owned()));
        let result = Err(Failure::new(ErrorKind::Refused, "nobody answered"));
        let end = Change::EndRevoke { revision: revoking.revision, result };
        let failed = changed(&store, &id, end).await;
        assert_eq!(seen(BulkAction::Revoke, Some(&failed), &hand), Some("nobody answered".to_owned()));
        // That of a success that came later is not this operation's.
        let later = InHand { entered: hand.entered + 1, ..hand };
        assert!(failed_revoke(&failed, &later).is_none());
        assert_eq!(seen(BulkAction::Revoke, Some(&failed), &later), Some("skipped".to_owned()));
    }

    #[tokio::test]
    async fn a_success_whose_details_were_dropped_in_between_stays_in_hand_of_a_revoke() {
        let (store, id) = (MemoryStore::new(), "order-42".parse::<TaskId>().unwrap());
        let success = run(&store, &id, None).await;
        let hand = in_hand(&success);
        let dropped = changed(&store, &id, Change::DropDetails { entered: success.entered }).await;
        assert_eq!(seen(BulkAction::Revoke, Some(&dropped), &hand), None, "not touched yet");
    }
}
