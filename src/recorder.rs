//! Launches futures under ids and records what becomes of each. The only caller of claim and settle.
//!
//! A run owns itself: one spawned, tracked task goes claim -> work -> settle. Whoever asked waits only for its first
//! word; when nobody listens any more, the run goes on.
//!
//! Invariant: a run that was started is settled, whatever its work does, unless the process or the store ends first
//! (tests/it/laws.rs); then [`Recorder::recover`] settles it.

mod bulk;
mod cancel;
mod endings;
mod in_process;
mod lane;
mod newest;
mod notices;
mod owed;
mod pause;
mod recovery;
mod reload;
mod retention;
mod revoke;
mod run;
#[cfg(test)]
mod samples;
mod spans;
mod stop;
mod tally;
mod waiters;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::bulk::Operations;
use self::endings::Endings;
use self::lane::{Lane, Place};
use self::waiters::Waiters;
use crate::spans::Spans;
use crate::store::{Counts, Feed, Health, Moved, Page, Query, Refused, Store, StoreError, StoreTally};
use crate::sync::TaskTracker;
use crate::sync::time::{Instant, timeout_at};
use crate::task::{Change, HandlerName, Refusal, Request, Start, StartKind, Task, TaskId, Trace};

pub use self::bulk::{Bulk, BulkAction, BulkError, BulkFailure, BulkState};
pub use self::lane::{LaneCounts, LaneSpec, Work};
pub use self::notices::NoticeSpec;
pub use self::recovery::RecoveryReport;
pub use self::tally::{Figures, HandlerTally, LaunchResult, Tally};

/// Launches and records. Cheap to clone; all clones are the same recorder.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    runs: TaskTracker,
    /// By handler; those of handlers that are gone stay, without a spec.
    lanes: ArcSwap<BTreeMap<HandlerName, Arc<Lane>>>,
    waiters: Waiters,
    endings: Endings,
    /// Held while a handler is paused or resumed, and while lanes are exchanged.
    pausing: tokio::sync::Mutex<()>,
    operations: Operations,
    /// No new launches.
    draining: CancellationToken,
    /// Runs end now.
    aborting: CancellationToken,
    /// Outcomes that cannot be written are given up.
    giving_up: CancellationToken,
    tally: Tally,
    spans: OnceLock<Spans>,
}

impl Inner {
    /// The lane of a handler, also of one that is gone.
    fn lane(&self, handler: &HandlerName) -> Option<Arc<Lane>> {
        self.lanes.load().get(handler).map(Arc::clone)
    }

    /// A launch that is refused before the store is asked.
    fn refused(&self, reason: Refusal, task: Option<Arc<Task>>) -> Launch {
        self.tally.count(reason);
        Launch::Refused(Refused { reason, task })
    }
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

impl Recorder {
    /// A recorder over this store, for futures of this process.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_lanes(store, [])
    }

    /// A recorder over this store, with a lane for each handler. To be called within a runtime of tokio.
    #[must_use]
    pub fn with_lanes(store: Arc<dyn Store>, lanes: impl IntoIterator<Item = LaneSpec>) -> Self {
        let tally = Tally::default();
        let lanes = lanes.into_iter().map(|spec| (spec.handler.clone(), Arc::new(Lane::new(spec, &tally))));
        let lanes = ArcSwap::from_pointee(lanes.collect());
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
            tally,
            spans: OnceLock::new(),
        });
        for lane in inner.lanes.load().values() {
            inner.open(lane);
        }
        Self { inner }
    }

    /// Launches a run of a handler, unless the id is working or has succeeded, or a condition of the request does not
    /// hold. Returns as soon as that is decided and durable.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing has changed then.
    pub async fn launch_in_lane(&self, id: TaskId, mut request: Request) -> Result<Launch, LaunchError> {
        let launch = match self.lane(&request.handler) {
            Some((lane, spec)) => {
                request.if_same_input |= spec.policy.match_input;
                self.start_in_lane(&lane, id, StartKind::Launch(request), None).await
            }
            None => Err(LaunchError::UnknownHandler),
        };
        launch.map_err(|error| self.inner.tally.failed(error))
    }

    /// Launches a failed id again, with its stored handler and input, in this trace or in that of its last run.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing has changed then.
    pub async fn retry_in_lane(&self, id: TaskId, trace: Option<Trace>) -> Result<Launch, LaunchError> {
        self.try_retry(id, trace, None).await.map_err(|error| self.inner.tally.failed(error))
    }

    /// The same, for who tries again and again until there is room: what is in the way is not counted. Where a place is
    /// given, only if the task still is in the state that it entered there.
    async fn try_retry(
        &self,
        id: TaskId,
        trace: Option<Trace>,
        if_entered: Option<u64>,
    ) -> Result<Launch, LaunchError> {
        let Some(task) = self.status(&id).await? else {
            return Ok(self.inner.refused(Refusal::NotFound, None));
        };
        let (lane, _) = self.lane(&task.handler).ok_or(LaunchError::UnknownHandler)?;
        self.start_in_lane(&lane, id, StartKind::Retry { trace, if_entered }, None).await
    }

    async fn start_in_lane(
        &self,
        lane: &Arc<Lane>,
        id: TaskId,
        kind: StartKind,
        place: Option<Place>,
    ) -> Result<Launch, LaunchError> {
        let admission = self.admit()?;
        let Some(place) = place.or_else(|| lane.reserve()) else {
            if lane.spec().is_none() {
                return Err(LaunchError::UnknownHandler);
            }
            // Who would not be launched anyway is told so, however full the queue is.
            let task = self.status(&id).await?;
            let start = Start { kind, is_queued: true };
            let refusal = start.is_allowed(task.as_deref()).err();
            return refusal
                .map_or(Err(LaunchError::QueueFull), |reason| Ok(self.inner.refused(reason, task)));
        };
        let start = Start { kind, is_queued: place.is_queued };
        let (first_word, heard) = oneshot::channel();
        let run = run::run_in_lane(Arc::clone(&self.inner), Arc::clone(lane), place, id, start, first_word);
        self.inner.runs.spawn(run);
        drop(admission);
        heard.await.unwrap_or(Err(StoreError::Closed)).map_err(LaunchError::Store)
    }

    /// Taken before the look at `draining`, so that a stop waits for a launch that it comes too late to refuse.
    fn admit(&self) -> Result<TaskTrackerToken, LaunchError> {
        let token = self.inner.runs.token();
        if self.inner.draining.is_cancelled() { Err(LaunchError::Draining) } else { Ok(token) }
    }

    /// Does this to its end, also where the caller goes away meanwhile: a change that is recorded is followed by what
    /// belongs to it.
    async fn to_the_end<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.runs.spawn(work).await.unwrap_or_else(|_ended| Err(StoreError::Closed.into()))
    }

    /// The lane of a handler that is configured, with its spec as it is now.
    fn lane(&self, handler: &HandlerName) -> Option<(Arc<Lane>, Arc<LaneSpec>)> {
        self.inner.lane(handler).and_then(|lane| lane.spec().map(|spec| (lane, spec)))
    }

    /// What happens in the lane of a handler now.
    #[must_use]
    pub fn lane_counts(&self, handler: &HandlerName) -> Option<LaneCounts> {
        self.lane(handler).map(|(lane, _)| lane.counts())
    }

    /// What happens now in the lane of each handler that is configured.
    #[must_use]
    pub fn lanes(&self) -> Vec<(HandlerName, LaneCounts)> {
        let lanes = self.inner.lanes.load();
        let configured = lanes.iter().filter(|(_, lane)| lane.spec().is_some());
        configured.map(|(name, lane)| (name.clone(), lane.counts())).collect()
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

    async fn wait_until(
        &self,
        id: &TaskId,
        deadline: Option<Instant>,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        loop {
            let waiter = self.inner.waiters.enter(id);
            let task = self.status(id).await?;
            // Once the store takes nothing any more it stays as it is.
            let is_final =
                matches!(*self.health().borrow(), Health::Dead(_)) || self.inner.giving_up.is_cancelled();
            if is_final || task.as_ref().is_none_or(|task| !task.is_working() && !task.is_revoking()) {
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

    /// The changes of all tasks as they happen. It ends when the recorder has stopped.
    #[must_use]
    pub fn events(&self) -> Feed {
        self.inner.store.events()
    }

    /// What is counted of the store's commits; none where it makes none.
    #[must_use]
    pub fn store_tally(&self) -> Option<&StoreTally> {
        self.inner.store.tally()
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
}

#[cfg(all(test, shuttle))]
#[path = "../tests/shuttle/recorder.rs"]
mod models;
