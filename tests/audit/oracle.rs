//! A published checker (Wing and Gong, with Lowe's cache) as the judge of one id's history.
//!
//! The state of the model is the set of all records that the id may have: what happens without a request (an attempt
//! begins, a run ends, a crash cuts it off), and what a request without an answer may have done, makes it larger, and
//! every answer makes it smaller. A history has an explanation as long as the set does not become empty.

use std::collections::BTreeSet;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::history::{Answer, Ask, Crash, Name, Operation, Phase, Seen, Time};

/// A longer history, or one with more requests of unknown outcome, takes too long.
const REQUESTS_MAX: usize = 90;
const UNKNOWN_MAX: usize = 8;
/// The handlers' `retry.attempts`.
pub(crate) const ATTEMPTS: u64 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Explained,
    Unexplained,
    TooLong,
}

/// Judges the requests about one id. `is_relaunched`: its handler launches what a crash cut off again.
pub(crate) fn judge(operations: &[&Operation], crashes: &[Crash], is_relaunched: bool) -> Verdict {
    let mut moves = Vec::new();
    for operation in operations {
        let Operation { ask, began, ended, answer, .. } = operation;
        let is_write = *ask != Ask::Read;
        match answer {
            Answer::Unknown if is_write => moves.push((*began, *ended, Move::Perhaps(*ask))),
            Answer::Unknown | Answer::Refused(None) => {}
            Answer::Refused(Some(name)) => moves.push((*began, *ended, Move::Refused(*name))),
            Answer::Seen { own: true, seen } if *ask == Ask::LaunchAndWait => {
                moves.push((*began, *ended, Move::Done(Ask::Launch, None)));
                moves.push((*began, *ended, Move::Read(Some(seen.clone()))));
            }
            Answer::Seen { own, seen } if *own || *ask == Ask::Cancel => {
                moves.push((*began, *ended, Move::Done(*ask, Some(seen.clone()))));
            }
            Answer::Seen { seen, .. } => moves.push((*began, *ended, Move::Read(Some(seen.clone())))),
            Answer::Absent { own: true } => moves.push((*began, *ended, Move::Gone(*ask))),
            Answer::Absent { own: false } => moves.push((*began, *ended, Move::Read(None))),
        }
    }
    let unknown = moves.iter().filter(|(_, _, what)| matches!(what, Move::Perhaps(_))).count();
    if moves.len() > REQUESTS_MAX || unknown > UNKNOWN_MAX {
        return Verdict::TooLong;
    }
    let Some(first) = moves.iter().map(|(began, ..)| *began).min() else { return Verdict::Explained };
    let last = operations.iter().map(|operation| operation.began).max().unwrap_or_default();
    let during = crashes.iter().filter(|crash| crash.ended > first && crash.began < last);
    moves.extend(during.map(|crash| {
        let is_recovered = crash.is_recovered;
        (crash.began, crash.ended, Move::Crash { is_relaunched, is_recovered })
    }));

    let mut actions = Vec::new();
    for (process, (began, ended, what)) in moves.into_iter().enumerate() {
        actions.push((began, 0, process, Action::Call(what.clone())));
        actions.push((ended, 1, process, Action::Response(what)));
    }
    // At the same moment what begins goes first: then they are concurrent.
    actions.sort_by_key(|(at, is_end, process, _)| (*at, *is_end, *process));
    let actions =
        actions.into_iter().map(|(_, _, process, action): (Time, _, _, _)| (process, action)).collect();
    if WGLChecker::<Task>::is_linearizable(History::from_actions(actions)) {
        Verdict::Explained
    } else {
        Verdict::Unexplained
    }
}

/// What happens to the id at one moment.
#[derive(Debug, Clone)]
enum Move {
    /// It stands so, or is not found.
    Read(Option<Seen>),
    /// It was done, and this is what it made, where that was told.
    Done(Ask, Option<Seen>),
    /// It was done, and it is not found since.
    Gone(Ask),
    /// Nobody knows whether it was done.
    Perhaps(Ask),
    /// Nothing was changed, and it was in this state.
    Refused(Name),
    Crash {
        is_relaunched: bool,
        is_recovered: bool,
    },
}

struct Task;

/// One record that the id may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Record {
    revision: u64,
    run: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    Absent,
    Queued(u64),
    Running(u64),
    BackingOff(u64),
    Canceling(u64),
    Success,
    Revoking,
    RevokeFailed,
    Failed,
}

type Records = BTreeSet<Record>;

impl Specification for Task {
    type State = Records;
    type Operation = Move;

    fn init() -> Records {
        Records::from([Record { revision: 0, run: 0, stage: Stage::Absent }])
    }

    fn apply(what: &Move, before: &Records) -> (bool, Records) {
        let each = before.iter().copied();
        let after: Records = match what {
            Move::Read(seen) => each.filter(|record| record.shows(seen.as_ref())).collect(),
            Move::Done(ask, seen) => {
                let done = each.flat_map(|record| record.after(*ask));
                done.filter(|record| seen.is_none() || record.shows(seen.as_ref())).collect()
            }
            Move::Perhaps(ask) => {
                each.flat_map(|record| record.after(*ask).into_iter().chain([record])).collect()
            }
            Move::Refused(name) => each.filter(|record| record.stage.name() == *name).collect(),
            Move::Gone(ask) => {
                each.flat_map(|record| record.after(*ask)).filter(|record| record.shows(None)).collect()
            }
            Move::Crash { is_relaunched, is_recovered: true } => {
                each.flat_map(|record| record.after_crash(*is_relaunched)).collect()
            }
            Move::Crash { is_relaunched, is_recovered: false } => {
                let partly = |record: Record| record.after_crash(*is_relaunched).into_iter().chain([record]);
                each.flat_map(partly).collect()
            }
        };
        if after.is_empty() { (false, before.clone()) } else { (true, with_what_follows(after)) }
    }
}

/// Adds what each may become without a request.
fn with_what_follows(mut records: Records) -> Records {
    let mut new: Vec<_> = records.iter().copied().collect();
    while let Some(record) = new.pop() {
        for next in record.by_itself() {
            if records.insert(next) {
                new.push(next);
            }
        }
    }
    records
}

impl Record {
    fn to(self, stage: Stage) -> Self {
        Self { revision: self.revision + 1, stage, ..self }
    }

    fn launched(self) -> Vec<Self> {
        let run = self.run + 1;
        [Stage::Queued(1), Stage::Running(1)].map(|stage| Self { run, ..self.to(stage) }).to_vec()
    }

    /// What this request makes of it; nothing where it is refused.
    fn after(self, ask: Ask) -> Vec<Self> {
        match (ask, self.stage) {
            (Ask::Launch | Ask::LaunchAndWait, Stage::Absent | Stage::Failed)
            | (Ask::Retry, Stage::Failed) => self.launched(),
            (Ask::Cancel, Stage::Running(attempt)) => vec![self.to(Stage::Canceling(attempt))],
            (Ask::Cancel, Stage::Queued(_) | Stage::BackingOff(_)) => vec![self.to(Stage::Failed)],
            // A second cancel is answered as the first one.
            (Ask::Cancel, Stage::Canceling(_)) => vec![self],
            (Ask::Revoke, Stage::Success | Stage::RevokeFailed) => {
                vec![self.to(Stage::Revoking), self.to(Stage::Absent)]
            }
            (Ask::Forget, Stage::Failed) => vec![self.to(Stage::Absent)],
            _ => Vec::new(),
        }
    }

    fn by_itself(self) -> Vec<Self> {
        let next = match self.stage {
            Stage::Queued(attempt) | Stage::BackingOff(attempt) => vec![Stage::Running(attempt)],
            Stage::Running(attempt) if attempt < ATTEMPTS => {
                vec![Stage::Success, Stage::Failed, Stage::BackingOff(attempt + 1)]
            }
            Stage::Running(_) | Stage::Canceling(_) => vec![Stage::Success, Stage::Failed],
            Stage::Revoking => vec![Stage::Absent, Stage::RevokeFailed],
            Stage::Absent | Stage::Success | Stage::RevokeFailed | Stage::Failed => Vec::new(),
        };
        next.into_iter().map(|stage| self.to(stage)).collect()
    }

    fn after_crash(self, is_relaunched: bool) -> Vec<Self> {
        match self.stage {
            // Not launched again where the next process ended between the two.
            Stage::Running(_) if is_relaunched => {
                let failed = self.to(Stage::Failed);
                failed.launched().into_iter().chain([failed]).collect()
            }
            Stage::Running(_) | Stage::Canceling(_) => vec![self.to(Stage::Failed)],
            Stage::Revoking => vec![self.to(Stage::RevokeFailed)],
            _ => vec![self],
        }
    }

    fn shows(&self, seen: Option<&Seen>) -> bool {
        let Some(seen) = seen else { return self.stage == Stage::Absent };
        let stage = match (seen.name, seen.phase) {
            (Name::Working, Some(Phase::Queued)) => Stage::Queued(seen.attempt),
            (Name::Working, Some(Phase::Running)) => Stage::Running(seen.attempt),
            (Name::Working, Some(Phase::BackingOff)) => Stage::BackingOff(seen.attempt),
            (Name::Working, Some(Phase::Canceling)) => Stage::Canceling(seen.attempt),
            (Name::Success, Some(Phase::Revoking)) => Stage::Revoking,
            (Name::Success, None) if seen.has_revoke_error => Stage::RevokeFailed,
            (Name::Success, None) => Stage::Success,
            (Name::Failed, None) => Stage::Failed,
            _ => return false,
        };
        (self.revision, self.run, self.stage) == (seen.revision, seen.run, stage)
    }
}

impl Stage {
    fn name(self) -> Name {
        match self {
            Self::Absent => Name::NotFound,
            Self::Queued(_) | Self::Running(_) | Self::BackingOff(_) | Self::Canceling(_) => Name::Working,
            Self::Success | Self::Revoking | Self::RevokeFailed => Name::Success,
            Self::Failed => Name::Failed,
        }
    }
}
