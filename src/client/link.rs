//! A service that was reached once may go away for a moment: it is asked again for a while, as over a restart.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Failure;
use crate::exit::Exit;

/// For how long.
const LOST_MAX: Duration = Duration::from_mins(1);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Whether the service is there.
#[derive(Debug, Default)]
pub(super) struct Link {
    was_reached: bool,
    /// Since when it is not there, and the next pause.
    lost: Option<(Instant, Duration)>,
}

impl Link {
    /// To a service that has answered before.
    pub(super) fn known() -> Self {
        Self { was_reached: true, lost: None }
    }

    /// Whether it has ever answered.
    pub(super) fn was_reached(&self) -> bool {
        self.was_reached
    }

    /// It has answered.
    pub(super) fn reached(&mut self) {
        self.was_reached = true;
        self.lost = None;
    }

    /// Pauses before it is asked again.
    ///
    /// # Errors
    /// The failure itself where asking again is no use: it was never there, it has been away for too long, or it has
    /// said something else.
    pub(super) async fn lost(&mut self, failure: Failure) -> Result<(), Failure> {
        if failure.exit() != Exit::Unavailable || !self.was_reached {
            return Err(failure);
        }
        let (since, pause) = self.lost.unwrap_or_else(|| {
            super::say(&format_args!("{failure}; asking again"));
            (Instant::now(), PAUSE_MIN)
        });
        if since.elapsed() > LOST_MAX {
            return Err(failure);
        }
        self.lost = Some((since, (pause * 2).min(PAUSE_MAX)));
        sleep(pause).await;
        Ok(())
    }
}
