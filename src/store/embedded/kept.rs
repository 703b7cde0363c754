//! Which batches of the journal are still needed, by which tasks.
//!
//! Each record is the whole state of its task but, mostly, for the input, so a task needs at most two batches: the one
//! that holds its input, and the last. A batch that no task needs is dead and may be deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use crate::task::TaskId;

/// So many records may be unneeded before batches that are needed for a few others only are given up.
const SLACK: usize = 5_000;

#[derive(Debug, Default)]
pub(super) struct Kept {
    tasks: HashMap<TaskId, Needs, RandomState>,
    batches: BTreeMap<u64, Batch>,
    /// Of all batches.
    records: usize,
    /// The batches to delete.
    dead: VecDeque<u64>,
    /// The batches to give up soon, because they hold bytes that were dropped.
    tainted: BTreeSet<u64>,
    /// The number of the last batch.
    last: u64,
}

/// The batches that a task needs; may be the same one twice.
#[derive(Debug, Clone, Copy)]
struct Needs {
    input: u64,
    last: u64,
}

#[derive(Debug)]
struct Batch {
    /// Of the ids of its records, also of those that nobody needs: in parts, which are enough to find what has to go.
    hashes: Vec<u32>,
    /// How often tasks need it.
    needs: usize,
    /// Whether it is not to be given up.
    is_spared: bool,
}

impl Kept {
    /// The number of the next batch.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// A batch was found, or written.
    pub(super) fn append<'a>(&mut self, number: u64, ids: impl Iterator<Item = &'a TaskId>) {
        let hashes: Vec<_> = ids.map(|id| self.hash(id)).collect();
        self.last = number;
        self.records += hashes.len();
        self.batches.insert(number, Batch { hashes, needs: 0, is_spared: false });
    }

    /// A task was found, for which these batches are needed.
    pub(super) fn found(&mut self, id: TaskId, input: u64, last: u64) {
        self.need(input);
        self.need(last);
        self.tasks.insert(id, Needs { input, last });
    }

    /// The last batch holds a record of the task; of its input too if it `is_whole`.
    pub(super) fn record(&mut self, id: &TaskId, is_whole: bool) {
        let last = self.last;
        self.need(last);
        match self.tasks.get_mut(id) {
            Some(needs) if is_whole => {
                let Needs { input, last: before } = std::mem::replace(needs, Needs { input: last, last });
                self.need(last);
                self.release(input);
                self.release(before);
            }
            Some(needs) => {
                let before = std::mem::replace(&mut needs.last, last);
                self.release(before);
            }
            None => {
                self.need(last);
                self.tasks.insert(id.clone(), Needs { input: last, last });
            }
        }
    }

    pub(super) fn holds(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
    }

    /// The archive has the task.
    pub(super) fn bury(&mut self, id: &TaskId) {
        if let Some(Needs { input, last }) = self.tasks.remove(id) {
            self.release(input);
            self.release(last);
        }
    }

    /// The batches that hold a record of one of these ids, whether it is needed or not. Seldom one too many.
    pub(super) fn holding<'a>(&self, ids: impl Iterator<Item = &'a TaskId>) -> Vec<u64> {
        let hashes: HashSet<_, RandomState> = ids.map(|id| self.hash(id)).collect();
        if hashes.is_empty() {
            return Vec::new();
        }
        let holds = |batch: &Batch| batch.hashes.iter().any(|hash| hashes.contains(hash));
        self.batches.iter().filter(|(_, batch)| holds(batch)).map(|(number, _)| *number).collect()
    }

    /// These batches hold bytes that must not stay for long.
    pub(super) fn taint(&mut self, batches: impl IntoIterator<Item = u64>) {
        self.tainted.extend(batches);
    }

    /// Batches that nobody needs are dead, also those that were never needed since they were found.
    pub(super) fn drop_unneeded(&mut self) {
        let unneeded = self.batches.extract_if(.., |_, batch| batch.needs == 0);
        for (number, batch) in unneeded {
            self.records -= batch.hashes.len();
            self.dead.push_back(number);
        }
    }

    /// A batch whose needed records are to be written once more, so that it can be deleted: one that is tainted, or the
    /// oldest where less than half of all records are needed, as where a task works on for long.
    pub(super) fn next_to_give_up(&mut self) -> Option<u64> {
        while let Some(number) = self.tainted.last() {
            if self.batches.get(number).is_some_and(|batch| !batch.is_spared) {
                return Some(*number);
            }
            self.tainted.pop_last();
        }
        let is_sparse = self.records > 4 * self.tasks.len() + SLACK;
        // Every commit asks: it must not walk over the batches in vain.
        if !is_sparse {
            return None;
        }
        self.batches.iter().find(|(_, batch)| !batch.is_spared).map(|(number, _)| *number)
    }

    /// The batch is not to be given up as long as this process runs.
    pub(super) fn spare(&mut self, number: u64) {
        if let Some(batch) = self.batches.get_mut(&number) {
            batch.is_spared = true;
        }
    }

    pub(super) fn needs(&self, id: &TaskId, batch: u64) -> bool {
        self.tasks.get(id).is_some_and(|needs| needs.input == batch || needs.last == batch)
    }

    pub(super) fn dead(&mut self) -> &mut VecDeque<u64> {
        &mut self.dead
    }

    pub(super) fn is_tidy(&self) -> bool {
        self.dead.is_empty() && self.tainted.is_empty()
    }

    #[expect(clippy::cast_possible_truncation, reason = "a part is enough")]
    fn hash(&self, id: &TaskId) -> u32 {
        self.tasks.hasher().hash_one(id) as u32
    }

    fn need(&mut self, number: u64) {
        if let Some(batch) = self.batches.get_mut(&number) {
            batch.needs += 1;
        }
    }

    fn release(&mut self, number: u64) {
        let Some(batch) = self.batches.get_mut(&number) else { return };
        batch.needs -= 1;
        if batch.needs == 0
            && let Some(batch) = self.batches.remove(&number)
        {
            self.records -= batch.hashes.len();
            self.dead.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    fn needed_by(kept: &Kept, task: &TaskId) -> Vec<u64> {
        kept.tasks.get(task).map_or_else(Vec::new, |needs| vec![needs.input, needs.last])
    }

    fn dead(kept: &mut Kept) -> Vec<u64> {
        kept.dead().iter().copied().collect()
    }

    /// Writes a batch of records, each with whether it is whole.
    fn write(kept: &mut Kept, records: &[(&TaskId, bool)]) {
        let number = kept.next();
        kept.append(number, records.iter().map(|(task, _)| *task));
        for (task, is_whole) in records {
            kept.record(task, *is_whole);
        }
    }

    #[test]
    fn a_batch_is_dead_as_soon_as_no_task_needs_it() {
        let (a, b, mut kept) = (id("a"), id("b"), Kept::default());
        assert!(kept.next() == 1 && kept.is_tidy() && !kept.holds(&a));
        write(&mut kept, &[(&a, true), (&b, true)]);
        assert!(kept.next() == 2 && kept.holds(&a) && kept.is_tidy());
        write(&mut kept, &[(&a, false)]);
        assert_eq!((needed_by(&kept, &a), needed_by(&kept, &b)), (vec![1, 2], vec![1, 1]));
        assert!(kept.needs(&a, 1) && kept.needs(&a, 2) && kept.needs(&b, 1) && !kept.needs(&b, 2));
        assert!(kept.is_tidy(), "the input of a is in the first one");

        write(&mut kept, &[(&a, false)]);
        assert_eq!((dead(&mut kept), kept.records), (vec![2], 3));
        write(&mut kept, &[(&a, true)]);
        assert_eq!((needed_by(&kept, &a), kept.dead().len()), (vec![4, 4], 2), "b needs the first one");
        write(&mut kept, &[(&b, true)]);
        kept.bury(&a);
        assert_eq!((dead(&mut kept), kept.records), (vec![2, 3, 1, 4], 1));
        assert!(!kept.holds(&a) && !kept.needs(&a, 4) && needed_by(&kept, &a).is_empty());
        assert!(kept.holds(&b) && !kept.is_tidy());
        kept.dead().clear();
        assert!(kept.is_tidy());
    }

    #[test]
    fn a_batch_that_is_tainted_is_given_up_until_it_is_gone() {
        let (a, b, mut kept) = (id("a"), id("b"), Kept::default());
        write(&mut kept, &[(&a, true)]);
        write(&mut kept, &[(&b, true)]);
        assert_eq!(kept.next_to_give_up(), None);
        kept.bury(&a);
        kept.dead().clear();
        kept.taint([2, 1]);
        assert!(!kept.is_tidy());
        assert_eq!((kept.next_to_give_up(), kept.next_to_give_up()), (Some(2), Some(2)), "the first is gone");
        write(&mut kept, &[(&b, true)]);
        assert_eq!(kept.next_to_give_up(), None);
        kept.dead().clear();
        assert!(kept.is_tidy());
    }

    #[test]
    fn the_oldest_batch_is_given_up_where_few_records_are_needed() {
        let (a, mut kept) = (id("a"), Kept::default());
        // All but one are of tasks that the archive has.
        kept.append(1, repeat_n(&a, SLACK + 4));
        kept.found(a.clone(), 1, 1);
        assert_eq!(kept.next_to_give_up(), None);
        write(&mut kept, &[(&a, false)]);
        assert_eq!(kept.next_to_give_up(), Some(1));
        write(&mut kept, &[(&a, true)]);
        assert_eq!((kept.next_to_give_up(), kept.records), (None, 1));
    }

    #[test]
    fn a_batch_that_is_spared_is_not_given_up_and_the_next_one_is() {
        let (a, b, mut kept) = (id("a"), id("b"), Kept::default());
        kept.append(1, repeat_n(&a, SLACK + 9));
        kept.found(a.clone(), 1, 1);
        write(&mut kept, &[(&b, true)]);
        kept.taint([1]);
        kept.spare(1);
        assert_eq!(kept.next_to_give_up(), Some(2));
        assert!(kept.is_tidy(), "nothing is to be done for a taint");
        kept.spare(2);
        assert_eq!(kept.next_to_give_up(), None);
    }

    #[test]
    fn what_nobody_needed_when_it_was_found_is_dropped() {
        let (a, mut kept) = (id("a"), Kept::default());
        for (number, records) in [(3, 5), (4, 2), (7, 1)] {
            kept.append(number, repeat_n(&a, records));
        }
        kept.found(a.clone(), 4, 7);
        kept.drop_unneeded();
        assert_eq!((dead(&mut kept), kept.records), (vec![3], 3));
        assert!(kept.needs(&a, 4) && kept.needs(&a, 7) && kept.next() == 8);
        kept.bury(&a);
        assert_eq!((kept.dead().len(), kept.records), (3, 0));
    }

    #[test]
    fn a_batch_holds_what_was_written_to_it_until_it_is_dead() {
        let (a, b, c, mut kept) = (id("a"), id("b"), id("c"), Kept::default());
        write(&mut kept, &[(&a, true), (&b, true)]);
        write(&mut kept, &[(&a, true)]);
        write(&mut kept, &[(&a, true), (&b, false)]);
        kept.bury(&a);
        let holding = |kept: &Kept, ids: &[&TaskId]| kept.holding(ids.iter().copied());
        assert_eq!(holding(&kept, &[&a]), [1, 3], "the archive has it, b needs both");
        write(&mut kept, &[(&b, true), (&c, true)]);
        assert_eq!((holding(&kept, &[&a]), holding(&kept, &[&a, &c])), (vec![], vec![4]));
        assert!(holding(&kept, &[]).is_empty());
    }
}
