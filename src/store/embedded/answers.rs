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

/// Who waits for this commit, and what each is to be told. Dropped, it tells them.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(Answer<Moved>, Decided)>);

impl Answers {
    pub(super) fn push(&mut self, answer: Answer<Moved>, decided: Decided) {
        self.0.push((answer, decided));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing of it was written.
    pub(super) fn fail(&mut self, error: &StoreError) {
        for (_, decided) in &mut self.0 {
            *decided = Err(error.clone());
        }
    }

    /// Tells them from within the runtime, or from here where there is none.
    pub(super) fn tell(self, runtime: Option<&Handle>) {
        if let Some(runtime) = runtime {
            // Nobody has to wait for this task: where the runtime ends first, it is dropped, and has told them so.
            runtime.spawn(async move { drop(self) });
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (answer, decided) in self.0.drain(..) {
            // An error means that nobody waits any more.
            let _ = answer.send(decided);
        }
    }
}
