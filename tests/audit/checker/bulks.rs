//! Bulk operations: what they may have done, and whether their counts are right.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::history::{Answer, Bulk, How, Id, Operation, Time};

/// What they may have done to each id: requests whose outcome nobody knows, but when it was over at the latest.
pub(super) fn as_operations(bulks: &[Bulk], operations: &[Operation]) -> Vec<Operation> {
    let mut first: HashMap<&Id, Time> = HashMap::new();
    for operation in operations {
        let known = first.entry(&operation.id).or_insert(operation.began);
        *known = operation.began.min(*known);
    }
    let mut found = Vec::new();
    for bulk in bulks {
        let last = bulk.stands.last();
        if last.is_some_and(|last| last.matched == 0) {
            continue;
        }
        let ended = bulk.stands.iter().find(|stand| stand.is_over).map_or(Time::MAX, |stand| stand.at);
        // What came later did not match.
        let is_meant = |id: &str, began: Time| id.starts_with(&bulk.prefix) && began < bulk.answered;
        let meant = first.iter().filter(|(id, began)| is_meant(id, **began));
        found.extend(meant.map(|(id, _)| Operation {
            id: Arc::clone(id),
            ask: bulk.ask,
            how: How::default(),
            began: bulk.began,
            ended,
            answer: Answer::Unknown,
        }));
    }
    found
}

/// Each task is counted once, and what is over stays so.
pub(super) fn counts_are_right(bulks: &[Bulk], wrong: &mut Vec<String>) {
    let mut ops = BTreeMap::new();
    for bulk in bulks.iter().filter(|bulk| bulk.op.is_some()) {
        if let Some(other) = ops.insert(bulk.op, bulk) {
            wrong.push(format!("two bulk operations of one number: {other:?} and {bulk:?}"));
        }
        let mut found = Vec::new();
        for (place, stand) in bulk.stands.iter().enumerate() {
            let counted: u64 = stand.counts.iter().sum();
            if counted > stand.matched || stand.is_over && counted != stand.matched {
                found.push("has counted wrongly");
            }
            let before = place.checked_sub(1).map(|before| bulk.stands[before]);
            if before.is_some_and(|before| before.matched != stand.matched) {
                found.push("matches otherwise than before");
            }
            let is_same = |before| (stand.is_over, stand.counts) == before;
            if before.is_some_and(|before| before.is_over && !is_same((true, before.counts))) {
                found.push("was over, and goes on");
            }
        }
        wrong.extend(found.first().map(|found| format!("bulk operation {:?} {found}: {bulk:?}", bulk.op)));
    }
}
