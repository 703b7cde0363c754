//! The one thread that decides and writes changes: it takes all that is queued, checks each against the state before
//! it, appends those that are legal in one commit, shows them, and only then answers everybody.
//!
//! Invariant: nothing is shown or answered before it is durable; after an error nothing is shown at all.

mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jiff::Timestamp;
use tokio::sync::watch;

use self::upkeep::Upkeep;
use super::answers::{Answer, Answers, Decided};
use super::archive::ArchiveReader;
use super::archiver::Limits;
use super::health::{health_after, tell};
use super::journal::{Entry, Journal};
use super::kept::Kept;
use super::queue::Queue;
use super::reader::find;
use super::recovery::Recovered;
use super::{EmbeddedOptions, Health};
use crate::store::table::{Move, Table};
use crate::store::{Moved, Note, Refused, StoreError, StoreTally, now};
use crate::sync::mpsc::SyncSender;
use crate::sync::{Handle, thread};
use crate::task::{Change, Stamp, Task, TaskId};

/// So many bytes of inputs and outputs end a batch.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long the queue is empty before the writer tidies up.
const IDLE: Duration = Duration::from_millis(100);
/// The most batches deleted by one commit.
const DELETED_MAX: usize = 8;
/// So many requests in one commit, and others are on their way: as many as PostgreSQL's `commit_siblings` takes for that.
const SIBLINGS: usize = 5;

/// Keeps as many of these tasks as fill a commit, but one in any case, however large it is.
pub(super) fn fit_one_commit(tasks: &mut Vec<Arc<Task>>) {
    let mut bytes = 0;
    let is_too_much = |task: &Arc<Task>| {
        bytes += task.payload_bytes();
        bytes > BATCH_BYTES_MAX
    };
    let fitting = tasks.iter().position(is_too_much).unwrap_or(tasks.len());
    tasks.truncate(fitting.max(1));
}

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Change {
        id: TaskId,
        change: Change,
        answer: Answer<Moved>,
    },
    /// To be written in a commit of its own.
    PutNote {
        key: String,
        value: Option<Vec<u8>>,
        answer: Answer<()>,
    },
    Notes {
        prefix: String,
        answer: Answer<Vec<Note>>,
    },
    /// The archive holds these ids now.
    Archived(Vec<TaskId>),
    Close,
}

#[derive(Debug)]
pub(super) struct Writer {
    journal: Journal,
    archive: ArchiveReader,
    table: Arc<Table>,
    health: Arc<watch::Sender<Health>>,
    seq: u64,
    kept: Kept,
    upkeep: Upkeep,
    batch_max: usize,
    limits: Limits,
    tally: Arc<StoreTally>,
    /// Where those wait who are answered.
    runtime: Option<Handle>,
}

/// The changes of one commit.
#[derive(Debug, Default)]
struct Batch {
    moves: Vec<Move>,
    /// When those happen that are decided now.
    now: Timestamp,
    /// Of the inputs and outputs of `moves`.
    bytes: usize,
    /// Beside `moves`: whether the record stands for itself.
    are_whole: Vec<bool>,
    /// The ids of `moves`, as they will be.
    pending: HashMap<TaskId, Arc<Task>, RandomState>,
    answers: Answers,
    /// Of which the archive has told, to be let go of behind the commit.
    archived: Vec<TaskId>,
}

impl Batch {
    /// Keeps the room that it has taken.
    fn clear(&mut self) {
        self.moves.clear();
        self.bytes = 0;
        self.are_whole.clear();
        self.pending.clear();
    }
}

impl Writer {
    pub(super) fn new(
        journal: Journal,
        archive: ArchiveReader,
        table: Arc<Table>,
        recovered: Recovered,
        health: Arc<watch::Sender<Health>>,
        options: &EmbeddedOptions,
    ) -> Self {
        let Recovered { seq, kept } = recovered;
        let limits = Limits::new(options);
        Self {
            journal,
            archive,
            table,
            health,
            seq,
            kept,
            upkeep: Upkeep::default(),
            batch_max: options.batch_max,
            limits,
            tally: Arc::default(),
            runtime: Handle::try_current().ok(),
        }
    }

    /// What it counts of its commits.
    pub(super) fn tally(&self) -> Arc<StoreTally> {
        Arc::clone(&self.tally)
    }

    /// Runs until it is told to close.
    pub(super) fn run(mut self, queue: &Queue<Request>, wake_archiver: &SyncSender<()>) {
        let _closed_at_the_end = Closing(queue);
        self.wake(wake_archiver);
        let (mut taken, mut batch) = (VecDeque::new(), Batch::default());
        let mut answered = 0;
        loop {
            if answered >= SIBLINGS {
                // Where all processors are busy, those who were answered get one first, and ask for more. So the next commit
                // has more to share its cost, and nobody waits where a processor is free.
                thread::yield_now();
            }
            // Some may be taken already: a batch may end before all of them are in it.
            batch.now = now();
            let mut is_closing = false;
            let mut is_idle = true;
            while !is_closing && batch.answers.len() < self.batch_max && batch.bytes < BATCH_BYTES_MAX {
                if taken.is_empty() {
                    queue.take(self.batch_max - batch.answers.len(), &mut taken);
                    // Behind that: nothing settles before its attempt has ended.
                    batch.now = now();
                }
                let Some(request) = taken.pop_front() else { break };
                is_closing = self.take(&mut batch, request);
                is_idle = false;
            }
            if is_idle {
                if !queue.wait(self.patience()) {
                    self.tidy();
                }
                continue;
            }
            answered = batch.answers.len();
            self.commit(&mut batch);
            self.wake(wake_archiver);
            if is_closing {
                return;
            }
        }
    }

    /// Wakes the archiver if there is something to do for it.
    fn wake(&self, archiver: &SyncSender<()>) {
        if self.limits.are_passed(&self.table) {
            // An error means that it is awake already, or has ended and said why.
            let _ = archiver.try_send(());
        }
    }

    /// How long it waits for requests before it tidies up; none where there is nothing to tidy.
    fn patience(&self) -> Option<Duration> {
        let is_tidy = self.kept.is_tidy() && *self.health.borrow() == Health::Writable;
        (!is_tidy).then_some(IDLE)
    }

    /// Decides one request. Returns whether it was the last.
    fn take(&mut self, batch: &mut Batch, request: Request) -> bool {
        match request {
            Request::Change { id, change, answer } => {
                let decided = self.decide(batch, &id, change);
                batch.answers.push(answer, decided);
                false
            }
            Request::PutNote { key, value, answer } => {
                // An error means that nobody waits any more.
                let _ = answer.send(self.put_note(&key, value.as_deref()));
                false
            }
            Request::Notes { prefix, answer } => {
                let found = self.journal.notes(&prefix);
                let _ = answer.send(found.map_err(|error| StoreError::Unreadable(error.to_string())));
                false
            }
            Request::Archived(tasks) => {
                batch.archived.extend(tasks);
                false
            }
            Request::Close => true,
        }
    }

    fn decide(&self, batch: &mut Batch, id: &TaskId, change: Change) -> Decided {
        let previous = match batch.pending.get(id) {
            Some(task) => Some(Arc::clone(task)),
            None => self.find(id)?,
        };
        let brings_input = matches!(change, Change::Claim(_));
        let stamp = Stamp { seq: self.seq + batch.moves.len() as u64 + 1, at: batch.now };
        match Task::after(previous.as_deref(), id, change, stamp) {
            Ok(next) => {
                let next = Arc::new(next);
                // The record of a task that comes from the archive is the first in the journal.
                let is_first = || !self.kept.holds(id) && !batch.pending.contains_key(id);
                batch.are_whole.push(brings_input || next.input.bytes.is_empty() || is_first());
                batch.bytes += next.payload_bytes();
                batch.pending.insert(next.id.clone(), Arc::clone(&next));
                batch.moves.push(Move { previous, next: Arc::clone(&next) });
                Ok(Moved::Done(next))
            }
            Err(reason) => Ok(Moved::Refused(Refused::new(reason, previous))),
        }
    }

    /// Writes and shows the batch, and answers all of it. Empty afterwards, for the next one.
    fn commit(&mut self, batch: &mut Batch) {
        let answers = batch.answers.take();
        match self.write(batch) {
            Ok(()) => {
                self.table.publish(&batch.moves, self.seq);
                answers.tell(self.runtime.as_ref());
                if let Err(error) = self.journal.checkpoint() {
                    // What was committed stands; the error is kept in the health.
                    let _ = self.note(Err(error));
                }
            }
            Err(error) => answers.fail(&error),
        }
        // Only now is it known which of them are back.
        for id in batch.archived.drain(..) {
            self.bury(&id);
        }
        batch.clear();
    }

    fn put_note(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), StoreError> {
        self.is_alive()?;
        let written = self.journal.put_note(key, value);
        self.note(written)
    }

    fn is_alive(&self) -> Result<(), StoreError> {
        match &*self.health.borrow() {
            Health::Dead(reason) => Err(StoreError::Dead(reason.clone())),
            Health::Writable | Health::Unavailable(_) => Ok(()),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.is_alive()?;
        if batch.moves.is_empty() {
            return Ok(());
        }
        let moves = &batch.moves;
        let changes = moves.iter().zip(&batch.are_whole).map(|(one, is_whole)| (&one.next, *is_whole));
        let carried = self.carried(batch);
        let tainted = self.tainted_by(moves);
        self.append_beside(&carried, self.seq + moves.len() as u64, changes, DELETED_MAX)?;
        self.kept.taint(tainted);
        Ok(())
    }

    /// Appends records, and deletes what is not needed any more.
    fn append<'a>(
        &mut self,
        seq: u64,
        records: impl Iterator<Item = (&'a Arc<Task>, bool)> + Clone,
        deleted_max: usize,
    ) -> rusqlite::Result<()> {
        let number = self.kept.next();
        let deleted = self.kept.dead().len().min(deleted_max);
        let entries = records.clone().map(|(task, is_whole)| Entry { task: &**task, is_whole });
        let dead = self.kept.dead().iter().take(deleted).copied();
        let begun = Instant::now();
        self.journal.commit(number, seq, entries, dead)?;

        let changes = seq - self.seq;
        if changes > 0 {
            self.tally.durations.observe_duration(begun.elapsed());
            self.tally.changes.observe(changes);
        }
        self.seq = seq;
        self.kept.dead().drain(..deleted);
        if records.clone().next().is_some() {
            self.kept.append(number, records.clone().map(|(task, _)| &task.id));
        }
        for (task, is_whole) in records {
            self.kept.record(&task.id, is_whole);
        }
        Ok(())
    }

    /// The record in memory or in the archive.
    fn find(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        find(&self.table, &self.archive, id).map_err(|error| StoreError::Unreadable(error.to_string()))
    }

    /// Keeps the health in step with what the last commit came to.
    fn note(&self, committed: rusqlite::Result<()>) -> Result<(), StoreError> {
        let health = committed.map_or_else(|error| health_after(&error), |()| Health::Writable);
        self.health.send_if_modified(|now| {
            // The archiver may have found meanwhile that the disk is dead, and that is final.
            let is_change = *now != health && !matches!(now, Health::Dead(_));
            if is_change {
                tell(&health);
                *now = health.clone();
            }
            is_change
        });
        match health {
            Health::Writable => Ok(()),
            Health::Unavailable(reason) => Err(StoreError::Unavailable(reason)),
            Health::Dead(reason) => Err(StoreError::Dead(reason)),
        }
    }
}

/// Whatever ends the writer, nobody waits for it in vain.
struct Closing<'a>(&'a Queue<Request>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
