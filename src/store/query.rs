//! Which tasks a list holds, and in which order.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::task::{ErrorKind, HandlerName, Reach, StateName, Task};

/// What a task has to be to be listed; every field that is set narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// One of these states; empty means any.
    pub states: Vec<StateName>,
    /// This handler.
    pub handler: Option<HandlerName>,
    /// An id that begins so.
    pub prefix: Option<String>,
    /// Failed for this reason.
    pub error_kind: Option<ErrorKind>,
    /// Failed, and in doubt or not.
    pub in_doubt: Option<bool>,
    /// In its state since this moment or later.
    pub since: Option<Timestamp>,
    /// In its state since before this moment.
    pub until: Option<Timestamp>,
    /// Within the reach of whoever asks.
    #[serde(default, skip_serializing_if = "Reach::is_everything")]
    pub reach: Reach,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which tasks.
    pub filter: Filter,
    /// Which of them first.
    pub order: Order,
    /// Only tasks behind this place ([`Page::next`] of the page before).
    pub after: Option<u64>,
    /// The most tasks on the page.
    pub limit: usize,
}

/// By when a task entered its state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest change first.
    #[default]
    Ascending,
    /// Newest change first.
    Descending,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks, in order. May be fewer than the limit, even none, while `next` says that there is more.
    pub tasks: Vec<Arc<Task>>,
    /// Where the next page begins; none where the list ends.
    pub next: Option<u64>,
}

impl Filter {
    /// Whether the task belongs in the list.
    #[must_use]
    pub fn matches(&self, task: &Task) -> bool {
        let failure = task.failure();
        self.admits(task.state_name())
            && self.handler.as_ref().is_none_or(|handler| task.handler == *handler)
            && self.prefix.as_ref().is_none_or(|prefix| task.id.as_str().starts_with(prefix.as_str()))
            && self.error_kind.is_none_or(|kind| failure.is_some_and(|failure| failure.kind == kind))
            && self.in_doubt.is_none_or(|doubt| failure.is_some_and(|failure| failure.in_doubt == doubt))
            && self.since.is_none_or(|since| task.since >= since)
            && self.until.is_none_or(|until| task.since < until)
            && self.reach.has(task)
    }

    /// Whether tasks of this state can be in the list.
    #[must_use]
    pub fn admits(&self, state: StateName) -> bool {
        if self.states.is_empty() { state != StateName::Absent } else { self.states.contains(&state) }
    }
}

impl Order {
    /// Whether place `a` comes before place `b`.
    #[must_use]
    pub fn is_before(self, a: u64, b: u64) -> bool {
        match self {
            Self::Ascending => a < b,
            Self::Descending => a > b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_before_itself() {
        for (order, first, second) in [(Order::Ascending, 1, 2), (Order::Descending, 2, 1)] {
            assert!(order.is_before(first, second) && !order.is_before(second, first), "{order:?}");
            assert!(!order.is_before(first, first), "{order:?}");
        }
    }
}
