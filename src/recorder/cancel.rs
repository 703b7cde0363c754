//! The cancel of a run.

use super::Recorder;
use crate::store::{Moved, Refused, StoreError};
use crate::task::{Change, Refusal, TaskId};

impl Recorder {
    /// Stops a run: one that waits at once, one with an attempt under way is told to end, and is `canceling` until it
    /// has. `Done` in both cases, and durable.
    ///
    /// # Errors
    /// [`StoreError`]; the run goes on then.
    pub async fn cancel(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.cancel_at(id, None).await
    }

    /// The same, but where a place is given only if the task still is in the state that it entered there.
    pub(super) async fn cancel_at(&self, id: &TaskId, entered: Option<u64>) -> Result<Moved, StoreError> {
        let (recorder, id) = (self.clone(), id.clone());
        self.to_the_end(async move { recorder.record_cancel(&id, entered).await }).await
    }

    async fn record_cancel(&self, id: &TaskId, entered: Option<u64>) -> Result<Moved, StoreError> {
        let Some(before) = self.status(id).await? else {
            return Ok(Moved::Refused(Refused { reason: Refusal::NotFound, task: None }));
        };
        let is_notice_due = self.inner.wants_notice(&before.handler, true);
        let change = Change::Cancel { is_notice_due }.fenced(entered);
        let moved = self.inner.store.change(id, change).await?;
        let Moved::Done(task) = &moved else { return Ok(moved) };
        if task.is_working() {
            self.inner.endings.end(task);
            let now = self.status(id).await?;
            if !now.is_some_and(|now| now.is_working() && now.run == task.run) {
                self.inner.endings.forget(task);
            }
        } else {
            if before.run == task.run {
                if let Some(lane) = self.inner.lane(&task.handler) {
                    lane.remove(before.entered);
                }
                self.inner.tell_run(&before, task);
            }
            self.inner.enqueue_notice(task);
            self.inner.waiters.notify(id);
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::recorder::samples::{claimed, done};
    use crate::store::{MemoryStore, Store};

    #[tokio::test]
    async fn an_attempt_that_is_about_to_begin_is_told_to_end_when_it_does() {
        let store = Arc::new(MemoryStore::new());
        let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
        let id: TaskId = "order-42".parse().unwrap();
        let _claim = claimed(&*store, &id).await;
        let task = done(recorder.cancel(&id).await.unwrap());
        assert!(task.is_working());
        assert!(recorder.inner.endings.enter(&task).token().is_cancelled());
    }
}
