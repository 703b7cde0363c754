//! Texts with `{id}`, `{run}` and `{attempt}` in them.

use std::str::FromStr;

/// A text with variables.
#[derive(Debug, Clone)]
pub struct Template(String);

/// A URL with variables behind its host.
#[derive(Debug, Clone)]
pub struct UrlTemplate(String);

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for UrlTemplate {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        Ok(Self(text.to_owned()))
    }
}
