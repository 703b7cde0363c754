//! Who waits for which id. An id is held only while somebody waits.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::{Launch, Recorder};
use crate::store::{Refused, StoreError};
use crate::sync::HashMap;
use crate::sync::time::Instant;
use crate::task::TaskId;

#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_id: Arc<HashMap<TaskId, Arc<Notify>, RandomState>>,
}

/// One who waits. Told of everything from the moment it was made.
#[derive(Debug)]
pub(super) struct Waiter {
    id: TaskId,
    /// What it entered; the map may hold another one for the id by now. None, as below, once it has left.
    notify: Option<Arc<Notify>>,
    notified: Option<Pin<Box<OwnedNotified>>>,
    by_id: Arc<HashMap<TaskId, Arc<Notify>, RandomState>>,
}

impl Recorder {
    /// What a launch came to, with the record as soon as it is not working, or as it is when `patience` is over; none
    /// where the id is not found by then, because it was forgotten or revoked. Without a `patience` it waits for as
    /// long as it takes, or until the recorder has stopped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settled(
        &self,
        launch: Launch,
        patience: Option<Duration>,
    ) -> Result<Option<Launch>, StoreError> {
        let (Launch::Started(task) | Launch::Refused(Refused { task: Some(task), .. })) = &launch else {
            return Ok(Some(launch));
        };
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        let now = self.wait_until(&task.id, deadline).await?;
        // Not the record as it was at the launch: by now it is older than what others have seen.
        Ok(now.map(|now| match launch {
            Launch::Started(_) => Launch::Started(now),
            Launch::Refused(refused) => Launch::Refused(Refused { task: Some(now), ..refused }),
        }))
    }
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

    #[cfg(all(test, shuttle))]
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn notify(&self, id: &TaskId) {
        if let Some((_, notify)) = self.by_id.remove_sync(id) {
            notify.notify_waiters();
        }
    }

    pub(super) fn notify_all(&self) {
        self.by_id.iter_sync(|_, notify| {
            notify.notify_waiters();
            true
        });
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
        // What the map holds by now may be somebody else's, who waits for a later run. All of it happens under the
        // entry's lock, so that of several who leave at once the last one sees that it is.
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

    use futures_util::FutureExt as _;

    use super::*;
    use crate::recorder::samples::claimed;
    use crate::store::{MemoryStore, Store};
    use crate::sync::time::Instant;

    #[tokio::test]
    async fn nobody_waits_for_an_outcome_that_was_given_up() {
        let store = Arc::new(MemoryStore::new());
        let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
        let id: TaskId = "order-42".parse().unwrap();
        let _claim = claimed(&*store, &id).await;
        assert!(recorder.wait_until(&id, None).now_or_never().is_none());
        recorder.inner.giving_up.cancel();
        let task = recorder.wait_until(&id, None).now_or_never().unwrap().unwrap();
        assert!(task.is_some_and(|task| task.is_working()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_a_stop_leaves_to_the_next_start() {
        let store = Arc::new(MemoryStore::new());
        let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
        let id: TaskId = "order-42".parse().unwrap();
        let _claim = claimed(&*store, &id).await;
        let deadline = Instant::now().checked_add(Duration::from_hours(1));
        let mut waiting = [None, deadline].map(|deadline| Box::pin(recorder.wait_until(&id, deadline)));
        assert!(waiting.iter_mut().all(|wait| wait.now_or_never().is_none()));
        recorder.stop(Duration::from_secs(1)).await;
        for wait in waiting {
            let task = wait.now_or_never().expect("it was woken").unwrap();
            assert!(task.is_some_and(|task| task.is_working()));
        }
    }

    #[test]
    fn an_id_is_held_only_while_somebody_waits() {
        let (waiters, id) = (Waiters::default(), "order-42".parse().unwrap());
        let (first, second) = (waiters.enter(&id), waiters.enter(&id));
        drop(first);
        assert_eq!(waiters.by_id.len(), 1);
        drop(second);
        assert_eq!(waiters.by_id.len(), 0);

        let told = waiters.enter(&id);
        waiters.notify(&id);
        assert_eq!(waiters.by_id.len(), 0);
        let later = waiters.enter(&id);
        assert_eq!(told.notified().now_or_never(), Some(()));
        assert_eq!(waiters.by_id.len(), 1, "whoever came later waits still");
        waiters.notify(&id);
        assert_eq!(later.notified().now_or_never(), Some(()));
        assert_eq!(waiters.by_id.len(), 0);
    }
}
