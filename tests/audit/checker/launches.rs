//! Who starts a run, and how often.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::story::told;
use super::{may_undo, seen};
use crate::history::{Answer, Ask, How, Name, Operation, Time};
use crate::receiver::{Call, Kind};

/// Of many launches exactly one is told that it started a run.
pub(super) fn started_once(operations: &[&Operation]) -> Vec<String> {
    let mut runs = HashSet::new();
    let twice = own_runs(operations).filter(|(_, run)| !runs.insert(*run));
    twice.map(|(_, run)| format!("run {run} was started by two requests")).collect()
}

/// Requests that were told which run they started.
pub(super) fn own_runs<'a>(operations: &[&'a Operation]) -> impl Iterator<Item = (&'a Operation, u64)> {
    let own = operations.iter().filter_map(|operation| match (operation.ask, &operation.answer) {
        (
            Ask::Launch | Ask::Retry,
            Answer::Seen { own: true, seen } | Answer::Glimpsed { own: true, seen },
        ) => Some((*operation, seen.run)),
        _ => None,
    });
    own.collect::<Vec<_>>().into_iter()
}

/// A key launches one run, until the success of that is revoked, or the record is forgotten.
pub(super) fn one_run_a_key(operations: &[&Operation]) -> Vec<String> {
    if operations.iter().any(|operation| may_undo(operation)) {
        // The oracle knows when that was.
        return Vec::new();
    }
    let (mut runs, mut wrong) = (HashMap::new(), Vec::new());
    for (operation, run) in own_runs(operations) {
        let Some(key) = operation.how.key else { continue };
        if let Some(other) = runs.insert(key, run) {
            wrong.push(format!("one key has started the runs {other} and {run}"));
        }
    }
    wrong
}

/// A refusal because of a revision is right: the record did not have it throughout.
pub(super) fn conditions_hold(operations: &[&Operation]) -> Vec<String> {
    let mut wrong = Vec::new();
    for operation in operations {
        let How { if_match, if_unknown, .. } = operation.how;
        match (&operation.answer, if_match) {
            (Answer::Seen { own: true, seen }, Some(revision)) if seen.revision != revision + 1 => {
                wrong.push(format!("launched at another revision than {revision}: {}", told(operation)));
            }
            (Answer::Seen { own: false, seen }, Some(revision)) if seen.revision != revision => {
                wrong.push(format!("told to be at revision {revision}: {}", told(operation)));
            }
            (Answer::Seen { own: false, .. }, _) if if_unknown => {
                wrong.push(format!("known, and yet not refused: {}", told(operation)));
            }
            _ => {}
        }
    }
    wrong
}

pub(super) fn one_success_between_revokes(operations: &[&Operation], calls: &[&Call]) -> Vec<String> {
    let mut wrong = Vec::new();
    // When a success was known first.
    let mut successes: BTreeMap<u64, Time> = BTreeMap::new();
    for (operation, _) in seen(operations).filter(|(_, seen)| seen.name == Name::Success) {
        let Answer::Seen { seen, .. } = &operation.answer else { continue };
        let known = successes.entry(seen.run).or_insert(operation.ended);
        *known = operation.ended.min(*known);
    }
    let is_revoke = |operation: &&&Operation| {
        let is_none = matches!(operation.answer, Answer::Refused(_) | Answer::Absent { own: false });
        operation.ask == Ask::Revoke && !is_none
    };
    let revokes = operations.iter().filter(is_revoke).count();
    if successes.len() > 1 + revokes {
        wrong.push(format!("{} runs succeeded, with {revokes} revokes", successes.len()));
    }
    let mut runs_of: BTreeMap<&str, HashSet<u64>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.kind == Kind::Run) {
        runs_of.entry(&call.key).or_default().insert(call.run);
    }
    for (key, runs) in &runs_of {
        let successful: Vec<_> = runs.iter().filter(|run| successes.contains_key(run)).collect();
        if successful.len() > 1 {
            wrong.push(format!("two successes under one webhook-id {key}: runs {successful:?}"));
        }
        let Some(known) = successful.first().and_then(|run| successes.get(run)) else { continue };
        let late =
            calls.iter().find(|call| call.kind == Kind::Run && call.key == **key && call.began > *known);
        if let Some(late) = late {
            wrong.push(format!(
                "called after its success was known: run {} attempt {}",
                late.run, late.attempt
            ));
        }
    }
    wrong
}
