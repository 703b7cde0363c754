//! The kinds of values that keys take: how each is read, what it may be, how it is written back.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};
use toml::Value;

use super::error::Problem;
use super::given::Given;

/// A kind of value.
pub(super) trait Kind {
    /// What it is in the program.
    type Value;
    /// What is allowed, as the end of the sentence "give …".
    fn expected(&self) -> String;
    /// The value, or everything that is wrong with it.
    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>>;
    /// The value as TOML that reads back as the same; masked if it is a secret.
    fn show(&self, value: &Self::Value) -> Value;
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<bool, Vec<Problem>> {
        given.boolean().ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &bool) -> Value {
        Value::Boolean(*value)
    }
}

/// A whole number in a range.
pub(super) struct Whole<T>(pub(super) RangeInclusive<T>);

impl<T: Copy + PartialOrd + Display + TryFrom<i64> + TryInto<i64>> Kind for Whole<T> {
    type Value = T;

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn parse(&self, given: &Given<'_>) -> Result<T, Vec<Problem>> {
        let number = given.integer().and_then(|number| T::try_from(number).ok());
        number.filter(|number| self.0.contains(number)).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &T) -> Value {
        Value::Integer((*value).try_into().unwrap_or(i64::MAX))
    }
}

/// A number in a range, whole or not.
pub(super) struct Number(pub(super) RangeInclusive<f64>);

impl Kind for Number {
    type Value = f64;

    fn expected(&self) -> String {
        format!("a number from {} to {}", self.0.start(), self.0.end())
    }

    fn parse(&self, given: &Given<'_>) -> Result<f64, Vec<Problem>> {
        // No range contains what is not a number.
        given.number().filter(|number| self.0.contains(number)).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &f64) -> Value {
        Value::Float(*value)
    }
}

/// A length of time in a range, such as `"1m30s"`.
pub(super) struct Time(pub(super) RangeInclusive<Duration>);

impl Kind for Time {
    type Value = Duration;

    fn expected(&self) -> String {
        let (from, to) = (show_time(*self.0.start()), show_time(*self.0.end()));
        format!("a time from \"{from}\" to \"{to}\", such as \"30s\" or \"1m30s\"")
    }

    fn parse(&self, given: &Given<'_>) -> Result<Duration, Vec<Problem>> {
        let time = given.text().and_then(|text| SpanParser::new().parse_unsigned_duration(text).ok());
        time.filter(|time| self.0.contains(time)).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &Duration) -> Value {
        Value::String(show_time(*value))
    }
}

pub(super) fn show_time(time: Duration) -> String {
    SpanPrinter::new().spacing(Spacing::None).unsigned_duration_to_string(&time)
}

/// A number of bytes in a range, such as `"64KiB"`.
pub(super) struct Size(pub(super) RangeInclusive<u64>);

impl Kind for Size {
    type Value = u64;

    fn expected(&self) -> String {
        let (from, to) = (show_size(*self.0.start()), show_size(*self.0.end()));
        format!("a size from \"{from}\" to \"{to}\", such as \"64KiB\" or \"1MiB\"")
    }

    fn parse(&self, given: &Given<'_>) -> Result<u64, Vec<Problem>> {
        let size = given.text().and_then(|text| text.parse::<ByteSize>().ok());
        let bytes = size.map(|size| size.as_u64());
        bytes.filter(|bytes| self.0.contains(bytes)).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &u64) -> Value {
        Value::String(show_size(*value))
    }
}

/// Exact, unlike the `Display` of [`ByteSize`], which rounds.
fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes}B"), |(name, size)| format!("{}{name}", bytes / size))
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Clone + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn parse(&self, given: &Given<'_>) -> Result<T, Vec<Problem>> {
        let entry = given.text().and_then(|text| self.0.iter().find(|(word, _)| *word == text));
        entry.map(|(_, value)| value.clone()).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &T) -> Value {
        let word = self.0.iter().find(|(_, other)| other == value).map_or("", |(word, _)| word);
        Value::String(word.to_owned())
    }
}

/// A text that has its own grammar.
pub(super) struct Text<T> {
    expected: &'static str,
    is_secret: bool,
    read: PhantomData<fn() -> T>,
}

impl<T> Text<T> {
    /// A text of this grammar, said as the end of "give …".
    pub(super) const fn new(expected: &'static str) -> Self {
        Self { expected, is_secret: false, read: PhantomData }
    }

    /// The same, never shown in a complaint.
    pub(super) const fn secret(expected: &'static str) -> Self {
        Self { is_secret: true, ..Self::new(expected) }
    }
}

impl<T: FromStr<Err: Display> + Display> Kind for Text<T> {
    type Value = T;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<T, Vec<Problem>> {
        let why = match given.text().map(str::parse) {
            Some(Ok(value)) => return Ok(value),
            // Some parsers draw the place over several lines and say what is wrong in the last.
            Some(Err(error)) => error.to_string().lines().last().map(|line| line.trim().to_owned()),
            None => None,
        };
        Err(match (self.is_secret, why) {
            (true, why) => given.wrong_secret(self.expected, why),
            (false, Some(why)) => given.wrong_because(self.expected, why),
            (false, None) => given.wrong(self.expected),
        })
    }

    fn show(&self, value: &T) -> Value {
        Value::String(value.to_string())
    }
}

/// A list of values of one kind.
pub(super) struct List<K> {
    /// What it is, as the end of "give …".
    pub(super) expected: &'static str,
    /// Whether it may be empty.
    pub(super) may_be_empty: bool,
    /// The kind of its items.
    pub(super) of: K,
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Vec<K::Value>, Vec<Problem>> {
        let items = given.items().filter(|items| self.may_be_empty || !items.is_empty());
        let items = items.ok_or_else(|| given.wrong(self.expected))?;
        all(items.iter().map(|item| self.of.parse(item)))
    }

    fn show(&self, value: &Self::Value) -> Value {
        Value::Array(value.iter().map(|item| self.of.show(item)).collect())
    }
}

/// Every value, or every problem.
pub(super) fn all<T>(results: impl Iterator<Item = Result<T, Vec<Problem>>>) -> Result<Vec<T>, Vec<Problem>> {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}
