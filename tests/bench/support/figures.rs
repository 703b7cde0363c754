//! Figures: rates, ratios, percentiles, and how they are printed.

use std::cmp::Reverse;
use std::time::Duration;

/// A count a second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    real(count) / elapsed.as_secs_f64()
}

pub(crate) fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / real(count)
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    real(bytes) / 1_048_576.0
}

#[expect(clippy::cast_precision_loss, reason = "a figure")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

/// Of an odd number of figures the one in the middle; not a number where there is none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Times that something took.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// In milliseconds; not a number where there is none.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |per_thousand: usize| {
            let place = (sorted.len() * per_thousand / 1000).min(sorted.len().saturating_sub(1));
            sorted.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        Percentiles { count: sorted.len(), p50: at(500), p99: at(990), max: at(1000) }
    }
}

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percentiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// The longest of many times, and when each ended.
#[derive(Debug, Default, Clone)]
pub(crate) struct Longest(Vec<(Duration, Duration)>);

impl Longest {
    const KEPT: usize = 5;

    pub(crate) fn add(&mut self, time: Duration, ended_at: Duration) {
        if self.0.len() == Self::KEPT && self.0.last().is_some_and(|(shortest, _)| *shortest >= time) {
            return;
        }
        self.0.push((time, ended_at));
        self.0.sort_by_key(|(time, _)| Reverse(*time));
        self.0.truncate(Self::KEPT);
    }

    /// In milliseconds.
    pub(crate) fn first(&self) -> f64 {
        self.0.first().map_or(f64::NAN, |(time, _)| time.as_secs_f64() * 1e3)
    }

    pub(crate) fn shown(&self) -> String {
        let all = self.0.iter().map(|(time, ended_at)| {
            format!("{} ms at {:.1} s", shown(time.as_secs_f64() * 1e3), ended_at.as_secs_f64())
        });
        all.collect::<Vec<_>>().join(", ")
    }
}

/// Two or three digits are enough for a figure, and "-" for one that there is not.
pub(crate) fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size.is_nan() => "-".to_owned(),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.3}"),
    }
}

/// Prints a row: the first cell to the left, the others to the right.
pub(crate) fn row(cells: &[String]) {
    let (first, rest) = cells.split_first().unwrap();
    print!("{first:<26}");
    for cell in rest {
        print!(" {cell:>13}");
    }
    println!();
}

/// A figure for the line of JSON; null where there is none.
pub(crate) fn json(figure: f64) -> serde_json::Value {
    serde_json::Number::from_f64((figure * 1e3).round() / 1e3).into()
}
