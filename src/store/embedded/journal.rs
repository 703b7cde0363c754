//! `journal.db`: every change, in order, until the archive holds what it led to; and a few notes.
//!
//! A row is a commit: its changes as one JSON array, and the bytes of their inputs and outputs one behind the other. So
//! the cost of a row is shared by all the changes of a commit. The view `changes` shows them one by one, and names what
//! each has in which place: names in every change would take half as much room again.

use bytes::Bytes;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use super::FORMAT;
use super::checkpoint::Checkpoints;
use super::row::{self, Columns, Detail};
use crate::store::Note;
use crate::task::Task;

const SCHEMA: &str = "
    CREATE TABLE journal (batch INTEGER PRIMARY KEY, seq INTEGER NOT NULL, changes TEXT NOT NULL, payload BLOB);
    CREATE VIEW changes AS
        SELECT batch, key AS number, value->>'$[0][0]' AS entered, value->>'$[0][1]' AS id,
            value->>'$[0][2]' AS handler, value->>'$[0][3]' AS run, value->>'$[0][4]' AS revision,
            value->>'$[0][5]' AS revoked, value->>'$[0][6]' AS state, value->>'$[0][7]' AS since,
            value->'$[1]' AS detail, value->>'$[2]' AS input_bytes, value->>'$[3]' AS output_bytes
        FROM journal, json_each(journal.changes);
    CREATE TABLE notes (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;";

#[derive(Debug)]
pub(super) struct Journal {
    connection: Connection,
    checkpoints: Checkpoints,
    /// Kept for the next commit.
    changes: Vec<u8>,
    payload: Vec<u8>,
}

/// A change, as the task is after it.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) task: T,
    /// Whether the entry stands for itself; otherwise an earlier one of the id holds the input, and the task that was read
    /// has none.
    pub(super) is_whole: bool,
}

/// The entries of one commit.
#[derive(Debug)]
pub(super) struct Batch {
    /// The number of the commit.
    pub(super) number: u64,
    /// The number of the last change so far.
    pub(super) seq: u64,
    pub(super) entries: Vec<Entry<Task>>,
}

/// An entry as JSON: an array of these.
#[derive(Serialize, Deserialize)]
struct Record<'a>(
    #[serde(borrow)] Columns<'a>,
    /// With the input if the entry stands for itself.
    #[serde(borrow)]
    Detail<'a>,
    /// How many bytes of the payload are its input; none where an earlier entry has it.
    Option<usize>,
    /// How many bytes behind that are its output.
    usize,
);

impl Journal {
    pub(super) fn schema() -> String {
        SCHEMA.to_owned()
    }

    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, checkpoints: Checkpoints::default(), changes: Vec::new(), payload: Vec::new() }
    }

    /// The connection itself, to copy the file.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Appends a batch and deletes the batches that nobody needs, in one commit that is durable on return. Nothing is
    /// changed after an error, unless it is the error of the commit's own fsync: then it is unknown.
    pub(super) fn commit<'a>(
        &mut self,
        number: u64,
        seq: u64,
        entries: impl Iterator<Item = Entry<&'a Task>>,
        dead: impl Iterator<Item = u64>,
    ) -> rusqlite::Result<()> {
        self.encode(entries)?;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let written = self.write(number, seq, dead);
        let committed = written.and_then(|()| self.connection.prepare_cached("COMMIT")?.execute([]));
        match committed {
            Ok(_) => {
                self.checkpoints.note(self.changes.len() + self.payload.len());
                Ok(())
            }
            Err(error) => {
                // The first error says what is wrong with the disk; a second one must not hide it.
                if !self.connection.is_autocommit()
                    && let Err(again) = self.connection.execute_batch("ROLLBACK")
                {
                    tracing::error!(error = %again, "a failed commit could not be rolled back");
                }
                Err(error)
            }
        }
    }

    /// Fills the two buffers.
    fn encode<'a>(&mut self, entries: impl Iterator<Item = Entry<&'a Task>>) -> rusqlite::Result<()> {
        self.changes.clear();
        self.payload.clear();
        for Entry { task, is_whole } in entries {
            self.changes.push(if self.changes.is_empty() { b'[' } else { b',' });
            let output = task.output().map_or(&[][..], |output| &output.bytes);
            let input = is_whole.then_some(&task.input);
            let input_bytes = input.map(|input| input.bytes.len());
            let record = Record(Columns::of(task), Detail::of(task, input), input_bytes, output.len());
            serde_json::to_writer(&mut self.changes, &record).map_err(unwritable)?;
            if let Some(input) = input {
                self.payload.extend_from_slice(&input.bytes);
            }
            self.payload.extend_from_slice(output);
        }
        if !self.changes.is_empty() {
            self.changes.push(b']');
        }
        Ok(())
    }

    fn write(&self, number: u64, seq: u64, dead: impl Iterator<Item = u64>) -> rusqlite::Result<()> {
        if !self.changes.is_empty() {
            let changes = std::str::from_utf8(&self.changes).map_err(unwritable)?;
            let payload = (!self.payload.is_empty()).then_some(self.payload.as_slice());
            let mut insert = self.connection.prepare_cached("INSERT INTO journal VALUES (?, ?, ?, ?)")?;
            insert.execute((number, seq, changes, payload))?;
        }
        let mut delete = self.connection.prepare_cached("DELETE FROM journal WHERE batch = ?")?;
        for number in dead {
            delete.execute([number])?;
        }
        Ok(())
    }

    /// Copies the write-ahead log back when it is time. An error says nothing about what was committed.
    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        self.checkpoints.run(&self.connection)
    }

    /// A durable write that changes nothing: it fails while the disk does not take any.
    pub(super) fn probe(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!("BEGIN IMMEDIATE; PRAGMA user_version = {FORMAT}; COMMIT;"))
    }

    /// Keeps or drops a note, in a commit of its own that is durable on return.
    pub(super) fn put_note(&mut self, key: &str, value: Option<&[u8]>) -> rusqlite::Result<()> {
        match value {
            Some(value) => {
                let sql = "INSERT INTO notes VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
                self.connection.prepare_cached(sql)?.execute((key, value))?;
            }
            None => {
                self.connection.prepare_cached("DELETE FROM notes WHERE key = ?")?.execute([key])?;
            }
        }
        self.checkpoints.note(value.map_or(0, <[u8]>::len));
        Ok(())
    }

    /// The notes whose keys begin so, in the order of their keys.
    pub(super) fn notes(&self, prefix: &str) -> rusqlite::Result<Vec<Note>> {
        let sql = "SELECT key, value FROM notes WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key";
        let mut statement = self.connection.prepare(sql)?;
        statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    pub(super) fn is_empty(&self) -> rusqlite::Result<bool> {
        self.connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM journal)", [], |row| row.get(0))
    }

    /// One batch, if it is there.
    pub(super) fn batch(&self, number: u64) -> rusqlite::Result<Option<Batch>> {
        let sql = "SELECT batch, seq, changes, payload FROM journal WHERE batch = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([number])?;
        rows.next()?.map(read).transpose()
    }

    /// Every batch, in order.
    pub(super) fn replay(&self, mut each: impl FnMut(Batch)) -> rusqlite::Result<()> {
        let sql = "SELECT batch, seq, changes, payload FROM journal ORDER BY batch";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(read(row)?);
        }
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Batch> {
    let records: Vec<Record<'_>> = serde_json::from_str(row.get_ref(2)?.as_str()?).map_err(unreadable)?;
    let mut payload = row.get_ref(3)?.as_bytes_or_null()?.unwrap_or_default();
    let mut take = |len: usize| {
        let (taken, rest) =
            payload.split_at_checked(len).ok_or_else(|| unreadable("its payload is too short"))?;
        payload = rest;
        Ok::<_, rusqlite::Error>(Bytes::copy_from_slice(taken))
    };
    let mut entries = Vec::with_capacity(records.len());
    for Record(columns, detail, input, output) in records {
        if detail.has_input() != input.is_some() {
            return Err(unreadable("it has an input without its bytes, or bytes without their input"));
        }
        let mut task = row::task(&columns, detail).map_err(unreadable)?;
        if let Some(len) = input {
            task.input.bytes = take(len)?;
        }
        row::set_output(&mut task, take(output)?);
        entries.push(Entry { task, is_whole: input.is_some() });
    }
    Ok(Batch { number: row.get(0)?, seq: row.get(1)?, entries })
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    row::foreign(2, error)
}

#[cfg(test)]
mod tests {
    use std::iter::empty;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::store::samples::{settle, success, working};
    use crate::task::{Change, Input, Output};

    fn journal(path: &Path) -> Journal {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;").unwrap();
        connection.execute_batch(&Journal::schema()).unwrap();
        Journal::new(connection)
    }

    fn entries<'a>(tasks: &'a [(&Arc<Task>, bool)]) -> impl Iterator<Item = Entry<&'a Task>> {
        tasks.iter().map(|(task, is_whole)| Entry { task: &***task, is_whole: *is_whole })
    }

    fn with_output(bytes: &'static str) -> Arc<Task> {
        let Change::Settle { run, attempt, .. } = settle(None) else { unreachable!() };
        let output = Output { media_type: None, truncated: false, bytes: bytes.into() };
        let settle = Change::Settle { run, attempt, output: Some(output), is_notice_due: false };
        crate::store::samples::after(Some(&working("b", 2, 5)), "b", settle, 2)
    }

    #[test]
    fn a_batch_is_read_as_it_was_written_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(&folder.path().join("journal.db"));
        assert!(journal.is_empty().unwrap());
        let (a, b, c) = (working("a", 1, 3), with_output("out"), success("c", 3, 0));
        journal.commit(1, 2, entries(&[(&a, true), (&b, true), (&c, true)]), empty()).unwrap();
        journal.commit(2, 4, entries(&[(&b, false), (&a, true)]), empty()).unwrap();
        // Nothing is left of a commit that fails, not even the deletion.
        assert!(journal.commit(2, 5, entries(&[(&c, true)]), [1].into_iter()).is_err());

        let without_input = Task { input: Input::empty(), ..(*b).clone() };
        let expected = [
            (1, 2, vec![((*a).clone(), true), ((*b).clone(), true), ((*c).clone(), true)]),
            (2, 4, vec![(without_input, false), ((*a).clone(), true)]),
        ];
        let parts = |batch: Batch| {
            let entries = batch.entries.into_iter().map(|entry| (entry.task, entry.is_whole));
            (batch.number, batch.seq, entries.collect::<Vec<_>>())
        };
        let mut replayed = Vec::new();
        journal.replay(|batch| replayed.push(parts(batch))).unwrap();
        assert_eq!(replayed, expected);
        assert_eq!(journal.batch(2).unwrap().map(parts).as_ref(), Some(&expected[1]));

        journal.commit(3, 4, empty(), [1].into_iter()).unwrap();
        assert!(journal.batch(1).unwrap().is_none() && journal.batch(3).unwrap().is_none());
        journal.connection.execute("UPDATE journal SET payload = substr(payload, 2)", []).unwrap();
        let error = journal.batch(2).unwrap_err();
        assert!(error.to_string().contains("its payload is too short"), "{error}");
        journal.commit(3, 4, empty(), [2].into_iter()).unwrap();
        assert!(journal.is_empty().unwrap());
    }

    #[test]
    fn an_input_is_read_with_its_bytes_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(&folder.path().join("journal.db"));
        let task = working("a", 1, 3);
        journal.commit(1, 2, entries(&[(&task, true), (&task, false)]), empty()).unwrap();
        let text = |sql: &str| -> String { journal.connection.query_row(sql, [], |row| row.get(0)).unwrap() };
        let inputs = "SELECT group_concat(ifnull(detail->>'$.input.size', '-') || ifnull(input_bytes, '-')) FROM changes";
        assert_eq!(text(inputs), "33,--", "it has one where it stands for itself");

        let written = text("SELECT changes FROM journal");
        for (from, to) in [(",3,0]", ",null,0]"), (",null,0]", ",0,0]")] {
            let meddled = written.replacen(from, to, 1);
            assert_ne!(meddled, written);
            journal.connection.execute("UPDATE journal SET changes = ?", [&meddled]).unwrap();
            let error = journal.batch(1).unwrap_err().to_string();
            assert!(error.contains("an input without its bytes, or bytes without their input"), "{error}");
        }
    }

    #[test]
    fn the_log_is_copied_back_once_much_was_written_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let mut journal = journal(&path);
        let len = || std::fs::metadata(&path).unwrap().len();
        let begun = len();
        journal.commit(1, 1, entries(&[(&working("a", 1, 9), true)]), empty()).unwrap();
        journal.checkpoint().unwrap();
        assert_eq!(len(), begun);
        // All of it beside the payload.
        let input = Input::new(Some("x".repeat(16 << 20)), Bytes::new());
        let large = Arc::new(Task { input, ..(*working("b", 2, 0)).clone() });
        journal.commit(2, 2, entries(&[(&large, true)]), empty()).unwrap();
        assert_eq!(len(), begun);
        journal.checkpoint().unwrap();
        assert!(len() > 16 << 20, "{}", len());
    }

    #[test]
    fn a_probe_fails_while_nothing_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(&folder.path().join("journal.db"));
        journal.connection.execute_batch("PRAGMA query_only = ON").unwrap();
        assert!(journal.probe().is_err());
        journal.connection.execute_batch("PRAGMA query_only = OFF").unwrap();
        journal.probe().unwrap();
    }
}
