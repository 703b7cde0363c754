//! What is counted of launches and runs, since the start. Whoever shows it reads it here; nobody here knows who does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{LaunchError, Recorder};
use crate::store::StoreError;
use crate::tally::{Histogram, Observed};
use crate::task::{ErrorKind, Failure, HandlerName, Refusal, Task};

/// From a millisecond to an hour, in microseconds.
const DURATIONS: [u64; 13] = [
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
];

macro_rules! launch_results {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// The closed set of what a launch comes to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum LaunchResult {
            $($(#[$doc])* $variant,)*
        }

        impl LaunchResult {
            /// Every result, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

launch_results! {
    /// A run has started.
    Started = "started";
    /// Not needed: the id is working.
    Working = "working";
    /// Not needed: the id has succeeded.
    Success = "success";
    /// Not needed: the request has launched it before.
    SameRequest = "same_request";
    /// The success of the id is being revoked.
    Revoking = "revoking";
    /// The id belongs to another handler.
    HandlerMismatch = "handler_mismatch";
    /// The id has another input.
    InputMismatch = "input_mismatch";
    /// A condition on the record does not hold.
    Precondition = "precondition";
    /// A retry of an id that is not known.
    NotFound = "not_found";
    /// A retry of an id that has not failed.
    NotFailed = "not_failed";
    /// A retry of a task whose input is not kept any more.
    InputDropped = "input_dropped";
    /// The queue of the handler is full.
    QueueFull = "queue_full";
    /// No handler has this name.
    UnknownHandler = "unknown_handler";
    /// The service is stopping.
    Draining = "draining";
    /// More changes wait for the disk than the config allows.
    StoreBusy = "store_busy";
    /// The store could not be written or read.
    StoreUnavailable = "store_unavailable";
}

impl From<Refusal> for LaunchResult {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Working | Refusal::Canceling | Refusal::NoticeDue => Self::Working,
            Refusal::Success => Self::Success,
            Refusal::SameRequest => Self::SameRequest,
            Refusal::Revoking => Self::Revoking,
            Refusal::HandlerMismatch => Self::HandlerMismatch,
            Refusal::InputMismatch => Self::InputMismatch,
            Refusal::Precondition => Self::Precondition,
            Refusal::NotFound => Self::NotFound,
            Refusal::InputDropped | Refusal::DetailsDropped => Self::InputDropped,
            Refusal::NotFailed | Refusal::NotWorking | Refusal::NotSuccess | Refusal::Stale => {
                Self::NotFailed
            }
        }
    }
}

impl From<&LaunchError> for LaunchResult {
    fn from(error: &LaunchError) -> Self {
        match error {
            LaunchError::QueueFull => Self::QueueFull,
            LaunchError::UnknownHandler => Self::UnknownHandler,
            LaunchError::Draining => Self::Draining,
            LaunchError::Store(StoreError::Busy) => Self::StoreBusy,
            LaunchError::Store(_) => Self::StoreUnavailable,
        }
    }
}

/// What is counted of all handlers together, and of each.
#[derive(Debug, Default)]
pub struct Tally {
    launches: [AtomicU64; LaunchResult::ALL.len()],
    by_handler: RwLock<BTreeMap<HandlerName, Arc<HandlerTally>>>,
    pub(super) in_flight: AtomicU64,
    pub(super) unsettled: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) notices_told: AtomicU64,
    pub(super) notices_given_up: AtomicU64,
}

impl Tally {
    /// Counts a launch that has come to this.
    pub fn count(&self, result: impl Into<LaunchResult>) {
        if let Some(count) = self.launches.get(result.into() as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many launches have come to what.
    pub fn launches(&self) -> impl Iterator<Item = (LaunchResult, u64)> {
        let counts = self.launches.iter().map(|count| count.load(Ordering::Relaxed));
        LaunchResult::ALL.iter().copied().zip(counts)
    }

    /// What is counted of each handler that was configured, or had a task, since the start.
    #[must_use]
    pub fn handlers(&self) -> Vec<(HandlerName, Arc<HandlerTally>)> {
        let by_handler = self.by_handler.read().unwrap_or_else(PoisonError::into_inner);
        by_handler.iter().map(|(name, tally)| (name.clone(), Arc::clone(tally))).collect()
    }

    pub(super) fn failed(&self, error: LaunchError) -> LaunchError {
        self.count(&error);
        error
    }

    /// The tally of a handler. Those who count often keep it.
    pub(super) fn of(&self, handler: &HandlerName) -> Arc<HandlerTally> {
        let known = self.by_handler.read().unwrap_or_else(PoisonError::into_inner).get(handler).cloned();
        known.unwrap_or_else(|| {
            let mut by_handler = self.by_handler.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(by_handler.entry(handler.clone()).or_default())
        })
    }

    /// Counts a run that has ended in doubt, if this one has.
    pub(super) fn count_doubt(&self, task: &Task) {
        if task.failure().is_some_and(|failure| failure.in_doubt) {
            self.of(&task.handler).in_doubt.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is counted of one handler.
#[derive(Debug)]
pub struct HandlerTally {
    successes: AtomicU64,
    failures: [AtomicU64; ErrorKind::ALL.len()],
    durations: Histogram,
    in_doubt: AtomicU64,
}

impl Default for HandlerTally {
    fn default() -> Self {
        Self {
            successes: AtomicU64::default(),
            failures: Default::default(),
            durations: Histogram::new(&DURATIONS),
            in_doubt: AtomicU64::default(),
        }
    }
}

impl HandlerTally {
    /// How many attempts of runs have come to what: `success`, or the word for the kind of the error.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let kinds = ErrorKind::ALL.iter().map(|kind| kind.as_str());
        let counts = std::iter::once(&self.successes).chain(&self.failures);
        std::iter::once("success").chain(kinds).zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    /// How long the attempts took that this process has seen from beginning to end, in microseconds.
    #[must_use]
    pub fn durations(&self) -> Observed {
        self.durations.observed()
    }

    /// How many runs have ended in doubt.
    #[must_use]
    pub fn in_doubt(&self) -> u64 {
        self.in_doubt.load(Ordering::Relaxed)
    }

    pub(super) fn count_outcome(&self, failure: Option<&Failure>) {
        let count = failure.map_or(Some(&self.successes), |failure| self.failures.get(failure.kind as usize));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_attempt(&self, failure: Option<&Failure>, duration: Duration) {
        self.count_outcome(failure);
        self.durations.observe_duration(duration);
    }
}

/// Figures about what happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Attempts of runs under way, now.
    pub in_flight: u64,
    /// Outcomes that wait to be written, now.
    pub unsettled: u64,
    /// Outcomes of runs that were over already.
    pub stale: u64,
    /// Runs whose work panicked.
    pub panics: u64,
    /// Notices that are still to be told, now.
    pub notices_due: u64,
    /// Notices that were told.
    pub notices_told: u64,
    /// Notices that were not told in time, and are not tried any more.
    pub notices_given_up: u64,
}

impl Recorder {
    /// What is counted of launches and attempts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// Figures about what happened since the start.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let tally = &self.inner.tally;
        let figure = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Figures {
            in_flight: figure(&tally.in_flight),
            unsettled: figure(&tally.unsettled),
            stale: figure(&tally.stale),
            panics: figure(&tally.panics),
            notices_due: self.inner.lanes.load().values().map(|lane| lane.notices.count() as u64).sum(),
            notices_told: figure(&tally.notices_told),
            notices_given_up: figure(&tally.notices_given_up),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_and_every_kind_has_its_own_counter() {
        let (tally, handler) = (Tally::default(), HandlerTally::default());
        for result in LaunchResult::ALL {
            tally.count(*result);
        }
        assert!(tally.launches().all(|(_, count)| count == 1));
        handler.count_outcome(None);
        for kind in ErrorKind::ALL {
            handler.count_outcome(Some(&Failure::new(*kind, "")));
        }
        assert!(handler.outcomes().all(|(_, count)| count == 1));
        assert_eq!(handler.outcomes().count(), ErrorKind::ALL.len() + 1);
    }

    #[test]
    fn an_attempt_is_counted_with_how_long_it_took() {
        let handler = HandlerTally::default();
        handler.count_attempt(None, Duration::from_millis(3));
        handler.count_attempt(Some(&Failure::new(ErrorKind::Timeout, "")), Duration::from_millis(4));
        assert_eq!(handler.outcomes().filter(|(_, count)| *count == 1).count(), 2);
        assert_eq!((handler.durations().sum, handler.durations().count), (7_000, 2));
    }
}
