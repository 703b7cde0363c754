//! Launches futures under ids and records what becomes of each. The only caller of claim and settle.
//!
//! A run owns itself: one spawned, tracked task goes claim -> work -> settle. Whoever asked waits only for its first
//! word; when nobody listens any more, the run goes on.
//!
//! Invariant: a run that was started is settled, whatever its work does, unless the process or the store ends first
//! (tests/it/laws.rs); then [`Recorder::recover`] settles it.

mod bulk;
mod endings;
mod lane;
mod pause;
mod revoke;
mod run;
mod waiters;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::{Future, ready};
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

use self::bulk::Operations;
use self::endings::Endings;
use self::lane::{Lane, Place};
use self::waiters::Waiters;
use crate::store::{Claim, Counts, Health, Moved, Page, Query, Refused, Store, StoreError};
use crate::task::{
    Attempt, Change, ErrorKind, Failure, HandlerName, Input, OnCrash, Outcome, Output, Phase, Refusal,
    Request, Start, StartKind, Task, TaskId,
};

pub use self::bulk::{Bulk, BulkAction, BulkError, BulkFailure, BulkState};
pub use self::lane::{LaneCounts, LaneSpec, Work};

/// How many interrupted runs are settled at once after a crash: enough for whole commits.
const RECOVERED_AT_ONCE: usize = 1_024;
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
    lanes: BTreeMap<HandlerName, Arc<Lane>>,
    waiters: Waiters,
    endings: Endings,
    /// Held while a handler is paused or resumed.
    pausing: tokio::sync::Mutex<()>,
    operations: Operations,
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
    /// As many tasks wait for this handler as its policy allows.
    #[error("the queue of the handler is full")]
    QueueFull,
    /// No lane has this name.
    #[error("the handler is unknown")]
    UnknownHandler,
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

/// What [`Recorder::recover`] has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Runs that a crash cut off; they are failed now.
    pub interrupted: usize,
    /// Those of them that are launched again, by the policy of their handler.
    pub launched_again: usize,
    /// Tasks that were queued or backing off, and go on.
    pub resumed: usize,
}

impl Recorder {
    /// A recorder over this store, for futures of this process.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_lanes(store, [])
    }

    /// A recorder over this store, with a lane for each handler. To be called within a runtime of tokio.
    #[must_use]
    pub fn with_lanes(store: Arc<dyn Store>, lanes: impl IntoIterator<Item = LaneSpec>) -> Self {
        let lanes = lanes.into_iter().map(|spec| (spec.handler.clone(), Arc::new(Lane::new(spec)))).collect();
        let inner = Arc::new(Inner {
            store,
            runs: TaskTracker::new(),
            lanes,
            waiters: Waiters::default(),
            endings: Endings::default(),
            pausing: tokio::sync::Mutex::default(),
            operations: Operations::default(),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
            giving_up: CancellationToken::new(),
            unsettled: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        });
        for lane in inner.lanes.values() {
            inner.runs.spawn(run::dispatch(Arc::clone(&inner), Arc::clone(lane)));
        }
        Self { inner }
    }

    /// Launches a run of a handler, unless the id is working or has succeeded, or a condition of the request does not
    /// hold. Returns as soon as that is decided and durable.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing has changed then.
    pub async fn launch_in_lane(&self, id: TaskId, mut request: Request) -> Result<Launch, LaunchError> {
        let lane = self.lane(&request.handler).ok_or(LaunchError::UnknownHandler)?;
        request.if_same_input |= lane.spec.policy.match_input;
        self.start_in_lane(lane, id, StartKind::Launch(request), None).await
    }

    /// Launches a failed id again, with its stored handler and input.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing has changed then.
    pub async fn retry_in_lane(&self, id: TaskId) -> Result<Launch, LaunchError> {
        let Some(task) = self.status(&id).await? else {
            return Ok(Launch::Refused(Refused { reason: Refusal::NotFound, task: None }));
        };
        let lane = self.lane(&task.handler).ok_or(LaunchError::UnknownHandler)?;
        self.start_in_lane(lane, id, StartKind::Retry, None).await
    }

    async fn start_in_lane(
        &self,
        lane: &Arc<Lane>,
        id: TaskId,
        kind: StartKind,
        place: Option<Place>,
    ) -> Result<Launch, LaunchError> {
        if self.inner.draining.is_cancelled() {
            return Err(LaunchError::Draining);
        }
        let Some(place) = place.or_else(|| lane.reserve()) else {
            // Who would not be launched anyway is told so, however full the queue is.
            let task = self.status(&id).await?;
            let start = Start { kind, is_queued: true };
            let refusal = start.is_allowed(task.as_deref()).err();
            return refusal
                .map_or(Err(LaunchError::QueueFull), |reason| Ok(Launch::Refused(Refused { reason, task })));
        };
        let start = Start { kind, is_queued: place.is_queued };
        let (first_word, heard) = oneshot::channel();
        let run = run::run_in_lane(Arc::clone(&self.inner), Arc::clone(lane), place, id, start, first_word);
        self.inner.runs.spawn(run);
        heard.await.unwrap_or(Err(StoreError::Closed)).map_err(LaunchError::Store)
    }

    fn lane(&self, handler: &HandlerName) -> Option<&Arc<Lane>> {
        self.inner.lanes.get(handler)
    }

    /// What happens in the lane of a handler now.
    #[must_use]
    pub fn lane_counts(&self, handler: &HandlerName) -> Option<LaneCounts> {
        self.lane(handler).map(|lane| lane.counts())
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
        let request = Request::new(HandlerName::in_process(), Input::empty());
        self.start(id, request.into(), future).await
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
        self.start(id, Start { kind: StartKind::Retry, is_queued: false }, future).await
    }

    async fn start<F, T, E>(&self, id: TaskId, start: Start, future: F) -> Result<Launch, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        if self.inner.draining.is_cancelled() {
            return Err(LaunchError::Draining);
        }
        let work = |_, _, ending| until_told(ending, outcome_of(future));
        let (first_word, heard) = oneshot::channel();
        self.inner.runs.spawn(run::run_once(Arc::clone(&self.inner), id, start, work, first_word));
        heard.await.unwrap_or(Err(StoreError::Closed)).map_err(LaunchError::Store)
    }

    /// Stops a run: one that waits at once, one with an attempt under way is told to end, and is `canceling` until it
    /// has. `Done` in both cases, and durable.
    ///
    /// # Errors
    /// [`StoreError`]; the run goes on then.
    pub async fn cancel(&self, id: &TaskId) -> Result<Moved, StoreError> {
        let before = self.status(id).await?;
        let moved = self.inner.store.change(id, Change::Cancel).await?;
        let Moved::Done(task) = &moved else { return Ok(moved) };
        if task.is_working() {
            self.inner.endings.end(task);
            let now = self.status(id).await?;
            if !now.is_some_and(|now| now.is_working() && now.run == task.run) {
                self.inner.endings.forget(task);
            }
        } else {
            let was_queued = before.filter(|before| before.run == task.run);
            if let (Some(lane), Some(before)) = (self.lane(&task.handler), was_queued) {
                lane.remove(before.entered);
            }
            self.inner.waiters.notify(id);
        }
        Ok(moved)
    }

    /// Undoes a success; the id is not found afterwards. With an action of its handler the record is `revoking` until
    /// the action has ended, and the success stands where it fails. Of many at the same moment one is `Done`.
    ///
    /// # Errors
    /// [`StoreError`]; the success stands then.
    pub async fn revoke(&self, id: &TaskId) -> Result<Moved, StoreError> {
        let task = self.status(id).await?;
        let lane = task.and_then(|task| self.lane(&task.handler));
        let Some((lane, undo)) = lane.and_then(|lane| Some((lane, lane.spec.undo.clone()?))) else {
            return self.inner.store.change(id, Change::Revoke).await;
        };
        let moved = self.inner.store.change(id, Change::BeginRevoke).await?;
        if let Moved::Done(task) = &moved {
            let revoke = revoke::revoke(Arc::clone(&self.inner), Arc::clone(lane), undo, Arc::clone(task));
            self.inner.runs.spawn(revoke);
        }
        Ok(moved)
    }

    /// Drops the record of a failed task; the id is not found afterwards.
    ///
    /// # Errors
    /// [`StoreError`]; the record stands then.
    pub async fn forget(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.inner.store.change(id, Change::Forget).await
    }

    /// The record of an id; none where it is not found.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        self.inner.store.get(id).await
    }

    /// The record as soon as it is neither working nor being revoked, or as it is when `patience` is over.
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
            if task.as_ref().is_none_or(|task| !task.is_working() && !task.is_revoking()) {
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

    /// Takes over what a process left when it ended. Runs that were under way are failed, `interrupted`, in doubt, and
    /// launched again where the policy of their handler says so; tasks that were queued or backing off go on, and so do
    /// bulk operations; handlers that were paused are. To be called once, before anything is launched.
    ///
    /// # Errors
    /// [`StoreError`] when one of them could not be settled.
    pub async fn recover(&self) -> Result<RecoveryReport, StoreError> {
        self.restore_pauses().await?;
        let found = self.inner.store.recover().await?;
        let (mut report, mut cut_off) = (RecoveryReport::default(), Vec::new());
        for claim in found.claims {
            let task = claim.task();
            match (self.lane(&task.handler), task.phase()) {
                (Some(lane), Some(Phase::Queued)) => lane.enqueue(claim),
                (Some(lane), Some(Phase::BackingOff { next_attempt_at })) => {
                    let left = Duration::try_from(next_attempt_at.duration_since(Timestamp::now()));
                    lane.back_off(claim, Instant::now() + left.unwrap_or_default());
                }
                _ => {
                    cut_off.push(claim);
                    continue;
                }
            }
            report.resumed += 1;
        }
        report.interrupted = cut_off.len();
        let again: Vec<_> = stream::iter(cut_off)
            .map(|claim| self.interrupt(claim))
            .buffer_unordered(RECOVERED_AT_ONCE)
            .try_filter_map(|again| ready(Ok(again)))
            .try_collect()
            .await?;
        report.launched_again = again.len();
        for (lane, id) in again {
            let place = lane.reserve_anyway();
            let launched = self.start_in_lane(&lane, id, StartKind::Retry, Some(place)).await;
            if let Err(LaunchError::Store(error)) = launched {
                return Err(error);
            }
        }
        for task in found.revoking {
            let failure =
                Failure::new(ErrorKind::Interrupted, "the service ended while the revoke was under way");
            let change = Change::EndRevoke { revision: task.revision, result: Err(failure) };
            self.inner.store.change(&task.id, change).await?;
        }
        self.resume_bulks().await?;
        Ok(report)
    }

    /// Settles a run that a process has left. Returns what is to be launched again.
    async fn interrupt(&self, claim: Claim) -> Result<Option<(Arc<Lane>, TaskId)>, StoreError> {
        let task = Arc::clone(claim.task());
        let failure = match task.phase() {
            Some(Phase::Queued | Phase::BackingOff { .. }) => Failure::without_effect(
                ErrorKind::Interrupted,
                "the service ended while the run waited, and its handler is not configured any more",
            ),
            Some(Phase::Canceling) => Failure::new(
                ErrorKind::Canceled,
                "a caller canceled the run, and the service ended meanwhile",
            ),
            Some(Phase::Running) | None => {
                Failure::new(ErrorKind::Interrupted, "the service ended while the run was under way")
            }
        };
        let attempt = Attempt {
            run: task.run,
            attempt: task.attempt().unwrap_or(1),
            started: task.since,
            ended: Timestamp::now(),
            code: None,
            failure: Some(failure),
        };
        self.inner.store.settle(claim, attempt, None).await.map_err(|unsettled| unsettled.error)?;
        let is_again = |lane: &&Arc<Lane>| lane.spec.policy.on_crash == OnCrash::Retry;
        let lane = self.lane(&task.handler).filter(is_again).filter(|_| task.phase() == Some(Phase::Running));
        Ok(lane.map(|lane| (Arc::clone(lane), task.id.clone())))
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
            inner.endings.end_all();
            if timeout(LAST_SETTLES, inner.runs.wait()).await.is_err() {
                inner.giving_up.cancel();
                inner.runs.wait().await;
            }
        }
        inner.store.close().await;
    }
}

/// Drops the work when it is told to end: a future of this process can do nothing more about it.
async fn until_told(ending: CancellationToken, work: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = ending.cancelled() => Outcome::failed(Failure::new(ErrorKind::Canceled, "it was told to end")),
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
