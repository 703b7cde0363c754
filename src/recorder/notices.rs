//! Notices: somebody is told of the outcome of a run, at least once.
//!
//! The record itself says that a notice is due, from the change that settles the run to the one that ends the notice;
//! so it goes on after a restart. One that waits costs an entry here and nothing else.
//!
//! Invariant: no more than `concurrency` of a lane are under way at once, and none of them holds up a run or a stop
//! (tests/it/notices.rs).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::field::display;

use super::Inner;
use super::lane::{Lane, Work};
use super::recovery::when_there_is_room;
use crate::store::StoreError;
use crate::sync::time::{Instant, sleep_until};
use crate::sync::{Mutex, MutexGuard};
use crate::task::{Change, ErrorKind, Failure, HandlerName, Outcome, Purpose, Retry, Task, TaskId};

/// The pause after a look or a write that failed.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// How many notices that nobody wants any more are ended at once.
const ENDED_AT_ONCE: usize = 1_024;

/// Who is told of the outcomes of a lane, and how persistently. What a work comes to is kept nowhere; whether it
/// succeeded counts.
#[derive(Clone)]
pub struct NoticeSpec {
    /// Tells of a success; none where nobody wants to know.
    pub on_success: Option<Work>,
    /// Tells of a failure; none where nobody wants to know.
    pub on_failure: Option<Work>,
    /// The most of them under way at once.
    pub concurrency: usize,
    /// The pauses between attempts. Every failure is followed by another attempt, whatever its kind and number.
    pub retry: Retry,
    /// How long after the outcome an attempt that fails is the last one.
    pub give_up_after: Duration,
}

impl Default for NoticeSpec {
    /// Nobody is told; for others 64 at once, pauses from 1 s to 5 min, for 24 h.
    fn default() -> Self {
        Self {
            on_success: None,
            on_failure: None,
            concurrency: 64,
            retry: Retry { attempts: u32::MAX, ..Retry::default() },
            give_up_after: Duration::from_hours(24),
        }
    }
}

impl NoticeSpec {
    /// What tells of an outcome.
    fn of(&self, is_failure: bool) -> Option<&Work> {
        if is_failure { self.on_failure.as_ref() } else { self.on_success.as_ref() }
    }
}

/// The notices of one lane that wait.
#[derive(Default)]
pub(super) struct NoticeQueue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// By when they are due, then by the place of the outcome.
    by_due: BTreeMap<(Instant, u64), Notice>,
    /// Those under way included.
    count: usize,
}

/// The outcome of one run that somebody is to be told of. Not the record itself, which would keep an old one in memory.
struct Notice {
    id: TaskId,
    run: u32,
    entered: u64,
    attempts: u32,
    /// Told or given up, which is still to be recorded.
    is_over: bool,
}

impl NoticeQueue {
    fn add(&self, task: &Task) {
        let notice =
            Notice { id: task.id.clone(), run: task.run, entered: task.entered, attempts: 0, is_over: false };
        let mut state = self.state();
        state.count += 1;
        state.by_due.insert((Instant::now(), notice.entered), notice);
        drop(state);
        self.wake.notify_one();
    }

    fn put_back(&self, notice: Notice, pause: Duration) {
        self.state().by_due.insert((Instant::now() + pause, notice.entered), notice);
    }

    fn take(&self) -> Option<Notice> {
        let mut state = self.state();
        let entry = state.by_due.first_entry()?;
        (entry.key().0 <= Instant::now()).then(|| entry.remove())
    }

    /// Wakes who tells: what is told, and to whom, may have changed.
    pub(super) fn look_again(&self) {
        self.wake.notify_one();
    }

    fn next_due(&self) -> Option<Instant> {
        self.state().by_due.keys().next().map(|(due, _)| *due)
    }

    fn ended(&self) {
        self.state().count -= 1;
    }

    /// How many are due, those under way included.
    pub(super) fn count(&self) -> usize {
        self.state().count
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what is due, until the recorder stops. What is under way then is cut off, and told again after the next start.
pub(super) async fn deliver(inner: Arc<Inner>, lane: Arc<Lane>) {
    let queue = &lane.notices;
    let mut under_way = FuturesUnordered::new();
    loop {
        // As it is now. Where the handler is gone, nobody wants to be told any more.
        let spec = lane.spec().map(|spec| spec.notices.clone()).unwrap_or_default();
        while under_way.len() < spec.concurrency
            && let Some(notice) = queue.take()
        {
            under_way.push(inner.tell(spec.clone(), notice));
        }
        let next_due = queue.next_due().filter(|_| under_way.len() < spec.concurrency);
        let due = async {
            match next_due {
                Some(instant) => sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.draining.cancelled() => return,
            Some(left) = under_way.next(), if !under_way.is_empty() => match left {
                Some((notice, pause)) => queue.put_back(notice, pause),
                None => queue.ended(),
            },
            () = queue.wake.notified() => {}
            () = due => {}
        }
    }
}

impl Inner {
    /// Whether somebody is to be told of such an outcome.
    pub(super) fn wants_notice(&self, handler: &HandlerName, is_failure: bool) -> bool {
        let spec = self.lane(handler).and_then(|lane| lane.spec());
        spec.is_some_and(|spec| spec.notices.of(is_failure).is_some())
    }

    /// Takes in a record that was just settled.
    pub(super) fn enqueue_notice(&self, task: &Task) {
        if task.notice_due
            && let Some(lane) = self.lane(&task.handler)
        {
            lane.notices.add(task);
        }
    }

    /// Takes in what an earlier process has not told any more. What nobody wants to know by now is ended.
    pub(super) async fn resume_notices(&self, due: Vec<Arc<Task>>) -> Result<(), StoreError> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|task| self.wants_notice(&task.handler, task.failure().is_some()));
        if !(wanted.is_empty() && unwanted.is_empty()) {
            tracing::info!(
                due = wanted.len(),
                not_configured_any_more = unwanted.len(),
                "notices are left to be told"
            );
        }
        for task in &wanted {
            self.enqueue_notice(task);
        }
        let mut ended = stream::iter(unwanted)
            .map(async |task| self.end_notice(&task).await)
            .buffer_unordered(ENDED_AT_ONCE);
        while let Some(ended) = ended.next().await {
            ended?;
        }
        Ok(())
    }

    async fn end_notice(&self, task: &Task) -> Result<(), StoreError> {
        let change = Change::EndNotice { run: task.run };
        when_there_is_room(|| self.store.change(&task.id, change.clone())).await.map(drop)
    }

    /// One attempt. Returns what is left to do, and after which pause.
    async fn tell(&self, spec: NoticeSpec, mut notice: Notice) -> Option<(Notice, Duration)> {
        if !notice.is_over {
            let task = match self.store.get(&notice.id).await {
                Ok(Some(task)) if task.run == notice.run && task.notice_due => task,
                // It was launched again, revoked or forgotten: the latest outcome is the one that matters.
                Ok(_) => return None,
                Err(error) => return Some(self.not_now(notice, &error)),
            };
            if let Some(work) = spec.of(task.failure().is_some()) {
                notice.attempts += 1;
                let begun = self.begin_call(&task);
                let ending = self.draining.child_token();
                let work = async { work(Arc::clone(&task), notice.attempts, ending).await };
                let outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_panic| {
                    Outcome::failed(Failure::new(ErrorKind::Panic, "the notice panicked"))
                });
                let call = (Purpose::Notice, notice.attempts);
                self.tell_call(begun, &task, call, outcome.code, &outcome.result);
                match outcome.result {
                    Ok(()) => drop(self.tally.notices_told.fetch_add(1, Ordering::Relaxed)),
                    Err(failure) if is_older(&task, spec.give_up_after) => {
                        self.tally.notices_given_up.fetch_add(1, Ordering::Relaxed);
                        let (attempts, error) = (notice.attempts, failure.message);
                        let trace_id = task.trace_id().map(display);
                        tracing::warn!(task.id = %task.id, run = task.run, trace.id = trace_id, attempts, error, "notice given up");
                    }
                    Err(failure) => {
                        let (attempts, error) = (notice.attempts, failure.message);
                        let trace_id = task.trace_id().map(display);
                        tracing::debug!(task.id = %task.id, run = task.run, trace.id = trace_id, attempts, error, "notice not told yet");
                        let pause = spec.retry.pause(attempts, outcome.retry_after, fastrand::f64());
                        return Some((notice, pause));
                    }
                }
            }
            notice.is_over = true;
        }
        // A refusal means that there is a later run by now, which has ended it.
        match self.store.change(&notice.id, Change::EndNotice { run: notice.run }).await {
            Ok(_) => None,
            Err(error) => Some(self.not_now(notice, &error)),
        }
    }

    fn not_now(&self, notice: Notice, error: &StoreError) -> (Notice, Duration) {
        if !self.draining.is_cancelled() {
            tracing::debug!(task.id = %notice.id, run = notice.run, %error, "notice not recorded yet, will try again");
        }
        (notice, STORE_PAUSE)
    }
}

fn is_older(task: &Task, age: Duration) -> bool {
    let passed = Duration::try_from(Timestamp::now().duration_since(task.since));
    passed.is_ok_and(|passed| passed >= age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::recorder::samples::{claimed, settled};
    use crate::store::{MemoryStore, Store};

    /// Another run of the id, which fails, and of which somebody is to be told.
    async fn failed(store: &MemoryStore, id: &TaskId) -> Arc<Task> {
        let failure = Failure::new(ErrorKind::Refused, "nobody answered");
        settled(store, claimed(store, id).await.with_notice(true), Some(failure)).await
    }

    fn waiting(queue: &NoticeQueue) -> Notice {
        queue.state().by_due.pop_first().unwrap().1
    }

    #[tokio::test]
    async fn a_notice_is_told_again_later_while_it_is_due_and_its_run_is_the_last_one() {
        let store = Arc::new(MemoryStore::new());
        let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
        let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = Arc::clone(&calls);
        let work: Work = Arc::new(move |task, attempt, _| {
            told.lock().unwrap().push((task.run, attempt));
            Box::pin(async { Outcome::failed(Failure::new(ErrorKind::Refused, "nobody answered")) })
        });
        let spec = NoticeSpec { on_failure: Some(work), ..NoticeSpec::default() };
        let tell = |notice| recorder.inner.tell(spec.clone(), notice);
        let (queue, id) = (NoticeQueue::default(), "order-42".parse().unwrap());

        let first = failed(&store, &id).await;
        queue.add(&first);
        let (notice, pause) = tell(queue.take().unwrap()).await.unwrap();
        queue.put_back(notice, pause);
        assert!(queue.take().is_none() && queue.next_due().unwrap() > Instant::now());
        let (notice, _) = tell(waiting(&queue)).await.unwrap();
        assert_eq!(*calls.lock().unwrap(), [(1, 1), (1, 2)]);

        let again = failed(&store, &id).await;
        assert!(tell(notice).await.is_none(), "a later outcome is the one that matters");
        queue.add(&again);
        store.change(&id, Change::EndNotice { run: 2 }).await.unwrap();
        assert!(tell(waiting(&queue)).await.is_none(), "somebody else has told it");
        assert_eq!(calls.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn one_that_panics_before_it_awaits_anything_is_told_again_later() {
        let store = Arc::new(MemoryStore::new());
        let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
        let work: Work = Arc::new(|_, _, _| panic!("as it was told to"));
        let spec = NoticeSpec { on_failure: Some(work), ..NoticeSpec::default() };
        let queue = NoticeQueue::default();
        queue.add(&*failed(&store, &"order-42".parse().unwrap()).await);
        let (notice, pause) = recorder.inner.tell(spec, waiting(&queue)).await.unwrap();
        assert!((notice.attempts, notice.is_over) == (1, false) && pause > Duration::ZERO);
    }

    #[test]
    fn who_tells_is_woken_to_look_again() {
        let queue = NoticeQueue::default();
        assert_eq!(queue.wake.notified().now_or_never(), None);
        queue.look_again();
        assert_eq!(queue.wake.notified().now_or_never(), Some(()));
    }
}
