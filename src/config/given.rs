//! One value as it was given, where it stands, and how to complain about it.

use toml::Spanned;
use toml::de::DeValue;

use super::error::{Fault, Place, Problem};
use super::source::SourceFile;

/// One value, and where it was given.
#[derive(Clone)]
pub(super) struct Given<'a> {
    /// The key, with an index or a name for a value inside a list or a table.
    pub(super) key: String,
    pub(super) raw: Raw<'a>,
}

/// A value as its source has it: a variable and a flag know text only.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    File(&'a SourceFile, &'a Spanned<DeValue<'a>>),
    Variable(&'a str, &'a str),
    Flag(&'static str, &'a str),
}

impl<'a> Given<'a> {
    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        match self.raw {
            Raw::File(file, value) => file.place(value.span().start),
            Raw::Variable(name, _) => Place::Variable(name.to_owned()),
            Raw::Flag(name, _) => Place::Flag(name),
        }
    }

    /// It, if it is a text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.raw {
            Raw::File(_, value) => value.get_ref().as_str(),
            Raw::Variable(_, text) | Raw::Flag(_, text) => Some(text),
        }
    }

    /// It, if it is a whole number; in a variable its digits.
    pub(super) fn integer(&self) -> Option<i64> {
        match self.raw {
            Raw::File(_, value) => {
                let integer = value.get_ref().as_integer()?;
                i64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Raw::Variable(_, text) | Raw::Flag(_, text) => text.parse().ok(),
        }
    }

    /// It, if it is a number, whole or not.
    pub(super) fn number(&self) -> Option<f64> {
        match self.raw {
            Raw::File(_, value) => match value.get_ref().as_float() {
                Some(float) => float.as_str().parse().ok(),
                None => self.integer().and_then(|integer| i32::try_from(integer).ok()).map(f64::from),
            },
            Raw::Variable(_, text) | Raw::Flag(_, text) => text.parse().ok(),
        }
    }

    /// It, if it is `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.raw {
            Raw::File(_, value) => value.get_ref().as_bool(),
            Raw::Variable(_, text) | Raw::Flag(_, text) => text.parse().ok(),
        }
    }

    /// Its items, if it is a list.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let Raw::File(file, value) = self.raw else { return None };
        let items = value.get_ref().as_array()?.iter();
        let one = |(i, item)| Given { key: format!("{}[{i}]", self.key), raw: Raw::File(file, item) };
        Some(items.enumerate().map(one).collect())
    }

    /// Its entries in the order of the file, if it is a table: each name, and the value.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Self)>> {
        let Raw::File(file, value) = self.raw else { return None };
        let table = value.get_ref().as_table()?;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let one = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            (name.as_ref(), Given { key: format!("{}.{name}", self.key), raw: Raw::File(file, value) })
        };
        Some(entries.into_iter().map(one).collect())
    }

    /// The problem that this value is not what is expected.
    pub(super) fn wrong(&self, expected: impl Into<String>) -> Vec<Problem> {
        self.problem(self.shown(), expected.into(), None)
    }

    /// The same, with what exactly is wrong.
    pub(super) fn wrong_because(&self, expected: impl Into<String>, why: impl Into<String>) -> Vec<Problem> {
        self.problem(self.shown(), expected.into(), Some(why.into()))
    }

    /// The same for a value that may be a secret: it is not shown.
    pub(super) fn wrong_secret(&self, expected: impl Into<String>, why: Option<String>) -> Vec<Problem> {
        let kind = match self.raw {
            Raw::File(_, value) => value.get_ref().type_str(),
            Raw::Variable(..) | Raw::Flag(..) => "string",
        };
        self.problem(format!("of type {kind} (not shown)"), expected.into(), why)
    }

    fn problem(&self, found: String, expected: String, why: Option<String>) -> Vec<Problem> {
        let fault = Fault::BadValue { key: self.key.clone(), found, expected, why };
        vec![Problem { place: self.place(), fault }]
    }

    /// The value as it was written, on one line and not too long.
    fn shown(&self) -> String {
        const SHOWN_MAX: usize = 60;
        let written = match self.raw {
            Raw::File(_, value) if value.get_ref().is_table() => return "a table".to_owned(),
            Raw::File(file, value) => file.text.get(value.span()).unwrap_or_default().to_owned(),
            Raw::Variable(_, text) | Raw::Flag(_, text) => format!("{text:?}"),
        };
        let short: String =
            written.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if short.len() < written.len() { format!("{short}…") } else { short }
    }
}
