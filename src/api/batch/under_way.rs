//! What of a batch is under way, and the room that is left.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::task::TaskId;

/// How many bytes of lines are under way together; a longer line goes alone.
const BYTES_MAX: u32 = 8 << 20;

/// The launches of one batch that are not decided.
#[derive(Debug)]
pub(super) struct UnderWay {
    bytes: Arc<Semaphore>,
    ids: Mutex<HashSet<TaskId>>,
    has_left: Notify,
}

/// The right to launch an id; dropping it gives the room back.
#[derive(Debug)]
pub(super) struct Turn {
    id: TaskId,
    of: Arc<UnderWay>,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl UnderWay {
    pub(super) fn new() -> Arc<Self> {
        let bytes = Arc::new(Semaphore::new(BYTES_MAX as usize));
        Arc::new(Self { bytes, ids: Mutex::default(), has_left: Notify::new() })
    }

    /// Waits for room, and for an earlier line with the same id: of two, the first one is decided first. To be called
    /// for one line after the other.
    pub(super) async fn enter(self: Arc<Self>, id: TaskId, bytes: usize) -> Turn {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(BYTES_MAX);
        // The semaphore is never closed.
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok();
        while !self.ids().insert(id.clone()) {
            self.has_left.notified().await;
        }
        Turn { id, of: self, _bytes: bytes }
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(super) fn id(&self) -> &TaskId {
        &self.id
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of.ids().remove(&self.id);
        self.of.has_left.notify_one();
    }
}
