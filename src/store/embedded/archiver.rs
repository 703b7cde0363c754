//! The thread that moves settled tasks from memory and journal into the archive, oldest first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::archive::{Archive, ArchiveError};
use super::health::health_after;
use super::queue::Queue;
use super::writer::{BATCH_BYTES_MAX, Request};
use super::{EmbeddedOptions, Health};
use crate::store::table::{AtRest, Table};
use crate::sync::mpsc::{Receiver, RecvTimeoutError};
use crate::task::Task;

/// The most tasks in one batch: its commit shares the disk with the journal's.
const BATCH_MAX: usize = 2_000;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

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
        let mut pause = None;
        loop {
            let woken = match pause {
                None => awakened.recv().map_err(|_closed| RecvTimeoutError::Disconnected),
                Some(pause) => sleep(awakened, pause),
            };
            if woken == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            pause = match self.archive_all() {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "settled tasks stay in memory: the archive cannot be written");
                    if let ArchiveError::Database(error) = &error
                        && let health @ Health::Dead(_) = health_after(error)
                    {
                        self.health.send_replace(health);
                        return;
                    }
                    Some(pause.map_or(PAUSE_MIN, |pause: Duration| (pause * 2).min(PAUSE_MAX)))
                }
            };
        }
    }

    fn archive_all(&mut self) -> Result<(), ArchiveError> {
        loop {
            let (mut batch, seq) = self.limits.next_batch(&self.table);
            let mut bytes = 0;
            let is_too_much = |task: &Arc<Task>| {
                bytes += task.payload_bytes();
                bytes > BATCH_BYTES_MAX
            };
            // One goes in any case, however large it is.
            let fitting = batch.iter().position(is_too_much).unwrap_or(batch.len());
            batch.truncate(fitting.max(1));
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
