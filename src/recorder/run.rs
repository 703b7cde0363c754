//! One run, from its claim to its settled outcome.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Inner, Launch};
use crate::store::{Claim, Claimed, Moved, StoreError, Unsettled};
use crate::task::{Attempt, ErrorKind, Failure, Outcome, Output, Start, Task, TaskId};

/// How long an outcome that could not be written waits until it is tried again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(super) async fn run<W, F>(
    inner: Arc<Inner>,
    id: TaskId,
    start: Start,
    work: W,
    first_word: oneshot::Sender<Result<Launch, StoreError>>,
) where
    W: FnOnce(Arc<Task>) -> F,
    F: Future<Output = Outcome>,
{
    // An error of the first word means that nobody waits any more; the run goes on all the same.
    let claim = match inner.store.claim(&id, start).await {
        Ok(Claimed::Started(claim)) => claim,
        Ok(Claimed::Refused(refused)) => {
            let _ = first_word.send(Ok(Launch::Refused(refused)));
            return;
        }
        Err(error) => {
            let _ = first_word.send(Err(error));
            return;
        }
    };
    let task = Arc::clone(claim.task());
    let _ = first_word.send(Ok(Launch::Started(Arc::clone(&task))));

    let started = Timestamp::now();
    let outcome = inner.attempt(&task, work).await;
    let Outcome { code, output, result } = outcome;
    let attempt =
        Attempt { run: task.run, attempt: 1, started, ended: Timestamp::now(), code, failure: result.err() };
    inner.settle(claim, attempt, output).await;
    inner.waiters.notify(&id);
}

impl Inner {
    /// Never panics, and ends soon after the recorder has said so.
    async fn attempt<W, F>(&self, task: &Arc<Task>, work: W) -> Outcome
    where
        W: FnOnce(Arc<Task>) -> F,
        F: Future<Output = Outcome>,
    {
        // Around all of it, because a future that is dropped in the middle may panic too.
        let outcome = AssertUnwindSafe(async {
            tokio::select! {
                biased;
                outcome = async { work(Arc::clone(task)).await } => outcome,
                () = self.aborting.cancelled() => {
                    Outcome::failed(Failure::new(ErrorKind::Shutdown, "the service stopped before the run ended"))
                }
            }
        });
        outcome.catch_unwind().await.unwrap_or_else(|panic| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            let message = format!("the handler panicked: {}", text_of(panic.as_ref()));
            tracing::error!(task.id = %task.id, run = task.run, message, "run panicked");
            Outcome::failed(Failure::new(ErrorKind::Panic, message))
        })
    }

    /// Writes the outcome, as often as it takes.
    async fn settle(&self, claim: Claim, attempt: Attempt, output: Option<Output>) {
        let mut unsettled = match self.store.settle(claim, attempt, output).await {
            Ok(moved) => return self.note(&moved),
            Err(unsettled) => unsettled,
        };
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        let mut pause = PAUSE_MIN;
        loop {
            let Unsettled { claim, attempt, output, error } = *unsettled;
            let is_final = matches!(error, StoreError::Dead(_) | StoreError::Closed);
            let (id, run) = (claim.task().id.clone(), claim.task().run);
            if is_final || self.giving_up.is_cancelled() {
                tracing::error!(task.id = %id, run, %error, "outcome lost, the next start records it as interrupted");
                break;
            }
            if pause == PAUSE_MIN {
                tracing::warn!(task.id = %id, run, %error, "outcome not recorded yet, will try again");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.giving_up.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match self.store.settle(claim, attempt, output).await {
                Ok(moved) => {
                    self.note(&moved);
                    break;
                }
                Err(again) => unsettled = again,
            }
        }
        self.unsettled.fetch_sub(1, Ordering::Relaxed);
    }

    fn note(&self, settled: &Moved) {
        if let Moved::Refused(refused) = settled {
            self.stale.fetch_add(1, Ordering::Relaxed);
            let id = refused.task.as_ref().map(|task| task.id.as_str());
            tracing::warn!(task.id = id, reason = %refused.reason, "a late outcome was refused");
        }
    }
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
