//! The start after a stop or a crash: what the last process left is taken over.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::lane::Lane;
use super::{LaunchError, Recorder};
use crate::store::{Claim, Moved, StoreError};
use crate::sync::time::{Instant, sleep};
use crate::task::{Attempt, Change, ErrorKind, Failure, OnCrash, Phase, StartKind, TaskId};

/// How many interrupted runs are settled at once: enough for whole commits.
const RECOVERED_AT_ONCE: usize = 1_024;
/// How long one of them waits where they are more than the store takes at once.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(5);

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
        let again: Vec<_> = stream::iter(cut_off)
            .map(|claim| self.interrupt(claim))
            .buffer_unordered(RECOVERED_AT_ONCE)
            .try_filter_map(|again| ready(Ok(again)))
            .try_collect()
            .await?;
        report.launched_again = again.len();
        let launches = stream::iter(again).map(|(lane, id)| async move {
            let place = lane.reserve_anyway();
            self.start_in_lane(&lane, id, StartKind::Retry { trace: None }, Some(place)).await
        });
        let mut launches = launches.buffer_unordered(RECOVERED_AT_ONCE);
        while let Some(launched) = launches.next().await {
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
        self.inner.resume_notices(found.notices).await?;
        self.resume_bulks().await?;
        Ok(report)
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
        let lane = self.lane(&task.handler).filter(|(_, spec)| {
            spec.policy.on_crash == OnCrash::Retry && task.phase() == Some(Phase::Running)
        });
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
        Ok(lane.map(|(lane, _)| (lane, task.id.clone())))
    }
}
