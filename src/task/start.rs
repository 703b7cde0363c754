//! With what a run starts, and on which conditions.

use super::{Digest, HandlerName, Input, Refusal, State, Task, Trace, Undo};

/// A run that somebody wants to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// A launch, or a retry.
    pub kind: StartKind,
    /// Whether it waits for its turn first.
    pub is_queued: bool,
}

/// What a run starts from.
#[derive(Debug, Clone)]
pub enum StartKind {
    /// From any state but `working` and `success`.
    Launch(Request),
    /// From `failed` only, with the stored handler and input.
    Retry {
        /// To which trace the run belongs; none means that of the last run.
        trace: Option<Trace>,
        /// Only if it still is in the state that it entered at this place.
        if_entered: Option<u64>,
    },
}

/// A launch that somebody asks for, with the conditions under which it is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who runs it.
    pub handler: HandlerName,
    /// With what.
    pub input: Input,
    /// Names the request: the same key launches no second run of the id. The last 20 of an id are known.
    pub key: Option<Digest>,
    /// Only if the record has one of these revisions, or is there at all.
    pub if_match: Option<Match>,
    /// Only if the id is unknown.
    pub if_unknown: bool,
    /// Only if an id that is known has the same input.
    pub if_same_input: bool,
    /// To which trace the run belongs, where somebody traces it.
    pub trace: Option<Trace>,
}

/// Which records a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Any that is known.
    Any,
    /// One of these revisions.
    Revisions(Vec<u64>),
}

impl Request {
    /// A launch without conditions.
    #[must_use]
    pub fn new(handler: HandlerName, input: Input) -> Self {
        Self {
            handler,
            input,
            key: None,
            if_match: None,
            if_unknown: false,
            if_same_input: false,
            trace: None,
        }
    }
}

impl From<Request> for Start {
    /// To run at once.
    fn from(request: Request) -> Self {
        Self { kind: StartKind::Launch(request), is_queued: false }
    }
}

impl Start {
    /// Whether the run may start on this record; none is an unknown id.
    ///
    /// # Errors
    /// The [`Refusal`] that [`Task::after`] would give.
    pub fn is_allowed(&self, known: Option<&Task>) -> Result<(), Refusal> {
        match (&self.kind, known) {
            (StartKind::Launch(request), _) => request.is_allowed(known),
            (StartKind::Retry { .. }, None) => Err(Refusal::NotFound),
            (StartKind::Retry { if_entered: Some(entered), .. }, Some(task)) if task.entered != *entered => {
                Err(Refusal::Stale)
            }
            (StartKind::Retry { .. }, Some(task)) if task.failure().is_none() => Err(Refusal::NotFailed),
            (StartKind::Retry { .. }, Some(task)) if task.is_input_dropped() => Err(Refusal::InputDropped),
            (StartKind::Retry { .. }, Some(_)) => Ok(()),
        }
    }
}

impl Request {
    fn is_allowed(&self, known: Option<&Task>) -> Result<(), Refusal> {
        let Some(task) = known else {
            return if self.if_match.is_some() { Err(Refusal::Precondition) } else { Ok(()) };
        };
        let is_revision_wrong = match &self.if_match {
            Some(Match::Revisions(wanted)) => !wanted.contains(&task.revision),
            Some(Match::Any) | None => false,
        };
        if task.handler != self.handler {
            Err(Refusal::HandlerMismatch)
        } else if self.if_same_input && task.input.digest != self.input.digest {
            Err(Refusal::InputMismatch)
        } else if self.key.is_some_and(|key| task.keys.contains(&key)) {
            // Before the conditions, which the launch by this very request may have made untrue.
            Err(Refusal::SameRequest)
        } else if self.if_unknown || is_revision_wrong {
            Err(Refusal::Precondition)
        } else {
            match task.state {
                State::Working { .. } => Err(Refusal::Working),
                State::Success { undo: Some(Undo::Revoking), .. } => Err(Refusal::Revoking),
                State::Success { .. } => Err(Refusal::Success),
                State::Failed { .. } | State::Absent => Ok(()),
            }
        }
    }
}
