//! The thread that moves settled tasks from memory and journal into the archive, oldest first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::archive::{Archive, ArchiveError};
use super::health::health_after;
use super::queue::Queue;
use super::writer::{Request, fit_one_commit};
use super::{EmbeddedOptions, Health};
use crate::pauses::Pauses;
use crate::store::table::{AtRest, Table};
use crate::sync::mpsc::{Receiver, RecvTimeoutError};
use crate::task::Task;

/// The most tasks in one batch: its commit shares the disk with the journal's.
const BATCH_MAX: usize = 2_000;
/// How long it pauses after an error, at first and at most.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(10));

#[derive(Debug)]
pub(super) struct Archiver {
    archive: Archive,
    table: Arc<Table>,
    writer: Arc<Queue<Request>>,
    health: Arc<watch::Sender<Health>>,
    limits: Limits,
}

/// How much stays in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    tasks: usize,
    bytes: usize,
}

impl Limits {
    pub(super) fn new(options: &EmbeddedOptions) -> Self {
        Self { tasks: options.hot_tasks, bytes: options.hot_bytes }
    }

    /// How many tasks go at once.
    fn batch(self) -> usize {
        (self.tasks / 8).clamp(1, BATCH_MAX)
    }

    /// Whether there is a batch to archive.
    pub(super) fn are_passed(self, table: &Table) -> bool {
        let at_rest = table.at_rest();
        self.is_full(at_rest) || at_rest.returned > 0
    }

    fn is_full(self, at_rest: AtRest) -> bool {
        at_rest.tasks >= self.tasks + self.batch() || at_rest.bytes > self.bytes
    }

    /// What is to be archived next, oldest first. What came back goes again at once, alone: it is old, and its row may
    /// hold what was dropped from it.
    fn next_batch(self, table: &Table) -> (Vec<Arc<Task>>, u64) {
        if self.is_full(table.at_rest()) {
            table.oldest_at_rest(self.batch())
        } else {
            table.returned(BATCH_MAX)
        }
    }
}

impl Archiver {
    pub(super) fn new(
        archive: Archive,
        table: Arc<Table>,
        writer: Arc<Queue<Request>>,
        health: Arc<watch::Sender<Health>>,
        options: &EmbeddedOptions,
    ) -> Self {
        Self { archive, table, writer, health, limits: Limits::new(options) }
    }

    /// Runs until the writer has ended.
    pub(super) fn run(mut self, awakened: &Receiver<()>) {
        let (mut pause, mut pauses) = (None, PAUSES);
        loop {
            let woken = match pause {
                None => awakened.recv().map_err(|_closed| RecvTimeoutError::Disconnected),
                Some(pause) => sleep(awakened, pause),
            };
            if woken == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            pause = match self.archive_all() {
                Ok(()) => {
                    pauses = PAUSES;
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "settled tasks stay in memory: the archive cannot be written");
                    if let ArchiveError::Database(error) = &error
                        && let health @ Health::Dead(_) = health_after(error)
                    {
                        self.health.send_replace(health);
                        return;
                    }
                    Some(pauses.take())
                }
            };
        }
    }

    fn archive_all(&mut self) -> Result<(), ArchiveError> {
        loop {
            let (mut batch, seq) = self.limits.next_batch(&self.table);
            fit_one_commit(&mut batch);
            let Some(last) = batch.last() else { return Ok(()) };
            let archived_to = last.entered;
            self.archive.add(&batch, archived_to, seq)?;
            self.archive.ids.pass();
            self.table.evict(&batch);
            let archived = batch.iter().map(|task| task.id.clone()).collect();
            if self.writer.push_always(Request::Archived(archived)).is_err() {
                return Ok(());
            }
            self.archive.checkpoint()?;
            self.archive.tend_index(self.table.archived_to())?;
        }
    }
}

/// Waits for the whole pause, whoever wakes it: every commit does, while there is something to archive.
fn sleep(awakened: &Receiver<()>, pause: Duration) -> Result<(), RecvTimeoutError> {
    let end = Instant::now() + pause;
    loop {
        awakened.recv_timeout(end.saturating_duration_since(Instant::now()))?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;
    use crate::store::embedded::folder::Folder;
    use crate::store::samples::success;
    use crate::store::table::Move;
    use crate::sync::mpsc;

    /// Holds successes at these places, each with an input of so many bytes.
    fn table(places: impl IntoIterator<Item = u64>, bytes: usize) -> Table {
        let tasks = places.into_iter().map(|place| success(&format!("t-{place}"), place, bytes));
        let moves: Vec<_> = tasks.map(|next| Move { previous: None, next }).collect();
        let table = Table::new(1);
        table.restore(&moves, 99);
        table
    }

    fn next(limits: Limits, table: &Table) -> Vec<u64> {
        let (batch, seq) = limits.next_batch(table);
        assert_eq!(seq, 99);
        batch.iter().map(|task| task.entered).collect()
    }

    #[test]
    fn a_batch_goes_once_it_is_beyond_what_may_stay() {
        let limits = Limits { tasks: 16, bytes: 100 };
        for (count, are_passed, batch) in [(17, false, vec![]), (18, true, vec![1, 2])] {
            let table = table(1..=count, 1);
            assert_eq!((limits.are_passed(&table), next(limits, &table)), (are_passed, batch), "{count}");
        }
        for (bytes, are_passed, batch) in [(50, false, vec![]), (51, true, vec![1, 2])] {
            let table = table([1, 2], bytes);
            assert_eq!((limits.are_passed(&table), next(limits, &table)), (are_passed, batch), "{bytes}");
        }
        let sizes = [0, 8, 80, 80_000].map(|tasks| Limits { tasks, bytes: 0 }.batch());
        assert_eq!(sizes, [1, 1, 10, 2_000]);
        let nothing = Limits { tasks: 0, bytes: 0 };
        assert!(!nothing.are_passed(&table([], 0)));
        assert!(nothing.are_passed(&table([1], 0)));
    }

    #[test]
    fn what_came_back_goes_again_at_once_and_alone() {
        let limits = Limits { tasks: 16, bytes: 100 };
        let table = table([3, 5, 7], 1);
        assert!(!limits.are_passed(&table));
        table.start_from(BTreeMap::new(), 5);
        assert!(limits.are_passed(&table));
        assert_eq!(next(limits, &table), [3, 5]);
    }

    #[test]
    fn a_batch_is_as_large_as_a_commit_may_be_but_for_one_that_is_larger_alone() {
        for (bytes, batches) in [(4 << 20, vec![2, 1]), ((8 << 20) + 1, vec![1, 1, 1])] {
            let path = tempfile::tempdir().unwrap();
            let folder = Folder::open(path.path()).unwrap();
            let (_journal, archive) = (folder.journal().unwrap(), folder.archive(99).unwrap());
            let reader = folder.reader(&archive.ids).unwrap();
            let (table, queue) = (Arc::new(table([3, 5, 7], bytes)), Arc::new(Queue::new(1)));
            let options = EmbeddedOptions { hot_tasks: 80, hot_bytes: 0, ..EmbeddedOptions::default() };
            let health = Arc::new(watch::Sender::new(Health::Writable));
            let version = reader.version();
            let mut archiver =
                Archiver::new(archive, Arc::clone(&table), Arc::clone(&queue), health, &options);
            archiver.archive_all().unwrap();
            let mut told = VecDeque::new();
            queue.take(9, &mut told);
            let told = told.into_iter().map(|request| match request {
                Request::Archived(ids) => ids.len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(told.collect::<Vec<_>>(), batches);
            assert_eq!((table.all().len(), table.archived_to()), (0, 7));
            assert_eq!((reader.archived_to().unwrap(), reader.seq().unwrap()), (7, 99));
            assert_eq!(reader.version() - version, batches.len() as u64);
        }
    }

    #[test]
    fn a_pause_is_over_when_its_time_is_or_with_the_writer_however_often_it_is_woken() {
        let (wake, awakened) = mpsc::sync_channel(2);
        wake.try_send(()).unwrap();
        wake.try_send(()).unwrap();
        let (begun, pause) = (Instant::now(), Duration::from_millis(20));
        assert_eq!(sleep(&awakened, pause), Err(RecvTimeoutError::Timeout));
        assert!(begun.elapsed() >= pause);
        wake.try_send(()).unwrap();
        drop(wake);
        assert_eq!(sleep(&awakened, Duration::from_hours(1)), Err(RecvTimeoutError::Disconnected));
    }
}
