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
    /// What it entered; the map may hold another one for the id by now. None once it has left.
    notify: Option<Arc<Notify>>,
    notified: Option<Pin<Box<OwnedNotified>>>,
    by_id: Arc<scc::HashMap<TaskId, Arc<Notify>>>,
}

impl Waiters {
    /// To be called before the state is looked at, so that no change slips between.
    pub(super) fn enter(&self, id: &TaskId) -> Waiter {
        let notify = Arc::clone(self.by_id.entry_sync(id.clone()).or_default().get());
        let mut notified = Box::pin(Arc::clone(&notify).notified_owned());
        notified.as_mut().enable();
        let by_id = Arc::clone(&self.by_id);
        Waiter { id: id.clone(), notify: Some(notify), notified: Some(notified), by_id }
    }

    pub(super) fn notify(&self, id: &TaskId) {
        if let Some((_, notify)) = self.by_id.remove_sync(id) {
            notify.notify_waiters();
        }
    }
}

impl Waiter {
    pub(super) async fn notified(mut self) {
        if let Some(notified) = &mut self.notified {
            notified.as_mut().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // All of it happens under the entry's lock, so that of several who leave at once the last one sees that it is.
        self.by_id.remove_if_sync(&self.id, |entry| {
            self.notified = None;
            let is_its_own = self.notify.take().is_some_and(|notify| Arc::ptr_eq(entry, &notify));
            is_its_own && Arc::strong_count(entry) == 1
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn id() -> TaskId {
        "order-42".parse().unwrap()
    }

    #[tokio::test]
    async fn one_who_leaves_late_does_not_take_out_those_who_came_since() {
        let waiters = Waiters::default();
        let of_the_first_run = waiters.enter(&id());
        waiters.notify(&id());
        let of_the_second_run = waiters.enter(&id());
        drop(of_the_first_run);
        waiters.notify(&id());
        let told = timeout(Duration::from_secs(5), of_the_second_run.notified()).await;
        assert!(told.is_ok(), "nobody told it");
        drop((waiters.enter(&id()), waiters.enter(&id())));
        assert_eq!(waiters.by_id.len(), 0, "an id is held for nobody");
    }
}
