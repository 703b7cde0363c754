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
                    task.input = known.task.input.clone();
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

#[cfg(test)]
mod tests {
    use std::iter::empty;

    use super::*;
    use crate::store::embedded::folder::Folder;
    use crate::store::samples::{after, settle, success, working};

    #[test]
    fn a_record_that_lacks_its_input_needs_an_older_one_here_or_in_the_archive() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path()).unwrap();
        let (mut journal, mut archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
        let reader = folder.reader(&archive.ids).unwrap();
        let (begun, ended) = (working("a", 1, 3), success("b", 4, 3));
        let settled = after(Some(&begun), "a", settle(None), 5);
        let mut write = |number, seq, task: &Task, is_whole| {
            journal.commit(number, seq, [Entry { task, is_whole }].into_iter(), empty()).unwrap();
        };
        write(1, 1, &begun, true);
        write(2, 5, &settled, false);
        write(4, 7, &ended, false);
        let replayed = || {
            let table = Table::new(1);
            replay(&journal, &reader, &table).map(|recovered| (table, recovered))
        };
        let error = replayed().unwrap_err().to_string();
        assert!(error.contains("the journal lacks the batch that holds the input of b"), "{error}");

        archive.add(&[Arc::clone(&ended)], 4, 9).unwrap();
        let (table, Recovered { seq, mut kept }) = replayed().unwrap();
        assert_eq!(table.all(), [Arc::clone(&settled)], "the archive has the other one");
        assert_eq!((seq, table.archived_to(), table.counts().total().success), (9, 4, 2));
        assert_eq!(kept.needed_by(&settled.id).collect::<Vec<_>>(), [1, 2]);
        assert!(!kept.holds(&ended.id) && kept.dead().iter().eq([&4]) && kept.next() == 5);
    }

    #[test]
    fn what_is_newer_here_than_in_the_archive_is_counted_once() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path()).unwrap();
        let (mut journal, mut archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
        let reader = folder.reader(&archive.ids).unwrap();
        let old = success("a", 2, 3);
        archive.add(&[Arc::clone(&old)], 2, 2).unwrap();
        let next = Arc::new(Task { revision: old.revision + 1, ..(*old).clone() });
        for (number, task) in [(3, &old), (4, &next)] {
            let entry = Entry { task: &**task, is_whole: number == 3 };
            journal.commit(number, number, [entry].into_iter(), empty()).unwrap();
        }
        let table = Table::new(1);
        let recovered = replay(&journal, &reader, &table).unwrap();
        assert_eq!((table.all(), table.counts().total().success), (vec![next], 1));
        assert_eq!((recovered.seq, recovered.kept.holds(&old.id)), (4, true));
    }

    #[test]
    fn a_record_that_stands_for_itself_takes_the_place_of_all_before_it() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path()).unwrap();
        let (mut journal, archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
        let reader = folder.reader(&archive.ids).unwrap();
        let (begun, again) = (working("a", 1, 3), working("a", 2, 5));
        for (number, task) in [(1, &begun), (2, &again)] {
            let entry = Entry { task: &**task, is_whole: true };
            journal.commit(number, number, [entry].into_iter(), empty()).unwrap();
        }
        let table = Table::new(1);
        let mut kept = replay(&journal, &reader, &table).unwrap().kept;
        assert_eq!(table.all(), [Arc::clone(&again)]);
        assert_eq!(kept.needed_by(&again.id).collect::<Vec<_>>(), [2, 2]);
        assert!(kept.dead().iter().eq([&1]));
    }
}
