//! The data folder: its lock, and its two files with their formats.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::archive::{Archive, ArchiveError, ArchiveReader};
use super::health::health_after;
use super::ids::Ids;
use super::index;
use super::journal::Journal;
use super::{FORMAT, Health, OpenError};

/// "task", in SQLite's `application_id`: the file says whose it is.
const APPLICATION_ID: i64 = 0x7461_736b;
/// How long a connection waits for a lock that another tool holds on a file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it waits for its own lock. A process that was killed while it started a command leaves the lock to that child,
/// for the moment until it is another program; on a busy machine that moment is long.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open data folder. The lock is the operating system's: it goes with the process, also after `kill -9`.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let not_usable = |source| OpenError::NotUsable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(not_usable)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(not_usable)?;
        match locked(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { path: path.to_owned(), holder: holder(&lock_path) });
            }
            Err(TryLockError::Error(error)) => return Err(not_usable(error)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(not_usable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn journal(&self) -> Result<Journal, OpenError> {
        // The journal is made first, so an archive that stands alone has lost it, and with it what happened last.
        let (journal, archive) = (self.path.join("journal.db"), self.path.join("archive.db"));
        if is_there(&archive) && !is_there(&journal) {
            return Err(OpenError::Incomplete { path: self.path.clone(), missing: "journal.db" });
        }
        let journal = self.database("journal.db", &Journal::schema()).map(Journal::new)?;
        let failed = |source| OpenError::Database { path: self.path.join("journal.db"), source };
        if !is_there(&archive) && !journal.is_empty().map_err(failed)? {
            return Err(OpenError::Incomplete { path: self.path.clone(), missing: "archive.db" });
        }
        Ok(journal)
    }

    pub(super) fn archive(&self, recent_ids: usize) -> Result<Archive, OpenError> {
        let connection = self.database("archive.db", &Archive::schema())?;
        index::open(connection, &self.path, recent_ids).map_err(|error| self.failed(error))
    }

    /// An archive that could not be read.
    pub(super) fn failed(&self, error: ArchiveError) -> OpenError {
        match error {
            ArchiveError::Database(source) => {
                OpenError::Database { path: self.path.join("archive.db"), source }
            }
            ArchiveError::Ids(source) => OpenError::NotUsable { path: self.path.join("ids"), source },
        }
    }

    /// A connection that only reads the archive.
    pub(super) fn reader(&self, ids: &Arc<Ids>) -> rusqlite::Result<ArchiveReader> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.path.join("archive.db"), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(ArchiveReader::new(connection, Arc::clone(ids)))
    }

    /// Connections that only read both files, without the lock: whoever holds it may go on writing.
    pub(super) fn readers(path: &Path) -> Result<(Connection, Connection), OpenError> {
        let open = |name: &'static str| {
            let path = path.join(name);
            let failed = |source| OpenError::Database { path: path.clone(), source };
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
            connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
            let found: i64 =
                connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
            if found == FORMAT {
                Ok(connection)
            } else {
                Err(OpenError::Format { path: path.clone(), found, known: FORMAT })
            }
        };
        match (is_there(&path.join("journal.db")), is_there(&path.join("archive.db"))) {
            (true, true) => Ok((open("journal.db")?, open("archive.db")?)),
            (false, false) => Err(OpenError::NoStore { path: path.to_owned() }),
            (true, false) => Err(OpenError::Incomplete { path: path.to_owned(), missing: "archive.db" }),
            (false, true) => Err(OpenError::Incomplete { path: path.to_owned(), missing: "journal.db" }),
        }
    }

    fn database(&self, name: &str, schema: &str) -> Result<Connection, OpenError> {
        let path = self.path.join(name);
        let failed = |source| OpenError::Database { path: path.clone(), source };
        let connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let found: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found != 0 && found != FORMAT {
            return Err(OpenError::Format { path, found, known: FORMAT });
        }
        // A commit returns when its frames and the fsync are through. Checkpoints are ours to call, because SQLite's
        // own ones would swallow the error of a failed fsync.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;",
            )
            .map_err(failed)?;
        if connection.is_readonly("main").map_err(failed)? {
            let source = io::Error::new(io::ErrorKind::PermissionDenied, format!("{name} is read-only"));
            return Err(OpenError::NotUsable { path: self.path.clone(), source });
        }
        write_anew(&connection, &path).map_err(failed)?;
        if found == 0 {
            let setup = format!(
                "BEGIN IMMEDIATE; {schema} PRAGMA application_id = {APPLICATION_ID}; \
                 PRAGMA user_version = {FORMAT}; COMMIT;"
            );
            connection.execute_batch(&setup).map_err(failed)?;
            sync_folder(&self.path)
                .map_err(|source| OpenError::NotUsable { path: self.path.clone(), source })?;
        }
        Ok(connection)
    }
}

/// Copies the write-ahead log that a process left into its file, and syncs it, before anything is built on it.
///
/// It may be in the kernel's memory alone: after a failed fsync the kernel takes the pages for written, and shows them to
/// every process until the power goes. Here they are written once more.
fn write_anew(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    match copied {
        Err(error) if matches!(health_after(&error), Health::Dead(_)) => Err(error),
        // There is no room for it now; it is done when the log is copied next time.
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "what the last process left cannot be written once more");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Whether the file holds anything. An empty one is what a copy leaves that had no room, or a process that was killed before
/// it set the file up.
fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Makes new files in the folder, and the folder itself, outlive a power cut.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    File::open(&path)?.sync_all()?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn locked(file: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            #[expect(clippy::disallowed_methods, reason = "at the start, where nothing else is to be done")]
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            tried => return tried,
        }
    }
}

/// Who holds the lock, for people.
fn holder(lock: &Path) -> String {
    let pid = fs::read_to_string(lock).ok().and_then(|text| text.trim().parse::<u32>().ok());
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_written_anew_now_is_left_and_a_damaged_file_is_not_built_upon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let written = || {
            let connection = Connection::open(&path).unwrap();
            connection.busy_timeout(Duration::ZERO).unwrap();
            write_anew(&connection, &path)
        };
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE some (thing); BEGIN EXCLUSIVE").unwrap();
        assert_eq!(written(), Ok(()), "another tool holds the file");
        drop(other);
        assert_eq!(written(), Ok(()));
        fs::write(&path, vec![b'x'; 8_192]).unwrap();
        let error = written().unwrap_err();
        assert!(matches!(health_after(&error), Health::Dead(_)), "{error}");
    }

    #[test]
    fn a_folder_that_is_gone_was_not_synced() {
        let folder = tempfile::tempdir().unwrap();
        sync_folder(folder.path()).unwrap();
        let gone = sync_folder(&folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lock_names_a_process_or_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        for (text, named) in [("42\n", "process 42"), ("", "another process"), ("4x", "another process")] {
            fs::write(&lock, text).unwrap();
            assert_eq!(holder(&lock), named);
        }
    }

    #[test]
    fn a_lock_that_is_let_go_of_soon_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path()).unwrap();
        let (begun, opening) = std::sync::mpsc::channel();
        let path = folder.path().to_owned();
        let opened = std::thread::spawn(move || {
            begun.send(()).unwrap();
            Folder::open(&path).map(drop)
        });
        opening.recv().unwrap();
        drop(held);
        opened.join().unwrap().unwrap();

        let _held = Folder::open(folder.path()).unwrap();
        let begun = Instant::now();
        let error = Folder::open(folder.path()).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(begun.elapsed() >= LOCK_PATIENCE, "it was waited for");
    }
}
