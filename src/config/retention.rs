//! `[retention]`: how long what is settled is kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;
use toml::Value;

use super::error::Problem;
use super::given::Given;
use super::kind::{Kind, Time, show_time};
use super::reader::Section;
use crate::task::Retention;

const DAY: Duration = Duration::from_hours(24);
const OFF: &str = "off";

/// Under a second a task could lose its result before whoever waits for it has read that.
const AGE: Age = Age(Duration::from_secs(1)..=DAY.saturating_mul(36_500));
const INTERVAL: Time = Time(Duration::from_millis(100)..=DAY);

pub(super) fn read(mut section: Section<'_, '_>) -> Retention {
    let default = Retention::default();
    let retention = Retention {
        details: section.get("details", default.details, &AGE),
        failed: section.get("failed", default.failed, &AGE),
        success: section.get("success", default.success, &AGE),
        interval: section.get("interval", default.interval, &INTERVAL),
    };
    section.finish(|key| super::belongs_elsewhere("retention", key));
    retention
}

/// An age in a range, or none.
struct Age(RangeInclusive<Duration>);

impl Kind for Age {
    type Value = Option<Duration>;

    fn expected(&self) -> String {
        let (from, to) = (show(*self.0.start()), show(*self.0.end()));
        format!("\"{OFF}\", or an age from \"{from}\" to \"{to}\", such as \"30d\" or \"12h\"")
    }

    fn parse(&self, given: &Given<'_>) -> Result<Option<Duration>, Vec<Problem>> {
        let text = given.text();
        if text == Some(OFF) {
            return Ok(None);
        }
        let age = text.and_then(parse).filter(|age| self.0.contains(age));
        age.map(Some).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &Option<Duration>) -> Value {
        Value::String(value.map_or_else(|| OFF.to_owned(), show))
    }
}

/// A day is 24 hours and a week seven days here, whatever a clock on the wall does; months and years have no length.
fn parse(text: &str) -> Option<Duration> {
    let span = SpanParser::new().parse_span(text).ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

fn show(age: Duration) -> String {
    let (days, rest) = (age.as_secs() / DAY.as_secs(), age.as_secs() % DAY.as_secs());
    if days > 0 && rest == 0 && age.subsec_nanos() == 0 { format!("{days}d") } else { show_time(age) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_and_read_back() {
        let hours = Duration::from_hours;
        for (text, age) in [
            ("30d", hours(720)),
            ("1 day", hours(24)),
            ("2w", hours(336)),
            ("1w 1d 12h", hours(204)),
            ("90m", Duration::from_mins(90)),
            ("1.5s", Duration::from_millis(1_500)),
        ] {
            assert_eq!(parse(text), Some(age), "{text}");
            assert_eq!(parse(&show(age)), Some(age), "{}", show(age));
        }
        for text in ["", "30", "d", "1mo", "1y", "1y 30d", "-30d", "30d ago", "9999999999999w"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!([show(hours(720)), show(hours(25))], ["30d", "25h"]);
    }
}
