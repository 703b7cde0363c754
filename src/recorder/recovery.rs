//! The start after a stop or a crash: what the last process left is taken over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;

use super::lane::Lane;
use super::run::PAUSES;
use super::{Launch, LaunchError, Recorder};
use crate::store::{Claim, Moved, StoreError};
use crate::sync::time::{Instant, sleep};
use crate::task::{Attempt, Change, ErrorKind, Failure, Phase, StartKind, TaskId};

/// How many interrupted runs are settled at once: enough for whole commits.
const RECOVERED_AT_ONCE: usize = 1_024;
/// How long one of them waits where they are more than the store takes at once.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What [`Recorder::recover`] has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Runs that a crash cut off; they are failed now.
    pub interrupted: usize,
    /// Those of them that are launched again, by the policy of their handler, and those that an earlier start owed.
    pub launched_again: usize,
    /// Tasks that were queued or backing off, and go on.
    pub resumed: usize,
}

impl Recorder {
    /// Takes over what a process left when it ended. Runs that were under way are failed, `interrupted`, in doubt, and
    /// launched again where the policy of their handler says so; tasks that were queued or backing off go on. To be
    /// called once, before anything is launched.
    ///
    /// # Errors
    /// [`StoreError`] when one of them could not be settled.
    pub async fn recover(&self) -> Result<RecoveryReport, StoreError> {
        self.restore_pauses().await?;
        let found = self.inner.store.recover().await?;
        let (mut report, mut cut_off) = (RecoveryReport::default(), Vec::new());
        report.launched_again = self.launch_owed().await?;
        for claim in found.claims {
            let task = claim.task();
            match (self.lane(&task.handler), task.phase()) {
                (Some((lane, _)), Some(Phase::Queued)) => lane.enqueue(claim),
                (Some((lane, spec)), Some(Phase::BackingOff { next_attempt_at })) => {
                    let left = Duration::try_from(next_attempt_at.duration_since(Timestamp::now()));
                    // The wall clock may have been set back meanwhile, by any time.
                    let left = left.unwrap_or_default().min(spec.policy.retry.max_interval);
                    lane.back_off(claim, Instant::now() + left);
                }
                _ => {
                    cut_off.push(claim);
                    continue;
                }
            }
            report.resumed += 1;
        }
        report.interrupted = cut_off.len();
        let is_owed = self.note_owed(&cut_off).await?;
        report.launched_again += self.take_over(cut_off).await?;
        if is_owed {
            self.forget_owed().await?;
        }
        for task in found.revoking {
            let failure =
                Failure::new(ErrorKind::Interrupted, "the service ended while the revoke was under way");
            let change = Change::EndRevoke { revision: task.revision, result: Err(failure) };
            when_there_is_room(|| self.inner.store.change(&task.id, change.clone())).await?;
        }
        self.inner.resume_notices(found.notices).await?;
        self.resume_bulks().await?;
        Ok(report)
    }

    /// Settles runs that a process has left, and launches again what is to be. Returns how many those are.
    ///
    /// After an error it begins nothing more, but ends what it has begun: less is left for the next start.
    async fn take_over(&self, cut_off: Vec<Claim>) -> Result<usize, StoreError> {
        let (mut left, mut under_way) = (cut_off.into_iter(), FuturesUnordered::new());
        let (mut launched, mut result) = (0, Ok(()));
        loop {
            while result.is_ok()
                && under_way.len() < RECOVERED_AT_ONCE
                && let Some(claim) = left.next()
            {
                under_way.push(async move {
                    match self.interrupt(claim).await? {
                        Some((lane, id)) => self.launch_again(&lane, id).await,
                        None => Ok(false),
                    }
                });
            }
            match under_way.next().await {
                Some(Ok(is_launched)) => launched += usize::from(is_launched),
                Some(Err(error)) => result = Err(error),
                None => return result.map(|()| launched),
            }
        }
    }

    /// Launches a run again that is settled, as soon as the store can write. Returns whether it was.
    pub(super) async fn launch_again(&self, lane: &Arc<Lane>, id: TaskId) -> Result<bool, StoreError> {
        let mut pauses = PAUSES;
        loop {
            let (place, kind) = (lane.reserve_anyway(), StartKind::Retry { trace: None, if_entered: None });
            let pause = match self.start_in_lane(lane, id.clone(), kind, Some(place)).await {
                Ok(launch) => return Ok(matches!(launch, Launch::Started(_))),
                Err(LaunchError::Store(StoreError::Busy)) => BUSY_PAUSE,
                Err(LaunchError::Store(error @ StoreError::Unavailable(_))) => {
                    tracing::warn!(task.id = %id, %error, "not launched again yet, will try again");
                    pauses.take()
                }
                Err(LaunchError::Store(error)) => return Err(error),
                Err(LaunchError::Draining | LaunchError::QueueFull | LaunchError::UnknownHandler) => {
                    return Ok(false);
                }
            };
            sleep(pause).await;
        }
    }

    /// Settles a run that a process has left. Returns what is to be launched again.
    async fn interrupt(&self, mut claim: Claim) -> Result<Option<(Arc<Lane>, TaskId)>, StoreError> {
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
            answer: None,
        };
        self.inner.tally.of(&task.handler).count_outcome(attempt.failure.as_ref());
        claim = claim.with_notice(self.inner.wants_notice(&task.handler, true));
        let settled = loop {
            match self.inner.store.settle(claim, attempt.clone(), None).await {
                Ok(settled) => break settled,
                Err(unsettled) if unsettled.error == StoreError::Busy => claim = unsettled.claim,
                Err(unsettled) => return Err(unsettled.error),
            }
            sleep(BUSY_PAUSE).await;
        };
        let lane = self.lane_again(&task);
        if let Moved::Done(settled) = &settled {
            self.inner.tally.count_doubt(settled);
            if matches!(task.phase(), Some(Phase::Running | Phase::Canceling)) {
                self.inner.tell_attempt(&task, &attempt);
            }
            self.inner.tell_run(&task, settled);
        }
        // What is launched again has not come to its end; the launch drops the notice.
        if let Moved::Done(task) = settled
            && lane.is_none()
        {
            self.inner.enqueue_notice(&task);
        }
        Ok(lane.map(|lane| (lane, task.id.clone())))
    }
}

/// Asks the store until it has room for it.
pub(super) async fn when_there_is_room<T, F: Future<Output = Result<T, StoreError>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError> {
    loop {
        match ask().await {
            Err(StoreError::Busy) => sleep(BUSY_PAUSE).await,
            answer => return answer,
        }
    }
}
