//! Pausing of handlers, which outlives the process: an operator who stopped a handler finds it stopped.

use std::sync::Arc;

use super::Recorder;
use super::recovery::when_there_is_room;
use crate::store::{Store, StoreError};
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
        let Some((lane, _)) = self.lane(handler) else { return Ok(false) };
        let inner = Arc::clone(&self.inner);
        self.to_the_end(async move {
            // One at a time, so that the last note and the lane say the same.
            let _turn = inner.pausing.lock().await;
            let key = format!("{NOTED_UNDER}{}", lane.name);
            inner.store.put_note(&key, is_paused.then(Vec::new)).await?;
            lane.pause(is_paused);
            Ok(true)
        })
        .await
    }

    /// Pauses what was paused when the last process ended.
    pub(super) async fn restore_pauses(&self) -> Result<(), StoreError> {
        let paused = when_there_is_room(|| noted_paused(&self.inner.store)).await?;
        for lane in self.inner.lanes.load().values().filter(|lane| is_noted_paused(&paused, &lane.name)) {
            lane.pause(true);
            tracing::warn!(handler = %lane.name, "is paused, as it was before");
        }
        Ok(())
    }
}

/// The notes about who is paused.
pub(super) async fn noted_paused(store: &Arc<dyn Store>) -> Result<Vec<String>, StoreError> {
    Ok(store.notes(NOTED_UNDER).await?.into_iter().map(|(key, _)| key).collect())
}

pub(super) fn is_noted_paused(notes: &[String], handler: &HandlerName) -> bool {
    notes.iter().any(|key| key.strip_prefix(NOTED_UNDER) == Some(handler.as_str()))
}
