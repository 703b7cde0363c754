//! A store that forgets everything at exit: for tests, trials, and what need not outlive the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;

use super::table::{Cold, Table};
use super::{Claim, Claimed, Counts, Health, Moved, Page, Query, Store, StoreError, Unsettled};
use crate::task::{Attempt, Change, Output, Start, State, Task, TaskId};

/// Keeps records in memory only. Every call answers at once, and none fails before it is closed.
#[derive(Debug)]
pub struct MemoryStore {
    table: Table,
    is_closed: AtomicBool,
    health: watch::Sender<Health>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let health = watch::Sender::new(Health::Writable);
        Self { table: Table::default(), is_closed: AtomicBool::new(false), health }
    }

    fn change(&self, id: &TaskId, change: Change) -> Result<Moved, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(self.table.change(id, change))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, id: &TaskId, start: Start) -> Result<Claimed, StoreError> {
        self.change(id, Change::Claim(start)).map(Claimed::from)
    }

    async fn settle(
        &self,
        claim: Claim,
        attempt: Attempt,
        output: Option<Output>,
    ) -> Result<Moved, Box<Unsettled>> {
        let change = Change::Settle { run: claim.task.run, attempt: attempt.clone(), output: output.clone() };
        self.change(&claim.task.id, change)
            .map_err(|error| Box::new(Unsettled { claim, attempt, output, error }))
    }

    async fn revoke(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.change(id, Change::Revoke)
    }

    async fn forget(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.change(id, Change::Forget)
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        Ok(self.table.get(id).filter(|task| task.state != State::Absent))
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        Ok(self.table.page(query, Cold::default()))
    }

    fn counts(&self) -> Counts {
        self.table.counts()
    }

    async fn recover(&self) -> Result<Vec<Claim>, StoreError> {
        Ok(self.table.working().into_iter().map(Claim::new).collect())
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }
}
