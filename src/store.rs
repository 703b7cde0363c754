//! Where records live. A [`Store`] decides every move of every id, one at a time, and makes it last.
//!
//! Invariant: a method that moves a record has made the move durable when it returns `Ok`, and has changed nothing
//! that a reader can see when it returns `Err` (tests/it/conformance.rs runs against every store).
//!
//! Only a store makes a [`Claim`]; settling uses it up.

mod embedded;
mod feed;
mod memory;
mod query;
#[cfg(test)]
mod samples;
mod table;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::task::{Attempt, Change, HandlerName, Output, Refusal, Start, State, StateName, Task, TaskId};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use embedded::fuzzing;
pub use embedded::{CopyError, EmbeddedOptions, EmbeddedStore, OpenError, Snapshot};
pub use feed::{Batch, EVENTS_KEPT, Event, Feed, Gap};
pub use memory::MemoryStore;
pub use query::{Filter, Order, Page, Query};
pub use tally::StoreTally;

/// Keeps one record an id and moves it by one conditional write at a time.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes a change if it is legal. This is what every move comes down to; runs are claimed and settled by
    /// [`Store::claim`] and [`Store::settle`], which keep the claim.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be written; nothing has changed then.
    async fn change(&self, id: &TaskId, change: Change) -> Result<Moved, StoreError>;

    /// Takes the id for a run. Of many claims of one id at the same moment exactly one is `Started`; it is durable
    /// before this returns, and no other claim of the id starts until it is settled.
    ///
    /// # Errors
    /// [`StoreError`] when the claim could not be written; nothing has started then.
    async fn claim(&self, id: &TaskId, start: Start) -> Result<Claimed, StoreError> {
        Ok(match self.change(id, Change::Claim(start)).await? {
            Moved::Done(task) => Claimed::Started(Claim::new(task)),
            Moved::Refused(refused) => Claimed::Refused(refused),
        })
    }

    /// Records what the run came to, as its last attempt says. `Refused` with [`Refusal::Stale`] when the run is over
    /// already: a late worker changes nothing.
    ///
    /// # Errors
    /// [`Unsettled`] gives everything back, to be settled later.
    async fn settle(
        &self,
        claim: Claim,
        attempt: Attempt,
        output: Option<Output>,
    ) -> Result<Moved, Box<Unsettled>> {
        let run = claim.task.run;
        let change = Change::Settle {
            run,
            attempt: attempt.clone(),
            output: output.clone(),
            is_notice_due: claim.is_notice_due,
        };
        match self.change(&claim.task.id, change).await {
            Ok(moved) => Ok(moved),
            Err(error) => Err(Box::new(Unsettled { claim, attempt, output, error })),
        }
    }

    /// The record of an id, with its input and output. Linearizable: never older than any state that anybody has
    /// seen of it.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be read.
    async fn get(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError>;

    /// One page of the tasks that match, as they are at one moment, without the bytes of input and output.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be read.
    async fn list(&self, query: &Query) -> Result<Page, StoreError>;

    /// How many tasks are in each state, at one moment.
    fn counts(&self) -> Counts;

    /// What nobody works on any more, because the process that did has ended. To be called once, before anything else
    /// is launched.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be read.
    async fn recover(&self) -> Result<Recovered, StoreError>;

    /// Keeps a small value under a key, in place of an earlier one, or drops it: what has to outlive a restart and is
    /// no task. Durable when this returns; of several at the same moment under one key the last one holds.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be written; nothing has changed then.
    async fn put_note(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), StoreError>;

    /// The notes whose keys begin so, in the order of their keys. Meant for the start: it takes a turn of the writer.
    ///
    /// # Errors
    /// [`StoreError`] when they could not be read.
    async fn notes(&self, prefix: &str) -> Result<Vec<Note>, StoreError>;

    /// Whether it can write, now and whenever that changes.
    fn health(&self) -> watch::Receiver<Health>;

    /// The changes as they happen. What it gives is durable; nothing is given twice or out of order.
    fn events(&self) -> Feed;

    /// What is counted of its commits; none where it makes none.
    fn tally(&self) -> Option<&StoreTally> {
        None
    }

    /// Writes what is queued and lets go of the storage. Every later write answers [`StoreError::Closed`].
    async fn close(&self);
}

/// What [`Store::put_note`] keeps: a key and its value.
pub type Note = (String, Vec<u8>);

/// The right to settle one run. Made by a store only.
#[derive(Debug)]
#[must_use = "a claim that is not settled leaves its task working"]
pub struct Claim {
    task: Arc<Task>,
    is_notice_due: bool,
}

impl Claim {
    fn new(task: Arc<Task>) -> Self {
        Self { task, is_notice_due: false }
    }

    /// The task as it was claimed.
    #[must_use]
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The same, but settling it also records whether somebody is to be told of the outcome.
    pub fn with_notice(self, is_notice_due: bool) -> Self {
        Self { is_notice_due, ..self }
    }
}

/// What became of a claim.
#[derive(Debug)]
#[must_use = "a claim that is not settled leaves its task working"]
pub enum Claimed {
    /// The run is the caller's.
    Started(Claim),
    /// Nothing has changed.
    Refused(Refused),
}

/// What became of any other move.
#[derive(Debug)]
pub enum Moved {
    /// The record as it is now.
    Done(Arc<Task>),
    /// Nothing has changed.
    Refused(Refused),
}

/// What a process has left.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The claims of all runs that are not settled, in the order of their launches.
    pub claims: Vec<Claim>,
    /// The successes whose revoke was under way.
    pub revoking: Vec<Arc<Task>>,
    /// The tasks of whose outcome somebody is still to be told, oldest first.
    pub notices: Vec<Arc<Task>>,
}

impl Recovered {
    fn of(table: &table::Table) -> Self {
        let claims = table.working().into_iter().map(Claim::new).collect();
        Self { claims, revoking: table.revoking(), notices: table.notices_due() }
    }
}

/// A move that is not legal now.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// The record that stands in the way; none where the id is unknown.
    pub task: Option<Arc<Task>>,
}

impl Refused {
    fn new(reason: Refusal, current: Option<Arc<Task>>) -> Self {
        Self { reason, task: current.filter(|task| task.state != State::Absent) }
    }
}

/// A run whose outcome could not be written.
#[derive(Debug)]
pub struct Unsettled {
    /// To settle it with, later.
    pub claim: Claim,
    /// Its last attempt.
    pub attempt: Attempt,
    /// What its handler gave back.
    pub output: Option<Output>,
    /// Why not now.
    pub error: StoreError,
}

/// A store that did not do what it was asked. Each variant is a fact that a caller can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed; the same call may succeed later (no space left, a disk that refuses writes).
    #[error("the store cannot write now: {0}")]
    Unavailable(String),
    /// More changes wait for a commit than the config allows; nothing was changed.
    #[error("too many changes wait for the disk")]
    Busy,
    /// The disk did not confirm a write. What it holds is unknown until it is opened again, so nothing is tried again.
    #[error("the store has stopped for good: {0}")]
    Dead(String),
    /// [`Store::close`] was called.
    #[error("the store is closed")]
    Closed,
    /// A record could not be read.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
}

/// Whether a store can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Writable,
    /// Not now; it tries again by itself.
    Unavailable(String),
    /// Not until it is opened again.
    Dead(String),
}

/// How many tasks are in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By handler.
    pub by_handler: BTreeMap<HandlerName, StateCounts>,
    /// The task that has been working for longest.
    pub oldest_working: Option<Arc<Task>>,
}

/// How many tasks are in each visible state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// Tasks with a run under way.
    pub working: u64,
    /// Tasks that have succeeded.
    pub success: u64,
    /// Tasks whose last run failed.
    pub failed: u64,
}

/// The time, in the microseconds that rows and answers have: a record says the same from memory and from disk.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

impl Counts {
    /// Over all handlers.
    #[must_use]
    pub fn total(&self) -> StateCounts {
        self.by_handler.values().fold(StateCounts::default(), |sum, one| StateCounts {
            working: sum.working + one.working,
            success: sum.success + one.success,
            failed: sum.failed + one.failed,
        })
    }
}

impl StateCounts {
    /// The count of this state; none for one that callers do not see.
    fn of(&mut self, state: StateName) -> Option<&mut u64> {
        match state {
            StateName::Working => Some(&mut self.working),
            StateName::Success => Some(&mut self.success),
            StateName::Failed => Some(&mut self.failed),
            StateName::Absent => None,
        }
    }
}
