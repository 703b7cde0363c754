//! Decides from what clients and the receiver saw whether the contract was kept.
//!
//! Two checkers of one thing, so that a mistake in one of them is seen: the rules here go by revision and look at every
//! answer; the [`oracle`](crate::oracle) searches an order of all requests about one id that explains the answers.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Answer, Ask, Crash, Id, Listed, Name, Operation, Phase, Seen, Time, Walk};
use crate::oracle::{self, Verdict};
use crate::receiver::{Call, Effect, Kind};
use crate::workload::handler;

/// All that is known of one life of a data folder.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) operations: Vec<Operation>,
    pub(crate) walks: Vec<Walk>,
    pub(crate) crashes: Vec<Crash>,
    pub(crate) calls: Vec<Call>,
    pub(crate) rest: Rest,
}

/// What the service says when everything has settled.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) records: BTreeMap<String, Option<Seen>>,
    pub(crate) listed: Vec<Listed>,
    /// Working, success, failed.
    pub(crate) counts: [u64; 3],
    /// Whether the wall clock has jumped: then a notice may be a day old at once, and be given up.
    pub(crate) clock_jumped: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<String>,
    pub(crate) ids: usize,
    /// Ids that the oracle has judged, and those whose history is too long for it.
    pub(crate) judged: usize,
    pub(crate) unjudged: usize,
    /// What had to be in lists, and was.
    pub(crate) entries_due: usize,
}

pub(crate) fn check(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut by_id: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &evidence.operations {
        by_id.entry(&operation.id).or_default().push(operation);
    }
    let mut calls: HashMap<&str, Vec<&Call>> = HashMap::new();
    for call in &evidence.calls {
        calls.entry(&call.id).or_default().push(call);
    }
    findings.ids = by_id.len();
    for (id, operations) in &by_id {
        let calls = calls.get(id).map_or(&[][..], Vec::as_slice);
        let mut wrong = Vec::new();
        wrong.extend(one_content_a_revision(operations));
        wrong.extend(legal_steps(operations));
        wrong.extend(never_older(operations));
        wrong.extend(started_once(operations));
        wrong.extend(one_success_between_revokes(operations, calls));
        wrong.extend(called_once(calls));
        wrong.extend(honest(operations, calls));
        match oracle::judge(operations, &evidence.crashes, handler(id) == "plain") {
            Verdict::Explained => findings.judged += 1,
            Verdict::Unexplained => {
                findings.judged += 1;
                wrong.push("oracle: no order of the requests explains the answers".to_owned());
            }
            Verdict::TooLong => findings.unjudged += 1,
        }
        if !wrong.is_empty() {
            let wrong = wrong.join("\n  ");
            findings
                .violations
                .push(format!("{id}:\n  {wrong}\n{}", story(operations, calls, &evidence.crashes)));
        }
    }
    findings.entries_due = lists_are_complete(&evidence.walks, &by_id, &mut findings.violations);
    at_rest(&evidence.rest, &evidence.calls, &mut findings.violations);
    findings
}

fn seen<'a>(operations: &[&'a Operation]) -> impl Iterator<Item = (&'a Operation, &'a Seen)> {
    let seen = operations.iter().map(|operation| match &operation.answer {
        Answer::Seen { seen, .. } => Some((*operation, seen)),
        _ => None,
    });
    seen.flatten().collect::<Vec<_>>().into_iter()
}

/// What two answers say of one revision is the same; otherwise one of them told of something that was lost later.
fn one_content_a_revision(operations: &[&Operation]) -> Vec<String> {
    let (mut known, mut wrong) = (HashMap::new(), Vec::new());
    for (_, seen) in seen(operations) {
        let first = *known.entry(seen.revision).or_insert(seen);
        if first != seen {
            wrong.push(format!("two contents of one revision: {} and {}", brief(first), brief(seen)));
        }
    }
    wrong
}

/// From revision to revision the task moves as tasks do.
fn legal_steps(operations: &[&Operation]) -> Vec<String> {
    let by_revision: BTreeMap<_, _> = seen(operations).map(|(_, seen)| (seen.revision, seen)).collect();
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
    /// Who saw the task last, unless it was found absent since.
    seen: Option<&'a Operation>,
}

/// Who asks after an answer has come is not told of an older state than that answer.
fn never_older(operations: &[&Operation]) -> Vec<String> {
    let answered: Vec<_> = operations.iter().filter(|operation| operation.ended != Time::MAX).collect();
    // At the same moment what begins goes first: it may have been before.
    let begins = answered.iter().enumerate().map(|(number, operation)| (operation.began, 0, number));
    let ends = answered.iter().enumerate().map(|(number, operation)| (operation.ended, 1, number));
    let mut moments: Vec<_> = begins.chain(ends).collect();
    moments.sort_unstable();

    let mut now = Floor { least: 1, seen: None };
    let (mut floors, mut wrong) = (vec![now; answered.len()], Vec::new());
    for (_, is_end, number) in moments {
        if is_end == 0 {
            floors[number] = now;
            continue;
        }
        let (operation, floor) = (answered[number], floors[number]);
        match &operation.answer {
            Answer::Seen { own, seen } => {
                let least = floor.least + u64::from(*own && floor.seen.is_some());
                if seen.revision < least {
                    let told = told(operation);
                    wrong.push(format!("older than what was known (revision {least} or later): {told}"));
                }
                if seen.revision >= now.least {
                    now = Floor { least: seen.revision, seen: Some(operation) };
                }
            }
            Answer::Absent { own } => {
                let Some(known) = floor.seen else { continue };
                let undoes = |other: &&Operation| {
                    let is_possible = match (&other.ask, &other.answer) {
                        (Ask::Forget | Ask::Revoke, Answer::Unknown | Answer::Seen { .. }) => true,
                        (Ask::Forget | Ask::Revoke, Answer::Absent { own }) => *own,
                        _ => false,
                    };
                    is_possible && other.began < operation.ended && other.ended > known.began
                };
                let is_revoking =
                    matches!(&known.answer, Answer::Seen { seen, .. } if seen.phase == Some(Phase::Revoking));
                if !own && !is_revoking && !operations.iter().any(undoes) {
                    wrong.push(format!("lost: {} and then {}", told(known), told(operation)));
                }
                // One revision at least made it absent, and another one launches it again.
                if floor.least + 2 > now.least {
                    now = Floor { least: floor.least + 2, seen: None };
                }
            }
            Answer::Unknown | Answer::Refused(_) => {}
        }
    }
    wrong
}

/// Of many launches exactly one is told that it started a run.
fn started_once(operations: &[&Operation]) -> Vec<String> {
    let mut runs = HashSet::new();
    let own = seen(operations).filter(|(operation, _)| {
        let is_exact = matches!(operation.ask, Ask::Launch | Ask::Retry);
        is_exact && matches!(operation.answer, Answer::Seen { own: true, .. })
    });
    let twice = own.filter(|(_, seen)| !runs.insert(seen.run));
    twice.map(|(_, seen)| format!("run {} was started by two requests", seen.run)).collect()
}

fn one_success_between_revokes(operations: &[&Operation], calls: &[&Call]) -> Vec<String> {
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

/// An attempt is one call.
fn called_once(calls: &[&Call]) -> Vec<String> {
    let mut attempts = HashSet::new();
    let runs = calls.iter().filter(|call| call.kind == Kind::Run);
    let twice = runs.filter(|call| !attempts.insert((call.run, call.attempt)));
    twice.map(|call| format!("run {} attempt {} was called twice", call.run, call.attempt)).collect()
}

/// A success was one at the receiver; what is not in doubt had no effect there.
fn honest(operations: &[&Operation], calls: &[&Call]) -> Vec<String> {
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

/// What was in a state throughout is in its list, once, and nothing that had left it before. Returns how many had to be.
fn lists_are_complete(
    walks: &[Walk],
    by_id: &BTreeMap<&str, Vec<&Operation>>,
    wrong: &mut Vec<String>,
) -> usize {
    /// When a run was seen in a state first and last, and since when it is.
    struct Stay<'a> {
        known: Time,
        last: Time,
        since: &'a str,
    }
    let mut stays: HashMap<(&str, u64, Name), Stay<'_>> = HashMap::new();
    for (id, operations) in by_id {
        for (operation, seen) in seen(operations) {
            let stay = stays.entry((id, seen.run, seen.name)).or_insert(Stay {
                known: operation.ended,
                last: operation.began,
                since: &seen.since,
            });
            stay.known = stay.known.min(operation.ended);
            stay.last = stay.last.max(operation.began);
        }
    }
    let mut due = 0;
    for walk in walks {
        let mut listed = HashSet::new();
        for entry in &walk.listed {
            let (id, key) = (entry.id.as_str(), (entry.id.as_str(), entry.run, entry.name));
            if !listed.insert(key) {
                wrong.push(format!("{id}: twice in one list of {:?}", walk.name));
            }
            let is_other = stays.get(&key).is_some_and(|stay| stay.since != entry.since);
            if is_other || entry.name != walk.name {
                wrong.push(format!("{id}: listed otherwise than it was: {entry:?}"));
            }
            let after = [Name::Success, Name::Failed].map(|name| (id, entry.run, name));
            let later = [Name::Working, Name::Success, Name::Failed].map(|name| (id, entry.run + 1, name));
            let moved_on = after.iter().filter(|_| entry.name == Name::Working).chain(&later);
            let is_stale = moved_on.filter_map(|key| stays.get(key)).any(|stay| stay.known < walk.began);
            if is_stale {
                wrong.push(format!("{id}: listed in a state that it was known to have left: {entry:?}"));
            }
        }
        for (key, stay) in &stays {
            if key.2 != walk.name || stay.known >= walk.began || stay.last <= walk.ended {
                continue;
            }
            due += 1;
            if !listed.contains(key) {
                wrong.push(format!(
                    "{} was {:?} throughout (run {}), and is missing in a list of {} pages",
                    key.0, key.2, key.1, walk.pages
                ));
            }
        }
    }
    due
}

fn at_rest(rest: &Rest, calls: &[Call], wrong: &mut Vec<String>) {
    let count = |name| rest.listed.iter().filter(|entry| entry.name == name).count() as u64;
    let listed = [Name::Working, Name::Success, Name::Failed].map(count);
    if listed != rest.counts {
        wrong.push(format!("at rest the lists hold {listed:?}, and the counts say {:?}", rest.counts));
    }
    if listed[0] > 0 {
        wrong.push(format!("at rest {} are working", listed[0]));
    }
    let mut by_id: HashMap<&str, &Listed> = HashMap::new();
    for entry in &rest.listed {
        if by_id.insert(&entry.id, entry).is_some() {
            wrong.push(format!("{}: listed twice at rest", entry.id));
        }
    }
    for (id, record) in &rest.records {
        let of_record = record.as_ref().map(|seen| (seen.name, seen.run, &seen.since));
        let of_list = by_id.get(&**id).map(|entry| (entry.name, entry.run, &entry.since));
        if of_record != of_list {
            wrong.push(format!("{id}: at rest the record says {of_record:?}, the list {of_list:?}"));
        }
        if record.as_ref().is_some_and(|seen| seen.phase.is_some()) {
            wrong.push(format!("{id}: something of it is under way at rest: {record:?}"));
        }
        let Some(seen) = record.as_ref().filter(|_| handler(id) == "told") else { continue };
        let is_told = |call: &Call| {
            call.kind == Kind::Notice
                && *call.id == **id
                && call.run == seen.run
                && call.effect == Effect::Done
        };
        if !rest.clock_jumped && !calls.iter().any(is_told) {
            wrong.push(format!("{id}: nobody was told of the outcome of run {}", seen.run));
        }
    }
    for entry in rest.listed.iter().filter(|entry| !rest.records.contains_key(&entry.id)) {
        wrong.push(format!("{}: listed, and nobody asked for it", entry.id));
    }
}

fn brief(seen: &Seen) -> String {
    let Seen { revision, run, name, phase, attempt, since, error, .. } = seen;
    format!("revision {revision}: run {run} {name:?} {phase:?} attempt {attempt} since {since} {error:?}")
}

fn told(operation: &Operation) -> String {
    let Operation { ask, began, ended, answer, .. } = operation;
    let answer = match answer {
        Answer::Seen { own, seen } => format!("own: {own}, {}", brief(seen)),
        other => format!("{other:?}"),
    };
    let ended = if *ended == Time::MAX { "never".to_owned() } else { in_ms(*ended) };
    format!("{}..{ended} {ask:?} -> {answer}", in_ms(*began))
}

fn in_ms(time: Time) -> String {
    format!("{}.{:03}", time / 1_000_000, time / 1_000 % 1_000)
}

/// All that happened to an id, for people.
fn story(operations: &[&Operation], calls: &[&Call], crashes: &[Crash]) -> String {
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

/// An id of the workload.
pub(crate) fn id(number: usize) -> Id {
    Id::from(format!("t-{number}"))
}
