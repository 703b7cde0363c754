//! The launches that a start owes: of runs that a crash cut off, where the policy of their handler says so.
//!
//! Such a run is settled, and then launched again: two changes, between which the process may end too. The next start
//! finds a run that has ended like any other, so it is noted beforehand that a launch is to follow.
//!
//! Invariant: what is settled in order to be launched again is launched again, by this start or by a later one
//! (tests/it/timers.rs).

use std::sync::Arc;

use super::Recorder;
use super::lane::Lane;
use super::recovery::when_there_is_room;
use crate::store::{Claim, StoreError};
use crate::task::{ErrorKind, OnCrash, Phase, Task, TaskId};

/// Under which key the store notes them: ids, with the runs that were cut off.
const NOTED_UNDER: &str = "owed";

impl Recorder {
    /// Where a run that was cut off is launched again; none where it is not.
    pub(super) fn lane_again(&self, task: &Task) -> Option<Arc<Lane>> {
        let (lane, spec) = self.lane(&task.handler)?;
        let is_wanted = spec.policy.on_crash == OnCrash::Retry;
        (is_wanted && task.phase() == Some(Phase::Running)).then_some(lane)
    }

    /// Notes which of these runs are to be launched again. Durable on return. Says whether there are any.
    pub(super) async fn note_owed(&self, cut_off: &[Claim]) -> Result<bool, StoreError> {
        let again = cut_off.iter().map(Claim::task).filter(|task| self.lane_again(task).is_some());
        let owed: Vec<_> = again.map(|task| (&task.id, task.run)).collect();
        if owed.is_empty() {
            return Ok(false);
        }
        let value = serde_json::to_vec(&owed).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.put_owed(Some(value)).await?;
        Ok(true)
    }

    /// Launches what an earlier start has settled and not launched any more. Returns how many those were.
    pub(super) async fn launch_owed(&self) -> Result<usize, StoreError> {
        let notes = when_there_is_room(|| self.inner.store.notes(NOTED_UNDER)).await?;
        let Some((_, value)) = notes.into_iter().next() else { return Ok(0) };
        let owed: Vec<(TaskId, u32)> = serde_json::from_slice(&value).unwrap_or_else(|error| {
            tracing::error!(%error, "what the last start has not launched again stays so, because its note cannot be read");
            Vec::new()
        });
        let mut launched = 0;
        for (id, run) in owed {
            let task = when_there_is_room(|| self.status(&id)).await?;
            // One that was not settled is found as it was, and one that was launched has a later run.
            let task = task
                .filter(|task| task.run == run)
                .filter(|task| task.failure().is_some_and(|failure| failure.kind == ErrorKind::Interrupted));
            let lane = task.and_then(|task| self.lane(&task.handler));
            // As the policy is now: it may have been changed because of what launched itself again and again.
            if let Some((lane, _)) = lane.filter(|(_, spec)| spec.policy.on_crash == OnCrash::Retry) {
                launched += usize::from(self.launch_again(&lane, id).await?);
            }
        }
        self.forget_owed().await?;
        Ok(launched)
    }

    pub(super) async fn forget_owed(&self) -> Result<(), StoreError> {
        self.put_owed(None).await
    }

    async fn put_owed(&self, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        when_there_is_room(|| self.inner.store.put_note(NOTED_UNDER, value.clone())).await
    }
}
