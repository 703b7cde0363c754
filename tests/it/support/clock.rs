//! Time that passes only when a test says so, also while sockets and processes are waited for.

use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use futures_util::poll;
use tokio::task::JoinHandle;

use super::PATIENCE;

/// Holds time. For tests that begin with paused time, which would pass by itself whenever nothing else is to do.
pub(crate) struct Clock {
    /// While a thread is busy, time does not pass by itself.
    _hold: Sender<()>,
    /// Ends in real time.
    is_over: JoinHandle<()>,
}

impl Clock {
    pub(crate) fn hold() -> Self {
        let (hold, never) = mpsc::channel();
        let is_over = tokio::task::spawn_blocking(move || {
            // An error either way: nothing is ever sent.
            let _ = never.recv_timeout(PATIENCE);
        });
        Self { _hold: hold, is_over }
    }

    /// What has to happen without time passing.
    pub(crate) async fn now<T>(&mut self, what: &str, future: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            value = future => value,
            _ = &mut self.is_over => panic!("waited {PATIENCE:?} for {what}"),
        }
    }

    /// Lets time pass, at the end of which this is not there yet.
    pub(crate) async fn pass<F: Future>(&self, time: Duration, mut future: Pin<&mut F>) {
        // What it waits for begins now.
        assert!(poll!(future.as_mut()).is_pending(), "it is there already");
        tokio::time::advance(time).await;
        assert!(poll!(future).is_pending(), "it has come before its time");
    }

    /// Lets this long pass, and not a millisecond less, until it is there.
    pub(crate) async fn until<F: Future>(
        &mut self,
        time: Duration,
        mut future: Pin<&mut F>,
        what: &str,
    ) -> F::Output {
        let tick = Duration::from_millis(1);
        self.pass(time.saturating_sub(tick), future.as_mut()).await;
        tokio::time::advance(tick).await;
        self.now(what, future).await
    }
}
