//! `journal.db`: every change as a row, in order, until the archive holds what it led to; and a few notes.

use rusqlite::Connection;

use super::FORMAT;
use super::checkpoint::Checkpoints;
use super::row;
use crate::store::Note;
use crate::task::Task;

#[derive(Debug)]
pub(super) struct Journal {
    connection: Connection,
    checkpoints: Checkpoints,
}

/// A row of the journal: a change, as the task is after it.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) seq: u64,
    pub(super) task: T,
    /// Whether the row stands for itself; otherwise an earlier row of the id holds the input.
    pub(super) is_whole: bool,
}

impl Journal {
    /// The table of what is kept beside the tasks.
    pub(super) fn schema() -> String {
        format!(
            "CREATE TABLE journal (seq INTEGER PRIMARY KEY, entered INTEGER NOT NULL, {});
             CREATE TABLE notes (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",
            row::DECLARED
        )
    }

    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, checkpoints: Checkpoints::default() }
    }

    /// The connection itself, to copy the file.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Appends the entries and deletes the rows that nobody needs, in one commit that is durable on return. Nothing
    /// is changed after an error, unless it is the error of the commit's own fsync: then it is unknown.
    pub(super) fn commit<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<&'a Task>>,
        dead: impl Iterator<Item = u64>,
    ) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let written = write(connection, entries, dead);
        let committed = written.and_then(|bytes| {
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(bytes)
        });
        match committed {
            Ok(bytes) => {
                self.checkpoints.note(bytes);
                Ok(())
            }
            Err(error) => {
                // The first error says what is wrong with the disk; a second one must not hide it.
                if !connection.is_autocommit()
                    && let Err(again) = connection.execute_batch("ROLLBACK")
                {
                    tracing::error!(error = %again, "a failed commit could not be rolled back");
                }
                Err(error)
            }
        }
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

    /// Every row, in order.
    pub(super) fn replay(&self, mut each: impl FnMut(Entry<Task>)) -> rusqlite::Result<()> {
        let sql = format!("SELECT {}, input, output, seq FROM journal ORDER BY seq", row::COLUMNS);
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (task, is_whole) = row::read_whole(row)?;
            each(Entry { seq: row.get(row::BOUND)?, task, is_whole });
        }
        Ok(())
    }
}

/// Returns roughly how many bytes it wrote.
fn write<'a>(
    connection: &Connection,
    entries: impl Iterator<Item = Entry<&'a Task>>,
    dead: impl Iterator<Item = u64>,
) -> rusqlite::Result<usize> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO journal (entered, id, handler, run, revision, revoked, state, since, detail, input, output, seq) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut bytes = 0;
    for Entry { seq, task, is_whole } in entries {
        row::bind(&mut insert, task, is_whole)?;
        insert.raw_bind_parameter(row::BOUND + 1, seq)?;
        insert.raw_execute()?;
        bytes += task.payload_bytes() + ROW_BYTES;
    }
    let mut delete = connection.prepare_cached("DELETE FROM journal WHERE seq = ?")?;
    for seq in dead {
        delete.execute([seq])?;
    }
    Ok(bytes)
}

/// A row without its payload, roughly.
const ROW_BYTES: usize = 300;
