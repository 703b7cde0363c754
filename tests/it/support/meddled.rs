//! A store in memory into which a test can reach: what is asked of it is held up, or fails.

use std::sync::Arc;

use async_trait::async_trait;
use task_recorder::store::{
    Counts, Feed, Health, MemoryStore, Moved, Note, Page, Query, Recovered, Store, StoreError,
};
use task_recorder::task::{Change, Task, TaskId};
use tokio::sync::watch;

/// What a store is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    Change(&'a Change),
    Get,
    List,
    Notes,
}

/// What a test does to a store.
#[async_trait]
pub(crate) trait Meddler: Send + Sync + 'static {
    /// Before it is done. An error is the answer, and nothing is done.
    async fn before(&self, asked: Asked<'_>) -> Result<(), StoreError>;

    /// When a change is made, before it is answered.
    async fn behind(&self, _change: &Change) {}
}

/// A new store that this one meddles with.
pub(crate) fn meddled(meddler: &Arc<impl Meddler>) -> Arc<dyn Store> {
    Arc::new(Meddled { store: MemoryStore::new(), meddler: Arc::clone(meddler) })
}

struct Meddled<M> {
    store: MemoryStore,
    meddler: Arc<M>,
}

#[async_trait]
impl<M: Meddler> Store for Meddled<M> {
    async fn change(&self, id: &TaskId, change: Change) -> Result<Moved, StoreError> {
        self.meddler.before(Asked::Change(&change)).await?;
        let moved = self.store.change(id, change.clone()).await;
        self.meddler.behind(&change).await;
        moved
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        self.meddler.before(Asked::Get).await?;
        self.store.get(id).await
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        self.meddler.before(Asked::List).await?;
        self.store.list(query).await
    }

    fn counts(&self) -> Counts {
        self.store.counts()
    }

    async fn recover(&self) -> Result<Recovered, StoreError> {
        self.store.recover().await
    }

    async fn put_note(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.store.put_note(key, value).await
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<Note>, StoreError> {
        self.meddler.before(Asked::Notes).await?;
        self.store.notes(prefix).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.store.health()
    }

    fn events(&self) -> Feed {
        self.store.events()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
