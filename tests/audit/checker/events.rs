//! Events: each is told once, in order, and none is missed without a word.

use std::collections::{BTreeMap, HashMap};

use super::story::brief;
use crate::history::{Crash, Name, Seen, Stream, Tiding, Time};

/// Returns how many events were told in all.
pub(super) fn told_once_in_order(
    streams: &[Stream],
    crashes: &[Crash],
    records: &BTreeMap<String, Option<Seen>>,
    wrong: &mut Vec<String>,
) -> usize {
    // What anybody was told.
    let mut all: BTreeMap<u64, (&str, &Seen)> = BTreeMap::new();
    for told in streams.iter().flat_map(|stream| &stream.told) {
        let Tiding::Event { seq, id, seen } = &told.what else { continue };
        let first = *all.entry(*seq).or_insert((id, seen));
        if first != (&**id, seen) {
            wrong.push(format!(
                "events: two of number {seq}: {} {} and {id} {}",
                first.0,
                brief(first.1),
                brief(seen)
            ));
        }
    }
    for (number, stream) in streams.iter().enumerate() {
        let mut reader = Reader { stream, place: stream.after, at: 0, part: 0, known: HashMap::new() };
        let mut covered = Vec::new();
        let mut from = stream.after;
        let mut found = Vec::new();
        for told in &stream.told {
            if matches!(told.what, Tiding::Gap { .. }) {
                covered.push((from, reader.place));
                from = told.what.place();
            }
            found.extend(reader.next(told.at, &told.what, crashes));
        }
        covered.push((from, reader.place));
        for (from, to) in covered.into_iter().filter(|(from, to)| from < to) {
            for (seq, (id, seen)) in all.range(from + 1..=to).filter(|(_, (id, seen))| stream.wants(id, seen))
            {
                let is_told = |what: &Tiding| matches!(what, Tiding::Event { seq: told, .. } if told == seq);
                if !stream.told.iter().any(|told| is_told(&told.what)) {
                    found.push(format!("was not told of {seq}, {id} {}", brief(seen)));
                }
            }
        }
        if stream.is_whole {
            found.extend(reader.ends_so(records));
        }
        wrong.extend(found.into_iter().map(|found| format!("events: reader {number} {found}")));
    }
    all.len()
}

/// One who reads along.
struct Reader<'a> {
    stream: &'a Stream,
    place: u64,
    at: Time,
    /// Grows with each gap.
    part: usize,
    /// Of each id the last that was told, and in which part.
    known: HashMap<&'a str, (&'a Seen, usize)>,
}

impl<'a> Reader<'a> {
    fn next(&mut self, at: Time, what: &'a Tiding, crashes: &[Crash]) -> Option<String> {
        let (place, before) = (what.place(), self.place);
        let since = std::mem::replace(&mut self.at, at);
        self.place = place;
        match what {
            Tiding::Place(_) if place < before => Some(format!("is at {place}, and was at {before} before")),
            Tiding::Place(_) => None,
            Tiding::Gap { from, to } => {
                self.part += 1;
                // Fewer events than are kept happen between two of its connections, so only a restart forgets some.
                let is_explained = crashes.iter().any(|crash| crash.ended > since && crash.began < at);
                let is_gap = *from == before + 1 && to >= from;
                (!is_gap || !is_explained)
                    .then(|| format!("is told of a gap from {from} to {to} at {before}"))
            }
            Tiding::Event { seq, .. } if *seq <= before => Some(format!("was told of {seq} after {before}")),
            Tiding::Event { seq, id, seen } => {
                if !self.stream.wants(id, seen) {
                    return Some(format!("did not ask for {seq}, {id} {}", brief(seen)));
                }
                let known = self.known.insert(id, (seen, self.part));
                let is_next = match known {
                    Some((last, part)) if part == self.part && self.stream.state.is_none() => {
                        seen.revision == last.revision + 1
                    }
                    Some((last, _)) => seen.revision > last.revision,
                    // It has read from the beginning of everything.
                    None if self.part == 0 && self.stream.after == 0 && self.stream.state.is_none() => {
                        seen.revision == 1
                    }
                    None => true,
                };
                let before = known.map_or("nothing".to_owned(), |(last, _)| brief(last));
                (!is_next).then(|| {
                    format!("has missed something of {id}: {seq} tells {}, after {before}", brief(seen))
                })
            }
        }
    }

    /// Whether what it was told last of each id is how it stands.
    fn ends_so(&self, records: &BTreeMap<String, Option<Seen>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, (seen, part)) in &self.known {
            let Some(record) = records.get(*id) else { continue };
            let is_so = match record {
                Some(record) if *part == self.part => seen.revision == record.revision,
                Some(record) => seen.revision <= record.revision,
                None => *part != self.part || seen.name == Name::NotFound,
            };
            if !is_so {
                wrong.push(format!("was told of {id} at last {}, and at rest it is {record:?}", brief(seen)));
            }
        }
        wrong
    }
}
