//! How attempts are told to end: by a cancel of their task, or because the service stops.

use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio_util::sync::CancellationToken;

use crate::sync::HashMap;
use crate::task::{Task, TaskId};

/// An id and a run, and whether what can end is the attempt to undo it.
type Key = (TaskId, u32, bool);

/// The tokens of the attempts that are under way.
#[derive(Debug, Default)]
pub(super) struct Endings {
    by_run: Arc<HashMap<Key, CancellationToken, RandomState>>,
}

/// An attempt that can be told to end. Dropping it takes it out.
#[derive(Debug)]
pub(super) struct Ending {
    key: Key,
    token: CancellationToken,
    by_run: Arc<HashMap<Key, CancellationToken, RandomState>>,
}

/// A cancel of a run that comes too late is none of the revoke that follows.
fn key_of(task: &Task) -> Key {
    (task.id.clone(), task.run, task.is_revoking())
}

impl Endings {
    pub(super) fn enter(&self, task: &Task) -> Ending {
        let key = key_of(task);
        let token = self.by_run.entry_sync(key.clone()).or_default().get().clone();
        Ending { key, token, by_run: Arc::clone(&self.by_run) }
    }

    /// Tells an attempt to end, also one that is about to begin.
    pub(super) fn end(&self, task: &Task) {
        self.by_run.entry_sync(key_of(task)).or_default().get().cancel();
    }

    /// Takes out what [`Endings::end`] may have left of an attempt that was over already.
    pub(super) fn forget(&self, task: &Task) {
        self.by_run.remove_sync(&key_of(task));
    }

    #[cfg(all(test, shuttle))]
    pub(super) fn count(&self) -> usize {
        self.by_run.len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Change, Input, Request, Stamp, Start};

    #[test]
    fn a_token_is_held_only_while_its_attempt_is_under_way() {
        let id: TaskId = "order-42".parse().unwrap();
        let start = Start::from(Request::new("h".parse().unwrap(), Input::empty()));
        let stamp = Stamp { seq: 1, at: jiff::Timestamp::UNIX_EPOCH };
        let task = Task::after(None, &id, Change::Claim(start), stamp).unwrap();
        let (endings, later) = (Endings::default(), Task { run: 2, ..task.clone() });

        let ending = endings.enter(&task);
        assert_eq!(endings.by_run.len(), 1);
        endings.end(&later);
        assert!(!ending.token().is_cancelled(), "another run was told to end");
        endings.end(&task);
        assert!(ending.token().is_cancelled());
        drop(ending);
        endings.forget(&later);
        assert_eq!(endings.by_run.len(), 0);

        endings.end(&task);
        assert!(endings.enter(&task).token().is_cancelled(), "it was told before it began");
        let (one, other) = (endings.enter(&task), endings.enter(&later));
        endings.end_all();
        assert!(one.token().is_cancelled() && other.token().is_cancelled());
    }
}
