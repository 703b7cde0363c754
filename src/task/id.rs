//! The names a caller chooses: the id of a task, the name of a handler.
//!
//! Invariant: an invalid [`TaskId`] or [`HandlerName`] cannot be made; inside the crate nobody checks again.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest task id, in bytes.
pub const TASK_ID_BYTES_MAX: usize = 255;
/// The longest handler name, in bytes.
pub const HANDLER_NAME_BYTES_MAX: usize = 64;

/// The id of a task: 1 to 255 bytes of `A-Z a-z 0-9 _ ~ @ = + , : . -`, not `.` or `..`.
///
/// There is one spelling of each id, so that two spellings cannot run one order twice.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(Arc<str>);

/// The name of a handler: 1 to 64 bytes of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HandlerName(Arc<str>);

/// Why a text is no [`TaskId`] or no [`HandlerName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("it is empty; give 1 to {max} characters")]
    Empty {
        /// How many are allowed.
        max: usize,
    },
    /// More bytes than are allowed.
    #[error("it has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// How many it has.
        len: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("it holds {found:?} at position {at}; allowed are {allowed}")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// Its position, counted in characters from 1.
        at: usize,
        /// The allowed set, for people.
        allowed: &'static str,
    },
    /// `.` or `..`, which clients and proxies take for a folder.
    #[error("`.` and `..` are no ids: clients and proxies take them for folders")]
    Dots,
}

impl TaskId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HandlerName {
    /// The name that stands for tasks launched with a future of the process itself: `future`.
    #[must_use]
    pub fn in_process() -> Self {
        Self(Arc::from("future"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TaskId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check(text, TASK_ID_BYTES_MAX, b"_~@=+,:.-", "A-Z a-z 0-9 _ ~ @ = + , : . -")?;
        if text == "." || text == ".." {
            return Err(InvalidName::Dots);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl FromStr for HandlerName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check(text, HANDLER_NAME_BYTES_MAX, b"_-", "A-Z a-z 0-9 _ -")?;
        Ok(Self(Arc::from(text)))
    }
}

fn check(text: &str, max: usize, marks: &[u8], allowed: &'static str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { max });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { len: text.len(), max });
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || u8::try_from(c).is_ok_and(|b| marks.contains(&b));
    match text.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
        Some((at, found)) => Err(InvalidName::Character { found, at: at + 1, allowed }),
        None => Ok(()),
    }
}

macro_rules! text_like {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}
text_like!(TaskId);
text_like!(HandlerName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_once_and_wholly() {
        for good in ["a", "order-42", "A_~@=+,:.-z", "...", &"x".repeat(255)] {
            assert_eq!(good.parse::<TaskId>().map(|id| id.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("".parse::<TaskId>(), Err(InvalidName::Empty { max: 255 }));
        assert_eq!("x".repeat(256).parse::<TaskId>(), Err(InvalidName::TooLong { len: 256, max: 255 }));
        for dots in [".", ".."] {
            assert_eq!(dots.parse::<TaskId>(), Err(InvalidName::Dots));
        }
        for (text, found, at) in
            [("a/b", '/', 2), ("a b", ' ', 2), ("%2F", '%', 1), ("é", 'é', 1), ("a\0", '\0', 2)]
        {
            match text.parse::<TaskId>() {
                Err(InvalidName::Character { found: f, at: a, .. }) => assert_eq!((f, a), (found, at)),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
