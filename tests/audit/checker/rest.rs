//! How it stands when everything has settled.

use std::collections::HashMap;

use super::Rest;
use crate::history::{Listed, Name};
use crate::receiver::{Call, Effect, Kind};
use crate::workload::handler;

pub(super) fn at_rest(rest: &Rest, calls: &[Call], wrong: &mut Vec<String>) {
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
