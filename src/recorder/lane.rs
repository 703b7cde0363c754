//! A lane: the runs of one handler. It decides who may start now, who waits, and in which order.
//!
//! A task that waits costs an entry here, no spawned task and no connection. Each lane has its own limits, so that a
//! slow handler holds up nobody else's.
//!
//! Invariant: `running` is the number of [`Place`]s that were given out for now and not dropped yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::notices::{NoticeQueue, NoticeSpec};
use super::tally::{HandlerTally, Tally};
use crate::store::Claim;
use crate::sync::time::Instant;
use crate::sync::{Mutex, MutexGuard};
use crate::task::{HandlerName, Outcome, Policy, Task};

/// One attempt: what a task, the number of the attempt, and a token come to. It ends soon once the token is canceled.
pub type Work = Arc<dyn Fn(Arc<Task>, u32, CancellationToken) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A handler as the recorder sees it.
#[derive(Clone)]
pub struct LaneSpec {
    /// Its name.
    pub handler: HandlerName,
    /// How its runs are treated.
    pub policy: Policy,
    /// What an attempt of a run does.
    pub work: Work,
    /// What undoes a success; none where nothing has to be done.
    pub undo: Option<Work>,
    /// Who is told of outcomes.
    pub notices: NoticeSpec,
}

/// What happens in a lane now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Runs with an attempt under way.
    pub running: usize,
    /// Tasks that wait for their turn.
    pub queued: usize,
    /// Tasks that wait for their next attempt.
    pub backing_off: usize,
    /// Whether nothing starts.
    pub is_paused: bool,
    /// When the one of those that wait for their turn was launched that was launched first.
    pub oldest_queued: Option<Timestamp>,
}

/// How late a start may be that still counts as in time. Timers are a millisecond late, at least.
const MADE_UP_FOR: Duration = Duration::from_millis(10);

/// How many tasks that wait for a handler that is gone are settled at once: enough for whole commits.
const ABANDONED_AT_ONCE: usize = 256;

pub(super) struct Lane {
    pub(super) name: HandlerName,
    /// None where the handler is gone from the config.
    spec: ArcSwapOption<LaneSpec>,
    pub(super) notices: NoticeQueue,
    pub(super) tally: Arc<HandlerTally>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// By the place in which they were launched.
    queue: BTreeMap<u64, Claim>,
    /// Places in the queue for launches that are being recorded.
    reserved: usize,
    /// Those that back off, by the place in which they were launched, and when their next attempt is due.
    later: BTreeMap<u64, (Instant, Claim)>,
    /// The same, by when it is due.
    due: BTreeSet<(Instant, u64)>,
    running: usize,
    is_paused: bool,
    /// The earliest start that the rate allows.
    next_start: Option<Instant>,
    /// Of all specs so far: an attempt ends as it began.
    longest_ending: Duration,
}

/// A right to run now, or a place in the queue. Dropping it gives it back.
pub(super) struct Place {
    lane: Arc<Lane>,
    pub(super) is_queued: bool,
    /// Whether a run has taken it. The rate counts starts, not launches that were refused.
    is_used: bool,
}

impl Place {
    pub(super) fn used(&mut self) {
        self.is_used = true;
    }

    /// Takes [`Place::used`] back: the run was over before it began.
    pub(super) fn unused(&mut self) {
        self.is_used = false;
    }

    /// Puts a recorded launch into its place in the queue. In one step: nobody sees a place too few.
    pub(super) fn fill(mut self, claim: Claim) {
        let mut state = self.lane.state();
        state.queue.insert(claim.task().entered, claim);
        state.reserved -= 1;
        drop(state);
        self.is_used = true;
        self.lane.wake.notify_one();
    }
}

/// What a lane has to do next.
pub(super) enum Next {
    Start(Place, Claim),
    /// The handler is gone, and these tasks wait for it.
    Abandon(Vec<Claim>),
    /// Nothing before this moment, or before it is woken.
    Wait(Option<Instant>),
}

impl Lane {
    pub(super) fn new(spec: LaneSpec, tally: &Tally) -> Self {
        let state = State { longest_ending: spec.policy.ending, ..State::default() };
        Self {
            name: spec.handler.clone(),
            tally: tally.of(&spec.handler),
            spec: ArcSwapOption::from_pointee(spec),
            notices: NoticeQueue::default(),
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }

    /// What holds now; none where the handler is gone.
    pub(super) fn spec(&self) -> Option<Arc<LaneSpec>> {
        self.spec.load_full()
    }

    /// Lets another spec hold from now, or none.
    pub(super) fn exchange(&self, spec: Option<Arc<LaneSpec>>) {
        let mut state = self.state();
        let rate = |spec: &Option<Arc<LaneSpec>>| spec.as_ref().and_then(|spec| spec.policy.rate);
        if rate(&spec) != rate(&self.spec.load_full()) {
            state.next_start = None;
        }
        let ending = spec.as_ref().map_or(Duration::ZERO, |spec| spec.policy.ending);
        state.longest_ending = state.longest_ending.max(ending);
        // Within the lock: who looks at the state sees the spec that belongs to it.
        self.spec.store(spec);
        drop(state);
        self.wake.notify_one();
        self.notices.look_again();
    }

    /// A place for a launch; none when the queue is full, or the handler is gone.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        let spec = self.spec.load();
        let policy = &spec.as_ref()?.policy;
        if state.queue.is_empty() && state.may_start(policy) {
            state.begin(policy);
            return Some(Place { lane: Arc::clone(self), is_queued: false, is_used: false });
        }
        let is_full = state.queue.len() + state.reserved >= policy.queue_max;
        (!is_full).then(|| self.queued(&mut state))
    }

    /// A place in the queue, however full it is: for what was accepted before.
    pub(super) fn reserve_anyway(self: &Arc<Self>) -> Place {
        self.queued(&mut self.state())
    }

    fn queued(self: &Arc<Self>, state: &mut State) -> Place {
        state.reserved += 1;
        Place { lane: Arc::clone(self), is_queued: true, is_used: false }
    }

    /// Puts a launch of an earlier process into the queue.
    pub(super) fn enqueue(&self, claim: Claim) {
        self.state().queue.insert(claim.task().entered, claim);
        self.wake.notify_one();
    }

    /// Keeps a task until its next attempt is due.
    pub(super) fn back_off(&self, claim: Claim, until: Instant) {
        let entered = claim.task().entered;
        let mut state = self.state();
        state.due.insert((until, entered));
        state.later.insert(entered, (until, claim));
        drop(state);
        self.wake.notify_one();
    }

    /// Takes a task out that was canceled while it waited for its turn or for its next attempt.
    pub(super) fn remove(&self, entered: u64) {
        let mut state = self.state();
        state.queue.remove(&entered);
        if let Some((due, _)) = state.later.remove(&entered) {
            state.due.remove(&(due, entered));
        }
    }

    pub(super) fn pause(&self, is_paused: bool) {
        self.state().is_paused = is_paused;
        self.wake.notify_one();
    }

    pub(super) fn counts(&self) -> LaneCounts {
        let state = self.state();
        LaneCounts {
            running: state.running,
            queued: state.queue.len() + state.reserved,
            backing_off: state.later.len(),
            is_paused: state.is_paused,
            oldest_queued: state.queue.values().next().map(|claim| claim.task().since),
        }
    }

    /// How long an attempt may take to end once it is told to, also one that began before a reload.
    pub(super) fn longest_ending(&self) -> Duration {
        self.state().longest_ending
    }

    /// Takes the next task whose turn it is.
    pub(super) fn next(self: &Arc<Self>) -> Next {
        let now = Instant::now();
        let mut state = self.state();
        while let Some(&(due, entered)) = state.due.first().filter(|(due, _)| *due <= now) {
            state.due.remove(&(due, entered));
            if let Some((_, claim)) = state.later.remove(&entered) {
                state.queue.insert(entered, claim);
            }
        }
        let spec = self.spec.load();
        let Some(spec) = spec.as_ref() else {
            state.due.clear();
            let later = std::mem::take(&mut state.later).into_iter();
            state.queue.extend(later.map(|(entered, (_, claim))| (entered, claim)));
            let waiting: Vec<_> = std::iter::from_fn(|| state.queue.pop_first())
                .take(ABANDONED_AT_ONCE)
                .map(|(_, claim)| claim)
                .collect();
            return if waiting.is_empty() { Next::Wait(None) } else { Next::Abandon(waiting) };
        };
        let policy = &spec.policy;
        if state.may_start(policy)
            && let Some((_, claim)) = state.queue.pop_first()
        {
            state.begin(policy);
            return Next::Start(Place { lane: Arc::clone(self), is_queued: false, is_used: true }, claim);
        }
        let due = state.due.first().map(|(due, _)| *due);
        let is_rate_bound = !state.queue.is_empty() && state.has_room(policy);
        let rate = state.next_start.filter(|_| is_rate_bound);
        Next::Wait([due, rate].into_iter().flatten().min())
    }

    /// Returns when [`Lane::next`] may have something else to say.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, policy: &Policy) -> bool {
        !self.is_paused && self.running < policy.concurrency
    }

    fn may_start(&self, policy: &Policy) -> bool {
        let is_early = || self.next_start.is_some_and(|start| start > Instant::now());
        self.has_room(policy) && (policy.rate.is_none() || !is_early())
    }

    fn begin(&mut self, policy: &Policy) {
        self.running += 1;
        if let Some(rate) = policy.rate {
            // A start that comes late because a timer does is made up for. Those of a quiet time are not: no burst.
            let now = Instant::now();
            let due = now.checked_sub(MADE_UP_FOR).unwrap_or(now);
            self.next_start = Some(self.next_start.map_or(now, |next| next.max(due)) + rate.interval());
        }
    }

    /// Gives the time of a start back that did not happen.
    fn unbegin(&mut self, policy: &Policy) {
        if let (Some(rate), Some(next)) = (policy.rate, self.next_start) {
            self.next_start = next.checked_sub(rate.interval());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        if self.is_queued {
            state.reserved -= usize::from(!self.is_used);
        } else {
            state.running -= 1;
            if let Some(spec) = self.lane.spec.load().as_ref().filter(|_| !self.is_used) {
                state.unbegin(&spec.policy);
            }
            if !state.queue.is_empty() {
                self.lane.wake.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_reserved_is_counted_until_it_is_given_back() {
        let work: Work = Arc::new(|_, _, _| Box::pin(async { Outcome::success() }));
        let policy = Policy { concurrency: 1, queue_max: 1, ..Policy::default() };
        let (handler, notices) = ("h".parse().unwrap(), NoticeSpec::default());
        let spec = LaneSpec { handler, policy, work, undo: None, notices };
        let lane = Arc::new(Lane::new(spec, &Tally::default()));
        let counted = || (lane.counts().running, lane.counts().queued);

        let running = lane.reserve().unwrap();
        let queued = lane.reserve().unwrap();
        assert!(!running.is_queued && queued.is_queued && lane.reserve().is_none());
        assert_eq!(counted(), (1, 1));
        let beyond = lane.reserve_anyway();
        assert_eq!(counted(), (1, 2));
        drop((queued, beyond));
        assert_eq!(counted(), (1, 0));
        drop(running);
        assert_eq!(counted(), (0, 0));
    }
}
