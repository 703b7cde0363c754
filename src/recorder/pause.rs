//! Pausing of handlers, which outlives the process: an operator who stopped a handler finds it stopped.

use std::sync::Arc;

use super::Recorder;
use crate::store::StoreError;
use crate::task::HandlerName;

/// Under which keys the store notes who is paused; the rest is the name of the handler.
const NOTED_UNDER: &str = "paused/";

impl Recorder {
    /// Starts nothing of a handler any more, or again; launches are accepted and queued meanwhile. Durable on return.
    /// Returns whether there is such a handler.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn pause(&self, handler: &HandlerName, is_paused: bool) -> Result<bool, StoreError> {
        let Some(lane) = self.lane(handler).map(Arc::clone) else { return Ok(false) };
        let inner = Arc::clone(&self.inner);
        // By itself, so that a caller who goes away leaves no note that the lane does not follow.
        let done = self.inner.runs.spawn(async move {
            // One at a time, so that the last note and the lane say the same.
            let _turn = inner.pausing.lock().await;
            let key = format!("{NOTED_UNDER}{}", lane.spec.handler);
            inner.store.put_note(&key, is_paused.then(Vec::new)).await?;
            lane.pause(is_paused);
            Ok(true)
        });
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Pauses what was paused when the last process ended.
    pub(super) async fn restore_pauses(&self) -> Result<(), StoreError> {
        for (key, _) in self.inner.store.notes(NOTED_UNDER).await? {
            let name = key.strip_prefix(NOTED_UNDER).and_then(|name| name.parse().ok());
            if let Some(lane) = name.and_then(|name| self.lane(&name)) {
                lane.pause(true);
                tracing::warn!(handler = %lane.spec.handler, "is paused, as it was before");
            }
        }
        Ok(())
    }
}
