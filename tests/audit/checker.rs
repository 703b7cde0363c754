//! Decides from what clients and the receiver saw whether the contract was kept.
//!
//! Two checkers of one thing, so that a mistake in one of them is seen: the rules here go by revision and look at every
//! answer; the [`oracle`](crate::oracle) searches an order of all requests about one id that explains the answers.

mod bulks;
mod effects;
mod events;
mod launches;
mod lists;
mod pauses;
mod records;
mod rest;
mod revisions;
mod story;

use std::collections::{BTreeMap, HashMap};

use crate::history::{Answer, Ask, Id, Listed, Noted, Operation, Recorded, Seen, Stream, Tiding, Time};
use crate::oracle::{self, Verdict};
use crate::receiver::Call;
use crate::workload::handler;

/// All that is known of one life of a data folder.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) noted: Noted,
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
    pub(crate) events: usize,
}

/// What a reader of events was told of one id.
#[derive(Debug, Clone, Copy)]
struct Event<'a> {
    at: Time,
    seen: &'a Seen,
}

pub(crate) fn check(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let Noted { operations, walks, bare, recorded, streams, crashes, bulks, pauses, .. } = &evidence.noted;
    let of_bulks = bulks::as_operations(bulks, operations);
    let mut by_id = grouped(operations, |operation| &operation.id);
    for operation in &of_bulks {
        by_id.entry(&operation.id).or_default().push(operation);
    }
    let calls = grouped(&evidence.calls, |call| &call.id);
    let recorded = grouped(recorded, |record| &record.id);
    let events = events_by_id(streams);
    findings.ids = by_id.len();
    for (id, operations) in &by_id {
        let calls = calls.get(id).map_or(&[][..], Vec::as_slice);
        let events = events.get(id).map_or(&[][..], Vec::as_slice);
        let recorded: &[&Recorded] = recorded.get(id).map_or(&[][..], Vec::as_slice);
        let mut wrong = Vec::new();
        wrong.extend(revisions::one_content_a_revision(operations, events));
        wrong.extend(revisions::legal_steps(operations, events));
        wrong.extend(revisions::never_older(operations, events));
        wrong.extend(launches::started_once(operations));
        wrong.extend(launches::one_run_a_key(operations));
        wrong.extend(launches::conditions_hold(operations));
        wrong.extend(launches::one_success_between_revokes(operations, calls));
        wrong.extend(effects::called_once(calls));
        wrong.extend(effects::honest(operations, calls));
        wrong.extend(effects::each_honest(recorded, calls));
        wrong.extend(records::attempts_are_legal(recorded));
        wrong.extend(records::attempts_stay(recorded, operations));
        wrong.extend(pauses::nothing_starts(pauses, operations, calls));
        match oracle::judge(operations, crashes, handler(id) == "plain") {
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
                .push(format!("{id}:\n  {wrong}\n{}", story::story(operations, calls, crashes)));
        }
    }
    findings.entries_due = lists::lists_are_complete(walks, bare, &by_id, &mut findings.violations);
    findings.events =
        events::told_once_in_order(streams, crashes, &evidence.rest.records, &mut findings.violations);
    bulks::counts_are_right(bulks, &mut findings.violations);
    rest::at_rest(&evidence.rest, &evidence.calls, &mut findings.violations);
    findings
}

fn grouped<T>(all: &[T], id: impl Fn(&T) -> &Id) -> BTreeMap<&str, Vec<&T>> {
    let mut by_id: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
    for one in all {
        by_id.entry(id(one)).or_default().push(one);
    }
    by_id
}

fn events_by_id(streams: &[Stream]) -> HashMap<&str, Vec<Event<'_>>> {
    let mut by_id: HashMap<&str, Vec<Event<'_>>> = HashMap::new();
    for told in streams.iter().flat_map(|stream| &stream.told) {
        if let Tiding::Event { id, seen, .. } = &told.what {
            by_id.entry(id).or_default().push(Event { at: told.at, seen });
        }
    }
    by_id
}

fn seen<'a>(operations: &[&'a Operation]) -> impl Iterator<Item = (&'a Operation, &'a Seen)> {
    let seen = operations.iter().map(|operation| match &operation.answer {
        Answer::Seen { seen, .. } | Answer::Same(seen) => Some((*operation, seen)),
        _ => None,
    });
    seen.flatten().collect::<Vec<_>>().into_iter()
}

/// Whether a request may have made the id unknown.
fn may_undo(operation: &Operation) -> bool {
    match (operation.ask, &operation.answer) {
        (Ask::Forget | Ask::Revoke, Answer::Unknown | Answer::Seen { .. }) => true,
        (Ask::Forget | Ask::Revoke, Answer::Absent { own }) => *own,
        _ => false,
    }
}

/// An id of the workload.
pub(crate) fn id(number: usize) -> Id {
    Id::from(format!("t-{number}"))
}
