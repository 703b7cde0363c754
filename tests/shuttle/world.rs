//! What `--cfg shuttle` puts in the place of threads, locks, tasks and time: each use of one is a moment at which the
//! scheduler may let somebody else go on, and time passes as the scheduler likes.
//!
//! What is not replaced (notifications, tokens and channels of tokio, `ArcSwap`) happens at one moment, between two of these.

use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as WallInstant};

use scc::hash_map::Entry;
use shuttle::future::JoinHandle;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use shuttle::thread;

/// How many orders of events a model is tried in, and with what the choice begins, unless `SHUTTLE_ITERATIONS` and
/// `SHUTTLE_RANDOM_SEED` say otherwise.
const ITERATIONS: usize = 2_000;
const SEED: u64 = 1;
/// What a step of the scheduler may still be part of; more is taken for a loop that never ends.
const STEPS_MAX: usize = 100_000;
/// Enough for SQLite.
const STACK_BYTES: usize = 512 << 10;

/// Tries a model in many orders of events: half of them at random, the others with a few changes of priority in each,
/// which finds what takes few of them. `cost` is how much longer than others it takes.
///
/// A failure prints its schedule, and how many were tried.
pub(crate) fn check(name: &str, cost: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
    let iterations =
        std::env::var("SHUTTLE_ITERATIONS").map_or(ITERATIONS, |text| text.parse().expect("a number"));
    let each = iterations.div_ceil(2 * cost);
    let depth = 1 + each.ilog10() as usize;
    run(name, "random", RandomScheduler::new_from_seed(SEED, each), model.clone());
    run(name, "priorities", PctScheduler::new_from_seed(SEED, depth, each), model);
}

fn run(name: &str, way: &str, scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let begun = WallInstant::now();
    let tried = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&tried);
    let counting = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| Runner::new(scheduler, config).run(counting)));
    let word = if outcome.is_ok() { "passed" } else { "FAILED" };
    println!("{name}: {way}, {} schedules, {:.1?}, {word}", tried.load(Ordering::Relaxed), begun.elapsed());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A map of scc. Each of its operations happens at one moment, and anything may come before it.
#[derive(Debug)]
pub(crate) struct HashMap<K: Eq + Hash, V, H: BuildHasher = RandomState> {
    map: scc::HashMap<K, V, H>,
    step: AtomicBool,
}

impl<K: Eq + Hash, V, H: BuildHasher + Default> Default for HashMap<K, V, H> {
    fn default() -> Self {
        Self { map: scc::HashMap::default(), step: AtomicBool::new(false) }
    }
}

impl<K: Eq + Hash, V, H: BuildHasher> HashMap<K, V, H> {
    fn now(&self) -> &scc::HashMap<K, V, H> {
        self.step.load(Ordering::SeqCst);
        &self.map
    }

    pub(crate) fn entry_sync(&self, key: K) -> Entry<'_, K, V, H> {
        self.now().entry_sync(key)
    }

    pub(crate) fn upsert_sync(&self, key: K, value: V) -> Option<V> {
        self.now().upsert_sync(key, value)
    }

    pub(crate) fn contains_sync<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.now().contains_sync(key)
    }

    pub(crate) fn read_sync<Q: Hash + Eq + ?Sized, R>(
        &self,
        key: &Q,
        read: impl FnOnce(&K, &V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
    {
        self.now().read_sync(key, read)
    }

    pub(crate) fn remove_sync<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        self.now().remove_sync(key)
    }

    pub(crate) fn remove_if_sync<Q: Hash + Eq + ?Sized>(
        &self,
        key: &Q,
        condition: impl FnOnce(&mut V) -> bool,
    ) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        self.now().remove_if_sync(key, condition)
    }

    pub(crate) fn iter_sync(&self, each: impl FnMut(&K, &V) -> bool) -> bool {
        self.now().iter_sync(each)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

/// The same, also where what is sent cannot be shown.
pub(crate) mod mpsc {
    use std::fmt::{self, Debug, Formatter};

    pub(crate) use shuttle::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError};

    pub(crate) struct SyncSender<T>(shuttle::sync::mpsc::SyncSender<T>);

    pub(crate) fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
        let (sender, receiver) = shuttle::sync::mpsc::sync_channel(bound);
        (SyncSender(sender), receiver)
    }

    impl<T> SyncSender<T> {
        pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            self.0.try_send(value)
        }
    }

    impl<T> Debug for SyncSender<T> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("SyncSender")
        }
    }
}

/// Spawns onto the scheduler, and counts as tokio's does.
#[derive(Debug, Default)]
pub(crate) struct TaskTracker(tokio_util::task::TaskTracker);

impl TaskTracker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        shuttle::future::spawn(self.0.track_future(future))
    }

    pub(crate) fn token(&self) -> tokio_util::task::task_tracker::TaskTrackerToken {
        self.0.token()
    }

    pub(crate) fn close(&self) -> bool {
        self.0.close()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) async fn wait(&self) {
        self.0.wait().await;
    }
}

/// The runtime, which is always there.
#[derive(Debug, Clone)]
pub(crate) struct Handle;

impl Handle {
    pub(crate) fn try_current() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(future));
    }
}

/// Time that passes as the scheduler likes: what is due at a moment may happen at once, and then it is that moment.
pub(crate) mod time {
    use super::{Cell, Duration};
    use futures_util::FutureExt as _;

    std::thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(NOW.get())
        }

        pub(crate) fn elapsed(&self) -> Duration {
            NOW.get().saturating_sub(self.0)
        }

        pub(crate) fn checked_add(&self, duration: Duration) -> Option<Self> {
            self.0.checked_add(duration).map(Self)
        }

        pub(crate) fn checked_sub(&self, duration: Duration) -> Option<Self> {
            self.0.checked_sub(duration).map(Self)
        }
    }

    impl std::ops::Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0.saturating_add(duration))
        }
    }

    #[derive(Debug)]
    pub(crate) struct Elapsed;

    pub(crate) async fn sleep_until(instant: Instant) {
        if instant.0 == Duration::MAX {
            std::future::pending::<()>().await;
        }
        shuttle::future::yield_now().await;
        NOW.set(NOW.get().max(instant.0));
    }

    pub(crate) async fn sleep(duration: Duration) {
        sleep_until(Instant::now() + duration).await;
    }

    pub(crate) async fn timeout_at<F: Future>(instant: Instant, future: F) -> Result<F::Output, Elapsed> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = sleep_until(instant).boxed() => Err(Elapsed),
        }
    }

    pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        timeout_at(Instant::now() + limit, future).await
    }
}
