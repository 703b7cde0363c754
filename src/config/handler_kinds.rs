//! The kinds of values that only handlers have.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;

use hyper::header::{HeaderName, HeaderValue};
use toml::Value;

use super::error::Problem;
use super::given::Given;
use super::kind::{Kind, List, Text, Written, all};
use crate::handler::template::Template;

/// What is printed in place of a secret.
const MASK: &str = "***";

/// A program and its arguments.
pub(super) struct Argv;

impl Argv {
    const LIST: List<Text<Written<Template>>> = List {
        expected: "the program and its arguments as a list of strings, such as [\"make-report\", \"{id}\"]",
        may_be_empty: false,
        of: Text::new("an argument, with {id}, {run} and {attempt} in it where they are wanted"),
    };
}

impl Kind for Argv {
    type Value = Vec<Written<Template>>;

    fn expected(&self) -> String {
        Self::LIST.expected()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>> {
        let argv = Self::LIST.parse(given)?;
        let items = given.items().unwrap_or_default();
        if let Some(program) = items.first().filter(|item| item.text() == Some("")) {
            return Err(program.wrong("the name or path of a program"));
        }
        match items.iter().find(|item| item.text().is_some_and(|text| text.contains('\0'))) {
            Some(item) => Err(item.wrong("an argument without a NUL character")),
            None => Ok(argv),
        }
    }

    fn show(&self, value: &Self::Value) -> Value {
        Self::LIST.show(value)
    }
}

/// Headers of a request: each name and its value, which may be a secret.
pub(super) struct Headers;

/// Headers that every call carries already, or that say how it is framed.
const RESERVED: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "task-attempt",
    "task-id",
    "task-run",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

impl Kind for Headers {
    type Value = Vec<(HeaderName, Written<Template>)>;

    fn expected(&self) -> String {
        "a table of headers, such as { \"X-Shop\" = \"north\" }".to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>> {
        let entries = given.entries().ok_or_else(|| given.wrong_secret(self.expected(), None))?;
        let headers = all(entries.iter().map(|(name, value)| header(name, value)))?;
        let names: Vec<&HeaderName> = headers.iter().map(|(name, _)| name).collect();
        let is_repeated = |(i, name)| names.iter().take(i).any(|earlier| *earlier == name);
        let mut pairs = entries.iter().zip(names.iter().copied().enumerate());
        match pairs.find(|(_, at)| is_repeated(*at)) {
            Some(((_, value), _)) => Err(value
                .wrong_secret("each header once", Some("upper and lower case mean the same header".into()))),
            None => Ok(headers),
        }
    }

    fn show(&self, value: &Self::Value) -> Value {
        let masked = |(name, _): &(HeaderName, _)| (name.to_string(), Value::String(MASK.to_owned()));
        Value::Table(value.iter().map(masked).collect())
    }
}

fn header(name: &str, value: &Given<'_>) -> Result<(HeaderName, Written<Template>), Vec<Problem>> {
    const EXPECTED: &str = "a header value: visible ASCII characters and spaces";
    let because = |expected: &str, why: &str| value.wrong_secret(expected, Some(why.to_owned()));
    let Ok(header_name) = name.parse::<HeaderName>() else {
        return Err(because("it under a valid header name", "the name has a character that is not allowed"));
    };
    if RESERVED.contains(&header_name.as_str()) {
        return Err(because("no value for this header", "the service sets it itself"));
    }
    let template = Text::secret(EXPECTED).parse(value)?;
    match value.text().map(HeaderValue::from_str) {
        Some(Ok(_)) => Ok((header_name, template)),
        Some(Err(_)) | None => Err(because(EXPECTED, "it has another character")),
    }
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
