//! `archive.db`: settled tasks, one row each, in the order in which they entered their state.
//!
//! The key is that place, so that a batch is appended; the tasks of a state have an index in the same order. Where an id
//! is, say the [`Ids`] beside it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};

use super::checkpoint::Checkpoints;
use super::ids::Ids;
use super::row;
use crate::store::table::{Cold, EXAMINED_MAX};
use crate::store::{Order, Query, StateCounts};
use crate::task::{HandlerName, StateName, Task, TaskId};

/// A row without its payload, with its index entries, roughly.
const ROW_BYTES: usize = 500;

const SCHEMA: &str = "
    CREATE INDEX tasks_success ON tasks (entered) WHERE state = 'success';
    CREATE INDEX tasks_failed ON tasks (entered) WHERE state = 'failed';
    CREATE TABLE counts (handler TEXT NOT NULL, state TEXT NOT NULL, tasks INTEGER NOT NULL,
                         PRIMARY KEY (handler, state)) WITHOUT ROWID;
    CREATE TABLE progress (archived_to INTEGER NOT NULL, seq INTEGER NOT NULL, indexed_to INTEGER NOT NULL,
                           ids_key BLOB NOT NULL);
    INSERT INTO progress VALUES (0, 0, 0, randomblob(16));
    CREATE TABLE runs (number INTEGER PRIMARY KEY, level INTEGER NOT NULL);
    CREATE TABLE late (entered INTEGER PRIMARY KEY);";

/// The one connection that writes.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) connection: Connection,
    checkpoints: Checkpoints,
    pub(super) ids: Arc<Ids>,
    /// Every row up to here is in a run, but for those in the table `late`.
    pub(super) indexed_to: u64,
}

/// A connection that reads.
#[derive(Debug)]
pub(super) struct ArchiveReader {
    connection: Connection,
    ids: Arc<Ids>,
}

/// An archive that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("the index of the archive's ids: {0}")]
    Ids(#[from] io::Error),
}

impl Archive {
    pub(super) fn schema() -> String {
        format!("CREATE TABLE tasks (entered INTEGER PRIMARY KEY, {});{SCHEMA}", row::DECLARED)
    }

    /// Every row up to `indexed_to` has to be in a run of `ids`, but for those in the table `late`.
    pub(super) fn new(connection: Connection, ids: Arc<Ids>, indexed_to: u64) -> Self {
        Self { connection, checkpoints: Checkpoints::default(), ids, indexed_to }
    }

    /// Takes settled tasks in, each in place of an older record of its id, and notes how far the archive is complete.
    /// Durable on return; nothing has changed after an error.
    pub(super) fn add(
        &mut self,
        tasks: &[Arc<Task>],
        archived_to: u64,
        seq: u64,
    ) -> Result<(), ArchiveError> {
        let transaction = self.connection.transaction()?;
        let mut bytes = 0;
        {
            let mut displace = transaction
                .prepare_cached("DELETE FROM tasks WHERE entered = ? AND id = ? RETURNING handler, state")?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO tasks (entered, id, handler, run, revision, revoked, state, since, detail, input, output) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            let mut late = transaction.prepare_cached("INSERT OR IGNORE INTO late VALUES (?)")?;
            let mut count = transaction.prepare_cached(
                "INSERT INTO counts VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET tasks = tasks + ?3",
            )?;
            let mut changes: HashMap<(String, String), i64> = HashMap::new();
            for task in tasks {
                for place in self.ids.places(&task.id)? {
                    let displaced = displace
                        .query_row((place, task.id.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))
                        .optional()?;
                    if let Some(key) = displaced {
                        *changes.entry(key).or_default() -= 1;
                    }
                }
                row::bind(&mut insert, task)?;
                insert.raw_execute()?;
                if task.entered <= self.indexed_to {
                    late.execute([task.entered])?;
                }
                let key = (task.handler.as_str().to_owned(), task.state_name().as_str().to_owned());
                *changes.entry(key).or_default() += 1;
                bytes += task.payload_bytes() + ROW_BYTES;
            }
            for ((handler, state), change) in changes {
                count.execute((handler, state, change))?;
            }
            transaction
                .prepare_cached("UPDATE progress SET archived_to = max(archived_to, ?), seq = ?")?
                .execute([archived_to, seq])?;
        }
        transaction.commit()?;
        self.ids.add(tasks.iter().map(|task| (&task.id, task.entered)));
        self.checkpoints.note(bytes);
        Ok(())
    }

    /// Copies the write-ahead log back when it is time. An error says nothing about what was committed.
    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        self.checkpoints.run(&self.connection)
    }
}

impl ArchiveReader {
    pub(super) fn new(connection: Connection, ids: Arc<Ids>) -> Self {
        Self { connection, ids }
    }

    /// Changes when tasks that were archived leave memory.
    pub(super) fn version(&self) -> u64 {
        self.ids.version()
    }

    /// The whole record of an id, also of one that is absent.
    pub(super) fn get(&self, id: &TaskId) -> Result<Option<Task>, ArchiveError> {
        for place in self.ids.places(id)? {
            let sql = select(", input, output FROM tasks WHERE entered = ? AND id = ?");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let found = statement.query_row((place, id.as_str()), row::read_whole).optional()?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The connection itself, to copy the file.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Every whole record, also of ids that have moved on since, in the order of their places.
    pub(super) fn each<E: From<rusqlite::Error>>(
        &self,
        mut each: impl FnMut(Task) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement =
            self.connection.prepare(&select(", input, output FROM tasks ORDER BY entered"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row::read_whole(row)?)?;
        }
        Ok(())
    }

    /// The id and the place of every row.
    pub(super) fn each_place(&self, mut each: impl FnMut(&str, u64)) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT id, entered FROM tasks")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row.get_ref(0)?.as_str()?, row.get(1)?);
        }
        Ok(())
    }

    /// The number of the last change when a batch was added: rows of the journal up to it may be gone.
    pub(super) fn seq(&self) -> rusqlite::Result<u64> {
        self.connection.prepare_cached("SELECT seq FROM progress")?.query_row([], |row| row.get(0))
    }

    /// How far the archive is complete.
    pub(super) fn archived_to(&self) -> rusqlite::Result<u64> {
        self.connection.prepare_cached("SELECT archived_to FROM progress")?.query_row([], |row| row.get(0))
    }

    /// How many tasks of each handler are in each state.
    pub(super) fn counts(&self) -> rusqlite::Result<BTreeMap<HandlerName, StateCounts>> {
        let mut statement = self.connection.prepare("SELECT handler, state, tasks FROM counts")?;
        let mut rows = statement.query([])?;
        let mut counts: BTreeMap<HandlerName, StateCounts> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (handler, state, tasks): (String, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let Ok(handler) = handler.parse() else { continue };
            let state = StateName::VISIBLE.into_iter().find(|name| name.as_str() == state);
            let counts = counts.entry(handler).or_default();
            if let Some(count) = state.and_then(|state| counts.of(state)) {
                *count = tasks;
            }
        }
        Ok(counts)
    }

    /// What the archive has for this page, as it is at one moment: at most one task more than the page takes.
    pub(super) fn page(&self, query: &Query) -> rusqlite::Result<Cold> {
        let mut cold = Cold::default();
        let state = match (query.filter.admits(StateName::Success), query.filter.admits(StateName::Failed)) {
            (true, true) => "",
            (true, false) => "AND state = 'success'",
            (false, true) => "AND state = 'failed'",
            (false, false) => return Ok(cold),
        };
        let (compare, order, from) = match query.order {
            Order::Ascending => (">", "ASC", query.after.unwrap_or(0)),
            Order::Descending => ("<", "DESC", query.after.unwrap_or(u64::MAX)),
        };
        // A cursor may be any number, a place in the archive is at most SQLite's largest.
        let from = from.min(i64::MAX.unsigned_abs());
        let sql = select(&format!(
            " FROM tasks WHERE entered {compare} ? {state} ORDER BY entered {order} LIMIT {EXAMINED_MAX}"
        ));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([from])?;
        let mut examined = 0;
        while let Some(row) = rows.next()? {
            let task = row::read(row)?;
            examined += 1;
            let place = task.entered;
            if query.filter.matches(&task) {
                cold.tasks.push(Arc::new(task));
            }
            if cold.tasks.len() > query.limit || examined == EXAMINED_MAX {
                cold.cut_at = Some(place);
                break;
            }
        }
        Ok(cold)
    }
}

fn select(rest: &str) -> String {
    format!("SELECT {}{rest}", row::COLUMNS)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::Filter;
    use crate::store::samples::{settle, success, working};
    use crate::task::{ErrorKind, Failure};

    fn archive(folder: &Path) -> (Archive, ArchiveReader) {
        let path = folder.join("archive.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;").unwrap();
        connection.execute_batch(&Archive::schema()).unwrap();
        let ids = Arc::new(Ids::new(folder, (1, 2), Vec::new(), 99));
        let reader = ArchiveReader::new(Connection::open(&path).unwrap(), Arc::clone(&ids));
        (Archive::new(connection, ids, 0), reader)
    }

    fn failed(name: &str, entered: u64) -> Arc<Task> {
        let failure = Failure::new(ErrorKind::Timeout, "no answer");
        crate::store::samples::after(Some(&working(name, entered, 0)), name, settle(Some(failure)), entered)
    }

    fn column(reader: &ArchiveReader, sql: &str) -> Vec<u64> {
        let mut statement = reader.connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_row_without_its_input_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let (mut archive, reader) = archive(folder.path());
        let task = success("a", 2, 5);
        archive.add(&[Arc::clone(&task)], 2, 2).unwrap();
        let meddle = "UPDATE tasks SET detail = json_remove(detail, '$.input')";
        assert_eq!(archive.connection.execute(meddle, []).unwrap(), 1);
        let error = reader.get(&task.id).unwrap_err().to_string();
        assert!(error.contains("its input is missing"), "{error}");
    }

    #[test]
    fn a_task_takes_the_place_of_its_older_record_and_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut archive, reader) = archive(folder.path());
        archive.add(&[failed("a", 2), success("b", 4, 5)], 4, 9).unwrap();
        let (again, failed) = (success("a", 6, 3), failed("c", 7));
        archive.add(&[Arc::clone(&again), failed], 3, 10).unwrap();
        assert_eq!((reader.archived_to().unwrap(), reader.seq().unwrap()), (4, 10), "it never goes back");
        assert_eq!(column(&reader, "SELECT entered FROM tasks ORDER BY entered"), [4, 6, 7]);
        assert_eq!(reader.get(&again.id).unwrap().as_ref(), Some(&*again));
        assert_eq!(reader.get(&"d".parse().unwrap()).unwrap(), None);
        let counts = reader.counts().unwrap();
        let counts: Vec<_> = counts.values().map(|counts| (counts.success, counts.failed)).collect();
        assert_eq!(counts, [(2, 1)]);
        let mut places = Vec::new();
        reader.each_place(|id, place| places.push((id.to_owned(), place))).unwrap();
        places.sort();
        assert_eq!(places, [("a".to_owned(), 6), ("b".to_owned(), 4), ("c".to_owned(), 7)]);

        let version = reader.version();
        archive.ids.pass();
        assert!(reader.version() > version);
    }

    #[test]
    fn a_row_in_front_of_what_the_runs_hold_is_noted_as_late() {
        let folder = tempfile::tempdir().unwrap();
        let (mut archive, reader) = archive(folder.path());
        archive.indexed_to = 5;
        for place in [4, 5, 6, 9] {
            archive.add(&[success(&format!("t-{place}"), place, 0)], 9, 9).unwrap();
        }
        assert_eq!(column(&reader, "SELECT entered FROM late ORDER BY entered"), [4, 5]);
    }

    #[test]
    fn a_page_has_one_task_more_than_it_takes_where_there_is_more() {
        use Order::{Ascending, Descending};
        let folder = tempfile::tempdir().unwrap();
        let (mut archive, reader) = archive(folder.path());
        archive.add(&[success("a", 2, 0), failed("b", 4), success("c", 6, 0)], 6, 6).unwrap();
        let page = |states: &[StateName], order, after, limit| {
            let filter = Filter { states: states.to_vec(), ..Filter::default() };
            let Cold { tasks, cut_at } = reader.page(&Query { filter, order, after, limit }).unwrap();
            (tasks.iter().map(|task| task.entered).collect::<Vec<_>>(), cut_at)
        };
        assert_eq!(page(&[], Ascending, None, 1), (vec![2, 4], Some(4)));
        assert_eq!(page(&[], Ascending, None, 2), (vec![2, 4, 6], Some(6)));
        assert_eq!(page(&[], Ascending, None, 3), (vec![2, 4, 6], None));
        assert_eq!(page(&[], Ascending, Some(2), 9), (vec![4, 6], None));
        assert_eq!(page(&[], Descending, None, 2), (vec![6, 4, 2], Some(2)));
        assert_eq!(page(&[], Descending, Some(u64::MAX), 3), (vec![6, 4, 2], None));
        assert_eq!(page(&[], Descending, Some(6), 9), (vec![4, 2], None));
        assert_eq!(page(&[StateName::Success], Ascending, None, 9), (vec![2, 6], None));
        assert_eq!(page(&[StateName::Failed], Descending, None, 9), (vec![4], None));
        assert_eq!(page(&[StateName::Working], Ascending, None, 9), (vec![], None));
    }

    #[test]
    fn a_page_ends_where_enough_was_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let (mut archive, reader) = archive(folder.path());
        let one = success("a", 1, 0);
        let last = EXAMINED_MAX as u64;
        let task =
            |place| Task { id: format!("t-{place}").parse().unwrap(), entered: place, ..(*one).clone() };
        let tasks: Vec<_> = (1..=last + 1).map(|place| Arc::new(task(place))).collect();
        archive.add(&tasks, last + 1, last + 1).unwrap();
        let filter = Filter { prefix: Some("other".to_owned()), ..Filter::default() };
        let query = Query { filter, order: Order::Ascending, after: None, limit: 9 };
        let page = reader.page(&query).unwrap();
        assert_eq!((page.tasks.len(), page.cut_at), (0, Some(last)));
        let page = reader.page(&Query { after: page.cut_at, ..query }).unwrap();
        assert_eq!((page.tasks.len(), page.cut_at), (0, None));
    }

    #[test]
    fn the_log_is_copied_back_once_much_was_written_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut archive, _reader) = archive(folder.path());
        let len = || std::fs::metadata(folder.path().join("archive.db")).unwrap().len();
        let begun = len();
        archive.add(&[success("a", 1, 9)], 1, 1).unwrap();
        archive.checkpoint().unwrap();
        assert_eq!(len(), begun);
        archive.add(&[success("b", 2, 16 << 20)], 2, 2).unwrap();
        archive.checkpoint().unwrap();
        assert!(len() > 16 << 20, "{}", len());
    }
}
