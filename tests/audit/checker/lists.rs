//! Lists hold what they have to.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::seen;
use crate::history::{Bare, Name, Operation, Time, Walk};

/// What was in a state throughout is in its list, once, and nothing that had left it before. Returns how many had to be.
pub(super) fn lists_are_complete(
    walks: &[Walk],
    bare: &[Bare],
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
    for list in bare {
        let mut listed = HashSet::new();
        for id in &list.ids {
            if !listed.insert(id.as_str()) {
                wrong.push(format!("{id}: twice in one list of bare ids, {:?}", list.name));
            }
        }
        for ((id, run, name), stay) in &stays {
            if *name != list.name || stay.known >= list.began || stay.last <= list.ended {
                continue;
            }
            due += 1;
            if !listed.contains(id) {
                wrong.push(format!(
                    "{id} was {name:?} throughout (run {run}), and is missing in a list of bare ids"
                ));
            }
        }
    }
    due
}
