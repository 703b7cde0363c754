//! A store that forgets everything at exit: for tests, trials, and what need not outlive the process.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::feed::{EVENTS_KEPT, Feed};
use super::table::{Cold, Table};
use super::{Counts, Health, Moved, Note, Page, Query, Recovered, Store, StoreError};
use crate::sync::{AtomicBool, Mutex};
use crate::task::{Change, State, Task, TaskId};

/// Keeps records in memory only. Every call answers at once, and none fails before it is closed.
#[derive(Debug)]
pub struct MemoryStore {
    table: Table,
    notes: Mutex<BTreeMap<String, Vec<u8>>>,
    is_closed: AtomicBool,
    health: watch::Sender<Health>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_events_kept(EVENTS_KEPT)
    }

    /// An empty store that keeps so many events, at least one.
    #[must_use]
    pub fn with_events_kept(events_kept: usize) -> Self {
        let health = watch::Sender::new(Health::Writable);
        let (table, is_closed) = (Table::new(events_kept), AtomicBool::new(false));
        Self { table, notes: Mutex::default(), is_closed, health }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn change(&self, id: &TaskId, change: Change) -> Result<Moved, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(self.table.change(id, change))
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

    async fn recover(&self) -> Result<Recovered, StoreError> {
        Ok(Recovered::of(&self.table))
    }

    async fn put_note(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => notes.insert(key.to_owned(), value),
            None => notes.remove(key),
        };
        Ok(())
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<Note>, StoreError> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = notes.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(wanted.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn events(&self) -> Feed {
        self.table.feeder.reader()
    }

    async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.table.feeder.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_makes_no_commits_that_could_be_counted() {
        assert!(MemoryStore::new().tally().is_none());
    }
}
