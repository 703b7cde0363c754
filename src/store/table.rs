//! The containers in memory: a record by id, and the tasks of each state in the order in which they entered it.
//!
//! A status reads `records` alone and waits for nobody. A list holds `order` for reading, a change holds it for
//! writing, so that a page shows one moment; nothing is awaited meanwhile.
//!
//! Invariant: `records` and `order` hold the same tasks whenever `order` is not held for writing.

mod ordered;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use foldhash::fast::RandomState;

pub(super) use self::ordered::EXAMINED_MAX;
use self::ordered::Ordered;

use super::feed::Feeder;
use super::{Counts, Moved, Order, Page, Query, Refused, StateCounts, now};
use crate::sync::{self, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::task::{Change, HandlerName, Stamp, StateName, Task, TaskId};

/// Tasks that leave memory before others get a turn.
const EVICTED_AT_ONCE: usize = 250;

#[derive(Debug)]
pub(super) struct Table {
    records: sync::HashMap<TaskId, Arc<Task>, RandomState>,
    order: RwLock<Ordered>,
    /// Held while tasks leave memory, and shared by who reads the archive for a page.
    evictions: RwLock<()>,
    /// Fed while `order` is held for writing.
    pub(super) feeder: Feeder,
}

/// Tasks in memory that are settled, and of which nothing is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtRest {
    pub(super) tasks: usize,
    /// Of their inputs and outputs.
    pub(super) bytes: usize,
    /// How many of them came back from the archive, because something of them has changed.
    pub(super) returned: usize,
}

/// A change that has happened.
#[derive(Debug)]
pub(super) struct Move {
    /// The record before, in memory or not; none for an id that was never seen.
    pub(super) previous: Option<Arc<Task>>,
    pub(super) next: Arc<Task>,
}

impl Move {
    /// Whether it drops bytes of input and output, or attempts.
    pub(super) fn has_dropped_bytes(&self) -> bool {
        self.previous.as_ref().is_some_and(|previous| {
            let is_stripped = self.next.is_stripped() && !previous.is_stripped();
            is_stripped || previous.payload_bytes() > 0 && self.next.payload_bytes() == 0
        })
    }
}

/// A part of the list that is not in memory.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// What matches, in the order of the query.
    pub(super) tasks: Vec<Arc<Task>>,
    /// The last place that was looked at, where there is more behind it.
    pub(super) cut_at: Option<u64>,
}

impl Table {
    /// An empty one that keeps so many events.
    pub(super) fn new(events_kept: usize) -> Self {
        Self {
            records: sync::HashMap::default(),
            order: RwLock::default(),
            evictions: RwLock::default(),
            feeder: Feeder::new(events_kept),
        }
    }

    /// The record, also one that is [`StateName::Absent`].
    pub(super) fn get(&self, id: &TaskId) -> Option<Arc<Task>> {
        self.records.read_sync(id, |_, task| Arc::clone(task))
    }

    /// Decides and makes a change at once, for a store that keeps nothing else.
    pub(super) fn change(&self, id: &TaskId, change: Change) -> Moved {
        let order = self.write();
        let previous = self.get(id);
        let stamp = Stamp { seq: order.seq + 1, at: now() };
        match Task::after(previous.as_deref(), id, change, stamp) {
            Ok(next) => {
                let next = Arc::new(next);
                self.show(order, &[Move { previous, next: Arc::clone(&next) }], stamp.seq);
                Moved::Done(next)
            }
            Err(reason) => Moved::Refused(Refused::new(reason, previous)),
        }
    }

    /// Shows changes that are durable now, in their order; `seq` is the number of the last one.
    pub(super) fn publish(&self, moves: &[Move], seq: u64) {
        self.show(self.write(), moves, seq);
    }

    fn show(&self, mut order: RwLockWriteGuard<'_, Ordered>, moves: &[Move], seq: u64) {
        for one in moves {
            self.replace(&mut order, one);
        }
        order.seq = seq;
        // Whoever has read an event finds a record that is as new.
        self.feeder.take(moves, seq + 1 - moves.len() as u64);
        drop(order);
        self.feeder.tell();
    }

    /// Takes in what an earlier process has left; `seq` is the number of its last change.
    pub(super) fn restore(&self, moves: &[Move], seq: u64) {
        let mut order = self.write();
        for one in moves {
            self.replace(&mut order, one);
        }
        order.seq = seq;
        self.feeder.start_from(seq);
    }

    /// Starts with what an archive holds: its counts, and how far it is complete.
    pub(super) fn start_from(&self, counts: BTreeMap<HandlerName, StateCounts>, archived_to: u64) {
        let mut order = self.write();
        order.counts = counts;
        order.set_archived_to(archived_to);
    }

    fn replace(&self, order: &mut Ordered, Move { previous, next }: &Move) {
        let displaced = self.records.upsert_sync(next.id.clone(), Arc::clone(next));
        if let Some(old) = displaced {
            order.take(&old);
        }
        if let Some(previous) = previous {
            order.count(previous, |count| count.saturating_sub(1));
        }
        order.count(next, |count| count + 1);
        order.put(Arc::clone(next));
    }

    /// What is in memory and may go to an archive.
    pub(super) fn at_rest(&self) -> AtRest {
        let order = self.read();
        AtRest { tasks: order.at_rest, bytes: order.bytes_at_rest, returned: order.returned }
    }

    /// The tasks at rest that have been settled for longest, oldest first, and the number of the last change so far.
    pub(super) fn oldest_at_rest(&self, max: usize) -> (Vec<Arc<Task>>, u64) {
        let order = self.read();
        (order.oldest_at_rest(u64::MAX, max), order.seq)
    }

    /// The tasks at rest that came back from the archive because something of them has changed, oldest first, and the
    /// number of the last change so far.
    pub(super) fn returned(&self, max: usize) -> (Vec<Arc<Task>>, u64) {
        let order = self.read();
        (order.oldest_at_rest(order.archived_to, max), order.seq)
    }

    /// Lets go of settled tasks that the archive holds now, oldest first, except those that have moved on since.
    pub(super) fn evict(&self, archived: &[Arc<Task>]) {
        let _no_page_is_read = self.evictions.write().unwrap_or_else(PoisonError::into_inner);
        // In parts, so that nobody waits long for `order`.
        for part in archived.chunks(EVICTED_AT_ONCE) {
            let mut order = self.write();
            for task in part {
                let is_same = |now: &mut Arc<Task>| Arc::ptr_eq(now, task);
                if self.records.remove_if_sync(&task.id, is_same).is_some() {
                    order.take(task);
                }
            }
            if let Some(last) = part.last() {
                order.set_archived_to(last.entered);
            }
        }
    }

    /// Every settled task up to here is in the archive, but for those that are not at rest.
    pub(super) fn archived_to(&self) -> u64 {
        self.read().archived_to
    }

    /// Every task in memory, also what is absent, in the order of their places.
    pub(super) fn all(&self) -> Vec<Arc<Task>> {
        let order = self.read();
        let states = [&order.working, &order.success, &order.failed, &order.absent];
        let mut all: Vec<_> = states.into_iter().flat_map(|tasks| tasks.values()).map(Arc::clone).collect();
        all.sort_unstable_by_key(|task| task.entered);
        all
    }

    /// Every task that is working.
    pub(super) fn working(&self) -> Vec<Arc<Task>> {
        self.read().working.values().map(Arc::clone).collect()
    }

    /// Every success whose revoke is under way.
    pub(super) fn revoking(&self) -> Vec<Arc<Task>> {
        self.read().success.values().filter(|task| task.is_revoking()).map(Arc::clone).collect()
    }

    /// Every task of whose outcome somebody is still to be told, oldest first.
    pub(super) fn notices_due(&self) -> Vec<Arc<Task>> {
        let order = self.read();
        let settled = order.success.values().chain(order.failed.values());
        let mut due: Vec<_> = settled.filter(|task| task.notice_due).map(Arc::clone).collect();
        due.sort_unstable_by_key(|task| task.entered);
        due
    }

    /// Whether it is in memory.
    pub(super) fn holds(&self, id: &TaskId) -> bool {
        self.records.contains_sync(id)
    }

    pub(super) fn counts(&self) -> Counts {
        let order = self.read();
        Counts {
            by_handler: order.counts.clone(),
            oldest_working: order.working.values().next().map(Arc::clone),
        }
    }

    /// The page from memory alone, if nothing in the archive can belong on it.
    pub(super) fn page_without_archive(&self, query: &Query) -> Option<Page> {
        let order = self.read();
        let is_settled = query.filter.admits(StateName::Success) || query.filter.admits(StateName::Failed);
        let covers = |place: u64| place >= order.archived_to;
        if !is_settled || order.archived_to == 0 {
            return Some(order.merged(query, Vec::new(), None));
        }
        match query.order {
            Order::Ascending => {
                query.after.is_some_and(covers).then(|| order.merged(query, Vec::new(), None))
            }
            Order::Descending => {
                let page = order.merged(query, Vec::new(), None);
                page.next.is_some_and(covers).then_some(page)
            }
        }
    }

    /// The page of memory and archive together. Nothing leaves memory while the archive is read, so that no task is
    /// missed between the two; what the archive takes in meanwhile is in memory still.
    pub(super) fn page_with<E>(
        &self,
        query: &Query,
        read_archive: impl FnOnce() -> Result<Cold, E>,
    ) -> Result<Page, E> {
        let _nothing_leaves = self.evictions.read().unwrap_or_else(PoisonError::into_inner);
        let cold = read_archive()?;
        Ok(self.page(query, cold))
    }

    /// The page of memory and of what is cold.
    pub(super) fn page(&self, query: &Query, cold: Cold) -> Page {
        let order = self.read();
        // The archive may hold newer batches that are still in memory too, and older records of ids that have moved on.
        let is_cold = |task: &Arc<Task>| task.entered <= order.archived_to && !self.holds(&task.id);
        let tasks = cold.tasks.into_iter().filter(is_cold).collect();
        order.merged(query, tasks, cold.cut_at)
    }

    fn read(&self) -> RwLockReadGuard<'_, Ordered> {
        self.order.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ordered> {
        self.order.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{success, working};

    fn places(tasks: &[Arc<Task>]) -> Vec<u64> {
        tasks.iter().map(|task| task.entered).collect()
    }

    #[test]
    fn what_the_archive_holds_leaves_memory_and_what_of_it_changes_goes_there_again() {
        let table = Table::new(9);
        let tasks = [success("a", 3, 1), success("b", 5, 1), success("c", 7, 1)];
        let moves = tasks.clone().map(|next| Move { previous: None, next });
        table.restore(&moves, 8);
        assert_eq!((table.archived_to(), table.counts().total().success), (0, 3));
        let (batch, seq) = table.oldest_at_rest(2);
        assert_eq!((places(&batch), seq), (vec![3, 5], 8));
        table.evict(&batch);
        assert_eq!((table.archived_to(), places(&table.all())), (5, vec![7]));
        assert_eq!((places(&table.returned(9).0), table.at_rest().returned), (vec![], 0));

        let [first, ..] = tasks;
        let next = Arc::new(Task { revision: first.revision + 1, ..(*first).clone() });
        table.publish(&[Move { previous: Some(first), next }], 9);
        let (returned, seq) = table.returned(9);
        assert_eq!((places(&returned), seq), (vec![3], 9));
        assert_eq!((table.at_rest().returned, table.counts().total().success), (1, 3));
        table.evict(&returned);
        assert_eq!((table.archived_to(), places(&table.all()), table.at_rest().returned), (5, vec![7], 0));
    }

    #[test]
    fn a_move_has_dropped_bytes_where_there_were_some_and_are_none() {
        let task = |text: &str| working("order-42", 1, text.len());
        let dropped = |text: &str| {
            let task = task(text);
            Arc::new(Task { input: task.input.without_bytes(), details_dropped: true, ..(*task).clone() })
        };
        let absent = || Arc::new(Task { state: crate::task::State::Absent, ..(*task("")).clone() });
        for (previous, next, has_dropped) in [
            (None, task(""), false),
            (Some(task("some")), task("some"), false),
            (Some(task("some")), task("other"), false),
            (Some(task("")), task(""), false),
            (Some(task("")), task("some"), false),
            (Some(task("some")), task(""), true),
            (Some(task("some")), dropped("some"), true),
            // Without bytes there may have been attempts.
            (Some(task("")), dropped(""), true),
            (Some(dropped("some")), dropped("some"), false),
            (Some(task("")), absent(), true),
            (Some(dropped("some")), absent(), false),
            (Some(absent()), absent(), false),
            (None, absent(), false),
        ] {
            let one = Move { previous, next };
            assert_eq!(one.has_dropped_bytes(), has_dropped, "{one:?}");
        }
    }
}
