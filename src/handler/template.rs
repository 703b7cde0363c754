//! Texts with `{id}`, `{run}` and `{attempt}` in them.
//!
//! Parsed once, when the config is read; rendering cannot fail. `{{` and `}}` stand for single braces.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod url;

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::task::TaskId;

pub use url::UrlTemplate;

/// A text with variables, for one argument of a command or the value of one header.
#[derive(Debug, Clone)]
pub struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

/// Why a text is no template. The message is for the person who wrote it, and does not repeat the whole text, which
/// may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

/// What the variables stand for in one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) id: &'a TaskId,
    pub(super) run: u32,
    pub(super) attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Variable(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Id,
    Run,
    Attempt,
}

impl Template {
    /// The text as it was written, variables and all.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What every attempt renders it to; none where that differs, since it holds a variable.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether everything it can render to may be the value of a header: visible ASCII, spaces and tabs. What the
    /// variables stand for always may.
    #[must_use]
    pub fn is_header_value(&self) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Literal(text) => text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)),
            Piece::Variable(_) => true,
        })
    }

    /// The text for one attempt; borrowed where it holds no variable.
    pub(super) fn render(&self, values: &Values<'_>) -> Cow<'_, str> {
        if let Some(text) = self.constant() {
            return Cow::Borrowed(text);
        }
        let mut rendered = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => rendered.push_str(text),
                Piece::Variable(variable) => variable.push_to(&mut rendered, values),
            }
        }
        Cow::Owned(rendered)
    }
}

impl Variable {
    const NAMES: &str = "{id}, {run} and {attempt}";

    fn named(name: &str) -> Option<Self> {
        match name {
            "id" => Some(Self::Id),
            "run" => Some(Self::Run),
            "attempt" => Some(Self::Attempt),
            _ => None,
        }
    }

    fn push_to(self, rendered: &mut String, values: &Values<'_>) {
        let number = match self {
            Self::Id => return rendered.push_str(values.id.as_str()),
            Self::Run => values.run,
            Self::Attempt => values.attempt,
        };
        push_number(rendered, number);
    }
}

fn push_number(rendered: &mut String, number: u32) {
    // Writing to a `String` does not fail.
    let _ = write!(rendered, "{number}");
}

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        Ok(Self { text: text.into(), pieces: pieces(text)?.into() })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Literal pieces and variables by turns, in order; no literal is empty and no two stand side by side.
fn pieces(text: &str) -> Result<Vec<Piece>, InvalidTemplate> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some(inner) = brace.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or_else(|| unbalanced('{', '}'))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Piece::Variable(Variable::named(name).ok_or_else(|| unknown(name))?));
            rest = after;
        } else {
            return Err(unbalanced('}', '{'));
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces)
}

/// What looks like no name may be a part of the text, such as the inside of an object of JSON.
fn unknown(name: &str) -> InvalidTemplate {
    const SHOWN_MAX: usize = 32;
    let is_like_a_name = |c: char| c.is_ascii_alphanumeric() || " _-{".contains(c);
    let variable = if name.len() <= SHOWN_MAX && name.chars().all(is_like_a_name) {
        format!("unknown variable {{{name}}}")
    } else {
        "between { and } is no variable".to_owned()
    };
    InvalidTemplate(format!("{variable}; known are {} ({{{{ for a brace)", Variable::NAMES))
}

fn unbalanced(found: char, missing: char) -> InvalidTemplate {
    InvalidTemplate(format!(
        "a `{found}` has no `{missing}`; variables are {}, and `{found}{found}` stands for one brace",
        Variable::NAMES
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let id = "order-42".parse().unwrap();
        let values = Values { id: &id, run: 3, attempt: 1 };
        text.parse::<Template>().unwrap().render(&values).into_owned()
    }

    fn error(text: &str) -> String {
        text.parse::<Template>().unwrap_err().to_string()
    }

    #[test]
    fn variables_are_replaced_and_doubled_braces_are_single_ones() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{id}", "order-42"),
            ("--order={id}/{run}.{attempt}!", "--order=order-42/3.1!"),
            ("{{id}}", "{id}"),
            ("{{{id}}}", "{order-42}"),
            ("}}{{", "}{"),
            ("é{run}é", "é3é"),
        ] {
            assert_eq!(rendered(text), expected, "{text}");
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_variable_is_named_beside_the_known_ones() {
        for name in ["name", "", " id", "ID", "id{"] {
            let message = error(&format!("a{{{name}}}b"));
            assert!(message.contains(&format!("unknown variable {{{name}}}")), "{message}");
            assert!(message.contains("{id}, {run} and {attempt}"), "{message}");
        }
    }

    #[test]
    fn an_unbalanced_brace_is_refused() {
        for text in ["{", "}", "{id", "id}", "{id}}", "{{id}"] {
            assert!(error(text).contains(" has no "), "{text}");
        }
    }

    #[test]
    fn header_values_are_told_from_other_texts() {
        let fits = |text: &str| text.parse::<Template>().unwrap().is_header_value();
        assert!(fits("Bearer x{id}\t"));
        assert!(!fits("a\nb"));
        assert!(!fits("\u{7f}"));
        assert!(!fits("é"));
    }

    #[test]
    fn a_text_without_variables_is_not_copied() {
        let id = "a".parse().unwrap();
        let template = "constant".parse::<Template>().unwrap();
        assert_eq!(template.constant(), Some("constant"));
        assert!(matches!(
            template.render(&Values { id: &id, run: 1, attempt: 1 }),
            Cow::Borrowed("constant")
        ));
    }
}
