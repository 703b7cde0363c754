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
    /// The batch that holds its input; none where the journal lacks it.
    input: Option<u64>,
    /// The batch that holds the rest.
    last: u64,
    /// The batches that hold bytes of it that were not dropped, or attempts.
    held: Vec<u64>,
}

impl Found {
    fn new(Entry { task, is_whole }: Entry<Task>, number: u64) -> Self {
        let held = if task.is_stripped() { Vec::new() } else { vec![number] };
        Self { task, input: is_whole.then_some(number), last: number, held }
    }

    /// Takes the next record of the id in: the input of one that does not stand for itself is that of the launch of its
    /// run. Returns the batches that hold what it drops.
    fn go_on(&mut self, mut next: Self) -> Vec<u64> {
        let mut held = std::mem::take(&mut self.held);
        held.append(&mut next.held);
        if next.input.is_none() && next.task.revision < self.task.revision {
            self.input = None;
            return Vec::new();
        }
        if next.input.is_none() && next.task.run == self.task.run {
            next.input = self.input;
            next.task.input = self.task.input.clone();
        }
        *self = next;
        if self.task.is_stripped() {
            return held;
        }
        self.held = held;
        Vec::new()
    }
}

/// Fills the table.
///
/// A crash may have left any part of the batches that nobody needs: with records that are in the archive, and with
/// records of a task before one that stands for itself. What is needed is there: a record that lacks its input, and is not
/// older than what the archive has, is one of a journal that is damaged.
pub(super) fn replay(
    journal: &Journal,
    archive: &ArchiveReader,
    table: &Table,
) -> Result<Recovered, ArchiveError> {
    let archived_to = archive.archived_to()?;
    let mut recovered = Recovered { seq: archived_to.max(archive.seq()?), ..Recovered::default() };
    let mut found: HashMap<TaskId, Found> = HashMap::new();
    journal.replay(|Batch { number, seq, entries }| {
        recovered.seq = recovered.seq.max(seq);
        recovered.kept.append(number, entries.iter().map(|entry| &entry.task.id));
        for entry in entries {
            let next = Found::new(entry, number);
            match found.get_mut(&next.task.id) {
                Some(known) => recovered.kept.taint(known.go_on(next)),
                None => drop(found.insert(next.task.id.clone(), next)),
            }
        }
    })?;

    table.start_from(archive.counts()?, archived_to);
    let mut moves = Vec::new();
    for (id, Found { task, input, last, held }) in found {
        let previous = archive.get(&id)?.map(Arc::new);
        if let Some(archived) = previous.as_ref().filter(|archived| archived.revision >= task.revision) {
            if archived.is_stripped() {
                recovered.kept.taint(held);
            }
            continue;
        }
        let Some(input) = input else {
            let what = format!("the journal lacks the batch that holds the input of {id}");
            return Err(row::foreign(2, what).into());
        };
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
    use crate::store::samples::{after, claim, settle, success, working};
    use crate::task::{Change, ErrorKind, Failure};

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
        assert!(kept.needs(&settled.id, 1) && kept.needs(&settled.id, 2));
        assert!(!kept.holds(&ended.id) && kept.dead().iter().eq([&4]) && kept.next() == 5);
    }

    #[test]
    fn the_input_of_another_run_or_of_a_later_record_is_not_the_one_that_is_lacking() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path()).unwrap();
        let (mut journal, mut archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
        let reader = folder.reader(&archive.ids).unwrap();
        let failed = |task: &Task, entered| {
            let Change::Settle { attempt, .. } = settle(Some(Failure::new(ErrorKind::Refused, "no"))) else {
                unreachable!()
            };
            let change = Change::Settle { run: task.run, attempt, output: None, is_notice_due: false };
            after(Some(task), "a", change, entered)
        };
        let first = working("a", 1, 3);
        let ended = failed(&first, 2);
        let again = after(Some(&ended), "a", claim(5), 3);
        let ended_again = failed(&again, 4);
        let mut write = |number, task: &Task, is_whole| {
            journal.commit(number, number, [Entry { task, is_whole }].into_iter(), empty()).unwrap();
        };
        let replayed = || {
            let table = Table::new(1);
            let journal = Journal::new(Folder::readers(path.path()).unwrap().0);
            replay(&journal, &reader, &table).map(|_| table.all()).map_err(|error| error.to_string())
        };
        let lacks = |replayed: Result<_, String>| {
            replayed
                .is_err_and(|error| error.contains("the journal lacks the batch that holds the input of a"))
        };
        write(1, &first, true);
        write(4, &ended_again, false);
        assert!(lacks(replayed()), "its launch is not there");
        archive.add(&[Arc::clone(&ended)], 2, 2).unwrap();
        assert!(lacks(replayed()), "nor in the archive");
        archive.add(&[Arc::clone(&ended_again)], 4, 4).unwrap();
        assert_eq!(replayed(), Ok(Vec::new()), "the archive has what it came to");

        let third = after(Some(&ended_again), "a", claim(7), 5);
        write(5, &third, true);
        assert_eq!(replayed(), Ok(vec![third]), "what is left of the runs before does not matter");
        write(6, &ended_again, false);
        assert!(lacks(replayed()), "it is of a run before");
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
        assert!(kept.needs(&again.id, 2) && !kept.needs(&again.id, 1));
        assert!(kept.dead().iter().eq([&1]));
    }
}
