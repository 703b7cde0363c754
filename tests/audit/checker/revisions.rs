//! Revision by revision a task moves as tasks do, and nobody is told of an older one.

use std::collections::{BTreeMap, HashMap};

use super::story::{brief, told};
use super::{Event, may_undo, seen};
use crate::history::{Answer, Name, Operation, Phase, Seen, Time};

/// What two answers say of one revision is the same; otherwise one of them told of something that was lost later.
pub(super) fn one_content_a_revision(operations: &[&Operation], events: &[Event<'_>]) -> Vec<String> {
    let (mut known, mut wrong) = (HashMap::new(), Vec::new());
    for seen in seen(operations).map(|(_, seen)| seen).chain(events.iter().map(|event| event.seen)) {
        let first = *known.entry(seen.revision).or_insert(seen);
        if first != seen {
            wrong.push(format!("two contents of one revision: {} and {}", brief(first), brief(seen)));
        }
    }
    wrong
}

/// From revision to revision the task moves as tasks do.
pub(super) fn legal_steps(operations: &[&Operation], events: &[Event<'_>]) -> Vec<String> {
    let told = events.iter().map(|event| event.seen).filter(|seen| seen.name != Name::NotFound);
    let all = seen(operations).map(|(_, seen)| seen).chain(told);
    let by_revision: BTreeMap<_, _> = all.map(|seen| (seen.revision, seen)).collect();
    let steps = by_revision.values().zip(by_revision.values().skip(1));
    let illegal = steps.filter(|(from, to)| !is_legal(from, to));
    illegal.map(|(from, to)| format!("an illegal step: from {} to {}", brief(from), brief(to))).collect()
}

fn is_legal(from: &Seen, to: &Seen) -> bool {
    let steps = to.revision - from.revision;
    if to.run < from.run {
        return false;
    }
    let is_settled = from.name != Name::Working;
    match to.run - from.run {
        0 if is_settled => from.name == to.name && from.since == to.since && from.error == to.error,
        0 if steps > 1 || to.name != Name::Working => true,
        0 => {
            from.since == to.since
                && matches!(
                    (from.phase, to.phase, to.attempt - from.attempt),
                    (Some(Phase::Queued | Phase::BackingOff), Some(Phase::Running), 0)
                        | (Some(Phase::Running), Some(Phase::BackingOff), 1)
                        | (Some(Phase::Running), Some(Phase::Canceling), 0)
                )
        }
        // A success is revoked in between, so that the id is not found; a run that works has an end.
        runs => {
            let least = match from.name {
                Name::Failed => 1,
                Name::Success | Name::Working | Name::NotFound => 2,
            };
            let is_first = steps > least + 2 * (runs - 1) || (to.name == Name::Working && to.attempt == 1);
            steps >= least + 2 * (runs - 1) && is_first
        }
    }
}

/// What is known for certain at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Floor<'a> {
    /// The least revision that an answer may show from then on.
    least: u64,
    /// The least run.
    run: u64,
    /// Who saw the task last, unless it was found absent since.
    seen: Option<&'a Operation>,
}

/// Who asks after an answer has come is not told of an older state than that answer.
pub(super) fn never_older(operations: &[&Operation], events: &[Event<'_>]) -> Vec<String> {
    let answered: Vec<_> = operations.iter().filter(|operation| operation.ended != Time::MAX).collect();
    // At the same moment what begins goes first: it may have been before.
    let begins = answered.iter().enumerate().map(|(number, operation)| (operation.began, 0, number));
    let ends = answered.iter().enumerate().map(|(number, operation)| (operation.ended, 1, number));
    let heard = events.iter().enumerate().map(|(number, event)| (event.at, 2, number));
    let mut moments: Vec<_> = begins.chain(ends).chain(heard).collect();
    moments.sort_unstable();

    let mut now = Floor { least: 1, run: 0, seen: None };
    let (mut floors, mut wrong) = (vec![now; answered.len()], Vec::new());
    for (_, kind, number) in moments {
        if kind == 0 {
            floors[number] = now;
            continue;
        }
        if kind == 2 {
            let seen = events[number].seen;
            // One that is not found adds two to what was known before it.
            let least = seen.revision - u64::from(seen.name == Name::NotFound);
            (now.least, now.run) = (now.least.max(least), now.run.max(seen.run));
            continue;
        }
        let (operation, floor) = (answered[number], floors[number]);
        match &operation.answer {
            Answer::Glimpsed { seen, .. } => {
                if seen.run < floor.run {
                    wrong.push(format!("older than run {}, which was known: {}", floor.run, told(operation)));
                }
                now.run = now.run.max(seen.run);
            }
            Answer::Seen { seen, .. } | Answer::Same(seen) => {
                let own = matches!(operation.answer, Answer::Seen { own: true, .. });
                let least = floor.least + u64::from(own && floor.seen.is_some());
                if seen.revision < least {
                    let told = told(operation);
                    wrong.push(format!("older than what was known (revision {least} or later): {told}"));
                }
                now.run = now.run.max(seen.run);
                if seen.revision >= now.least {
                    now = Floor { least: seen.revision, seen: Some(operation), ..now };
                }
            }
            Answer::Absent { own } => {
                let Some(known) = floor.seen else { continue };
                let is_undone = |other: &&Operation| {
                    may_undo(other) && other.began < operation.ended && other.ended > known.began
                };
                let is_revoking = matches!(
                    &known.answer,
                    Answer::Seen { seen, .. } | Answer::Same(seen) if seen.phase == Some(Phase::Revoking)
                );
                if !own && !is_revoking && !operations.iter().any(is_undone) {
                    wrong.push(format!("lost: {} and then {}", told(known), told(operation)));
                }
                // One revision at least made it absent, and another one launches it again.
                if floor.least + 2 > now.least {
                    now = Floor { least: floor.least + 2, seen: None, ..now };
                }
            }
            Answer::Unknown | Answer::Refused(_) | Answer::Unmet(_) => {}
        }
    }
    wrong
}
