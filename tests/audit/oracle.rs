//! A published checker (Wing and Gong, with Lowe's cache) as the judge of one id's history.
//!
//! The state of the model is the set of all records that the id may have: what happens without a request (an attempt
//! begins, a run ends, a crash cuts it off), and what a request without an answer may have done, makes it larger, and
//! every answer makes it smaller. A history has an explanation as long as the set does not become empty.

use std::collections::BTreeSet;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::history::{Answer, Ask, Crash, How, Name, Operation, Phase, Seen, Time};

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
        let Operation { ask, how, began, ended, answer, .. } = operation;
        let is_write = *ask != Ask::Read;
        // A launch that was let in met its conditions.
        let (mut gate, mut more) = (Gate::Open, None);
        let what = match answer {
            Answer::Unknown if is_write => Move::Perhaps(*ask),
            Answer::Unknown | Answer::Refused(None) => continue,
            Answer::Refused(Some(name)) => Move::Refused(*ask, *name),
            Answer::Same(seen) => {
                gate = Gate::Same;
                Move::Read(Some(seen.clone()))
            }
            Answer::Unmet(name) => {
                gate = Gate::Unmet;
                Move::Named(name.unwrap_or(Name::NotFound))
            }
            Answer::Seen { own: true, seen } if *ask == Ask::LaunchAndWait => {
                more = Some(Move::Read(Some(seen.clone())));
                Move::Done(Ask::Launch, None)
            }
            Answer::Absent { own: true } if *ask == Ask::LaunchAndWait => {
                more = Some(Move::Read(None));
                Move::Done(Ask::Launch, None)
            }
            Answer::Seen { own, seen } | Answer::Glimpsed { own, seen } if *own || *ask == Ask::Cancel => {
                Move::Done(*ask, Some(seen.clone()))
            }
            Answer::Seen { seen, .. } | Answer::Glimpsed { seen, .. } => Move::Read(Some(seen.clone())),
            Answer::Absent { own: true } => Move::Gone(*ask),
            Answer::Absent { own: false } => Move::Read(None),
        };
        moves.push((*began, *ended, Step { how: *how, gate, what }));
        moves.extend(more.map(|what| (*began, *ended, Step::free(what))));
    }
    let unknown = moves
        .iter()
        .filter(|(_, ended, step)| *ended == Time::MAX && matches!(step.what, Move::Perhaps(_)))
        .count();
    if moves.len() > REQUESTS_MAX || unknown > UNKNOWN_MAX {
        return Verdict::TooLong;
    }
    let Some(first) = moves.iter().map(|(began, ..)| *began).min() else { return Verdict::Explained };
    let last = operations.iter().map(|operation| operation.began).max().unwrap_or_default();
    let during = crashes.iter().filter(|crash| crash.ended > first && crash.began < last);
    moves.extend(during.map(|crash| {
        let is_recovered = crash.is_recovered;
        (crash.began, crash.ended, Step::free(Move::Crash { is_relaunched, is_recovered }))
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

/// What happens to the id, where a launch has to find it as its conditions demand.
#[derive(Debug, Clone)]
struct Step {
    how: How,
    gate: Gate,
    what: Move,
}

/// How the conditions of a launch find a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// This key has launched a run of it.
    Same,
    Unmet,
}

impl Step {
    fn free(what: Move) -> Self {
        Self { how: How::default(), gate: Gate::Open, what }
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
    /// Nothing was changed, and it was in this state, which does not allow it.
    Refused(Ask, Name),
    /// It was in this state.
    Named(Name),
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
    /// A bit for each key that has launched a run.
    keys: u8,
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
    type Operation = Step;

    fn init() -> Records {
        Records::from([Record { revision: 0, run: 0, stage: Stage::Absent, keys: 0 }])
    }

    fn apply(step: &Step, before: &Records) -> (bool, Records) {
        let Step { how, gate, what } = step;
        let let_in = |record: &Record| record.gate(*how) == *gate;
        // Of an unknown one nobody knows whether it was let in either.
        let is_any = matches!(what, Move::Perhaps(_) | Move::Crash { .. });
        let each = before.iter().copied().filter(|record| is_any || let_in(record));
        let after: Records = match what {
            Move::Read(seen) => each.filter(|record| record.shows(seen.as_ref())).collect(),
            Move::Done(ask, seen) => {
                let done = each.flat_map(|record| record.after(*ask, *how));
                done.filter(|record| seen.is_none() || record.shows(seen.as_ref())).collect()
            }
            Move::Perhaps(ask) => {
                let done =
                    |record: Record| if let_in(&record) { record.after(*ask, *how) } else { Vec::new() };
                each.flat_map(|record| done(record).into_iter().chain([record])).collect()
            }
            Move::Refused(ask, name) => {
                let is_so =
                    |record: &Record| record.stage.name() == *name && record.after(*ask, *how).is_empty();
                each.filter(is_so).collect()
            }
            Move::Named(name) => each.filter(|record| record.stage.name() == *name).collect(),
            Move::Gone(ask) => {
                each.flat_map(|record| record.after(*ask, *how)).filter(|record| record.shows(None)).collect()
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

    fn launched(self, how: How) -> Vec<Self> {
        let run = self.run + 1;
        let keys = self.keys | how.key.map_or(0, |key| 1 << key);
        [Stage::Queued(1), Stage::Running(1)].map(|stage| Self { run, keys, ..self.to(stage) }).to_vec()
    }

    /// A key is looked at before the other conditions, which the launch with this very key may have made untrue.
    fn gate(self, how: How) -> Gate {
        if self.stage == Stage::Absent {
            return if how.if_match.is_some() { Gate::Unmet } else { Gate::Open };
        }
        if how.key.is_some_and(|key| self.keys & 1 << key != 0) {
            Gate::Same
        } else if how.if_unknown || how.if_match.is_some_and(|revision| revision != self.revision) {
            Gate::Unmet
        } else {
            Gate::Open
        }
    }

    /// A revoked success is as if it had never been.
    fn revoked(self) -> Self {
        Self { keys: 0, ..self.to(Stage::Absent) }
    }

    /// What this request makes of it; nothing where it is refused.
    fn after(self, ask: Ask, how: How) -> Vec<Self> {
        match (ask, self.stage) {
            (Ask::Launch | Ask::LaunchAndWait, Stage::Absent | Stage::Failed)
            | (Ask::Retry, Stage::Failed) => self.launched(how),
            (Ask::Cancel, Stage::Running(attempt)) => vec![self.to(Stage::Canceling(attempt))],
            (Ask::Cancel, Stage::Queued(_) | Stage::BackingOff(_)) => vec![self.to(Stage::Failed)],
            // A second cancel is answered as the first one.
            (Ask::Cancel, Stage::Canceling(_)) => vec![self],
            (Ask::Revoke, Stage::Success | Stage::RevokeFailed) => {
                vec![self.to(Stage::Revoking), self.revoked()]
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
            Stage::Revoking => return vec![self.revoked(), self.to(Stage::RevokeFailed)],
            Stage::Absent | Stage::Success | Stage::RevokeFailed | Stage::Failed => Vec::new(),
        };
        next.into_iter().map(|stage| self.to(stage)).collect()
    }

    fn after_crash(self, is_relaunched: bool) -> Vec<Self> {
        match self.stage {
            // Not launched again where the next process ended between the two.
            Stage::Running(_) if is_relaunched => {
                let failed = self.to(Stage::Failed);
                failed.launched(How::default()).into_iter().chain([failed]).collect()
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
        // Some answers tell no revision.
        let is_revision = seen.revision == 0 || seen.revision == self.revision;
        is_revision && (self.run, self.stage) == (seen.run, stage)
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
