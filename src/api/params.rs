//! Query parameters, checked: an unknown one is an error, because a misspelt filter would match everything.

use std::borrow::Cow;
use std::slice;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::problem::Problem;

/// The parameters of one request.
pub(super) struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Params<'a> {
    /// Fails on a name that is not among the `known` ones.
    pub(super) fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        Self::of(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect(), known)
    }

    /// From the members of a JSON object, as if they were in a query; a list gives a state several times, a null gives
    /// nothing. Fails on what is no text where one belongs.
    pub(super) fn of_json(object: &'a Map<String, Value>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for (name, value) in object {
            let values = match value {
                Value::Null => continue,
                Value::Array(values) if name == "state" => values.as_slice(),
                value => slice::from_ref(value),
            };
            for value in values {
                let text = match value {
                    Value::String(text) => Cow::Borrowed(text.as_str()),
                    // Its JSON might be a name.
                    other if name == "handler" || name == "prefix" => {
                        return Err(Problem::invalid_parameter(format!("{name}={other} is not a text.")));
                    }
                    other => Cow::Owned(other.to_string()),
                };
                pairs.push((Cow::Borrowed(name.as_str()), text));
            }
        }
        Self::of(pairs, known)
    }

    fn of(pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>, known: &[&str]) -> Result<Self, Problem> {
        match pairs.iter().find(|(name, _)| !known.contains(&name.as_ref())) {
            None => Ok(Self { pairs }),
            Some((name, _)) => {
                let close = known
                    .iter()
                    .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
                let hint = match close {
                    Some(close) if strsim::jaro_winkler(close, name) > 0.8 => {
                        format!("; did you mean {close:?}?")
                    }
                    _ if known.is_empty() => "; none is known here.".to_owned(),
                    _ => format!("; known are {}.", known.join(", ")),
                };
                Err(Problem::invalid_parameter(format!("The parameter {name:?} is unknown{hint}")))
            }
        }
    }

    /// Every value of a parameter.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The value of a parameter that may be given once.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => {
                Err(Problem::invalid_parameter(format!("The parameter {name:?} is given twice.")))
            }
        }
    }

    /// The value of a parameter, parsed; `shape` says what it has to look like.
    pub(super) fn parsed<T: FromStr>(&self, name: &'static str, shape: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let wrong = |_| Problem::invalid_parameter(format!("{name}={value:?} is not {shape}."));
        value.parse().map(Some).map_err(wrong)
    }
}

/// How long a request wants to wait, and how it said so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wait {
    pub(super) patience: Option<Duration>,
    is_preference: bool,
}

impl Wait {
    /// From `?wait=30s` or `?wait=30`, which has to be within the limit, or from `Prefer: wait=30` (RFC 7240), which
    /// is shortened to the limit.
    pub(super) fn parse(params: &Params<'_>, headers: &HeaderMap, max: Duration) -> Result<Self, Problem> {
        if let Some(text) = params.one("wait")? {
            let patience = duration(text).filter(|patience| *patience <= max);
            return match patience {
                Some(patience) => Ok(Self { patience: Some(patience), is_preference: false }),
                None => Err(Problem::invalid_parameter(format!(
                    "wait={text:?} is not a time of at most {} seconds, such as 30 or 30s.",
                    max.as_secs()
                ))),
            };
        }
        let preferred = headers.get_all("prefer").iter().find_map(preferred_wait);
        let patience = preferred.map(|seconds| Duration::from_secs(seconds).min(max));
        Ok(Self { patience, is_preference: true })
    }

    /// Tells a client that its preference was followed, and how far.
    pub(super) fn applied(self) -> Option<(HeaderName, HeaderValue)> {
        let patience = self.patience.filter(|_| self.is_preference)?;
        let value = HeaderValue::try_from(format!("wait={}", patience.as_secs())).ok()?;
        Some((HeaderName::from_static("preference-applied"), value))
    }
}

fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok())
}

fn preferred_wait(header: &HeaderValue) -> Option<u64> {
    header.to_str().ok()?.split([',', ';']).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        if is_wait { value.trim().trim_matches('"').parse().ok() } else { None }
    })
}
