//! A task: what an id names. One record, one state, and the moves that are legal between states.
//!
//! Invariant: [`Task::after`] is the only place that decides whether a change is allowed; every store calls it.
//! It knows no clock, no disk and no HTTP.

mod call;
mod id;
mod input;
mod moves;
mod outcome;
mod policy;
mod reach;
mod refusal;
mod retention;
mod start;
mod trace;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::microsecond;
use serde::{Deserialize, Serialize};

pub use call::Purpose;
pub use id::{HANDLER_NAME_BYTES_MAX, HandlerName, InvalidName, TASK_ID_BYTES_MAX, TaskId};
pub use input::{Digest, Input};
pub use moves::{Change, Stamp};
pub use outcome::{Code, ErrorKind, Failure, Outcome, Output};
pub use policy::{OnCrash, Policy, Rate, Retry};
pub use reach::Reach;
pub use refusal::Refusal;
pub use retention::Retention;
pub use start::{Match, Request, Start, StartKind};
pub use trace::{InvalidTrace, Trace, TraceId};

/// How many attempts a task remembers; older ones are dropped, but for the last one in doubt of the run under way.
pub const ATTEMPTS_KEPT: usize = 20;

/// How much an attempt remembers of what its handler gave back with a failure, in bytes.
pub const ANSWER_BYTES_KEPT: usize = 1_024;

/// The record of one id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What the caller named it.
    pub id: TaskId,
    /// The handler of its runs; a task keeps the one it was first launched with.
    pub handler: HandlerName,
    /// How often it was launched; the number of the present run, and its fence.
    pub run: u32,
    /// Grows with every change of the record that callers see.
    pub revision: u64,
    /// How often a success of this id was revoked, or forgotten because of its age.
    pub revoked: u32,
    /// The store's sequence number of the change that brought it into its state: its place in a list.
    pub entered: u64,
    /// When it entered its state.
    pub since: Timestamp,
    /// Which state, and what belongs to it.
    pub state: State,
    /// What the present run was launched with.
    pub input: Input,
    /// The last attempts of all runs, oldest first, at most [`ATTEMPTS_KEPT`]; among them the last one in doubt of the
    /// last run, however many have followed it.
    pub attempts: Vec<Attempt>,
    /// The keys of the requests that launched its last runs, oldest first, at most [`ATTEMPTS_KEPT`].
    pub keys: Vec<Digest>,
    /// Whether somebody is still to be told of the outcome of its last run. Not a part of what callers see.
    pub notice_due: bool,
    /// Whether the bytes of the input, the output and the attempts were dropped because they were old.
    pub details_dropped: bool,
    /// The trace to which its last run belongs; none where the launch named none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// What is true of a task now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A run is under way.
    Working {
        /// What it is doing.
        phase: Phase,
        /// The number of its present or next attempt, from 1.
        attempt: u32,
    },
    /// A run succeeded; nothing runs again until it is revoked.
    Success {
        /// What the handler gave back.
        output: Option<Output>,
        /// Where somebody has asked to revoke it.
        undo: Option<Undo>,
    },
    /// The last run failed; it may be launched again.
    Failed {
        /// Why. In doubt if any attempt of the run was.
        failure: Failure,
        /// What the handler gave back all the same.
        output: Option<Output>,
    },
    /// Revoked or forgotten: callers find nothing. Kept so that run, revision and revocations go on counting.
    Absent,
}

/// What a working task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for its turn; no attempt of the run has begun.
    Queued,
    /// An attempt is under way, or has been until the process ended.
    Running,
    /// It waits for its next attempt; none is under way. One before may have had an effect.
    BackingOff {
        /// When the next attempt begins.
        #[serde(with = "microsecond::required")]
        next_attempt_at: Timestamp,
    },
    /// An attempt is told to end.
    Canceling,
}

/// A revoke of a success that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// The handler's action is under way.
    Revoking,
    /// The action failed; the success stands.
    Failed(Failure),
}

/// One try of the handler inside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The run it belongs to.
    pub run: u32,
    /// Its number within the run, from 1.
    pub attempt: u32,
    /// When the handler was called.
    #[serde(with = "microsecond::required")]
    pub started: Timestamp,
    /// When its outcome was known.
    #[serde(with = "microsecond::required")]
    pub ended: Timestamp,
    /// The number it ended with, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Why it failed; none for a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The beginning of what the handler gave back with a failure, as text, at most [`ANSWER_BYTES_KEPT`] of it. What a
    /// success gave back is its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// The name of a state, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// See [`State::Working`].
    Working,
    /// See [`State::Success`].
    Success,
    /// See [`State::Failed`].
    Failed,
    /// See [`State::Absent`].
    #[serde(rename = "not_found")]
    Absent,
}

impl Task {
    /// The name of its state.
    #[must_use]
    pub fn state_name(&self) -> StateName {
        match self.state {
            State::Working { .. } => StateName::Working,
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
            State::Working { .. } | State::Success { .. } | State::Absent => None,
        }
    }

    /// What the last run gave back, if it has ended and gave something.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        match &self.state {
            State::Success { output, .. } | State::Failed { output, .. } => output.as_ref(),
            State::Working { .. } | State::Absent => None,
        }
    }

    /// Whether a run is under way.
    #[must_use]
    pub fn is_working(&self) -> bool {
        matches!(self.state, State::Working { .. })
    }

    /// What it is doing, if it is working.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        match self.state {
            State::Working { phase, .. } => Some(phase),
            State::Success { .. } | State::Failed { .. } | State::Absent => None,
        }
    }

    /// The number of its present or next attempt, from 1, if it is working.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        match self.state {
            State::Working { attempt, .. } => Some(attempt),
            State::Success { .. } | State::Failed { .. } | State::Absent => None,
        }
    }

    /// Whether it is a success that is being undone.
    #[must_use]
    pub fn is_revoking(&self) -> bool {
        matches!(self.state, State::Success { undo: Some(Undo::Revoking), .. })
    }

    /// Whether it is settled, and nothing of it is under way: no undoing, no notice.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.is_working() && !self.is_revoking() && !self.notice_due
    }

    /// Whether the input of its last run had bytes that are not kept any more.
    #[must_use]
    pub fn is_input_dropped(&self) -> bool {
        self.details_dropped && self.input.size > 0
    }

    /// Whether its bytes and its attempts were dropped, alone or with the record.
    #[must_use]
    pub fn is_stripped(&self) -> bool {
        self.details_dropped || self.state == State::Absent
    }

    /// The id of its trace, for the log.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        self.trace.map(|trace| trace.id())
    }

    /// Bytes of input and output that it holds in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.input.bytes.len() + self.output().map_or(0, |output| output.bytes.len())
    }
}

impl Phase {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::BackingOff { .. } => "backing_off",
            Self::Canceling => "canceling",
        }
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
