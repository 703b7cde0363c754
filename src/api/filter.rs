//! Which tasks a request is about: the same words in the query of a list and in the body of a bulk operation.

use super::params::Params;
use super::problem::Problem;
use crate::store::Filter;
use crate::task::{ErrorKind, Reach, StateName, TASK_ID_BYTES_MAX, TaskId};

/// What a filter is made of.
pub(super) const NAMES: [&str; 7] =
    ["state", "handler", "prefix", "error_kind", "in_doubt", "since", "until"];

/// The filter that these parameters make, those of [`NAMES`].
pub(super) fn filter(params: &Params<'_>) -> Result<Filter, Problem> {
    let states = params.all("state").map(state).collect::<Result<_, _>>()?;
    let time = "a time such as 2026-01-31T12:00:00Z (RFC 3339)";
    Ok(Filter {
        states,
        handler: params.parsed("handler", "the name of a handler")?,
        prefix: prefix(params)?,
        error_kind: error_kind(params)?,
        in_doubt: params.parsed("in_doubt", "true or false")?,
        since: params.parsed("since", time)?,
        until: params.parsed("until", time)?,
        reach: Reach::default(),
    })
}

/// A state by our word or by one that is usual elsewhere.
pub(super) fn state(word: &str) -> Result<StateName, Problem> {
    match word {
        "working" | "running" => Ok(StateName::Working),
        "success" | "succeeded" | "completed" => Ok(StateName::Success),
        "failed" | "error" => Ok(StateName::Failed),
        _ => Err(Problem::invalid_parameter(format!(
            "state={word:?} is not a state; there are working, success and failed."
        ))),
    }
}

fn prefix(params: &Params<'_>) -> Result<Option<String>, Problem> {
    let Some(text) = params.one("prefix")?.filter(|text| !text.is_empty()) else { return Ok(None) };
    // With one more character, so that "." may begin an id.
    match format!("{text}x").parse::<TaskId>() {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(_) if text.len() == TASK_ID_BYTES_MAX => Ok(Some(text.to_owned())),
        Err(why) => Err(Problem::invalid_parameter(format!("No id begins with prefix={text:?}: {why}."))),
    }
}

fn error_kind(params: &Params<'_>) -> Result<Option<ErrorKind>, Problem> {
    let Some(word) = params.one("error_kind")? else { return Ok(None) };
    match ErrorKind::ALL.iter().find(|kind| kind.as_str() == word) {
        Some(kind) => Ok(Some(*kind)),
        None => {
            let words: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let known = words.join(", ");
            Err(Problem::invalid_parameter(format!("error_kind={word:?} is unknown; there are {known}.")))
        }
    }
}
