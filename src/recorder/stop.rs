//! The stop in order: launches, runs, outcomes, store.
//!
//! Invariant: what is told to end has as long for that as its config says, and what it came to is recorded
//! (tests/it/timers.rs); what is left after that is killed with the process, and interrupted.

use std::time::Duration;

use super::{Inner, Recorder};
use crate::sync::time::timeout;

/// How long runs may take at least to end once they are told to.
const LAST_ENDINGS_MIN: Duration = Duration::from_secs(7);
/// How long the last of them may take from its KILL to its outcome.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// How long it then takes at most until every run has given up.
const LAST_SETTLES: Duration = Duration::from_secs(1);

impl Recorder {
    /// Stops in order: no new launches, runs go on for the `grace` period, the rest is told to end and recorded as failed
    /// with kind `shutdown`, the store is closed. What is told has as long as the longest [`Policy::ending`] of its
    /// handlers and 2 s more, at least 7 s; an outcome that cannot be written is given up then.
    ///
    /// [`Policy::ending`]: crate::task::Policy::ending
    pub async fn stop(&self, grace: Duration) {
        let inner = &self.inner;
        inner.draining.cancel();
        inner.runs.close();
        if timeout(grace, inner.runs.wait()).await.is_err() {
            let at_most = inner.last_endings();
            tracing::warn!(
                runs = inner.runs.len(),
                ?at_most,
                "the grace period is over, ending what still runs"
            );
            inner.aborting.cancel();
            inner.endings.end_all();
            if timeout(at_most, inner.runs.wait()).await.is_err() {
                inner.giving_up.cancel();
                if timeout(LAST_SETTLES, inner.runs.wait()).await.is_err() {
                    tracing::error!(
                        runs = inner.runs.len(),
                        "left without an outcome, the next start records them"
                    );
                }
            }
        }
        // What is left stays as it is, and nobody else tells those who wait for it.
        inner.giving_up.cancel();
        inner.waiters.notify_all();
        inner.store.close().await;
    }
}

impl Inner {
    /// How long the runs may take to end once they are told to.
    fn last_endings(&self) -> Duration {
        let lanes = self.lanes.load();
        let longest = lanes.values().map(|lane| lane.longest_ending()).max().unwrap_or_default();
        LAST_ENDINGS_MIN.max(longest + AFTER_KILL)
    }
}
