//! Threads that read the archive for answers that memory does not have.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::archive::{ArchiveError, ArchiveReader};
use super::folder::Folder;
use super::ids::Ids;
use super::spawn;
use crate::store::StoreError;
use crate::store::table::Table;
use crate::sync::Mutex;
use crate::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use crate::task::{Task, TaskId};

/// How many reads run at once.
const THREADS: usize = 2;
/// How many reads may wait.
const QUEUE_MAX: usize = 8_192;

type Read = Box<dyn FnOnce(&ArchiveReader) + Send>;

#[derive(Debug)]
pub(super) struct Readers {
    reads: SyncSender<Read>,
}

impl Readers {
    /// Each thread has a connection of its own, and ends when this is dropped.
    pub(super) fn start(folder: &Folder, ids: &Arc<Ids>) -> rusqlite::Result<Self> {
        let (reads, queue) = mpsc::sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let archive = folder.reader(ids)?;
            let queue = Arc::clone(&queue);
            spawn("store-reader", move || serve(&archive, &queue));
        }
        Ok(Self { reads })
    }

    /// Runs `read` on one of the threads.
    pub(super) async fn read<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
        &self,
        read: impl FnOnce(&ArchiveReader) -> Result<T, E> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Read = Box::new(move |archive| {
            // An error means that nobody waits any more.
            let _ = answer.send(read(archive));
        });
        self.reads.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        match answered.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(StoreError::Unreadable(error.to_string())),
            Err(_) => Err(StoreError::Unreadable("the read was cut off".to_owned())),
        }
    }
}

fn serve(archive: &ArchiveReader, queue: &Mutex<Receiver<Read>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            // One that panics is cut off; the thread goes on with the next.
            Ok(read) => drop(catch_unwind(AssertUnwindSafe(|| read(archive)))),
            Err(_) => return,
        }
    }
}

/// Whether nobody has ever seen the id, as far as memory tells: a `true` is certain.
pub(super) fn is_unknown(table: &Table, ids: &Ids, id: &TaskId) -> bool {
    let version = ids.version();
    // It may have been archived between the two looks.
    !table.holds(id) && !ids.may_hold(id) && ids.version() == version && !table.holds(id)
}

/// The record of an id in memory or in the archive.
pub(super) fn find(
    table: &Table,
    archive: &ArchiveReader,
    id: &TaskId,
) -> Result<Option<Arc<Task>>, ArchiveError> {
    loop {
        let version = archive.version();
        if let Some(task) = table.get(id) {
            return Ok(Some(task));
        }
        let found = archive.get(id)?;
        // It may have come back into memory meanwhile and have been archived anew, elsewhere.
        if found.is_some() || archive.version() == version && !table.holds(id) {
            return Ok(found.map(Arc::new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::success;
    use crate::store::table::Move;

    #[tokio::test]
    async fn a_read_that_fails_or_panics_says_so_and_the_next_ones_are_answered() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path()).unwrap();
        let (_journal, archive) = (folder.journal().unwrap(), folder.archive(1).unwrap());
        let readers = Readers::start(&folder, &archive.ids).unwrap();
        let unreadable = |why: &str| Err(StoreError::Unreadable(why.to_owned()));
        for _ in 0..2 * THREADS {
            let cut_off = readers.read(|_| -> Result<(), String> { panic!("on purpose") }).await;
            assert_eq!(cut_off, unreadable("the read was cut off"));
            assert_eq!(readers.read(|_| Err::<(), _>("no disk")).await, unreadable("no disk"));
        }
        assert_eq!(readers.read(ArchiveReader::seq).await, Ok(0));
    }

    #[test]
    fn an_id_is_unknown_while_neither_memory_nor_the_archive_has_seen_it() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::open(path.path()).unwrap();
        let (_journal, mut archive) = (folder.journal().unwrap(), folder.archive(9).unwrap());
        let reader = folder.reader(&archive.ids).unwrap();
        let (table, ids) = (Table::new(1), Arc::clone(&archive.ids));
        let (task, other) = (success("a", 2, 3), "b".parse().unwrap());
        assert!(is_unknown(&table, &ids, &task.id));
        assert_eq!(find(&table, &reader, &task.id).unwrap(), None);

        table.restore(&[Move { previous: None, next: Arc::clone(&task) }], 2);
        assert!(!is_unknown(&table, &ids, &task.id) && is_unknown(&table, &ids, &other));
        assert_eq!(find(&table, &reader, &task.id).unwrap().as_ref(), Some(&task));
        archive.add(&[Arc::clone(&task)], 2, 2).unwrap();
        table.evict(&[Arc::clone(&task)]);
        assert!(!is_unknown(&table, &ids, &task.id) && is_unknown(&table, &ids, &other));
        assert_eq!(find(&table, &reader, &task.id).unwrap(), Some(task));
        assert_eq!(find(&table, &reader, &other).unwrap(), None);
    }
}
