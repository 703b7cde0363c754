//! How the runs of a handler are treated: tried again, limited, and what a crash means for them.

use std::time::Duration;

/// The policy of one handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Automatic attempts within a run.
    pub retry: Retry,
    /// What becomes of a run that a crash cut off.
    pub on_crash: OnCrash,
    /// The most runs at once.
    pub concurrency: usize,
    /// The most starts in a time; none means no limit.
    pub rate: Option<Rate>,
    /// The most tasks that wait for their turn; further launches are refused.
    pub queue_max: usize,
    /// Whether a launch of a known id with another input is refused.
    pub match_input: bool,
    /// How long an attempt, also one to undo a success, may take to end once it is told to.
    pub ending: Duration,
}

impl Default for Policy {
    /// One attempt that ends at once, no rate, and limits that only a flood reaches.
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            on_crash: OnCrash::Fail,
            concurrency: 1_000,
            rate: None,
            queue_max: 100_000,
            match_input: false,
            ending: Duration::ZERO,
        }
    }
}

/// When a failed attempt is followed by another one within the same run.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// The most attempts of one run, from 1.
    pub attempts: u32,
    /// The pause after the first attempt.
    pub initial: Duration,
    /// By how much each further pause is longer.
    pub factor: f64,
    /// The longest pause, also where the receiver asks for a longer one.
    pub max_interval: Duration,
    /// By which part of itself a pause is shortened or lengthened at random, 0 to 1.
    pub jitter: f64,
    /// Whether failures that may have had an effect are followed by another attempt too.
    pub in_doubt: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 1,
            initial: Duration::from_secs(1),
            factor: 2.0,
            max_interval: Duration::from_mins(5),
            jitter: 0.2,
            in_doubt: false,
        }
    }
}

impl Retry {
    /// The pause after this attempt (from 1). `asked` is what the receiver wants, `random` is from 0 to 1.
    #[must_use]
    pub fn pause(&self, attempt: u32, asked: Option<Duration>, random: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let jittered = seconds * (1.0 + self.jitter * (2.0 * random - 1.0));
        let pause = Duration::try_from_secs_f64(jittered).unwrap_or(self.max_interval);
        pause.max(asked.unwrap_or_default()).min(self.max_interval)
    }
}

/// What becomes of a run that a crash cut off. A task that was queued or backing off goes on in either case, because
/// nothing of it was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// It is failed, `interrupted`, in doubt.
    Fail,
    /// It is recorded so, and launched again.
    Retry,
}

/// So many starts in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, from 1.
    pub starts: u32,
    /// In which time.
    pub per: Duration,
}

impl Rate {
    /// The time between two starts.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.per / self.starts.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_cap_and_honour_what_the_receiver_asks_for() {
        let seconds = Duration::from_secs;
        let retry = Retry { attempts: 9, max_interval: seconds(10), ..Retry::default() };
        let plain: Vec<_> = (1..=6).map(|attempt| retry.pause(attempt, None, 0.5)).collect();
        assert_eq!(plain, [seconds(1), seconds(2), seconds(4), seconds(8), seconds(10), seconds(10)]);
        assert_eq!(retry.pause(1, None, 0.0), Duration::from_millis(800));
        assert_eq!(retry.pause(1, None, 1.0), Duration::from_millis(1200));
        assert_eq!(retry.pause(1, Some(seconds(3)), 0.5), seconds(3));
        assert_eq!(retry.pause(1, Some(seconds(99)), 0.5), seconds(10));
        assert_eq!(retry.pause(u32::MAX, None, 0.5), seconds(10));
    }
}
