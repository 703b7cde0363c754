//! What handlers did, and what is told of it.

use std::collections::HashSet;

use super::seen;
use super::story::brief;
use crate::history::{Attempt, Name, Operation, Recorded};
use crate::receiver::{Call, Effect, Kind};

/// An attempt is one call.
pub(super) fn called_once(calls: &[&Call]) -> Vec<String> {
    let mut attempts = HashSet::new();
    let runs = calls.iter().filter(|call| call.kind == Kind::Run);
    let twice = runs.filter(|call| !attempts.insert((call.run, call.attempt)));
    twice.map(|call| format!("run {} attempt {} was called twice", call.run, call.attempt)).collect()
}

/// A success was one at the receiver; what is not in doubt had no effect there.
pub(super) fn honest(operations: &[&Operation], calls: &[&Call]) -> Vec<String> {
    let (mut told, mut wrong) = (HashSet::new(), Vec::new());
    for (_, seen) in seen(operations).filter(|(_, seen)| told.insert(seen.revision)) {
        let mut of_run = calls.iter().filter(|call| call.kind == Kind::Run && call.run == seen.run);
        let had_effect = of_run.any(|call| call.effect != Effect::Refused);
        match (&seen.name, &seen.error) {
            (Name::Success, _) if !had_effect => {
                wrong.push(format!("a success without a call that was answered so: {}", brief(seen)));
            }
            (Name::Failed, Some((_, false))) if had_effect => {
                wrong.push(format!("not in doubt, and yet the receiver did something: {}", brief(seen)));
            }
            _ => {}
        }
    }
    wrong
}

/// The same of each attempt.
pub(super) fn each_honest(recorded: &[&Recorded], calls: &[&Call]) -> Vec<String> {
    let (mut told, mut wrong) = (HashSet::new(), Vec::new());
    for Attempt { run, number: attempt, error } in recorded.iter().flat_map(|record| &record.attempts) {
        if !told.insert((run, attempt)) {
            continue;
        }
        let of_attempt =
            |call: &&&Call| call.kind == Kind::Run && (call.run, call.attempt) == (*run, *attempt);
        let call = calls.iter().find(of_attempt);
        let effect = call.map(|call| call.effect);
        let had_effect = effect.is_some_and(|effect| effect != Effect::Refused);
        let what = match error {
            None if !had_effect => "succeeded".to_owned(),
            Some((kind, false)) if had_effect => format!("failed ({kind}), not in doubt"),
            _ => continue,
        };
        wrong.push(format!("attempt {attempt} of run {run} {what}, and did {effect:?}"));
    }
    wrong
}
