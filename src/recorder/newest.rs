//! Where a list ends that is read while it grows.

use super::Recorder;
use crate::store::{Filter, Order, Query, StoreError};
use crate::task::StateName;

impl Recorder {
    /// The place of the task that was the last one to enter one of these states, no states meaning any; none where there is
    /// none. What enters them later has a later place, whatever the clock says.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest(&self, states: &[StateName]) -> Result<Option<u64>, StoreError> {
        let filter = Filter { states: states.to_vec(), ..Filter::default() };
        let mut newest = Query { filter, order: Order::Descending, after: None, limit: 1 };
        loop {
            let page = self.list(&newest).await?;
            match (page.tasks.first(), page.next) {
                (Some(task), _) => return Ok(Some(task.entered)),
                (None, None) => return Ok(None),
                (None, next) => newest.after = next,
            }
        }
    }
}
