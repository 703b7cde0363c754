//! Both files as they are at one moment, read without the lock: the store may be open in another process meanwhile,
//! which goes on writing. What it writes later is not seen here; its write-ahead logs cannot shrink as long as this
//! is held.
//!
//! Invariant: the journal is no newer than the archive. Rows leave the journal once they are in the archive, so that a
//! newer journal could lack what an older archive lacks too.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::OpenError;
use super::archive::{ArchiveError, ArchiveReader};
use super::folder::{Folder, sync_folder};
use super::ids::Ids;
use super::index;
use super::journal::Journal;
use super::recovery;
use crate::store::table::Table;
use crate::task::Task;

/// How often the moment is looked for: something is archived a few times a second at most, and a try takes less than
/// a millisecond.
const TRIES: usize = 1_000;
/// How many pages are copied between two words about it.
const PAGES_AT_ONCE: i32 = 1_024;
const ARCHIVE: &str = "archive.db";
const JOURNAL: &str = "journal.db";
/// The name of a journal that is not whole.
const JOURNAL_BEGUN: &str = "journal.db.part";

/// A store as it was at one moment.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    journal: Journal,
    archive: ArchiveReader,
    /// Of the tasks in the journal alone, once they are looked at.
    ids: Arc<Ids>,
}

/// Why there is no copy. What was begun of it is taken away again.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Something is there already.
    #[error("{} is not empty; a copy goes into a folder that is new or empty", path.display())]
    NotEmpty {
        /// The folder of the copy.
        path: PathBuf,
    },
    /// It would not fit.
    #[error(
        "{} has no room for the copy: {} are free, {} are needed",
        path.display(),
        ByteSize(*free),
        ByteSize(*needed)
    )]
    NoRoom {
        /// The folder of the copy.
        path: PathBuf,
        /// In bytes.
        free: u64,
        /// In bytes.
        needed: u64,
    },
    /// The folder or its files cannot be made.
    #[error("the copy in {} cannot be written", path.display())]
    NotWritable {
        /// The folder of the copy.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// SQLite cannot read the one side or write the other.
    #[error("{} cannot be written", path.display())]
    Database {
        /// The file of the copy.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl Snapshot {
    /// Takes hold of what the folder holds now. Blocks: call it outside of async code.
    ///
    /// # Errors
    /// [`OpenError`]; the folder is left as it was.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (journal, archive) = Folder::readers(path)?;
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        hold(&journal, &archive).map_err(failed)?;
        // The index beside the archive belongs to who writes it.
        let ids = Arc::new(Ids::new(path, (0, 0), Vec::new(), usize::MAX));
        let archive = ArchiveReader::new(archive, Arc::clone(&ids));
        Ok(Self { path: path.to_owned(), journal: Journal::new(journal), archive, ids })
    }

    /// Every record, also the marks that are left of revoked and forgotten ones, in the order in which they entered
    /// their states. Ends with the first error of `each`.
    ///
    /// # Errors
    /// Those of `each`; [`OpenError::Database`] where a record cannot be read.
    pub fn tasks<E: From<OpenError>>(&self, mut each: impl FnMut(&Task) -> Result<(), E>) -> Result<(), E> {
        let failed = |source| E::from(OpenError::Database { path: self.path.clone(), source });
        let table = Table::new(1);
        self.find_recent().map_err(failed)?;
        recovery::replay(&self.journal, &self.archive, &table).map_err(|error| match error {
            ArchiveError::Database(source) => failed(source),
            ArchiveError::Ids(source) => E::from(OpenError::NotUsable { path: self.path.clone(), source }),
        })?;
        let mut recent = table.all().into_iter().peekable();
        let walked = self.archive.each(|task| {
            // An id that has moved on is told of as it is now.
            if table.holds(&task.id) {
                return Ok(());
            }
            while let Some(before) = recent.next_if(|recent| recent.entered < task.entered) {
                each(&before).map_err(Walk::Each)?;
            }
            each(&task).map_err(Walk::Each)
        });
        match walked {
            Ok(()) => {}
            Err(Walk::Read(source)) => return Err(failed(source)),
            Err(Walk::Each(error)) => return Err(error),
        }
        recent.try_for_each(|task: Arc<Task>| each(&task))
    }

    /// Finds out where the archive holds the tasks that are in the journal too.
    fn find_recent(&self) -> rusqlite::Result<()> {
        let mut recent = HashSet::new();
        self.journal.replay(|batch| recent.extend(batch.entries.into_iter().map(|entry| entry.task.id)))?;
        self.archive.each_place(|id, place| {
            if let Some(id) = recent.get(id) {
                self.ids.add(iter::once((id, place)));
            }
        })
    }

    /// Copies both files into a folder that is new or empty, durable on return. `told` hears how many bytes of how many
    /// are copied. What a copy that was cut off leaves does not open as a store.
    ///
    /// # Errors
    /// [`CopyError`]; what was begun of the copy is taken away again.
    pub fn copy_to(&self, target: &Path, mut told: impl FnMut(u64, u64)) -> Result<(), CopyError> {
        let not_writable = |source| CopyError::NotWritable { path: target.to_owned(), source };
        let is_made = !target.exists();
        fs::create_dir_all(target).map_err(not_writable)?;
        if fs::read_dir(target).map_err(not_writable)?.next().is_some() {
            return Err(CopyError::NotEmpty { path: target.to_owned() });
        }
        let copied = self.copy_into(target, &mut told);
        if copied.is_err() {
            for file in fs::read_dir(target).into_iter().flatten().flatten() {
                // What cannot be taken away is no store, as its journal has no name yet.
                let _ = fs::remove_file(file.path());
            }
            if is_made {
                let _ = fs::remove_dir(target);
            }
        }
        copied
    }

    fn copy_into(&self, target: &Path, told: &mut impl FnMut(u64, u64)) -> Result<(), CopyError> {
        let not_writable = |source| CopyError::NotWritable { path: target.to_owned(), source };
        // The journal last, and with its name only once it is whole: an archive without a journal is refused as a store.
        let files = [(ARCHIVE, self.archive.connection()), (JOURNAL_BEGUN, self.journal.connection())];
        let mut sizes = [0; 2];
        for ((name, connection), size) in files.iter().zip(&mut sizes) {
            let failed = |source| CopyError::Database { path: self.path.join(name), source };
            *size = bytes(connection).map_err(failed)?;
        }
        let needed = sizes.iter().sum();
        let room = rustix::fs::statvfs(target).map_err(|error| not_writable(error.into()))?;
        has_room(target, room.f_bavail.saturating_mul(room.f_frsize), needed)?;

        let mut before = 0;
        for ((name, connection), size) in files.iter().zip(sizes) {
            let path = target.join(name);
            let failed = |source| CopyError::Database { path: path.clone(), source };
            let copied = copy(connection, &path, |copied| told(before + copied.min(size), needed));
            copied.and_then(|copy| finish(copy, *name == ARCHIVE)).map_err(failed)?;
            File::open(&path).and_then(|file| file.sync_all()).map_err(not_writable)?;
            before += size;
        }
        fs::rename(target.join(JOURNAL_BEGUN), target.join(JOURNAL)).map_err(not_writable)?;
        sync_folder(target).map_err(not_writable)
    }
}

/// What ends the reading of the archive.
enum Walk<E> {
    Read(rusqlite::Error),
    Each(E),
}

impl<E> From<rusqlite::Error> for Walk<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error)
    }
}

fn has_room(target: &Path, free: u64, needed: u64) -> Result<(), CopyError> {
    if free < needed {
        return Err(CopyError::NoRoom { path: target.to_owned(), free, needed });
    }
    Ok(())
}

/// Begins to read both at one moment: the archive is as it was when the reading of the journal began.
fn hold(journal: &Connection, archive: &Connection) -> rusqlite::Result<()> {
    for _ in 0..TRIES {
        let before = version(archive)?;
        begin(journal)?;
        begin(archive)?;
        if version(archive)? == before {
            return Ok(());
        }
        for connection in [journal, archive] {
            connection.execute_batch("ROLLBACK")?;
        }
    }
    Err(busy("the archive is written all the time"))
}

fn busy(why: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(code, Some(why.to_owned()))
}

/// A transaction reads what there is at its first read.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Another number whenever another connection has written.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: u64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(pages * page)
}

/// Copies page by page what the transaction of `source` sees. Durable on return.
fn copy(source: &Connection, path: &Path, mut told: impl FnMut(u64)) -> rusqlite::Result<Connection> {
    let page: u64 = source.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let mut target = Connection::open(path)?;
    target.execute_batch("PRAGMA synchronous = FULL")?;
    {
        let backup = Backup::new(source, &mut target)?;
        loop {
            match backup.step(PAGES_AT_ONCE)? {
                StepResult::Done => break,
                StepResult::More => {
                    let progress = backup.progress();
                    let copied = progress.pagecount - progress.remaining;
                    told(u64::try_from(copied).unwrap_or_default() * page);
                }
                // Nobody else writes the copy, and the source is read already.
                _ => return Err(busy("another process uses the copy")),
            }
        }
    }
    Ok(target)
}

/// The index of the archive's ids is not copied, because it can be made anew.
fn finish(copy: Connection, is_archive: bool) -> rusqlite::Result<()> {
    if is_archive {
        index::give_up(&copy)?;
    }
    copy.close().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::archive::Archive;
    use crate::store::embedded::journal::Entry;
    use crate::store::samples::{success, working};

    fn files(path: &Path) -> (Folder, Journal, Archive) {
        let folder = Folder::open(path).unwrap();
        let (journal, archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
        (folder, journal, archive)
    }

    fn write(journal: &mut Journal, number: u64, task: &Task) {
        let entry = Entry { task, is_whole: true };
        journal.commit(number, number, iter::once(entry), iter::empty()).unwrap();
    }

    fn told(snapshot: &Snapshot) -> Vec<(String, u64, bool)> {
        let mut told = Vec::new();
        let tell = |task: &Task| {
            told.push((task.id.to_string(), task.entered, task.is_working()));
            Ok::<_, OpenError>(())
        };
        snapshot.tasks(tell).unwrap();
        told
    }

    /// The rows of the journal go a while after the archive has them.
    #[test]
    fn each_task_is_told_of_once_as_it_was_last_and_at_one_moment() {
        let path = tempfile::tempdir().unwrap();
        let (_folder, mut journal, mut archive) = files(path.path());
        for (number, name) in [(1, "a"), (2, "b"), (4, "c")] {
            write(&mut journal, number, &working(name, number, 3));
        }
        archive.add(&[success("a", 3, 3), success("d", 5, 3)], 5, 5).unwrap();
        let one = |name: &str, entered, is_working| (name.to_owned(), entered, is_working);
        let all = [one("b", 2, true), one("a", 3, false), one("c", 4, true), one("d", 5, false)];
        let snapshot = Snapshot::open(path.path()).unwrap();
        assert_eq!(told(&snapshot), all);
        write(&mut journal, 6, &working("e", 6, 3));
        archive.add(&[success("f", 7, 3)], 7, 7).unwrap();
        assert_eq!(told(&snapshot), all, "what is written later is not seen");
        assert_eq!(told(&Snapshot::open(path.path()).unwrap()).len(), 6);

        let error = snapshot.tasks(|_| Err::<(), _>(OpenError::NoStore { path: PathBuf::new() }));
        assert!(matches!(error, Err(OpenError::NoStore { .. })), "{error:?}");
    }

    #[test]
    fn a_file_has_another_version_once_somebody_else_has_written_it() {
        let path = tempfile::tempdir().unwrap();
        let (_folder, _journal, mut archive) = files(path.path());
        let (_, reader) = Folder::readers(path.path()).unwrap();
        let before = version(&reader).unwrap();
        assert_eq!(version(&reader).unwrap(), before);
        archive.add(&[success("a", 3, 3)], 3, 3).unwrap();
        assert_ne!(version(&reader).unwrap(), before);
    }

    #[test]
    fn a_copy_tells_how_far_it_is_after_so_many_pages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source.db");
        let source = Connection::open(&path).unwrap();
        source
            .execute_batch("CREATE TABLE some (thing); INSERT INTO some VALUES (zeroblob(9 << 20))")
            .unwrap();
        assert_eq!(bytes(&source).unwrap(), fs::metadata(&path).unwrap().len());
        let mut told = Vec::new();
        copy(&source, &folder.path().join("copy.db"), |copied| told.push(copied)).unwrap();
        assert_eq!(told, [4 << 20, 8 << 20]);
    }

    #[test]
    fn a_copy_does_not_count_on_the_index_that_is_not_copied() {
        let path = tempfile::tempdir().unwrap();
        let (_folder, _journal, mut archive) = files(path.path());
        archive.add(&[success("a", 3, 3)], 3, 3).unwrap();
        let source = Connection::open(path.path().join(ARCHIVE)).unwrap();
        source.execute("UPDATE progress SET indexed_to = 3", []).unwrap();
        let target = path.path().join("copy");
        Snapshot::open(path.path()).unwrap().copy_to(&target, |_, _| ()).unwrap();
        let indexed_to = |archive: &Connection| {
            archive.query_row("SELECT indexed_to FROM progress", [], |row| row.get::<_, u64>(0)).unwrap()
        };
        let copy = Connection::open(target.join(ARCHIVE)).unwrap();
        assert_eq!((indexed_to(&source), indexed_to(&copy)), (3, 0));
    }

    #[test]
    fn a_copy_that_does_not_fit_says_how_much_it_lacks() {
        assert!(has_room(Path::new("there"), 4_096, 4_096).is_ok());
        let error = has_room(Path::new("there"), 4_096, 10 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there has no room for the copy: 4.0 KiB are free, 10.0 MiB are needed"
        );
    }
}
