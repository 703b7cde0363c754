//! Plain histograms of atomics, for what happens often. Whoever counts knows nothing of who shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many observations were at most so large, and their sum.
#[derive(Debug)]
pub struct Histogram {
    /// The largest value of each bucket but the last, ascending.
    bounds: &'static [u64],
    /// One more than there are bounds.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The sum of all values.
    pub sum: u64,
    /// How many there were.
    pub count: u64,
    /// Each bucket's largest value, none in the last one, and how many values are in it and in no smaller one.
    pub buckets: Vec<(Option<u64>, u64)>,
}

impl Histogram {
    /// An empty one with these bounds, ascending.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Takes in a value.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Takes in a duration, in microseconds. So the sum lasts for half a million years.
    pub fn observe_duration(&self, duration: Duration) {
        let nearest = duration + Duration::from_nanos(500);
        self.observe(u64::try_from(nearest.as_micros()).unwrap_or(u64::MAX));
    }

    /// What it holds now.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let bounds = self.bounds.iter().map(|bound| Some(*bound)).chain([None]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Observed { sum: self.sum.load(Ordering::Relaxed), count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_is_large_enough() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.observe(value);
        }
        let Observed { sum, count, buckets } = histogram.observed();
        assert_eq!((sum, count), (1_062, 6));
        assert_eq!(buckets, [(Some(10), 2), (Some(20), 2), (None, 2)]);
    }

    #[test]
    fn a_duration_is_rounded_to_microseconds() {
        let histogram = Histogram::new(&[1]);
        histogram.observe_duration(Duration::from_nanos(1_499));
        histogram.observe_duration(Duration::from_nanos(1_500));
        assert_eq!(histogram.observed().sum, 1 + 2);
        assert_eq!(histogram.observed().buckets, [(Some(1), 1), (None, 1)]);
    }
}
