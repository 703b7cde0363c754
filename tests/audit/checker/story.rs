//! All that happened to an id, for people.

use crate::history::{Answer, Crash, How, Operation, Seen, Time};
use crate::receiver::Call;

pub(super) fn brief(seen: &Seen) -> String {
    let Seen { revision, run, name, phase, attempt, since, error, .. } = seen;
    format!("revision {revision}: run {run} {name:?} {phase:?} attempt {attempt} since {since} {error:?}")
}

pub(super) fn told(operation: &Operation) -> String {
    let Operation { ask, how, began, ended, answer, .. } = operation;
    let answer = match answer {
        Answer::Seen { own, seen } | Answer::Glimpsed { own, seen } => format!("own: {own}, {}", brief(seen)),
        Answer::Same(seen) => format!("the same request, {}", brief(seen)),
        other => format!("{other:?}"),
    };
    let how = if *how == How::default() { String::new() } else { format!(" {how:?}") };
    let ended = if *ended == Time::MAX { "never".to_owned() } else { in_ms(*ended) };
    format!("{}..{ended} {ask:?}{how} -> {answer}", in_ms(*began))
}

fn in_ms(time: Time) -> String {
    format!("{}.{:03}", time / 1_000_000, time / 1_000 % 1_000)
}

/// All that happened to an id, for people.
pub(super) fn story(operations: &[&Operation], calls: &[&Call], crashes: &[Crash]) -> String {
    let mut lines: Vec<(Time, String)> = operations.iter().map(|one| (one.began, told(one))).collect();
    lines.extend(calls.iter().map(|call| {
        let Call { kind, run, attempt, key, effect, .. } = call;
        let text =
            format!("{} call {kind:?} run {run} attempt {attempt} {key} {effect:?}", in_ms(call.began));
        (call.began, text)
    }));
    let (first, last) = (lines.first().map_or(0, |line| line.0), lines.last().map_or(0, |line| line.0));
    let near = crashes.iter().filter(|crash| crash.ended >= first && crash.began <= last);
    lines.extend(near.map(|crash| {
        (crash.began, format!("{}..{} crash: {}", in_ms(crash.began), in_ms(crash.ended), crash.what))
    }));
    lines.sort();
    let lines: Vec<_> = lines.into_iter().map(|(_, line)| format!("    {line}")).collect();
    lines.join("\n")
}
