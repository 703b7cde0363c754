//! The kinds of values that only handlers have.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;

use hyper::header::HeaderName;
use toml::Value;

use super::error::{Fault, Problem};
use super::given::Given;
use super::kind::{Kind, List, Text, all};
use crate::handler::MASK;
use crate::handler::template::Template;
use crate::handler::webhook::is_reserved;

/// A program and its arguments.
pub(super) struct Argv;

impl Argv {
    const LIST: List<Text<Template>> = List {
        expected: "the program and its arguments as a list of strings, such as [\"make-report\", \"{id}\"]",
        may_be_empty: false,
        // An argument may be a secret, such as a header of a program that calls somebody.
        of: Text::secret("an argument, with {id}, {run} and {attempt} in it where they are wanted"),
    };
}

impl Kind for Argv {
    type Value = Vec<Template>;

    fn expected(&self) -> String {
        Self::LIST.expected()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>> {
        let items = given.items().ok_or_else(|| given.wrong_secret(self.expected(), None))?;
        let argv = Self::LIST.parse(given)?;
        if let Some(program) = items.first().filter(|item| item.text() == Some("")) {
            return Err(program.wrong("the name or path of a program"));
        }
        match items.iter().find(|item| item.text().is_some_and(|text| text.contains('\0'))) {
            Some(item) => Err(item.wrong_secret("an argument without a NUL character", None)),
            None => Ok(argv),
        }
    }

    fn show(&self, value: &Self::Value) -> Value {
        Self::LIST.show(value)
    }
}

/// Headers of a request: each name and its value, which may be a secret.
pub(super) struct Headers;

impl Kind for Headers {
    type Value = Vec<(HeaderName, Template)>;

    fn expected(&self) -> String {
        "a table of headers, such as { \"X-Shop\" = \"north\" }".to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>> {
        let entries = given.entries().ok_or_else(|| given.wrong_secret(self.expected(), None))?;
        let headers = all(entries.iter().map(|(name, value)| header(name, value)))?;
        for (i, ((name, _), (_, given))) in headers.iter().zip(&entries).enumerate() {
            if headers.iter().take(i).any(|(earlier, _)| earlier == name) {
                return Err(refused(given, "is there twice: upper and lower case mean the same header"));
            }
        }
        Ok(headers)
    }

    fn show(&self, value: &Self::Value) -> Value {
        let masked = |(name, _): &(HeaderName, _)| (name.to_string(), Value::String(MASK.to_owned()));
        Value::Table(value.iter().map(masked).collect())
    }
}

fn header(name: &str, given: &Given<'_>) -> Result<(HeaderName, Template), Vec<Problem>> {
    const VALUE: Text<Template> = Text::secret("a header value: visible ASCII characters and spaces");
    let Ok(name) = name.parse::<HeaderName>() else {
        return Err(refused(given, "has a character in its name that no header has"));
    };
    if is_reserved(&name) {
        return Err(refused(given, "cannot be set: it belongs to the call itself; remove it"));
    }
    let value = VALUE.parse(given)?;
    if value.is_header_value() { Ok((name, value)) } else { Err(given.wrong_secret(VALUE.expected(), None)) }
}

fn refused(given: &Given<'_>, why: &'static str) -> Vec<Problem> {
    vec![Problem { place: given.place(), fault: Fault::Header { key: given.key.clone(), why } }]
}

/// One status, or a range of them.
pub(super) struct Statuses;

impl Statuses {
    /// Several of them.
    pub(super) const LIST: List<Self> = List {
        expected: "a list of statuses and ranges from 200 to 599, such as [\"200-299\", 404]",
        may_be_empty: false,
        of: Self,
    };
    const ALLOWED: RangeInclusive<u16> = 200..=599;
}

impl Kind for Statuses {
    type Value = RangeInclusive<u16>;

    fn expected(&self) -> String {
        "a status from 200 to 599, such as 404, or a range, such as \"200-299\"".to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>> {
        let range = match (given.integer(), given.text().and_then(|text| text.split_once('-'))) {
            (Some(status), _) => u16::try_from(status).ok().map(|status| status..=status),
            (None, Some((from, to))) => from.parse().ok().zip(to.parse().ok()).map(|(from, to)| from..=to),
            (None, None) => None,
        };
        let is_allowed = |range: &RangeInclusive<u16>| {
            !range.is_empty() && Self::ALLOWED.contains(range.start()) && Self::ALLOWED.contains(range.end())
        };
        range.filter(is_allowed).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &Self::Value) -> Value {
        match (value.start(), value.end()) {
            (from, to) if from == to => Value::Integer((*from).into()),
            (from, to) => Value::String(format!("{from}-{to}")),
        }
    }
}

/// The name of an environment variable.
#[derive(Debug, Clone)]
pub(super) struct VariableName(pub(super) String);

/// The path of a folder.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub(super) String);

impl FromStr for VariableName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("it is empty"),
            text if text.contains(['=', '\0']) => Err("it has a character that no name can have"),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl FromStr for Folder {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("it is empty"),
            text if text.contains('\0') => Err("it has a character that no path can have"),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
