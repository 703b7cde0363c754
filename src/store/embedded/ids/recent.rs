//! The entries that are in no run yet.
//!
//! "Was this id ever seen?" is asked for every new id, and mostly the answer is no: a hash table says so with one look,
//! where a sorted one would walk down through memory that nothing has touched for long.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::Entry;

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By hash, the first place that was added.
    first: HashMap<u64, u64, RandomState>,
    /// The other places of a hash: its id has come back from the archive, or it is shared by two ids.
    further: BTreeSet<Entry>,
}

impl Recent {
    pub(super) fn add(&mut self, Entry { hash, place }: Entry) {
        let first = *self.first.entry(hash).or_insert(place);
        if first != place {
            self.further.insert(Entry { hash, place });
        }
    }

    /// The places of a hash.
    pub(super) fn places(&self, hash: u64) -> impl Iterator<Item = u64> {
        let first = self.first.get(&hash).copied();
        let all = Entry { hash, place: 0 }..=Entry { hash, place: u64::MAX };
        let further = first.map(|_| self.further.range(all).map(|entry| entry.place));
        first.into_iter().chain(further.into_iter().flatten())
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.further.len()
    }

    /// Every entry, in the order of a run.
    pub(super) fn sorted(&self) -> Vec<Entry> {
        let first = self.first.iter().map(|(&hash, &place)| Entry { hash, place });
        let mut all: Vec<_> = first.chain(self.further.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    pub(super) fn clear(&mut self) {
        self.first.clear();
        self.further.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_hash_is_found_once() {
        let mut recent = Recent::default();
        for (hash, place) in [(7, 3), (9, 1), (7, 2), (7, 3), (7, 5), (7, 2)] {
            recent.add(Entry { hash, place });
        }
        let places = |hash| {
            let mut places: Vec<_> = recent.places(hash).collect();
            places.sort_unstable();
            places
        };
        assert_eq!((places(7), places(9), places(8)), (vec![2, 3, 5], vec![1], vec![]));
        assert_eq!(recent.len(), 4);
        let sorted: Vec<_> = recent.sorted().into_iter().map(|entry| (entry.hash, entry.place)).collect();
        assert_eq!(sorted, [(7, 2), (7, 3), (7, 5), (9, 1)]);
        recent.clear();
        assert_eq!((recent.len(), recent.places(7).count()), (0, 0));
    }
}
