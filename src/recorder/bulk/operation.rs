//! One bulk operation: what it is for, how far it is, and its note in the store.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Bulk, BulkAction, BulkFailure, BulkState, NOTED_UNDER};
use crate::recorder::Recorder;
use crate::store::{Filter, Order, Query, Store, StoreError};
use crate::sync::{Mutex, MutexGuard};
use crate::task::{Task, TaskId};

/// How many failures are told by id and reason.
const FAILURES_KEPT: usize = 100;
/// How many tasks are counted at a time.
const COUNTED_AT_ONCE: usize = 1_000;

#[derive(Debug)]
pub(super) struct Operation {
    progress: Mutex<Progress>,
    /// Held while the progress is written, so that the last note is the newest.
    noting: tokio::sync::Mutex<()>,
    pub(super) canceling: CancellationToken,
}

/// What is noted of an operation. Each task in hand is in one of the counts or in `in_hand`, never in both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Progress {
    bulk: Bulk,
    /// The place of the last task that it is for.
    last: u64,
    /// The place up to which tasks were taken in hand.
    after: Option<u64>,
    in_hand: Vec<InHand>,
}

/// A task as it was when it was taken in hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct InHand {
    pub(super) id: TaskId,
    pub(super) entered: u64,
    pub(super) run: u32,
    pub(super) revision: u64,
}

/// What became of a task in hand.
#[derive(Debug)]
pub(super) enum Became {
    Done,
    Skipped,
    Failed(String),
}

/// The tasks that an operation is for.
#[derive(Debug, Default)]
pub(super) struct Matched {
    pub(super) count: u64,
    last: u64,
}

impl Matched {
    /// Counts the oldest `max` tasks that match now.
    pub(super) async fn find(
        recorder: &Recorder,
        action: BulkAction,
        filter: Filter,
        max: u64,
    ) -> Result<Self, StoreError> {
        let filter = narrowed(action, filter);
        // What comes into the state while this counts is not waited for.
        let Some(end) = recorder.newest(&filter.states).await? else { return Ok(Self::default()) };
        let mut matched = Self::default();
        let mut query = Query { filter, order: Order::Ascending, after: None, limit: COUNTED_AT_ONCE };
        loop {
            let page = recorder.list(&query).await?;
            for task in page.tasks.iter().take_while(|task| task.entered <= end) {
                if matched.count == max {
                    return Ok(matched);
                }
                matched = Self { count: matched.count + 1, last: task.entered };
            }
            match page.next {
                Some(place) if place < end => query.after = Some(place),
                Some(_) | None => return Ok(matched),
            }
        }
    }
}

/// Only tasks in the state from which the action leads.
fn narrowed(action: BulkAction, filter: Filter) -> Filter {
    Filter { states: vec![action.state()], ..filter }
}

impl Operation {
    pub(super) fn begin(
        number: u64,
        action: BulkAction,
        filter: Filter,
        started: Timestamp,
        matched: &Matched,
    ) -> Arc<Self> {
        let bulk = Bulk {
            number,
            action,
            filter,
            state: BulkState::Running,
            matched: matched.count,
            done: 0,
            skipped: 0,
            failed: 0,
            failures: Vec::new(),
            started,
            ended: None,
        };
        Self::resume(Progress { bulk, last: matched.last, after: None, in_hand: Vec::new() })
    }

    pub(super) fn resume(progress: Progress) -> Arc<Self> {
        let canceling = CancellationToken::new();
        if progress.bulk.state == BulkState::Canceled {
            canceling.cancel();
        }
        Arc::new(Self { progress: Mutex::new(progress), noting: tokio::sync::Mutex::default(), canceling })
    }

    pub(super) fn view(&self) -> Bulk {
        self.lock().bulk.clone()
    }

    pub(super) fn action(&self) -> BulkAction {
        self.lock().bulk.action
    }

    /// The key of its note. The order of keys is that of the numbers.
    pub(super) fn key(&self) -> String {
        format!("{NOTED_UNDER}{:020}", self.lock().bulk.number)
    }

    /// What lists the tasks that come next; none where all were taken in hand.
    pub(super) fn query(&self, limit: usize) -> Option<Query> {
        let progress = self.lock();
        let Progress { bulk, last, after, .. } = &*progress;
        let filter = narrowed(bulk.action, bulk.filter.clone());
        let is_over = bulk.matched == 0 || after.is_some_and(|after| after >= *last);
        (!is_over).then_some(Query { filter, order: Order::Ascending, after: *after, limit })
    }

    /// Takes tasks in hand, up to the last one that it is for. They may be touched once that is noted.
    pub(super) fn take(&self, tasks: &[Arc<Task>], next: Option<u64>) {
        let mut progress = self.lock();
        let last = progress.last;
        progress.after = Some(next.unwrap_or(last));
        progress.in_hand.extend(tasks.iter().filter(|task| task.entered <= last).map(InHand::of));
    }

    pub(super) fn in_hand(&self) -> Vec<InHand> {
        self.lock().in_hand.clone()
    }

    /// Counts a task, which is not in hand any more.
    pub(super) fn count(&self, hand: &InHand, became: Became) {
        let mut progress = self.lock();
        let Some(at) = progress.in_hand.iter().position(|one| one.entered == hand.entered) else { return };
        progress.in_hand.swap_remove(at);
        let bulk = &mut progress.bulk;
        match became {
            Became::Done => bulk.done += 1,
            Became::Skipped => bulk.skipped += 1,
            Became::Failed(reason) => {
                bulk.failed += 1;
                if bulk.failures.len() < FAILURES_KEPT {
                    bulk.failures.push(BulkFailure { id: hand.id.clone(), reason });
                }
            }
        }
    }

    /// Writes its note. Durable on return.
    pub(super) async fn note(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let _turn = self.noting.lock().await;
        let progress = self.lock().clone();
        self.write(store, &progress).await
    }

    /// See [`Recorder::cancel_bulk`].
    pub(super) async fn cancel(&self, store: &Arc<dyn Store>) -> Result<Bulk, StoreError> {
        let _turn = self.noting.lock().await;
        let mut progress = self.lock().clone();
        if progress.bulk.state == BulkState::Running {
            progress.bulk.state = BulkState::Canceled;
            self.write(store, &progress).await?;
            self.lock().bulk.state = BulkState::Canceled;
            self.canceling.cancel();
        }
        Ok(self.view())
    }

    /// Notes that it has ended, and how.
    pub(super) async fn end(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let _turn = self.noting.lock().await;
        let mut progress = self.lock().clone();
        let bulk = &mut progress.bulk;
        if bulk.state == BulkState::Running {
            bulk.state = BulkState::Done;
            // Those that had left the state before they were listed.
            bulk.skipped = bulk.matched.saturating_sub(bulk.done + bulk.failed);
        }
        progress.in_hand.clear();
        bulk.ended = Some(Timestamp::now());
        self.write(store, &progress).await?;
        *self.lock() = progress;
        Ok(())
    }

    async fn write(&self, store: &Arc<dyn Store>, progress: &Progress) -> Result<(), StoreError> {
        let value =
            serde_json::to_vec(progress).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        store.put_note(&self.key(), Some(value)).await
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InHand {
    fn of(task: &Arc<Task>) -> Self {
        Self { id: task.id.clone(), entered: task.entered, run: task.run, revision: task.revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(count: u64, last: u64) -> Arc<Operation> {
        let matched = Matched { count, last };
        Operation::begin(1, BulkAction::Forget, Filter::default(), Timestamp::UNIX_EPOCH, &matched)
    }

    fn hand(entered: u64) -> InHand {
        InHand { id: format!("t-{entered}").parse().unwrap(), entered, run: 1, revision: 2 }
    }

    #[test]
    fn every_task_is_counted_once_and_the_first_hundred_failures_are_told() {
        let operation = begun(103, 103);
        operation.lock().in_hand.extend((1..=103).map(hand));
        for entered in 1..=101 {
            operation.count(&hand(entered), Became::Failed("because".to_owned()));
        }
        operation.count(&hand(102), Became::Done);
        operation.count(&hand(103), Became::Skipped);
        operation.count(&hand(1), Became::Done);
        let bulk = operation.view();
        assert_eq!((bulk.done, bulk.skipped, bulk.failed), (1, 1, 101));
        let told: Vec<_> = bulk.failures.iter().map(|failure| failure.id.to_string()).collect();
        assert_eq!(told, (1..=100).map(|entered| format!("t-{entered}")).collect::<Vec<_>>());
        assert!(operation.in_hand().is_empty());
    }

    #[test]
    fn it_lists_on_up_to_the_last_task_that_it_is_for() {
        assert!(begun(0, 0).query(9).is_none());
        let operation = begun(2, 7);
        let after = || operation.query(9).map(|query| query.after);
        assert_eq!(after(), Some(None));
        operation.take(&[], Some(6));
        assert_eq!(after(), Some(Some(6)));
        operation.take(&[], Some(7));
        assert_eq!(after(), None);
        let operation = begun(2, 7);
        operation.take(&[], None);
        assert!(operation.query(9).is_none(), "there was no next page");
    }
}
