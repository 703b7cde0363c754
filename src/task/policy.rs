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
    /// By which part of itself a pause is shortened or lengthened at random, 0 to 1; at the longest only shortened, what
    /// the receiver asks for only lengthened.
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
    /// The pause after this attempt (from 1). `asked` is what the receiver wants, `random` is from 0 to 1. At the cap
    /// pauses are spread below it, so that many runs which wait for one receiver do not call it at the same moment.
    #[must_use]
    pub fn pause(&self, attempt: u32, asked: Option<Duration>, random: f64) -> Duration {
        let cap = self.max_interval.as_secs_f64();
        let between = |shortest: f64, longest: f64| shortest + random * (longest.min(cap) - shortest);
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let own = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(cap);
        let own = between(own * (1.0 - self.jitter), own * (1.0 + self.jitter));
        // What is asked for is never shortened.
        let asked = asked.unwrap_or_default().as_secs_f64().min(cap);
        let asked = between(asked, asked * (1.0 + self.jitter));
        let pause = Duration::try_from_secs_f64(own.max(asked)).unwrap_or(self.max_interval);
        pause.min(self.max_interval)
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
        let at_the_cap = seconds(9);
        assert_eq!(plain, [seconds(1), seconds(2), seconds(4), seconds(8), at_the_cap, at_the_cap]);
        assert_eq!(retry.pause(1, None, 0.0), Duration::from_millis(800));
        assert_eq!(retry.pause(1, None, 1.0), Duration::from_millis(1200));
        assert_eq!(retry.pause(u32::MAX, None, 0.5), at_the_cap);
        let steady = Retry { jitter: 0.0, ..retry };
        assert_eq!(steady.pause(1, Some(seconds(3)), 0.5), seconds(3));
        assert_eq!(steady.pause(1, Some(seconds(99)), 0.5), seconds(10));
        assert_eq!(steady.pause(u32::MAX, None, 0.5), seconds(10));
    }

    #[test]
    fn pauses_at_the_cap_are_shortened_at_random_and_those_that_were_asked_for_are_only_lengthened() {
        let millis = Duration::from_millis;
        let retry = Retry { max_interval: millis(10_000), ..Retry::default() };
        let pauses = |attempt, asked| [0.0, 0.5, 1.0].map(|random| retry.pause(attempt, asked, random));
        assert_eq!(pauses(9, None), [8_000, 9_000, 10_000].map(millis));
        assert_eq!(pauses(1, Some(millis(3_000))), [3_000, 3_300, 3_600].map(millis));
        assert_eq!(pauses(1, Some(millis(9_000))), [9_000, 9_500, 10_000].map(millis));
        assert_eq!(pauses(1, Some(Duration::MAX)), [millis(10_000); 3]);
        assert_eq!(pauses(9, Some(millis(9_000))), [9_000, 9_500, 10_000].map(millis));
        let endless = Retry { max_interval: Duration::MAX, ..retry };
        assert_eq!(endless.pause(u32::MAX, Some(Duration::MAX), 1.0), Duration::MAX);
    }
}
