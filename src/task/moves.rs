//! The legal moves: what a change makes of a task, or why it is refused.
//!
//! | state            | launch  | retry   | begin, back off | settle            | cancel             | revoke           | forget | drop details | expire |
//! |------------------|---------|---------|-----------------|-------------------|--------------------|------------------|--------|--------------|--------|
//! | not found        | working | -       | -               | -                 | -                  | -                | -      | -            | -      |
//! | working          | -       | -       | working         | success or failed | failed, or is told | -                | -      | -            | -      |
//! | success          | -       | -       | -               | -                 | -                  | revoking, absent | -      | success      | absent |
//! | success revoking | -       | -       | -               | -                 | -                  | absent, success  | -      | -            | -      |
//! | failed           | working | working | -               | -                 | -                  | -                | absent | failed       | absent |
//!
//! `EndNotice` changes no state and no revision: it takes back that a notice is due, as what leaves the state does.
//! `Import` takes in a record of another store, in any state, where nothing was ever known of the id.
//! A failed task whose input was dropped is not retried; it is launched again with its input.
//!
//! Invariant: nothing leaves `Success` but a revoke or, where the config says so, its age; and nothing is `Working` twice
//! (tests/it/walk.rs).

use jiff::Timestamp;

use super::start::{Request, Start, StartKind};
use super::{
    ATTEMPTS_KEPT, Attempt, ErrorKind, Failure, Input, Output, Phase, Refusal, State, StateName, Task,
    TaskId, Undo,
};

/// A move that somebody asks for.
#[derive(Debug, Clone)]
pub enum Change {
    /// Start a run.
    Claim(Start),
    /// Begin an attempt of the run with this number, which was queued or backing off.
    Begin {
        /// The fence: only the present run.
        run: u32,
    },
    /// Record an attempt that is to be followed by another one.
    BackOff {
        /// The fence: only the present run.
        run: u32,
        /// What it came to.
        attempt: Attempt,
        /// When the next one begins.
        next_attempt_at: Timestamp,
    },
    /// Record what the run with this number came to.
    Settle {
        /// The fence: only the present run may settle.
        run: u32,
        /// Its last attempt; a failure in it is the run's, in doubt also if an earlier one was.
        attempt: Attempt,
        /// What the handler gave back.
        output: Option<Output>,
        /// Whether somebody is to be told of it.
        is_notice_due: bool,
    },
    /// The outcome of the run with this number was told, or will not be told any more. Callers see no change, and the
    /// revision stays.
    EndNotice {
        /// The fence: only the outcome of the last run.
        run: u32,
    },
    /// Stop a run: at once where nothing is under way, otherwise it is told to end.
    Cancel {
        /// Whether somebody is to be told of the outcome, if it is stopped at once.
        is_notice_due: bool,
    },
    /// Undo a success at once: the id is not found afterwards.
    Revoke,
    /// Begin to undo a success with an action of its handler.
    BeginRevoke,
    /// Record what the action came to.
    EndRevoke {
        /// The fence: the revision that [`Change::BeginRevoke`] made.
        revision: u64,
        /// Whether the success is undone now, or why not.
        result: Result<(), Failure>,
    },
    /// Drop a failed record: the id is not found afterwards.
    Forget,
    /// Drop the bytes of the input, the output and the attempts of a settled task; its state and its place stay.
    DropDetails {
        /// The fence: only if it still is in the state that it entered at this place.
        entered: u64,
    },
    /// Take in the record that another store had of the id, as it was there but for its place. Only where nothing was
    /// ever known of the id.
    Import(Box<Task>),
    /// Drop a settled record because of its age: the id is not found afterwards.
    Expire {
        /// The fence: only if it still is in the state that it entered at this place.
        entered: u64,
    },
    /// A cancel, a revoke or a forget, with a fence. A claim has its conditions in its [`Start`].
    Fenced {
        /// The fence: only if it still is in the state that it entered at this place.
        entered: u64,
        /// Which.
        change: Box<Self>,
    },
}

impl Change {
    /// The same, but where a place is given only if the task still is in the state that it entered there.
    #[must_use]
    pub fn fenced(self, entered: Option<u64>) -> Self {
        match entered {
            Some(entered) => Self::Fenced { entered, change: Box::new(self) },
            None => self,
        }
    }
}

/// When a change happens: its place among all changes, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The store's sequence number.
    pub seq: u64,
    /// The wall clock.
    pub at: Timestamp,
}

impl Task {
    /// What `change` makes of `current`, or why not. The whole contract on one id is here.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing has changed then.
    pub fn after(current: Option<&Self>, id: &TaskId, change: Change, stamp: Stamp) -> Result<Self, Refusal> {
        let known = current.filter(|task| task.state != State::Absent);
        let of_run = |run| known.filter(|task| task.run == run && task.is_working()).ok_or(Refusal::Stale);
        match change {
            Change::Claim(start) => {
                start.is_allowed(known)?;
                Self::claimed(current, id, start, stamp)
            }
            Change::Begin { run } => of_run(run)?.begun(),
            Change::BackOff { run, attempt, next_attempt_at } => {
                of_run(run)?.backed_off(attempt, next_attempt_at)
            }
            Change::Settle { run, attempt, output, is_notice_due } => {
                Ok(of_run(run)?.settled(attempt, output, stamp).with_notice(is_notice_due))
            }
            Change::EndNotice { run } => {
                let task = known.filter(|task| task.run == run && task.notice_due);
                Ok(task.ok_or(Refusal::Stale)?.clone().with_notice(false))
            }
            Change::Cancel { is_notice_due } => {
                known.ok_or(Refusal::NotFound)?.canceled(is_notice_due, stamp)
            }
            Change::Forget => match known.ok_or(Refusal::NotFound)? {
                task @ Self { state: State::Failed { .. }, .. } => Ok(task.absent(stamp)),
                _ => Err(Refusal::NotFailed),
            },
            Change::Revoke => Ok(known.ok_or(Refusal::NotFound)?.revocable()?.revoked(stamp)),
            Change::BeginRevoke => {
                Ok(known.ok_or(Refusal::NotFound)?.revocable()?.with_undo(Some(Undo::Revoking)))
            }
            Change::DropDetails { entered } => {
                let task = known.ok_or(Refusal::NotFound)?.at_rest_since(entered)?;
                if task.details_dropped { Err(Refusal::DetailsDropped) } else { Ok(task.without_details()) }
            }
            Change::Expire { entered } => {
                let task = known.ok_or(Refusal::NotFound)?.at_rest_since(entered)?;
                // What comes after a success that is forgotten is another effect, with an id of its own at the receiver.
                let is_success = task.state_name() == StateName::Success;
                Ok(if is_success { task.revoked(stamp) } else { task.absent(stamp) })
            }
            Change::Fenced { entered, change } => {
                known.filter(|task| task.entered == entered).ok_or(Refusal::Stale)?;
                Self::after(current, id, *change, stamp)
            }
            Change::Import(task) => match current {
                None => Ok(Self { id: id.clone(), entered: stamp.seq, ..*task }),
                Some(known) if *known == (Self { entered: known.entered, ..*task }) => {
                    Err(Refusal::SameRequest)
                }
                Some(_) => Err(Refusal::Precondition),
            },
            Change::EndRevoke { revision, result } => {
                let task = known.filter(|task| task.is_revoking() && task.revision == revision);
                let task = task.ok_or(Refusal::Stale)?;
                Ok(match result {
                    Ok(()) => task.revoked(stamp),
                    Err(failure) => task.with_undo(Some(Undo::Failed(failure))),
                })
            }
        }
    }

    fn claimed(current: Option<&Self>, id: &TaskId, start: Start, stamp: Stamp) -> Result<Self, Refusal> {
        let mut keys = current.map_or_else(Vec::new, |task| task.keys.clone());
        let (handler, input, trace) = match (start.kind, current) {
            (StartKind::Launch(Request { handler, input, key, trace, .. }), _) => {
                keys.extend(key);
                (handler, input, trace)
            }
            (StartKind::Retry { trace, .. }, Some(task)) => {
                (task.handler.clone(), task.input.clone(), trace.or(task.trace))
            }
            (StartKind::Retry { .. }, None) => return Err(Refusal::NotFound),
        };
        let excess = keys.len().saturating_sub(ATTEMPTS_KEPT);
        keys.drain(..excess);
        let phase = if start.is_queued { Phase::Queued } else { Phase::Running };
        Ok(Self {
            id: current.map_or_else(|| id.clone(), |task| task.id.clone()),
            handler,
            run: current.map_or(0, |task| task.run) + 1,
            revision: current.map_or(0, |task| task.revision) + 1,
            revoked: current.map_or(0, |task| task.revoked),
            entered: stamp.seq,
            since: stamp.at,
            state: State::Working { phase, attempt: 1 },
            input,
            attempts: current.map_or_else(Vec::new, |task| task.attempts.clone()),
            keys,
            notice_due: false,
            details_dropped: false,
            trace,
        })
    }

    fn begun(&self) -> Result<Self, Refusal> {
        match self.state {
            State::Working { phase: Phase::Queued | Phase::BackingOff { .. }, attempt } => {
                Ok(self.within(State::Working { phase: Phase::Running, attempt }))
            }
            State::Working { phase: Phase::Canceling, .. } => Err(Refusal::Canceling),
            _ => Err(Refusal::Stale),
        }
    }

    fn backed_off(&self, attempt: Attempt, next_attempt_at: Timestamp) -> Result<Self, Refusal> {
        match self.state {
            State::Working { phase: Phase::Running, attempt: number } => {
                let phase = Phase::BackingOff { next_attempt_at: in_microseconds(next_attempt_at) };
                let task = self.within(State::Working { phase, attempt: number + 1 });
                Ok(Self { attempts: self.attempts_with(attempt), ..task })
            }
            State::Working { phase: Phase::Canceling, .. } => Err(Refusal::Canceling),
            _ => Err(Refusal::Stale),
        }
    }

    fn settled(&self, attempt: Attempt, output: Option<Output>, stamp: Stamp) -> Self {
        let state = match attempt.failure.clone() {
            None => State::Success { output, undo: None },
            Some(failure) => State::Failed { failure: self.failing(failure), output },
        };
        Self { attempts: self.attempts_with(attempt), ..self.entering(state, stamp) }
    }

    fn canceled(&self, is_notice_due: bool, stamp: Stamp) -> Result<Self, Refusal> {
        match self.state {
            State::Working { phase: Phase::Running, attempt } => {
                Ok(self.within(State::Working { phase: Phase::Canceling, attempt }))
            }
            State::Working { phase: Phase::Canceling, .. } => Err(Refusal::Canceling),
            State::Working { phase: phase @ (Phase::Queued | Phase::BackingOff { .. }), .. } => {
                let message = match phase {
                    Phase::Queued => "a caller canceled the run before it began an attempt",
                    _ => "a caller canceled the run before its next attempt",
                };
                let failure = self.failing(Failure::without_effect(ErrorKind::Canceled, message));
                let failed = self.entering(State::Failed { failure, output: None }, stamp);
                Ok(failed.with_notice(is_notice_due))
            }
            State::Success { .. } | State::Failed { .. } | State::Absent => Err(Refusal::NotWorking),
        }
    }

    /// The failure of the run that is under way: however surely its end had no effect, an earlier attempt may have had
    /// one.
    fn failing(&self, failure: Failure) -> Failure {
        let in_doubt = failure.in_doubt || self.attempts.iter().any(|attempt| self.is_doubt(attempt));
        Failure { in_doubt, ..failure }
    }

    /// Whether it is an attempt of the last run that may have had an effect, and failed.
    fn is_doubt(&self, attempt: &Attempt) -> bool {
        attempt.run == self.run && attempt.failure.as_ref().is_some_and(|failure| failure.in_doubt)
    }

    fn revocable(&self) -> Result<&Self, Refusal> {
        match self.state {
            State::Success { undo: Some(Undo::Revoking), .. } => Err(Refusal::Revoking),
            State::Success { .. } => Ok(self),
            State::Working { .. } | State::Failed { .. } | State::Absent => Err(Refusal::NotSuccess),
        }
    }

    fn with_undo(&self, undo: Option<Undo>) -> Self {
        self.within(State::Success { output: self.output().cloned(), undo })
    }

    fn revoked(&self, stamp: Stamp) -> Self {
        Self { revoked: self.revoked + 1, keys: Vec::new(), ..self.absent(stamp) }
    }

    /// The mark that is left of a task: its numbers, without input, output or attempts.
    fn absent(&self, stamp: Stamp) -> Self {
        Self {
            attempts: Vec::new(),
            input: Input::empty(),
            notice_due: false,
            details_dropped: false,
            trace: None,
            ..self.entering(State::Absent, stamp)
        }
    }

    fn with_notice(self, notice_due: bool) -> Self {
        Self { notice_due, ..self }
    }

    /// The record, if it is at rest, and has been settled since it entered its state at this place.
    fn at_rest_since(&self, entered: u64) -> Result<&Self, Refusal> {
        if self.entered != entered {
            Err(Refusal::Stale)
        } else if self.is_working() {
            Err(Refusal::Working)
        } else if self.is_revoking() {
            // The end of the revoke is fenced by the revision.
            Err(Refusal::Revoking)
        } else if self.notice_due {
            Err(Refusal::NoticeDue)
        } else {
            Ok(self)
        }
    }

    fn without_details(&self) -> Self {
        let mut task = self.within(self.state.clone());
        if let State::Success { output, .. } | State::Failed { output, .. } = &mut task.state {
            *output = None;
        }
        Self { input: self.input.without_bytes(), attempts: Vec::new(), details_dropped: true, ..task }
    }

    /// The next revision, in another state.
    fn entering(&self, state: State, stamp: Stamp) -> Self {
        Self { entered: stamp.seq, since: stamp.at, ..self.within(state) }
    }

    /// The next revision, in the same state.
    fn within(&self, state: State) -> Self {
        Self { state, revision: self.revision + 1, ..self.clone() }
    }

    /// Times have the microseconds that rows and answers have: a record says the same from memory and from disk.
    fn attempts_with(&self, attempt: Attempt) -> Vec<Attempt> {
        let (started, ended) = (in_microseconds(attempt.started), in_microseconds(attempt.ended));
        let mut attempts = self.attempts.clone();
        attempts.push(Attempt { started, ended, ..attempt });
        while attempts.len() > ATTEMPTS_KEPT {
            // While the run goes on, nothing else says that it is in doubt.
            let last_doubt = attempts.iter().rposition(|attempt| self.is_doubt(attempt));
            attempts.remove(usize::from(last_doubt == Some(0)));
        }
        attempts
    }
}

fn in_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
