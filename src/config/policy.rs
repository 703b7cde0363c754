//! How the runs of a handler are treated: the keys for attempts, limits and crashes.

use std::time::Duration;

use toml::Value;

use super::SHORTEST;
use super::action::Type;
use super::error::Problem;
use super::given::Given;
use super::handlers::{RETRY, belongs_elsewhere};
use super::kind::{Choice, Kind, Number, Switch, Time, Whole};
use super::reader::Section;
use crate::task::{HandlerName, OnCrash, Policy, Rate, Retry};

const ON_CRASH: Choice<OnCrash> = Choice(&[("fail", OnCrash::Fail), ("retry", OnCrash::Retry)]);
const CONCURRENCY: Whole<usize> = Whole(1..=100_000);
const QUEUE: Whole<usize> = Whole(0..=10_000_000);
const ATTEMPTS: Whole<u32> = Whole(1..=1_000);
const INITIAL: Time = Time(SHORTEST..=Duration::from_hours(1));
const FACTOR: Number = Number(1.0..=100.0);
const JITTER: Number = Number(0.0..=1.0);
const LONGEST_PAUSE: Duration = Duration::from_hours(24);

/// The policy of a handler whose action is of this type.
pub(super) fn read(section: &mut Section<'_, '_>, kind: Option<Type>, name: &HandlerName) -> Policy {
    let default = match kind {
        // Each run is a process with its own memory, and takes what it likes of the machine.
        Some(Type::Command) => Policy { concurrency: 16, ..Policy::default() },
        // A call costs a connection; and a receiver that is not there for a moment is what webhooks meet most.
        Some(Type::Webhook) | None => {
            Policy { retry: Retry { attempts: 5, ..Retry::default() }, ..Policy::default() }
        }
    };
    let in_doubt = section.get("retry_in_doubt", default.retry.in_doubt, &Switch);
    Policy {
        on_crash: section.get("on_crash", default.on_crash, &ON_CRASH),
        concurrency: section.get("concurrency", default.concurrency, &CONCURRENCY),
        rate: section.optional("rate", &StartsPerTime),
        queue_max: section.get("queue", default.queue_max, &QUEUE),
        match_input: section.get("match_input", default.match_input, &Switch),
        // What its actions say.
        ending: default.ending,
        retry: Retry { in_doubt, ..retry(section.section("retry", false), &default.retry, name) },
    }
}

fn retry(mut section: Section<'_, '_>, default: &Retry, name: &HandlerName) -> Retry {
    let attempts = section.get("attempts", default.attempts, &ATTEMPTS);
    let initial = section.get("initial", default.initial, &INITIAL);
    let factor = section.get("factor", default.factor, &FACTOR);
    let max_interval =
        section.get("max_interval", default.max_interval.max(initial), &MaxInterval { initial });
    let jitter = section.get("jitter", default.jitter, &JITTER);
    section.finish(|key| belongs_elsewhere(name, RETRY, key));
    Retry { attempts, initial, factor, max_interval, jitter, in_doubt: default.in_doubt }
}

/// The longest pause, which is not shorter than the first.
struct MaxInterval {
    initial: Duration,
}

impl MaxInterval {
    fn time(&self) -> Time {
        Time(self.initial..=LONGEST_PAUSE)
    }
}

impl Kind for MaxInterval {
    type Value = Duration;

    fn expected(&self) -> String {
        format!("{}; it is not shorter than `initial`", self.time().expected())
    }

    fn parse(&self, given: &Given<'_>) -> Result<Duration, Vec<Problem>> {
        self.time().parse(given).map_err(|_out_of_range| given.wrong(self.expected()))
    }

    fn show(&self, value: &Duration) -> Value {
        self.time().show(value)
    }
}

/// So many starts a second, minute or hour.
pub(super) struct StartsPerTime;

impl StartsPerTime {
    const UNITS: [(&str, Duration); 3] =
        [("s", Duration::from_secs(1)), ("m", Duration::from_mins(1)), ("h", Duration::from_hours(1))];
    const STARTS_MAX: u32 = 1_000_000;
}

impl Kind for StartsPerTime {
    type Value = Rate;

    fn expected(&self) -> String {
        let max = Self::STARTS_MAX;
        format!("a number from 1 to {max} and a unit of time, \"100/s\", \"100/m\" or \"100/h\"")
    }

    fn parse(&self, given: &Given<'_>) -> Result<Rate, Vec<Problem>> {
        let rate = given.text().and_then(|text| text.split_once('/')).and_then(|(starts, unit)| {
            let digits = Some(starts).filter(|starts| starts.bytes().all(|byte| byte.is_ascii_digit()));
            let (_, per) = Self::UNITS.iter().find(|(word, _)| *word == unit)?;
            Some(Rate { starts: digits?.parse().ok()?, per: *per })
        });
        let is_allowed = |rate: &Rate| (1..=Self::STARTS_MAX).contains(&rate.starts);
        rate.filter(is_allowed).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &Rate) -> Value {
        let unit = Self::UNITS.iter().find(|(_, per)| *per == value.per).map_or("", |(word, _)| word);
        Value::String(format!("{}/{unit}", value.starts))
    }
}
