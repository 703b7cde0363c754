//! The legal moves: what a change makes of a task, or why it is refused.
//!
//! | state     | launch  | retry   | settle            | revoke | forget |
//! |-----------|---------|---------|-------------------|--------|--------|
//! | not found | working | -       | -                 | -      | -      |
//! | working   | -       | -       | success or failed | -      | -      |
//! | success   | -       | -       | -                 | absent | -      |
//! | failed    | working | working | -                 | -      | absent |
//!
//! Invariant: nothing leaves `Success` but a revoke, and nothing is `Working` twice (tests/it/walk.rs).

use jiff::Timestamp;

use super::{ATTEMPTS_KEPT, Attempt, HandlerName, Input, Output, State, Task, TaskId};

/// A move that somebody asks for.
#[derive(Debug, Clone)]
pub enum Change {
    /// Start a run.
    Claim(Start),
    /// Record what the run with this number came to.
    Settle {
        /// The fence: only the present run may settle.
        run: u32,
        /// Its last attempt; a failure in it is the run's.
        attempt: Attempt,
        /// What the handler gave back.
        output: Option<Output>,
    },
    /// Undo a success: the id is not found afterwards.
    Revoke,
    /// Drop a failed record: the id is not found afterwards.
    Forget,
}

/// With what a run starts.
#[derive(Debug, Clone)]
pub enum Start {
    /// This handler and input, unless the id is working or has succeeded.
    Launch {
        /// Who runs it.
        handler: HandlerName,
        /// With what.
        input: Input,
    },
    /// The stored handler and input, from `failed` only.
    Retry,
}

/// When a change happens: its place among all changes, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The store's sequence number.
    pub seq: u64,
    /// The wall clock.
    pub at: Timestamp,
}

/// Why a change is not allowed. An answer, not an error: the record stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A launch of an id that is working.
    #[error("it is working")]
    Working,
    /// A launch of an id that has succeeded.
    #[error("it has succeeded")]
    Success,
    /// A launch with another handler than the one the id has.
    #[error("it belongs to another handler")]
    HandlerMismatch,
    /// The id is unknown.
    #[error("it is not found")]
    NotFound,
    /// A retry or forget of an id that has not failed.
    #[error("it has not failed")]
    NotFailed,
    /// A revoke of an id that has not succeeded.
    #[error("it has not succeeded")]
    NotSuccess,
    /// A settle of a run that is not the present one.
    #[error("the run is over")]
    Stale,
}

impl Task {
    /// What `change` makes of `current`, or why not. The whole contract on one id is here.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing has changed then.
    pub fn after(current: Option<&Self>, id: &TaskId, change: Change, stamp: Stamp) -> Result<Self, Refusal> {
        let known = current.filter(|task| task.state != State::Absent);
        match change {
            Change::Claim(start) => {
                Self::may_claim(known, &start)?;
                let (handler, input) = match (start, known) {
                    (Start::Launch { handler, input }, _) => (handler, input),
                    (Start::Retry, Some(task)) => (task.handler.clone(), task.input.clone()),
                    (Start::Retry, None) => return Err(Refusal::NotFound),
                };
                Ok(Self::launched(current, id, handler, input, stamp))
            }
            Change::Settle { run, attempt, output } => {
                let task = known.filter(|task| task.is_working() && task.run == run).ok_or(Refusal::Stale)?;
                Ok(task.settled(attempt, output, stamp))
            }
            Change::Revoke => match known.ok_or(Refusal::NotFound)? {
                task @ Self { state: State::Success { .. }, .. } => {
                    Ok(Self { revoked: task.revoked + 1, ..task.absent(stamp) })
                }
                _ => Err(Refusal::NotSuccess),
            },
            Change::Forget => match known.ok_or(Refusal::NotFound)? {
                task @ Self { state: State::Failed { .. }, .. } => Ok(task.absent(stamp)),
                _ => Err(Refusal::NotFailed),
            },
        }
    }

    /// Whether a run may start on this record; `None` is an unknown id.
    ///
    /// # Errors
    /// The [`Refusal`] that [`Task::after`] would give.
    pub fn may_claim(known: Option<&Self>, start: &Start) -> Result<(), Refusal> {
        match (start, known) {
            (Start::Launch { .. }, None) => Ok(()),
            (Start::Launch { handler, .. }, Some(task)) if task.handler != *handler => {
                Err(Refusal::HandlerMismatch)
            }
            (Start::Launch { .. }, Some(task)) => match task.state {
                State::Working => Err(Refusal::Working),
                State::Success { .. } => Err(Refusal::Success),
                State::Failed { .. } | State::Absent => Ok(()),
            },
            (Start::Retry, None) => Err(Refusal::NotFound),
            (Start::Retry, Some(task)) => task.failure().map(|_| ()).ok_or(Refusal::NotFailed),
        }
    }

    fn launched(
        current: Option<&Self>,
        id: &TaskId,
        handler: HandlerName,
        input: Input,
        stamp: Stamp,
    ) -> Self {
        Self {
            id: current.map_or_else(|| id.clone(), |task| task.id.clone()),
            handler,
            run: current.map_or(0, |task| task.run) + 1,
            revision: current.map_or(0, |task| task.revision) + 1,
            revoked: current.map_or(0, |task| task.revoked),
            entered: stamp.seq,
            since: stamp.at,
            state: State::Working,
            input,
            attempts: current.map_or_else(Vec::new, |task| task.attempts.clone()),
        }
    }

    fn settled(&self, attempt: Attempt, output: Option<Output>, stamp: Stamp) -> Self {
        let state = match attempt.failure.clone() {
            None => State::Success { output },
            Some(failure) => State::Failed { failure, output },
        };
        let mut attempts = self.attempts.clone();
        attempts.push(attempt);
        let excess = attempts.len().saturating_sub(ATTEMPTS_KEPT);
        attempts.drain(..excess);
        self.moved(state, attempts, self.input.clone(), stamp)
    }

    /// The mark that is left of a task: its numbers, without input, output or attempts.
    fn absent(&self, stamp: Stamp) -> Self {
        self.moved(State::Absent, Vec::new(), Input::empty(), stamp)
    }

    fn moved(&self, state: State, attempts: Vec<Attempt>, input: Input, stamp: Stamp) -> Self {
        Self {
            id: self.id.clone(),
            handler: self.handler.clone(),
            run: self.run,
            revision: self.revision + 1,
            revoked: self.revoked,
            entered: stamp.seq,
            since: stamp.at,
            state,
            input,
            attempts,
        }
    }
}
