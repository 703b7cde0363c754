//! A store that is durable on one machine: two SQLite files in one folder, and an index of the ids in the second one.
//!
//! `journal.db` takes every change, one row a commit, with one fsync; `archive.db` takes settled tasks later, in batches,
//! one row a task. What has not moved to the archive is in memory too (the hot tier), so that most answers
//! touch no disk, and memory holds what is recent, not what was ever seen.
//!
//! ```text
//! claim, settle, … -> queue -> writer thread: check, append, commit, publish, answer
//!                              archiver thread: oldest settled tasks -> archive -> out of memory -> out of journal
//! get, list        -> memory, then reader threads on the archive
//! ```
//!
//! Invariant: a task is in memory unless it is settled and in the archive. Every settled task that entered its state
//! at or before `archived_to` is in the archive; replaying the journal over that is idempotent.

mod answers;
mod archive;
mod archiver;
mod checkpoint;
mod folder;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod ids;
mod index;
mod journal;
mod kept;
mod queue;
mod reader;
mod recovery;
mod row;
mod snapshot;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use self::answers::Answer;
use self::archiver::Archiver;
use self::folder::Folder;
use self::ids::Ids;
use self::queue::Queue;
use self::reader::Readers;
pub use self::snapshot::{CopyError, Snapshot};
use self::writer::{Request, Writer};
use super::feed::{EVENTS_KEPT, Feed};
use super::table::Table;
use super::{Counts, Health, Moved, Note, Page, Query, Recovered, Refused, Store, StoreError, StoreTally};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, mpsc};
use crate::task::{Change, State, Task, TaskId};

/// The format of both files, in SQLite's `user_version`.
const FORMAT: i64 = 3;

/// The limits of an [`EmbeddedStore`].
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Settled tasks that stay in memory; older ones are read from the archive.
    pub hot_tasks: usize,
    /// Bytes of their inputs and outputs that stay in memory.
    pub hot_bytes: usize,
    /// The most changes in one commit.
    pub batch_max: usize,
    /// The most changes that wait for a commit; more are refused with [`StoreError::Busy`].
    pub queue_max: usize,
    /// Ids of archived tasks that are in memory until they are written to the index of the archive together, at least
    /// one; some 50 bytes each. So many are looked up again at the next start after a crash.
    pub recent_ids: usize,
    /// The most events that are kept for who was away for a moment, at least one.
    pub events_kept: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            hot_tasks: 20_000,
            hot_bytes: 128 << 20,
            batch_max: 1024,
            queue_max: 65_536,
            recent_ids: 65_536,
            events_kept: EVENTS_KEPT,
        }
    }
}

/// Why a folder cannot be opened as a store. What the system or SQLite said is the source.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data folder {} is in use by {holder}; stop it, or choose another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who has it, as far as is known.
        holder: String,
    },
    /// It cannot be made, or written to.
    #[error("the data folder {} cannot be used; it has to be a folder that this user may write to", path.display())]
    NotUsable {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It was written by a version with another format.
    #[error("{} has format {found}; this version reads format {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: i64,
        /// What is known here.
        known: i64,
    },
    /// One of its files is gone, and with it what had succeeded.
    #[error(
        "the data folder {} has lost {missing}; without it ids that succeeded would run again, so bring it back, or \
         choose an empty folder",
        path.display()
    )]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// The name of the file.
        missing: &'static str,
    },
    /// To be read only, and there is nothing to read.
    #[error("{} is no data folder: it holds neither journal.db nor archive.db", path.display())]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// SQLite cannot read or write one of the files.
    #[error("{} cannot be opened", path.display())]
    Database {
        /// The file or folder.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// Keeps records in a folder. Open in one process at a time. Dropping it closes it.
#[derive(Debug)]
pub struct EmbeddedStore {
    table: Arc<Table>,
    ids: Arc<Ids>,
    requests: Arc<Queue<Request>>,
    readers: Readers,
    health: watch::Receiver<Health>,
    tally: Arc<StoreTally>,
    threads: Arc<Mutex<Option<Threads>>>,
}

/// What ends when the store is closed, in this order.
#[derive(Debug)]
struct Threads {
    requests: Arc<Queue<Request>>,
    writer: JoinHandle<()>,
    archiver: JoinHandle<()>,
    _folder: Folder,
}

impl EmbeddedStore {
    /// Opens the folder, or makes it, and replays what its journal holds. Blocks: call it outside of async code, but best
    /// within a runtime of tokio, as by `spawn_blocking`: those who wait for a commit are then answered from within it.
    ///
    /// # Errors
    /// [`OpenError`]; what the folder holds is left as it was.
    pub fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let folder = Folder::open(path)?;
        let (journal, archive) = (folder.journal()?, folder.archive(options.recent_ids)?);
        let table = Arc::new(Table::new(options.events_kept));
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        let lookup = folder.reader(&archive.ids).map_err(failed)?;
        let recovered = recovery::replay(&journal, &lookup, &table).map_err(|error| folder.failed(error))?;
        let readers = Readers::start(&folder, &archive.ids).map_err(failed)?;

        let ids = Arc::clone(&archive.ids);
        let health = Arc::new(watch::Sender::new(Health::Writable));
        let requests = Arc::new(Queue::new(options.queue_max));
        let (wake, awakened) = mpsc::sync_channel(1);
        let archiver =
            Archiver::new(archive, Arc::clone(&table), Arc::clone(&requests), Arc::clone(&health), options);
        let writer =
            Writer::new(journal, lookup, Arc::clone(&table), recovered, Arc::clone(&health), options);
        let tally = writer.tally();
        let queue = Arc::clone(&requests);
        let threads = Threads {
            requests: Arc::clone(&requests),
            writer: spawn_vital("store-writer", &health, move || writer.run(&queue, &wake)),
            archiver: spawn_vital("store-archiver", &health, move || archiver.run(&awakened)),
            _folder: folder,
        };
        let threads = Arc::new(Mutex::new(Some(threads)));
        Ok(Self { table, ids, requests, readers, health: health.subscribe(), tally, threads })
    }

    /// Asks the writer, and waits for its answer.
    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.push(request(answer)).map_err(|refused| match refused {
            queue::Refused::Full => StoreError::Busy,
            queue::Refused::Closed => StoreError::Closed,
        })?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Threads {
    fn end(self) {
        // An error means that the writer has ended already, which is what is wanted.
        let _ = self.requests.push_always(Request::Close);
        for thread in [self.writer, self.archiver] {
            // A panic was told of where it was caught.
            let _ = thread.join();
        }
    }
}

/// Whoever comes second waits: when this returns, it has ended.
fn end(threads: &Mutex<Option<Threads>>) {
    let mut running = threads.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(threads) = running.take() {
        threads.end();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    #[expect(clippy::expect_used, reason = "a process that cannot start a thread cannot start")]
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread starts")
}

/// A thread without which the store is dead.
fn spawn_vital(
    name: &'static str,
    health: &Arc<watch::Sender<Health>>,
    run: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let health = Arc::clone(health);
    spawn(name, move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!(thread = name, "a thread of the store panicked");
            health.send_replace(Health::Dead(format!("its thread {name} panicked")));
        }
    })
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        end(&self.threads);
        self.table.feeder.close();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn change(&self, id: &TaskId, change: Change) -> Result<Moved, StoreError> {
        // A duplicate of what everybody can see already needs no turn of the writer.
        if let Change::Claim(start) = &change
            && let Some(task) = self.table.get(id).filter(|task| task.state != State::Absent)
            && let Err(reason) = start.is_allowed(Some(&task))
        {
            return Ok(Moved::Refused(Refused::new(reason, Some(task))));
        }
        self.ask(|answer| Request::Change { id: id.clone(), change, answer }).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        let task = match self.table.get(id) {
            Some(task) => Some(task),
            None if reader::is_unknown(&self.table, &self.ids, id) => None,
            None => {
                let (table, id) = (Arc::clone(&self.table), id.clone());
                self.readers.read(move |archive| reader::find(&table, archive, &id)).await?
            }
        };
        Ok(task.filter(|task| task.state != State::Absent))
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        if let Some(page) = self.table.page_without_archive(query) {
            return Ok(page);
        }
        let (table, query) = (Arc::clone(&self.table), query.clone());
        self.readers.read(move |archive| table.page_with(&query, || archive.page(&query))).await
    }

    fn counts(&self) -> Counts {
        self.table.counts()
    }

    async fn recover(&self) -> Result<Recovered, StoreError> {
        Ok(Recovered::of(&self.table))
    }

    async fn put_note(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.ask(|answer| Request::PutNote { key: key.to_owned(), value, answer }).await
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<Note>, StoreError> {
        self.ask(|answer| Request::Notes { prefix: prefix.to_owned(), answer }).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn tally(&self) -> Option<&StoreTally> {
        Some(&self.tally)
    }

    fn events(&self) -> Feed {
        self.table.feeder.reader()
    }

    async fn close(&self) {
        let threads = Arc::clone(&self.threads);
        let (tell, ended) = oneshot::channel();
        // Not in the pool of the runtime, where others may block for long.
        let closing = thread::Builder::new().name("store-closing".to_owned()).spawn(move || {
            end(&threads);
            let _ = tell.send(());
        });
        if closing.is_ok() {
            // An error means that it panicked, which was told of.
            let _ = ended.await;
        } else {
            // Without another thread it is this one that waits.
            end(&self.threads);
        }
        self.table.feeder.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_whose_thread_panics_is_dead() {
        let health = Arc::new(watch::Sender::new(Health::Writable));
        let panics = || panic!("on purpose");
        spawn_vital("store-writer", &health, panics).join().unwrap();
        assert!(matches!(&*health.borrow(), Health::Dead(why) if why.contains("store-writer")));
    }
}

#[cfg(all(test, shuttle))]
#[path = "../../tests/shuttle/embedded.rs"]
mod models;
