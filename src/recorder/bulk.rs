//! Bulk operations: one action on every task that a filter finds, in the background, also over a restart.
//!
//! What matches is fixed when an operation begins: the tasks in the action's state up to the last place that its list
//! has then. A task that leaves the state and comes back has a later place, so that nothing is acted on twice, or without
//! having matched: every change is fenced by the place.
//!
//! Invariant: a task is touched only while a durable note says that it is in hand. A restart looks at those and finds
//! out which were done, so that every one is counted once (tests/it/bulk.rs).

mod engine;
mod operation;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::operation::{Matched, Operation, Progress};
use super::recovery::when_there_is_room;
use super::{Inner, Recorder};
use crate::store::{Filter, StoreError};
use crate::sync::{Mutex, MutexGuard};
use crate::task::{StateName, TaskId};

/// The most operations that run at once.
const RUNNING_MAX: usize = 16;
/// How many that have ended are remembered.
const ENDED_KEPT: usize = 100;
/// Under which keys the store notes operations; the rest is the number.
const NOTED_UNDER: &str = "bulk/";

/// What is done to each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BulkAction {
    /// Launch a failed task again, with its stored input. Waits where the queue of its handler is full.
    Retry,
    /// Stop a working task.
    Cancel,
    /// Undo a success, and wait until that is done.
    Revoke,
    /// Drop the record of a failed task.
    Forget,
}

/// A bulk operation as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Names it; grows with every operation.
    pub number: u64,
    /// What is done.
    pub action: BulkAction,
    /// To which tasks, besides being in the action's state.
    pub filter: Filter,
    /// Whether it goes on.
    pub state: BulkState,
    /// How many tasks it is for; those that matched when it began.
    pub matched: u64,
    /// Tasks that the action was done to.
    pub done: u64,
    /// Tasks that had left their state when it was their turn.
    pub skipped: u64,
    /// Tasks that the action failed for.
    pub failed: u64,
    /// The first 100 of them.
    pub failures: Vec<BulkFailure>,
    /// When it began.
    pub started: Timestamp,
    /// When the last task was through; none before.
    pub ended: Option<Timestamp>,
}

/// Whether a bulk operation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BulkState {
    /// There may be tasks to come.
    Running,
    /// Every task is through.
    Done,
    /// Somebody stopped it: no further tasks are taken in hand.
    Canceled,
}

/// A task that the action failed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkFailure {
    /// Which.
    pub id: TaskId,
    /// Why, for people.
    pub reason: String,
}

/// An operation that did not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BulkError {
    /// The recorder is stopping.
    #[error("it is stopping and begins nothing any more")]
    Draining,
    /// As many operations are running as are allowed.
    #[error("{RUNNING_MAX} operations are running already")]
    TooMany,
    /// The tasks could not be read, or the operation not be noted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BulkAction {
    /// The state from which the action leads.
    #[must_use]
    pub const fn state(self) -> StateName {
        match self {
            Self::Retry | Self::Forget => StateName::Failed,
            Self::Cancel => StateName::Working,
            Self::Revoke => StateName::Success,
        }
    }

    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Revoke => "revoke",
            Self::Forget => "forget",
        }
    }
}

impl BulkState {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Canceled => "canceled",
        }
    }
}

impl Recorder {
    /// How many tasks an operation would be for, at most `max`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn match_bulk(&self, action: BulkAction, filter: Filter, max: u64) -> Result<u64, StoreError> {
        Ok(Matched::find(self, action, filter, max).await?.count)
    }

    /// Begins to do this to every task that matches the filter now and is in the action's state (whatever states the
    /// filter names), the oldest `max` of them. Returns as soon as they are counted and the operation is durable.
    ///
    /// # Errors
    /// [`BulkError`]; nothing was begun then.
    pub async fn begin_bulk(&self, action: BulkAction, filter: Filter, max: u64) -> Result<Bulk, BulkError> {
        let recorder = self.clone();
        self.to_the_end(async move {
            // One at a time, so that the limit holds.
            let _turn = recorder.inner.operations.beginning.lock().await;
            if recorder.is_draining() {
                return Err(BulkError::Draining);
            }
            if recorder.inner.operations.running() >= RUNNING_MAX {
                return Err(BulkError::TooMany);
            }
            let started = Timestamp::now();
            let matched = Matched::find(&recorder, action, filter.clone(), max).await?;
            let number = recorder.inner.operations.next_number();
            let operation = Operation::begin(number, action, filter, started, &matched);
            operation.note(&recorder.inner.store).await?;
            let begun = operation.view();
            recorder.inner.operations.add(Arc::clone(&operation));
            recorder.inner.runs.spawn(engine::run(recorder.clone(), operation));
            Ok(begun)
        })
        .await
    }

    /// The operation with this number, while it is remembered: the last 100 that have ended are.
    #[must_use]
    pub fn bulk(&self, number: u64) -> Option<Bulk> {
        self.inner.operations.get(number).map(|operation| operation.view())
    }

    /// Every operation that is remembered, oldest first.
    #[must_use]
    pub fn bulks(&self) -> Vec<Bulk> {
        self.inner.operations.all().iter().map(|operation| operation.view()).collect()
    }

    /// Lets an operation take no further tasks in hand; those that it has end as they may. Durable on return, where the
    /// operation is as it stands then: one that has ended stays as it was. None where it is unknown.
    ///
    /// # Errors
    /// [`StoreError`]; it goes on then.
    pub async fn cancel_bulk(&self, number: u64) -> Result<Option<Bulk>, StoreError> {
        let Some(operation) = self.inner.operations.get(number) else { return Ok(None) };
        let inner = Arc::clone(&self.inner);
        self.to_the_end(async move { operation.cancel(&inner.store).await }).await.map(Some)
    }

    /// Goes on with what the last process left.
    pub(super) async fn resume_bulks(&self) -> Result<(), StoreError> {
        for (key, value) in when_there_is_room(|| self.inner.store.notes(NOTED_UNDER)).await? {
            let progress = match serde_json::from_slice::<Progress>(&value) {
                Ok(progress) => progress,
                Err(error) => {
                    tracing::error!(key, %error, "a bulk operation is left alone, because its note cannot be read");
                    continue;
                }
            };
            let operation = Operation::resume(progress);
            self.inner.operations.add(Arc::clone(&operation));
            if operation.view().ended.is_none() {
                engine::take_stock(self, &operation).await?;
                self.inner.runs.spawn(engine::run(self.clone(), operation));
            }
        }
        Ok(())
    }
}

/// The operations that are remembered.
#[derive(Debug, Default)]
pub(super) struct Operations {
    by_number: Mutex<BTreeMap<u64, Arc<Operation>>>,
    /// Held while one begins.
    beginning: tokio::sync::Mutex<()>,
}

impl Operations {
    fn get(&self, number: u64) -> Option<Arc<Operation>> {
        self.lock().get(&number).map(Arc::clone)
    }

    fn all(&self) -> Vec<Arc<Operation>> {
        self.lock().values().map(Arc::clone).collect()
    }

    fn running(&self) -> usize {
        self.lock().values().filter(|operation| operation.view().ended.is_none()).count()
    }

    fn next_number(&self) -> u64 {
        self.lock().keys().next_back().map_or(1, |last| last + 1)
    }

    fn add(&self, operation: Arc<Operation>) {
        self.lock().insert(operation.view().number, operation);
    }

    /// Takes out what is not remembered any more.
    fn forget_old(&self) -> Vec<Arc<Operation>> {
        let mut by_number = self.lock();
        let ended: Vec<_> = by_number
            .iter()
            .filter(|(_, one)| one.view().ended.is_some())
            .map(|(number, _)| *number)
            .collect();
        let excess = ended.len().saturating_sub(ENDED_KEPT);
        ended.into_iter().take(excess).filter_map(|number| by_number.remove(&number)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Operation>>> {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the notes of operations that are not remembered any more. What cannot be dropped now is dropped later.
async fn forget_old(inner: &Inner) {
    for operation in inner.operations.forget_old() {
        if let Err(error) = inner.store.put_note(&operation.key(), None).await {
            tracing::warn!(%error, "the note of an old bulk operation stays for now");
        }
    }
}
