//! How attempts are told to end: by a cancel of their task, or because the service stops.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::task::{Task, TaskId};

/// The tokens of the attempts that are under way, by id and run.
#[derive(Debug, Default)]
pub(super) struct Endings {
    by_run: Arc<scc::HashMap<(TaskId, u32), CancellationToken>>,
}

/// An attempt that can be told to end. Dropping it takes it out.
#[derive(Debug)]
pub(super) struct Ending {
    key: (TaskId, u32),
    token: CancellationToken,
    by_run: Arc<scc::HashMap<(TaskId, u32), CancellationToken>>,
}

impl Endings {
    pub(super) fn enter(&self, task: &Task) -> Ending {
        let key = (task.id.clone(), task.run);
        let token = self.by_run.entry_sync(key.clone()).or_default().get().clone();
        Ending { key, token, by_run: Arc::clone(&self.by_run) }
    }

    /// Tells an attempt to end, also one that is about to begin.
    pub(super) fn end(&self, task: &Task) {
        self.by_run.entry_sync((task.id.clone(), task.run)).or_default().get().cancel();
    }

    /// Takes out what [`Endings::end`] may have left of an attempt that was over already.
    pub(super) fn forget(&self, task: &Task) {
        self.by_run.remove_sync(&(task.id.clone(), task.run));
    }

    pub(super) fn end_all(&self) {
        self.by_run.iter_sync(|_, token| {
            token.cancel();
            true
        });
    }
}

impl Ending {
    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.by_run.remove_sync(&self.key);
    }
}
