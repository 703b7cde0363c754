//! The exchange of lanes while they run: handlers that come, change and go.
//!
//! An attempt that has begun ends as it began; the next one, also of the same run, is what the new spec says. What waits
//! for a handler that is gone is failed: nobody may come back to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::lane::{Lane, LaneSpec};
use super::pause::{is_noted_paused, noted_paused};
use super::{Inner, Recorder, notices, run};
use crate::store::{Claim, StoreError};
use crate::task::{Attempt, ErrorKind, Failure, HandlerName};

impl Recorder {
    /// Lets these handlers hold, and no others. Lanes that stay keep their queues.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read who is paused; nothing has changed then.
    pub async fn reload(&self, specs: Vec<LaneSpec>) -> Result<(), StoreError> {
        let inner = &self.inner;
        let _turn = inner.pausing.lock().await;
        let paused = noted_paused(&inner.store).await?;
        let mut specs: BTreeMap<HandlerName, LaneSpec> =
            specs.into_iter().map(|spec| (spec.handler.clone(), spec)).collect();
        let mut lanes = BTreeMap::clone(&inner.lanes.load());
        for (name, lane) in &lanes {
            lane.exchange(specs.remove(name).map(Arc::new));
        }
        let begun: Vec<_> = specs.into_values().map(|spec| Arc::new(Lane::new(spec, &inner.tally))).collect();
        for lane in &begun {
            lane.pause(is_noted_paused(&paused, &lane.name));
            lanes.insert(lane.name.clone(), Arc::clone(lane));
        }
        inner.lanes.store(Arc::new(lanes));
        for lane in &begun {
            inner.open(lane);
        }
        Ok(())
    }
}

impl Inner {
    /// Sets a lane to work.
    pub(super) fn open(self: &Arc<Self>, lane: &Arc<Lane>) {
        self.runs.spawn(run::dispatch(Arc::clone(self), Arc::clone(lane)));
        self.runs.spawn(notices::deliver(Arc::clone(self), Arc::clone(lane)));
    }

    /// Settles a task that waits for a handler that is gone.
    pub(super) async fn abandon(&self, claim: Claim) {
        let now = self.store.get(&claim.task().id).await;
        let task = now.ok().flatten().unwrap_or_else(|| Arc::clone(claim.task()));
        let now = Timestamp::now();
        let message =
            format!("the handler {} was taken out of the config while the run waited", task.handler);
        let attempt = Attempt {
            run: task.run,
            attempt: task.attempt().unwrap_or(1),
            started: now,
            ended: now,
            code: None,
            failure: Some(Failure::without_effect(ErrorKind::Interrupted, message)),
            answer: None,
        };
        self.settle(claim, attempt, None).await;
    }
}
