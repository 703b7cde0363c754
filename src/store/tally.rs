//! What is counted of commits, since the start.

use crate::tally::Histogram;

/// Up to 5 s, in microseconds.
const DURATIONS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];
const CHANGES: [u64; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 8_192, 65_536];

/// The commits of changes; those that only tidy up are not counted.
#[derive(Debug)]
pub struct StoreTally {
    /// How long each took until it was durable, in microseconds.
    pub durations: Histogram,
    /// How many changes were in each.
    pub changes: Histogram,
}

impl Default for StoreTally {
    fn default() -> Self {
        Self { durations: Histogram::new(&DURATIONS), changes: Histogram::new(&CHANGES) }
    }
}
