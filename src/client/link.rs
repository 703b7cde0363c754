//! A service that was reached once may go away for a moment: it is asked again for a while, as over a restart.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Failure;
use crate::exit::Exit;
use crate::pauses::Pauses;

/// For how long.
const LOST_MAX: Duration = Duration::from_mins(1);
const PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(3));

/// Whether the service is there.
#[derive(Debug, Default)]
pub(super) struct Link {
    was_reached: bool,
    /// Since when it is not there, and the pauses to come.
    lost: Option<(Instant, Pauses)>,
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
        let (since, mut pauses) = self.lost.unwrap_or_else(|| {
            super::say(&format_args!("{failure}; asking again"));
            (Instant::now(), PAUSES)
        });
        if since.elapsed() > LOST_MAX {
            return Err(failure);
        }
        let pause = pauses.take();
        self.lost = Some((since, pauses));
        sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_away_is_asked_again_for_a_minute_with_growing_pauses() {
        let gone = || Failure::new(Exit::Unavailable, "nobody is there");
        let mut link = Link::default();
        assert!(link.lost(gone()).await.is_err(), "it was never there");
        for _ in 0..2 {
            link.reached();
            let (begun, mut pauses) = (Instant::now(), Vec::new());
            loop {
                let before = Instant::now();
                if link.lost(gone()).await.is_err() {
                    break;
                }
                pauses.push(before.elapsed().as_millis());
            }
            assert_eq!(pauses[..7], [100, 200, 400, 800, 1_600, 3_000, 3_000]);
            assert!(pauses[7..].iter().all(|pause| *pause == 3_000));
            assert_eq!(begun.elapsed(), Duration::from_millis(60_100), "the first time after a minute");
        }
    }
}
