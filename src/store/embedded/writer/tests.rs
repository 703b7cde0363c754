//! The writer without its thread: what it is asked is there before it begins.

mod upkeep;

use std::path::Path;

use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use super::super::archive::Archive;
use super::super::folder::Folder;
use super::super::recovery::replay;
use super::*;
use crate::store::samples::{claim, settle, success};
use crate::sync::mpsc;
use crate::task::{Failure, Refusal, StateName};

struct Opened {
    writer: Writer,
    table: Arc<Table>,
    archive: Archive,
    health: Arc<watch::Sender<Health>>,
    _folder: Folder,
}

fn opened(path: &Path, batch_max: usize) -> Opened {
    let folder = Folder::open(path).unwrap();
    let (journal, archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
    let lookup = folder.reader(&archive.ids).unwrap();
    let table = Arc::new(Table::new(9));
    let recovered = replay(&journal, &lookup, &table).unwrap();
    let health = Arc::new(watch::Sender::new(Health::Writable));
    let options = EmbeddedOptions { batch_max, ..EmbeddedOptions::default() };
    let writer = Writer::new(journal, lookup, Arc::clone(&table), recovered, Arc::clone(&health), &options);
    Opened { writer, table, archive, health, _folder: folder }
}

fn new() -> (TempDir, Opened) {
    let path = tempfile::tempdir().unwrap();
    let opened = opened(path.path(), 99);
    (path, opened)
}

fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

impl Opened {
    /// Makes these changes in one commit. Whether the records stand for themselves.
    fn commit(&mut self, changes: impl IntoIterator<Item = (&'static str, Change)>) -> Vec<bool> {
        let mut batch = Batch::default();
        for (name, change) in changes {
            let decided = self.writer.decide(&mut batch, &id(name), change).unwrap();
            assert!(matches!(decided, Moved::Done(_)), "{decided:?}");
        }
        let are_whole = batch.are_whole.clone();
        self.writer.commit(&mut batch);
        are_whole
    }

    fn number(&self, sql: &str) -> usize {
        self.writer.journal.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// What one change is answered, in a commit of its own.
    fn answer(&mut self, name: &str, change: Change) -> Result<Arc<Task>, StoreError> {
        let mut batch = Batch::default();
        let (answer, mut answered) = oneshot::channel();
        let decided = self.writer.decide(&mut batch, &id(name), change);
        batch.answers.push(answer, decided);
        self.writer.commit(&mut batch);
        match answered.try_recv().unwrap()? {
            Moved::Done(task) => Ok(task),
            refused @ Moved::Refused(_) => panic!("{refused:?}"),
        }
    }

    fn drop_details(&mut self, name: &'static str) {
        let entered = self.writer.find(&id(name)).unwrap().unwrap().entered;
        self.commit([(name, Change::DropDetails { entered })]);
    }

    /// Moves so many into the archive, without a word to the writer.
    fn archive(&mut self, max: usize) -> Vec<TaskId> {
        let (archived, seq) = self.table.oldest_at_rest(max);
        self.archive.add(&archived, archived.last().unwrap().entered, seq).unwrap();
        self.table.evict(&archived);
        archived.iter().map(|task| task.id.clone()).collect()
    }

    fn tidy_up(&mut self) {
        for _ in 0..9 {
            if self.writer.patience().is_some() {
                self.writer.tidy();
            }
        }
        assert_eq!(self.writer.patience(), None, "it comes to an end");
    }
}

fn no_writes(opened: &Opened, is_on: bool) {
    opened.writer.journal.connection().pragma_update(None, "query_only", is_on).unwrap();
}

/// The bytes of all inputs and outputs in the journal.
fn payload(opened: &Opened) -> usize {
    opened.number("SELECT coalesce(sum(length(payload)), 0) FROM journal")
}

/// A success with an output of so many bytes.
fn with_output(run: u32, bytes: usize) -> Change {
    let Change::Settle { attempt, .. } = settle(None) else { unreachable!() };
    let output = crate::task::Output { media_type: None, truncated: false, bytes: vec![b'o'; bytes].into() };
    Change::Settle { run, attempt, output: Some(output), is_notice_due: false }
}

fn ask(queue: &Queue<Request>, name: &str, bytes: usize) -> Receiver<Decided> {
    let (answer, answered) = oneshot::channel();
    queue.push(Request::Change { id: id(name), change: claim(bytes), answer }).unwrap();
    answered
}

#[test]
fn a_commit_has_so_many_changes_and_bytes_and_nothing_behind_the_close() {
    const LARGE: usize = BATCH_BYTES_MAX / 2;
    for (batch_max, bytes, commits) in [(3, 1, vec![3, 3, 1]), (9, LARGE, vec![2, 2, 2, 1])] {
        let path = tempfile::tempdir().unwrap();
        let Opened { writer, table, archive: _archive, health: _health, _folder } =
            opened(path.path(), batch_max);
        let (queue, (wake, _awakened)) = (Queue::new(99), mpsc::sync_channel(1));
        let mut answers: Vec<_> = (0..7).map(|n| ask(&queue, &format!("t-{n}"), bytes)).collect();
        queue.push(Request::Close).unwrap();
        let mut behind = ask(&queue, "behind", bytes);
        let (tally, begun) = (writer.tally(), now());
        writer.run(&queue, &wake);

        let places = answers.iter_mut().map(|answered| match answered.try_recv().unwrap() {
            Ok(Moved::Done(task)) => {
                assert!(
                    (begun..=now()).contains(&task.since),
                    "{}, of the commit that it waited for",
                    task.since
                );
                task.entered
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(places.collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
        assert!(behind.try_recv().is_err() && queue.push(Request::Close).is_err());
        assert_eq!(table.all().len(), 7);
        let (observed, durations) = (tally.changes.observed(), tally.durations.observed());
        assert_eq!(
            (observed.sum, observed.count, durations.count),
            (7, commits.len() as u64, commits.len() as u64)
        );
        let journal = Folder::readers(path.path()).unwrap().0;
        let sizes = "SELECT json_array_length(changes), seq FROM journal ORDER BY batch";
        let mut sizes = journal.prepare(sizes).unwrap();
        let sizes = sizes.query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))).unwrap();
        let mut seq = 0;
        for (size, expected) in sizes.map(Result::unwrap).zip(commits) {
            seq += expected;
            assert_eq!(size, (expected, seq));
        }
        assert_eq!(seq, 7);
    }
}

#[test]
fn a_record_stands_for_itself_where_no_earlier_one_in_the_journal_has_the_input() {
    let (_path, mut opened) = new();
    let not_undone = |revision| {
        let result = Err(Failure::new(crate::task::ErrorKind::Refused, "nobody answered"));
        Change::EndRevoke { revision, result }
    };
    assert_eq!(opened.commit([("a", claim(3)), ("a", settle(None))]), [true, false]);
    assert_eq!(
        opened.commit([("a", Change::BeginRevoke), ("b", claim(0)), ("b", settle(None))]),
        [false, true, true]
    );
    let archived = success("c", 9, 3);
    opened.archive.add(&[Arc::clone(&archived)], 9, 9).unwrap();
    let again = [("c", Change::BeginRevoke), ("c", not_undone(archived.revision + 1))];
    assert_eq!(opened.commit(again), [true, false]);
    assert_eq!(opened.commit([("c", Change::BeginRevoke)]), [false]);
}

#[test]
fn a_refusal_is_of_the_state_that_the_same_commit_leaves() {
    let (_path, opened) = new();
    let mut batch = Batch::default();
    let mut decide = |change| opened.writer.decide(&mut batch, &id("a"), change).unwrap();
    assert!(matches!(decide(claim(3)), Moved::Done(_)));
    let Moved::Refused(refused) = decide(claim(3)) else { panic!("two launches of one commit both start") };
    assert_eq!(refused.reason, Refusal::Working);
    assert!(matches!(decide(settle(None)), Moved::Done(task) if task.state_name() == StateName::Success));
    assert_eq!((batch.moves.len(), opened.table.all().len()), (2, 0), "nothing is shown yet");
}

#[test]
fn what_was_decided_and_never_written_is_answered_to_nobody() {
    let (_path, opened) = new();
    let mut batch = Batch::default();
    let (answer, mut answered) = oneshot::channel();
    let decided = opened.writer.decide(&mut batch, &id("a"), claim(3));
    assert!(matches!(decided, Ok(Moved::Done(_))), "{decided:?}");
    batch.answers.push(answer, decided);
    // As by a panic.
    drop(batch);
    assert_eq!(answered.try_recv().unwrap_err(), TryRecvError::Closed);
}

#[test]
fn a_store_that_is_dead_writes_nothing_and_stays_dead() {
    let (_path, mut opened) = new();
    let dead = Health::Dead("no fsync".to_owned());
    opened.health.send_replace(dead.clone());
    let is_dead = |answer: Result<(), StoreError>| answer == Err(StoreError::Dead("no fsync".to_owned()));
    assert!(is_dead(opened.writer.put_note("key", Some(b"value"))));
    let mut batch = Batch::default();
    let (answer, mut answered) = oneshot::channel();
    let decided = opened.writer.decide(&mut batch, &id("a"), claim(3));
    batch.answers.push(answer, decided);
    opened.writer.commit(&mut batch);
    assert!(is_dead(answered.try_recv().unwrap().map(drop)));
    assert_eq!((opened.number("SELECT count(*) FROM journal"), opened.table.all().len()), (0, 0));
    assert_eq!(opened.number("SELECT count(*) FROM notes"), 0);
    opened.writer.note(Ok(())).unwrap();
    assert_eq!(*opened.health.borrow(), dead);
    opened.writer.kept.dead().push_back(1);
    opened.writer.tidy();
    assert!(opened.writer.kept.dead().is_empty(), "nothing is deleted any more");
}

#[test]
fn it_is_writable_again_once_the_disk_is() {
    let (_path, mut opened) = new();
    assert_eq!(opened.writer.patience(), None);
    no_writes(&opened, true);
    let refused = opened.writer.put_note("key", Some(b"value"));
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(matches!(&*opened.health.borrow(), Health::Unavailable(_)));
    assert_eq!(opened.writer.patience(), Some(IDLE), "it looks again by itself");
    opened.writer.tidy();
    assert!(matches!(&*opened.health.borrow(), Health::Unavailable(_)));
    no_writes(&opened, false);
    opened.writer.tidy();
    assert_eq!((&*opened.health.borrow(), opened.writer.patience()), (&Health::Writable, None));
}
