//! Whole records: the attempts of a task follow each other, and none is lost.

use super::{may_undo, story};
use crate::history::{Attempt, Name, Operation, Phase, Recorded};

/// How many a record has at most; older ones are dropped.
const KEPT: usize = 20;

/// The attempts of one record are such as its runs had.
pub(super) fn attempts_are_legal(recorded: &[&Recorded]) -> Vec<String> {
    let illegal = recorded.iter().filter(|record| !is_legal(record));
    illegal.map(|record| format!("attempts that cannot be so: {}", brief(record))).collect()
}

fn is_legal(record: &Recorded) -> bool {
    let Recorded { seen, attempts, .. } = record;
    let is_next = |from: &Attempt, to: &Attempt| {
        // A success is the last thing of an id, until it is revoked; then its attempts are gone.
        let is_same_run = to.run == from.run && to.number == from.number + 1;
        from.error.is_some() && (is_same_run || to.run > from.run && to.number == 1)
    };
    let are_in_order = attempts.windows(2).all(|pair| is_next(&pair[0], &pair[1]));
    let begins_so = attempts.len() >= KEPT || attempts.first().is_none_or(|first| first.number == 1);
    let of_run = attempts.iter().filter(|attempt| attempt.run == seen.run).count() as u64;
    let ends_so = match seen.name {
        Name::Working => seen.attempt == of_run + 1,
        // A run that was canceled while it waited had none, or one less.
        Name::Failed => attempts.iter().all(|attempt| attempt.error.is_some()),
        Name::Success => attempts.last().is_some_and(|last| last.run == seen.run && last.error.is_none()),
        Name::NotFound => false,
    };
    let is_past = attempts.iter().all(|attempt| attempt.run <= seen.run);
    attempts.len() <= KEPT && are_in_order && begins_so && (ends_so || attempts.len() == KEPT) && is_past
}

/// What a record has told of attempts, a later one tells too, unless the record was forgotten in between.
pub(super) fn attempts_stay(recorded: &[&Recorded], operations: &[&Operation]) -> Vec<String> {
    let mut recorded = recorded.to_vec();
    recorded.sort_by_key(|record| record.seen.revision);
    let mut wrong = Vec::new();
    for (from, to) in recorded.iter().zip(recorded.iter().skip(1)) {
        let is_same = from.seen.revision == to.seen.revision;
        let is_undone =
            |other: &&Operation| may_undo(other) && other.began < to.ended && other.ended > from.began;
        let may_be_undone = || operations.iter().any(is_undone) || from.seen.phase == Some(Phase::Revoking);
        if from.seen.run != to.seen.run && may_be_undone() {
            continue;
        }
        let dropped = if to.attempts.len() >= KEPT { from.attempts.len() } else { 0 };
        let stays = |skip: usize| to.attempts.starts_with(&from.attempts[skip..]);
        if !(0..=dropped).any(stays) || is_same && from.attempts != to.attempts {
            wrong.push(format!("attempts are lost: {}, and later {}", brief(from), brief(to)));
        }
    }
    wrong
}

fn brief(record: &Recorded) -> String {
    let attempts =
        record.attempts.iter().map(|Attempt { run, number, error }| format!("{run}.{number} {error:?}"));
    format!("{} with [{}]", story::brief(&record.seen), attempts.collect::<Vec<_>>().join(", "))
}
