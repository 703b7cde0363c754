//! What opening finds: the archive's counts, and the journal replayed on top of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::archive::{ArchiveError, ArchiveReader};
use super::journal::{Batch, Entry, Journal};
use super::kept::Kept;
use super::row;
use crate::store::table::{Move, Table};
use crate::task::{Task, TaskId};

/// What the writer goes on from.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The number of the last change.
    pub(super) seq: u64,
    /// What the journal holds.
    pub(super) kept: Kept,
}

/// One id in the journal.
struct Found {
    task: Task,
    /// The batch that holds its input.
    input: u64,
    /// The batch that holds the rest.
    last: u64,
}

/// Fills the table.
///
/// A crash may have left any part of the batches that nobody needs: with records that are in the archive, and with
/// records of a task before one that stands for itself.
pub(super) fn replay(
    journal: &Journal,
    archive: &ArchiveReader,
    table: &Table,
) -> Result<Recovered, ArchiveError> {
    let archived_to = archive.archived_to()?;
    let mut recovered = Recovered { seq: archived_to.max(archive.seq()?), ..Recovered::default() };
    let mut found: HashMap<TaskId, Found> = HashMap::new();
    let mut headless = Vec::new();
    journal.replay(|Batch { number, seq, entries }| {
        recovered.seq = recovered.seq.max(seq);
        recovered.kept.append(number, entries.len());
        for Entry { mut task, is_whole } in entries {
            match found.get_mut(&task.id) {
                Some(known) if !is_whole => {
                    task.input.bytes = known.task.input.bytes.clone();
                    (known.task, known.last) = (task, number);
                }
                None if !is_whole => headless.push(task.id),
                _ => drop(found.insert(task.id.clone(), Found { task, input: number, last: number })),
            }
        }
    })?;
    for id in headless {
        if !found.contains_key(&id) && archive.get(&id)?.is_none() {
            let what = format!("the journal lacks the batch that holds the input of {id}");
            return Err(row::foreign(2, what).into());
        }
    }

    table.start_from(archive.counts()?, archived_to);
    let mut moves = Vec::new();
    for (id, Found { task, input, last }) in found {
        let previous = archive.get(&id)?.map(Arc::new);
        if previous.as_ref().is_some_and(|archived| archived.revision >= task.revision) {
            continue;
        }
        moves.push(Move { previous, next: Arc::new(task) });
        recovered.kept.found(id, input, last);
    }
    recovered.kept.drop_unneeded();
    table.restore(&moves, recovered.seq);
    Ok(recovered)
}
