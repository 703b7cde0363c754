//! Launches futures under ids and records what becomes of each. The only caller of claim and settle.
//!
//! A run owns itself: one spawned, tracked task goes claim -> work -> settle. Whoever asked waits only for its first
//! word; when nobody listens any more, the run goes on.
//!
//! Invariant: a run that was started is settled, whatever its work does, unless the process or the store ends first
//! (tests/it/laws.rs); then [`Recorder::recover`] settles it.

mod run;
mod waiters;

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::waiters::Waiters;
use crate::store::{Claim, Counts, Health, Moved, Page, Query, Refused, Store, StoreError};
use crate::task::{Attempt, ErrorKind, Failure, HandlerName, Input, Outcome, Output, Start, Task, TaskId};

/// How many interrupted runs are settled at once after a crash: enough for whole commits.
const RECOVERED_AT_ONCE: usize = 1_024;
/// How long one of them waits where the store has too many of them to write.
const RECOVERY_PAUSE: Duration = Duration::from_millis(5);
/// How long outcomes that could not be written are tried again while stopping.
const LAST_SETTLES: Duration = Duration::from_secs(3);

/// Launches and records. Cheap to clone; all clones are the same recorder.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    runs: TaskTracker,
    waiters: Waiters,
    /// No new launches.
    draining: CancellationToken,
    /// Runs end now.
    aborting: CancellationToken,
    /// Outcomes that cannot be written are given up.
    giving_up: CancellationToken,
    unsettled: AtomicU64,
    stale: AtomicU64,
    panics: AtomicU64,
}

/// What became of a launch.
#[derive(Debug)]
pub enum Launch {
    /// A run has started; the record as it was claimed, or as it is now where the caller waited.
    Started(Arc<Task>),
    /// Nothing has changed.
    Refused(Refused),
}

/// A launch that could not be decided. Nothing has started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The recorder is stopping.
    #[error("it is stopping and launches nothing any more")]
    Draining,
    /// The claim was not recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Figures about what happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Outcomes that wait to be written, now.
    pub unsettled: u64,
    /// Outcomes of runs that were over already.
    pub stale: u64,
    /// Runs whose work panicked.
    pub panics: u64,
}

impl Recorder {
    /// A recorder over this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let inner = Inner {
            store,
            runs: TaskTracker::new(),
            waiters: Waiters::default(),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
            giving_up: CancellationToken::new(),
            unsettled: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Launches a future under an id, unless the id is working or has succeeded. Returns as soon as that is decided
    /// and durable; the future then runs by itself. What it returns is kept as JSON.
    ///
    /// # Errors
    /// [`LaunchError`]; the future was not polled.
    pub async fn launch<F, T, E>(&self, id: TaskId, future: F) -> Result<Launch, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        let start = Start::Launch { handler: HandlerName::in_process(), input: Input::empty() };
        self.start(id, start, |_| outcome_of(future)).await
    }

    /// Launches a future as [`Recorder::launch`] does, and waits until the id is not working any more. After a
    /// refusal because it is working it waits for that run.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn launch_and_wait<F, T, E>(&self, id: TaskId, future: F) -> Result<Launch, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        let launch = self.launch(id, future).await?;
        Ok(self.settled(launch, None).await?)
    }

    /// Launches a future under an id that has failed, and under no other.
    ///
    /// # Errors
    /// [`LaunchError`]; the future was not polled.
    pub async fn retry<F, T, E>(&self, id: TaskId, future: F) -> Result<Launch, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        self.start(id, Start::Retry, |_| outcome_of(future)).await
    }

    /// Launches what `work` makes of the claimed task. This is what the launches above, and the service, come down to.
    ///
    /// # Errors
    /// [`LaunchError`]; `work` was not called.
    pub async fn start<W, F>(&self, id: TaskId, start: Start, work: W) -> Result<Launch, LaunchError>
    where
        W: FnOnce(Arc<Task>) -> F + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        if self.inner.draining.is_cancelled() {
            return Err(LaunchError::Draining);
        }
        let (first_word, heard) = oneshot::channel();
        self.inner.runs.spawn(run::run(Arc::clone(&self.inner), id, start, work, first_word));
        heard.await.unwrap_or(Err(StoreError::Closed)).map_err(LaunchError::Store)
    }

    /// Undoes a success in the record; the id is not found afterwards. Of many at the same moment one is `Done`.
    ///
    /// # Errors
    /// [`StoreError`]; the success stands then.
    pub async fn revoke(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.inner.store.revoke(id).await
    }

    /// Drops the record of a failed task; the id is not found afterwards.
    ///
    /// # Errors
    /// [`StoreError`]; the record stands then.
    pub async fn forget(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.inner.store.forget(id).await
    }

    /// The record of an id; none where it is not found.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        self.inner.store.get(id).await
    }

    /// The record as soon as it is not working, or as it is when `patience` is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait(&self, id: &TaskId, patience: Duration) -> Result<Option<Arc<Task>>, StoreError> {
        self.wait_until(id, Instant::now().checked_add(patience)).await
    }

    /// What a launch came to, with the record as soon as it is not working, or as it is when `patience` is over.
    /// Without a `patience` it waits for as long as it takes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settled(&self, launch: Launch, patience: Option<Duration>) -> Result<Launch, StoreError> {
        let (Launch::Started(task) | Launch::Refused(Refused { task: Some(task), .. })) = &launch else {
            return Ok(launch);
        };
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        let now = self.wait_until(&task.id, deadline).await?;
        Ok(match launch {
            Launch::Started(task) => Launch::Started(now.unwrap_or(task)),
            Launch::Refused(refused) => Launch::Refused(Refused { task: now.or(refused.task), ..refused }),
        })
    }

    async fn wait_until(
        &self,
        id: &TaskId,
        deadline: Option<Instant>,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        loop {
            let waiter = self.inner.waiters.enter(id);
            let task = self.status(id).await?;
            if task.as_ref().is_none_or(|task| !task.is_working()) {
                return Ok(task);
            }
            let is_over = match deadline {
                Some(deadline) => timeout_at(deadline, waiter.notified()).await.is_err(),
                None => {
                    waiter.notified().await;
                    false
                }
            };
            if is_over {
                return self.status(id).await;
            }
        }
    }

    /// One page of the tasks that match.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        self.inner.store.list(query).await
    }

    /// How many tasks are in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.store.counts()
    }

    /// Figures about what happened since the start.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            unsettled: self.inner.unsettled.load(Ordering::Relaxed),
            stale: self.inner.stale.load(Ordering::Relaxed),
            panics: self.inner.panics.load(Ordering::Relaxed),
        }
    }

    /// Whether the store can write, now and whenever that changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.store.health()
    }

    /// Returns when the store can never write again.
    pub async fn store_failed(&self) {
        let mut health = self.health();
        // An error means that the store is gone altogether.
        let _ = health.wait_for(|health| matches!(health, Health::Dead(_))).await;
    }

    /// Whether [`Recorder::stop`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.draining.is_cancelled()
    }

    /// Settles the runs that a process left when it ended: failed, `interrupted`, in doubt. To be called once, before
    /// anything is launched. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`] when one of them could not be settled.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let claims = self.inner.store.recover().await?;
        let found = claims.len();
        stream::iter(claims)
            .map(|claim| self.interrupt(claim))
            .buffer_unordered(RECOVERED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(found)
    }

    async fn interrupt(&self, mut claim: Claim) -> Result<(), StoreError> {
        let task = claim.task();
        let message = "the service ended while the run was under way";
        let attempt = Attempt {
            run: task.run,
            attempt: 1,
            started: task.since,
            ended: Timestamp::now(),
            code: None,
            failure: Some(Failure::new(ErrorKind::Interrupted, message)),
        };
        loop {
            match self.inner.store.settle(claim, attempt.clone(), None).await {
                Ok(_) => return Ok(()),
                // They are more than the store takes at once.
                Err(unsettled) if unsettled.error == StoreError::Busy => claim = unsettled.claim,
                Err(unsettled) => return Err(unsettled.error),
            }
            tokio::time::sleep(RECOVERY_PAUSE).await;
        }
    }

    /// Stops in order: no new launches, runs go on for the `grace` period, the rest is recorded as failed with kind
    /// `shutdown`, the store is closed.
    pub async fn stop(&self, grace: Duration) {
        let inner = &self.inner;
        inner.draining.cancel();
        inner.runs.close();
        if timeout(grace, inner.runs.wait()).await.is_err() {
            tracing::warn!(runs = inner.runs.len(), "the grace period is over, ending what still runs");
            inner.aborting.cancel();
            if timeout(LAST_SETTLES, inner.runs.wait()).await.is_err() {
                inner.giving_up.cancel();
                inner.runs.wait().await;
            }
        }
        inner.store.close().await;
    }
}

async fn outcome_of<T: Serialize, E: Display>(future: impl Future<Output = Result<T, E>>) -> Outcome {
    let value = match future.await {
        Ok(value) => value,
        Err(error) => return Outcome::failed(Failure::new(ErrorKind::Error, error.to_string())),
    };
    match serde_json::to_vec(&value) {
        Ok(json) if json == b"null" => Outcome::success(),
        Ok(json) => {
            let media_type = Some("application/json".to_owned());
            let output = Output { media_type, truncated: false, bytes: json.into() };
            Outcome { output: Some(output), ..Outcome::success() }
        }
        Err(error) => {
            let message = format!("it succeeded, but what it returned is no JSON: {error}");
            Outcome::failed(Failure { in_doubt: true, ..Failure::new(ErrorKind::Error, message) })
        }
    }
}
