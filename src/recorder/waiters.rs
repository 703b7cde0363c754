//! Who waits for which id. An id is held only while somebody waits.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::task::TaskId;

#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_id: Arc<scc::HashMap<TaskId, Arc<Notify>>>,
}

/// One who waits. Told of everything from the moment it was made.
#[derive(Debug)]
pub(super) struct Waiter {
    id: TaskId,
    notified: Pin<Box<OwnedNotified>>,
    by_id: Arc<scc::HashMap<TaskId, Arc<Notify>>>,
}

impl Waiters {
    /// To be called before the state is looked at, so that no change slips between.
    pub(super) fn enter(&self, id: &TaskId) -> Waiter {
        let notify = Arc::clone(self.by_id.entry_sync(id.clone()).or_default().get());
        let mut notified = Box::pin(notify.notified_owned());
        notified.as_mut().enable();
        Waiter { id: id.clone(), notified, by_id: Arc::clone(&self.by_id) }
    }

    pub(super) fn notify(&self, id: &TaskId) {
        if let Some((_, notify)) = self.by_id.remove_sync(id) {
            notify.notify_waiters();
        }
    }
}

impl Waiter {
    pub(super) async fn notified(mut self) {
        self.notified.as_mut().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // Two are left when this is the last one: the map's, and the one in `notified`.
        self.by_id.remove_if_sync(&self.id, |notify| Arc::strong_count(notify) <= 2);
    }
}
