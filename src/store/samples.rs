//! Records for the tests of the parts of a store.

use std::sync::Arc;

use jiff::Timestamp;

use crate::task::{Attempt, Change, Failure, Input, Request, Stamp, Start, Task};

/// A claim with an input of so many bytes.
pub(super) fn claim(bytes: usize) -> Change {
    let input = Input::new(None, vec![b'x'; bytes].into());
    Change::Claim(Start::from(Request::new("h".parse().unwrap(), input)))
}

/// The end of the first run.
pub(super) fn settle(failure: Option<Failure>) -> Change {
    let at = Timestamp::UNIX_EPOCH;
    let attempt = Attempt { run: 1, attempt: 1, started: at, ended: at, code: None, failure, answer: None };
    Change::Settle { run: 1, attempt, output: None, is_notice_due: false }
}

/// What the change makes of a task.
pub(super) fn after(previous: Option<&Task>, name: &str, change: Change, entered: u64) -> Arc<Task> {
    let stamp = Stamp { seq: entered, at: Timestamp::UNIX_EPOCH };
    Arc::new(Task::after(previous, &name.parse().unwrap(), change, stamp).unwrap())
}

/// A task that has been working since this place, with an input of so many bytes.
pub(super) fn working(name: &str, entered: u64, bytes: usize) -> Arc<Task> {
    after(None, name, claim(bytes), entered)
}

/// One that has succeeded at this place.
pub(super) fn success(name: &str, entered: u64, bytes: usize) -> Arc<Task> {
    after(Some(&working(name, entered, bytes)), name, settle(None), entered)
}
