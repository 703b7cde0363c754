//! The undoing of a success with its handler's action: begun durably, tried by the handler's policy, recorded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::lane::{Lane, Work};
use super::run::Write;
use super::{Inner, Recorder};
use crate::store::{Moved, StoreError};
use crate::sync::time::sleep;
use crate::task::{Change, ErrorKind, Failure, Outcome, Purpose, Task, TaskId};

impl Recorder {
    /// Undoes a success; the id is not found afterwards. With an action of its handler the record is `revoking` until
    /// the action has ended, and the success stands where it fails. Of many at the same moment one is `Done`.
    ///
    /// # Errors
    /// [`StoreError`]; the success stands then.
    pub async fn revoke(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.revoke_at(id, None).await
    }

    /// The same, but where a place is given only if the task still is in the state that it entered there.
    pub(super) async fn revoke_at(&self, id: &TaskId, entered: Option<u64>) -> Result<Moved, StoreError> {
        let _admission = self.admit().map_err(|_draining| StoreError::Closed)?;
        let (recorder, id) = (self.clone(), id.clone());
        self.to_the_end(async move { recorder.begin_revoke(&id, entered).await }).await
    }

    async fn begin_revoke(&self, id: &TaskId, entered: Option<u64>) -> Result<Moved, StoreError> {
        let task = self.status(id).await?;
        let lane = task.and_then(|task| self.lane(&task.handler));
        let Some((lane, undo)) = lane.and_then(|(lane, spec)| Some((lane, spec.undo.clone()?))) else {
            return self.inner.store.change(id, Change::Revoke.fenced(entered)).await;
        };
        let moved = self.inner.store.change(id, Change::BeginRevoke.fenced(entered)).await?;
        if let Moved::Done(task) = &moved {
            self.inner.runs.spawn(undone(Arc::clone(&self.inner), lane, undo, Arc::clone(task)));
        }
        Ok(moved)
    }
}

/// Runs the action until it succeeds or may not be tried again. `task` is as [`Change::BeginRevoke`] left it.
async fn undone(inner: Arc<Inner>, lane: Arc<Lane>, undo: Work, task: Arc<Task>) {
    let mut attempt = 1;
    let mut undo = undo;
    let mut is_in_doubt = false;
    let result = loop {
        let outcome = once(&inner, &undo, &task, attempt).await;
        is_in_doubt |= outcome.result.as_ref().is_err_and(|failure| failure.in_doubt);
        // As it is now: the next attempt is what a reload has made of it, and there is none where that took it away.
        let Some(spec) = lane.spec() else { break outcome.result };
        let retry = &spec.policy.retry;
        let is_last = attempt >= retry.attempts || !outcome.may_be_retried(retry.in_doubt);
        if is_last || inner.draining.is_cancelled() {
            break outcome.result;
        }
        let pause = retry.pause(attempt, outcome.retry_after, fastrand::f64());
        tokio::select! {
            () = sleep(pause) => {}
            () = inner.draining.cancelled() => break outcome.result,
        }
        attempt += 1;
        match lane.spec().and_then(|spec| spec.undo.clone()) {
            Some(now) => undo = now,
            None => break outcome.result,
        }
    };
    // However surely the last attempt had no effect, an earlier one may have had one.
    let result = result.map_err(|failure| Failure { in_doubt: is_in_doubt, ..failure });
    let change = Change::EndRevoke { revision: task.revision, result };
    inner.persist(&task, Write::Change(change)).await;
    inner.waiters.notify(&task.id);
}

async fn once(inner: &Inner, undo: &Work, task: &Arc<Task>, attempt: u32) -> Outcome {
    let ending = inner.ending(task);
    let begun = inner.begin_call(task);
    let work = async { undo(Arc::clone(task), attempt, ending.token()).await };
    let mut outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_panic| {
        Outcome::failed(Failure::new(ErrorKind::Panic, "the revoke action panicked"))
    });
    if ending.token().is_cancelled()
        && let Err(failure) = &mut outcome.result
    {
        failure.kind = ErrorKind::Shutdown;
    }
    inner.tell_call(begun, task, (Purpose::Revoke, attempt), outcome.code, &outcome.result);
    outcome
}
