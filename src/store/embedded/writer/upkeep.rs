//! What the writer does for the journal's sake: it writes once more what is needed of a batch that is to be given up, and
//! deletes the batches that nobody needs.
//!
//! Invariant: what callers change is written where it has room alone, also where this has none.

use std::collections::HashSet;
use std::iter::empty;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::super::Health;
use super::super::health::is_for_want_of_room;
use super::{Batch, IDLE, Writer, fit_one_commit};
use crate::pauses::Pauses;
use crate::store::StoreError;
use crate::store::table::Move;
use crate::task::{Task, TaskId};

/// The most batches deleted when idle.
const DELETED_IDLE: usize = 1_000;
/// How long nothing is carried after there was no room for it, at first and at most.
const PAUSES: Pauses = Pauses::new(IDLE, Duration::from_secs(10));

/// When the next tasks are carried.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// None where it may be now.
    pub(super) paused_until: Option<Instant>,
    pauses: Pauses,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { paused_until: None, pauses: PAUSES }
    }
}

impl Writer {
    /// The tasks of a batch that is to be given up, to be written once more in the commit of these changes: as many as fill
    /// a commit, but one in any case. None while the disk takes no writes.
    pub(super) fn carried(&mut self, changes: &Batch) -> Vec<Arc<Task>> {
        let is_paused = self.upkeep.paused_until.is_some_and(|end| Instant::now() < end);
        if is_paused || *self.health.borrow() != Health::Writable {
            return Vec::new();
        }
        let Some(number) = self.kept.next_to_give_up() else { return Vec::new() };
        let batch = match self.journal.batch(number) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(%error, batch = number, "a batch of the journal stays: it cannot be read");
                self.kept.spare(number);
                return Vec::new();
            }
        };
        let mut ids: Vec<_> =
            batch.into_iter().flat_map(|batch| batch.entries).map(|entry| entry.task.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let needed =
            ids.into_iter().filter(|id| self.kept.needs(id, number) && !changes.pending.contains_key(id));
        // One that has just left memory is told of as archived soon.
        let mut carried: Vec<_> = needed.filter_map(|id| self.table.get(&id)).collect();
        fit_one_commit(&mut carried);
        carried
    }

    /// The batches that hold what these changes drop, also the one that they are written to.
    pub(super) fn tainted_by(&self, moves: &[Move]) -> Vec<u64> {
        let dropping = moves.iter().filter(|one| one.has_dropped_bytes());
        let ids: HashSet<_, RandomState> = dropping.map(|one| &one.next.id).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let mut tainted = self.kept.holding(ids.iter().copied());
        // One record of each holds nothing.
        if moves.iter().filter(|one| ids.contains(&one.next.id)).count() > ids.len() {
            tainted.push(self.kept.next());
        }
        tainted
    }

    /// Appends changes and what is carried beside them; the changes alone where there is no room for both.
    pub(super) fn append_beside<'a>(
        &mut self,
        carried: &'a [Arc<Task>],
        seq: u64,
        changes: impl Iterator<Item = (&'a Arc<Task>, bool)> + Clone,
        deleted_max: usize,
    ) -> Result<(), StoreError> {
        if !carried.is_empty() {
            let both = changes.clone().chain(carried.iter().map(|task| (task, true)));
            match self.append(seq, both, deleted_max) {
                Err(error) if is_for_want_of_room(&error) => {
                    tracing::warn!(%error, "the journal is not tidied up: there is no room for it");
                    self.upkeep.paused_until = Some(Instant::now() + self.upkeep.pauses.take());
                }
                appended => {
                    self.upkeep = Upkeep::default();
                    return self.note(appended);
                }
            }
        }
        let appended = self.append(seq, changes, deleted_max);
        self.note(appended)
    }

    /// Without requests: gives up batches, deletes, and finds out whether the disk takes writes again.
    pub(super) fn tidy(&mut self) {
        let is_writable = match &*self.health.borrow() {
            Health::Dead(_) => {
                self.kept.dead().clear();
                return;
            }
            health => *health == Health::Writable,
        };
        let carried = self.carried(&Batch::default());
        // An error is kept in the health.
        let _ = if !carried.is_empty() || !self.kept.dead().is_empty() {
            self.append_beside(&carried, self.seq, empty(), DELETED_IDLE)
        } else if !is_writable {
            let probed = self.journal.probe();
            self.note(probed)
        } else {
            // There is something to give up, and it has to wait.
            Ok(())
        };
    }

    /// Lets go of the batches that an archived id needs, unless it has come back into memory since: then it needs them, or
    /// others.
    pub(super) fn bury(&mut self, id: &TaskId) {
        if !self.table.holds(id) {
            self.kept.bury(id);
        }
    }
}
