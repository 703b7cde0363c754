//! The answers to the requests of one commit, given from within the runtime where those who asked wait.
//!
//! To wake a task out of another thread costs several microseconds where a thread of the runtime has to be woken for it,
//! and those would add up between one commit and the next. So the writer wakes one task, which wakes the others.

use tokio::sync::oneshot;

use crate::store::{Moved, StoreError};
use crate::sync::Handle;

/// What a change comes to.
pub(super) type Decided = Result<Moved, StoreError>;
/// Where the answer to a request goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Who waits for this commit, and what each is to be told. Dropped, it tells nobody anything: they see that nobody is
/// there any more.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(Answer<Moved>, Decided)>);

impl Answers {
    pub(super) fn push(&mut self, answer: Answer<Moved>, decided: Decided) {
        self.0.push((answer, decided));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those so far; afterwards there is room for as many.
    pub(super) fn take(&mut self) -> Self {
        let room = Vec::with_capacity(self.0.len());
        Self(std::mem::replace(&mut self.0, room))
    }

    /// Tells them that nothing of it was written.
    pub(super) fn fail(self, error: &StoreError) {
        for (answer, _) in self.0 {
            // An error means that nobody waits any more.
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Tells them from within the runtime, or from here where there is none.
    pub(super) fn tell(self, runtime: Option<&Handle>) {
        let telling = Telling(self.0);
        if let Some(runtime) = runtime {
            // Nobody has to wait for this task: where the runtime ends first, it is dropped, and has told them so.
            runtime.spawn(async move { drop(telling) });
        }
    }
}

/// Answers that are durable. Dropped, it gives them.
struct Telling(Vec<(Answer<Moved>, Decided)>);

impl Drop for Telling {
    fn drop(&mut self) {
        for (answer, decided) in self.0.drain(..) {
            // An error means that nobody waits any more.
            let _ = answer.send(decided);
        }
    }
}
