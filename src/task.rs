//! A task: what an id names. One record, one state, and the moves that are legal between states.
//!
//! Invariant: [`Task::after`] is the only place that decides whether a change is allowed; every store calls it.
//! It knows no clock, no disk and no HTTP.

mod id;
mod input;
mod moves;
mod outcome;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use id::{HANDLER_NAME_BYTES_MAX, HandlerName, InvalidName, TASK_ID_BYTES_MAX, TaskId};
pub use input::{Digest, Input};
pub use moves::{Change, Refusal, Stamp, Start};
pub use outcome::{Code, ErrorKind, Failure, Outcome, Output};

/// How many attempts a task remembers; older ones are dropped.
pub const ATTEMPTS_KEPT: usize = 20;

/// The record of one id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What the caller named it.
    pub id: TaskId,
    /// The handler of its runs; a task keeps the one it was first launched with.
    pub handler: HandlerName,
    /// How often it was launched; the number of the present run, and its fence.
    pub run: u32,
    /// Grows with every change of the record.
    pub revision: u64,
    /// How often a success of this id was revoked.
    pub revoked: u32,
    /// The store's sequence number of the change that brought it into its state: its place in a list.
    pub entered: u64,
    /// When it entered its state.
    pub since: Timestamp,
    /// Which state, and what belongs to it.
    pub state: State,
    /// What the present run was launched with.
    pub input: Input,
    /// The last attempts of all runs, oldest first, at most [`ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
}

/// What is true of a task now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A run is under way.
    Working,
    /// A run succeeded; nothing runs again until it is revoked.
    Success {
        /// What the handler gave back.
        output: Option<Output>,
    },
    /// The last run failed; it may be launched again.
    Failed {
        /// Why.
        failure: Failure,
        /// What the handler gave back all the same.
        output: Option<Output>,
    },
    /// Revoked or forgotten: callers find nothing. Kept so that run, revision and revocations go on counting.
    Absent,
}

/// One try of the handler inside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The run it belongs to.
    pub run: u32,
    /// Its number within the run, from 1.
    pub attempt: u32,
    /// When the handler was called.
    pub started: Timestamp,
    /// When its outcome was known.
    pub ended: Timestamp,
    /// The number it ended with, where there was one.
    pub code: Option<Code>,
    /// Why it failed; none for a success.
    pub failure: Option<Failure>,
}

/// The name of a state, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateName {
    /// See [`State::Working`].
    Working,
    /// See [`State::Success`].
    Success,
    /// See [`State::Failed`].
    Failed,
    /// See [`State::Absent`].
    Absent,
}

impl Task {
    /// The name of its state.
    #[must_use]
    pub fn state_name(&self) -> StateName {
        match self.state {
            State::Working => StateName::Working,
            State::Success { .. } => StateName::Success,
            State::Failed { .. } => StateName::Failed,
            State::Absent => StateName::Absent,
        }
    }

    /// Why it failed, if that is its state.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::Failed { failure, .. } => Some(failure),
            State::Working | State::Success { .. } | State::Absent => None,
        }
    }

    /// What the last run gave back, if it has ended and gave something.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        match &self.state {
            State::Success { output } | State::Failed { output, .. } => output.as_ref(),
            State::Working | State::Absent => None,
        }
    }

    /// Whether a run is under way.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.state == State::Working
    }

    /// Bytes of input and output that it holds in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.input.bytes.len() + self.output().map_or(0, |output| output.bytes.len())
    }
}

impl StateName {
    /// The states that callers see.
    pub const VISIBLE: [Self; 3] = [Self::Working, Self::Success, Self::Failed];

    /// The word in answers, filters and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Absent => "not_found",
        }
    }
}
