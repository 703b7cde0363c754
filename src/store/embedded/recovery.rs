//! What opening finds: the archive's counts, and the journal replayed on top of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::archive::ArchiveReader;
use super::journal::{Entry, Journal};
use super::row;
use crate::store::table::{Move, Table};
use crate::task::{Task, TaskId};

/// What the writer goes on from.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The number of the last change.
    pub(super) seq: u64,
    /// The rows of the journal that each task in memory needs.
    pub(super) live: HashMap<TaskId, Vec<u64>>,
    /// The rows that nobody needs.
    pub(super) dead: Vec<u64>,
}

/// One id in the journal.
struct Found {
    task: Task,
    rows: Vec<u64>,
    /// Of the first row that stands for itself, whether or not the task still needs it.
    first_seq: u64,
    first_revision: u64,
}

/// Fills the table.
///
/// A crash may have left any part of the rows that nobody needs: rows of records that are in the archive, and rows
/// before one that stands for itself.
pub(super) fn replay(
    journal: &Journal,
    archive: &ArchiveReader,
    table: &Table,
) -> rusqlite::Result<Recovered> {
    let archived_to = archive.archived_to()?;
    let mut recovered = Recovered { seq: archived_to.max(archive.seq()?), ..Recovered::default() };
    let mut found: HashMap<TaskId, Found> = HashMap::new();
    let mut headless = Vec::new();
    journal.replay(|Entry { seq, mut task, is_whole }| {
        recovered.seq = recovered.seq.max(seq);
        match found.get_mut(&task.id) {
            Some(known) => {
                if is_whole {
                    recovered.dead.append(&mut known.rows);
                } else {
                    task.input.bytes = known.task.input.bytes.clone();
                }
                known.rows.push(seq);
                known.task = task;
            }
            None if is_whole => {
                let (first_seq, first_revision) = (seq, task.revision);
                found.insert(task.id.clone(), Found { task, rows: vec![seq], first_seq, first_revision });
            }
            None => headless.push((task.id, seq)),
        }
    })?;
    for (id, seq) in headless {
        if !found.contains_key(&id) && archive.get(&id)?.is_none() {
            return Err(row::foreign(9, format!("the journal lacks the row that holds the input of {id}")));
        }
        recovered.dead.push(seq);
    }

    table.start_from(archive.counts()?, archived_to);
    let mut moves = Vec::new();
    for (id, Found { task, rows, first_seq, first_revision }) in found {
        let is_perhaps_archived = first_revision > 1 || first_seq <= archived_to;
        let previous = if is_perhaps_archived { archive.get(&id)?.map(Arc::new) } else { None };
        if previous.as_ref().is_some_and(|archived| archived.revision >= task.revision) {
            recovered.dead.extend(rows);
            continue;
        }
        moves.push(Move { previous, next: Arc::new(task) });
        recovered.live.insert(id, rows);
    }
    table.restore(&moves, recovered.seq);
    Ok(recovered)
}
