//! The tasks in memory by state, each in the order in which they entered it, with what is counted of them.
//!
//! Invariant: the counts are those of the tasks, in memory or not.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::super::{Order, Page, Query, StateCounts};
use crate::task::{HandlerName, StateName, Task};

/// The most tasks that one page looks at; a filter that matches little gives short pages instead of long waits.
pub(in crate::store) const EXAMINED_MAX: usize = 10_000;

const STATES: [StateName; 4] = [StateName::Working, StateName::Success, StateName::Failed, StateName::Absent];

#[derive(Debug, Default)]
pub(super) struct Ordered {
    pub(super) working: BTreeMap<u64, Arc<Task>>,
    pub(super) success: BTreeMap<u64, Arc<Task>>,
    pub(super) failed: BTreeMap<u64, Arc<Task>>,
    pub(super) absent: BTreeMap<u64, Arc<Task>>,
    /// Of all tasks, also of those that are not in memory.
    pub(super) counts: BTreeMap<HandlerName, StateCounts>,
    /// The number of the last change.
    pub(super) seq: u64,
    /// Every settled task up to here is in the archive, and not here.
    pub(super) archived_to: u64,
    /// How many are at rest up to there all the same, because something of them has changed.
    pub(super) returned: usize,
    /// How many tasks are at rest and may go to an archive.
    pub(super) at_rest: usize,
    /// Bytes of their inputs and outputs.
    pub(super) bytes_at_rest: usize,
}

impl Ordered {
    pub(super) fn of(&self, state: StateName) -> &BTreeMap<u64, Arc<Task>> {
        match state {
            StateName::Working => &self.working,
            StateName::Success => &self.success,
            StateName::Failed => &self.failed,
            StateName::Absent => &self.absent,
        }
    }

    pub(super) fn of_mut(&mut self, state: StateName) -> &mut BTreeMap<u64, Arc<Task>> {
        match state {
            StateName::Working => &mut self.working,
            StateName::Success => &mut self.success,
            StateName::Failed => &mut self.failed,
            StateName::Absent => &mut self.absent,
        }
    }

    pub(super) fn oldest_at_rest(&self, up_to: u64, max: usize) -> Vec<Arc<Task>> {
        let states = [&self.success, &self.failed, &self.absent];
        let at_rest = |task: &&Arc<Task>| task.is_at_rest();
        let oldest = states
            .into_iter()
            .flat_map(|tasks| tasks.range(..=up_to).map(|(_, task)| task).filter(at_rest).take(max));
        let mut oldest: Vec<_> = oldest.map(Arc::clone).collect();
        oldest.sort_unstable_by_key(|task| task.entered);
        oldest.truncate(max);
        oldest
    }

    pub(super) fn set_archived_to(&mut self, archived_to: u64) {
        if archived_to > self.archived_to {
            let passed = (Bound::Excluded(self.archived_to), Bound::Included(archived_to));
            let states = [&self.success, &self.failed, &self.absent];
            let tasks = states.into_iter().flat_map(|tasks| tasks.range(passed).map(|(_, task)| task));
            self.returned += tasks.filter(|task| task.is_at_rest()).count();
            self.archived_to = archived_to;
        }
    }

    pub(super) fn put(&mut self, task: Arc<Task>) {
        if task.is_at_rest() {
            self.at_rest += 1;
            self.bytes_at_rest += task.payload_bytes();
            self.returned += usize::from(task.entered <= self.archived_to);
        }
        self.of_mut(task.state_name()).insert(task.entered, task);
    }

    pub(super) fn take(&mut self, task: &Task) {
        if task.is_at_rest() {
            self.at_rest -= 1;
            self.bytes_at_rest -= task.payload_bytes();
            self.returned -= usize::from(task.entered <= self.archived_to);
        }
        self.of_mut(task.state_name()).remove(&task.entered);
    }

    pub(super) fn count(&mut self, task: &Task, change: impl FnOnce(u64) -> u64) {
        let counts = match self.counts.get_mut(&task.handler) {
            Some(counts) => counts,
            None => self.counts.entry(task.handler.clone()).or_default(),
        };
        if let Some(count) = counts.of(task.state_name()) {
            *count = change(*count);
        }
    }

    /// Merges what is in memory with `cold`, both in the order of the query, up to the place where `cold` was cut.
    pub(super) fn merged(&self, query: &Query, cold: Vec<Arc<Task>>, cut_at: Option<u64>) -> Page {
        let is_within = |place: u64| cut_at.is_none_or(|cut| !query.order.is_before(cut, place));
        let mut heads: Vec<_> = STATES
            .into_iter()
            .filter(|state| query.filter.admits(*state))
            .map(|state| walk(self.of(state), query).peekable())
            .collect();
        let mut cold = cold.into_iter().peekable();
        let mut page = Page::default();
        let mut last = None;
        for _ in 0..EXAMINED_MAX {
            if page.tasks.len() == query.limit {
                break;
            }
            let hot = heads
                .iter_mut()
                .filter_map(|head| head.peek().map(|(place, _)| **place).map(|place| (place, head)))
                .reduce(|a, b| if query.order.is_before(b.0, a.0) { b } else { a })
                .filter(|(place, _)| is_within(*place));
            let next = match (hot, cold.peek()) {
                (Some((place, _)), Some(task)) if query.order.is_before(task.entered, place) => cold.next(),
                (Some((_, head)), _) => head.next().map(|(_, task)| Arc::clone(task)),
                (None, Some(_)) => cold.next(),
                (None, None) => {
                    page.next = cut_at;
                    return page;
                }
            };
            let Some(task) = next else { break };
            last = Some(task.entered);
            if query.filter.matches(&task) {
                page.tasks.push(task);
            }
        }
        let is_more =
            cold.peek().is_some() || cut_at.is_some() || heads.iter_mut().any(|h| h.peek().is_some());
        page.next = if is_more { last.or(query.after) } else { None };
        page
    }
}

/// The tasks of one state behind the query's cursor, in its order.
fn walk<'a>(
    tasks: &'a BTreeMap<u64, Arc<Task>>,
    query: &Query,
) -> Box<dyn Iterator<Item = (&'a u64, &'a Arc<Task>)> + 'a> {
    let after = query.after;
    match query.order {
        Order::Ascending => {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            Box::new(tasks.range((start, Bound::Unbounded)))
        }
        Order::Descending => {
            let end = after.map_or(Bound::Unbounded, Bound::Excluded);
            Box::new(tasks.range((Bound::Unbounded, end)).rev())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn success(entered: u64, bytes: usize) -> Arc<Task> {
        samples::success(&format!("t-{entered}"), entered, bytes)
    }

    fn counted(ordered: &Ordered) -> (usize, usize, usize) {
        (ordered.at_rest, ordered.bytes_at_rest, ordered.returned)
    }

    #[test]
    fn what_is_at_rest_is_counted_while_it_is_here() {
        let mut ordered = Ordered::default();
        let tasks = [success(3, 10), success(5, 20), success(7, 40), success(9, 80)];
        for task in &tasks {
            ordered.put(Arc::clone(task));
        }
        let due = Task { notice_due: true, ..(*success(4, 5)).clone() };
        ordered.put(Arc::new(due.clone()));
        assert_eq!(counted(&ordered), (4, 150, 0), "of the fifth somebody is still to be told");

        ordered.set_archived_to(5);
        assert_eq!(counted(&ordered), (4, 150, 2));
        ordered.set_archived_to(4);
        assert_eq!((ordered.archived_to, ordered.returned), (5, 2), "it never goes back");
        let places = |tasks: Vec<Arc<Task>>| tasks.iter().map(|task| task.entered).collect::<Vec<_>>();
        assert_eq!(places(ordered.oldest_at_rest(7, 2)), [3, 5]);
        assert_eq!(places(ordered.oldest_at_rest(8, 9)), [3, 5, 7]);

        let [first, second, third, _] = &tasks;
        ordered.take(second);
        assert_eq!(counted(&ordered), (3, 130, 1));
        ordered.take(third);
        assert_eq!(counted(&ordered), (2, 90, 1));
        ordered.take(&due);
        assert_eq!(counted(&ordered), (2, 90, 1));
        ordered.take(first);
        assert_eq!(counted(&ordered), (1, 80, 0));
        ordered.put(Arc::clone(second));
        assert_eq!(counted(&ordered), (2, 100, 1), "it has come back");
    }
}
