//! A task as a row: what people look for in columns, the rest as JSON, input and output as blobs.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, Statement};
use serde::{Deserialize, Serialize};

use crate::task::{Attempt, Digest, Failure, HandlerName, Input, Output, Phase, State, Task, Trace, Undo};

/// How both tables declare what follows their keys. `since` is in microseconds since 1970.
pub(super) const DECLARED: &str = "id TEXT NOT NULL, handler TEXT NOT NULL, run INTEGER NOT NULL, \
    revision INTEGER NOT NULL, revoked INTEGER NOT NULL, state TEXT NOT NULL, since INTEGER NOT NULL, \
    detail TEXT NOT NULL, input BLOB, output BLOB";
/// What a statement reads or writes without the blobs, in the order of [`read`] and [`bind`].
pub(super) const COLUMNS: &str = "entered, id, handler, run, revision, revoked, state, since, detail";
/// How many parameters [`bind`] binds: [`COLUMNS`], `input`, `output`.
pub(super) const BOUND: usize = 11;

#[derive(Serialize, Deserialize)]
struct Detail<'a> {
    input: Cow<'a, Input>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, Output>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Cow<'a, Failure>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    attempts: Cow<'a, [Attempt]>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    keys: Cow<'a, [Digest]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    working: Option<Working>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undo: Option<Cow<'a, Undo>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    notice_due: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    details_dropped: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Working {
    phase: Phase,
    attempt: u32,
}

/// Binds [`COLUMNS`], then `input` (null unless the row is to hold it) and `output`.
pub(super) fn bind(statement: &mut Statement<'_>, task: &Task, has_input: bool) -> rusqlite::Result<()> {
    let detail = Detail {
        input: Cow::Borrowed(&task.input),
        output: task.output().map(Cow::Borrowed),
        failure: task.failure().map(Cow::Borrowed),
        attempts: Cow::Borrowed(&task.attempts),
        keys: Cow::Borrowed(&task.keys),
        working: task.phase().zip(task.attempt()).map(|(phase, attempt)| Working { phase, attempt }),
        undo: match &task.state {
            State::Success { undo: Some(undo), .. } => Some(Cow::Borrowed(undo)),
            _ => None,
        },
        notice_due: task.notice_due,
        details_dropped: task.details_dropped,
        trace: task.trace,
    };
    let detail = serde_json::to_string(&detail)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    statement.raw_bind_parameter(1, task.entered)?;
    statement.raw_bind_parameter(2, task.id.as_str())?;
    statement.raw_bind_parameter(3, task.handler.as_str())?;
    statement.raw_bind_parameter(4, task.run)?;
    statement.raw_bind_parameter(5, task.revision)?;
    statement.raw_bind_parameter(6, task.revoked)?;
    statement.raw_bind_parameter(7, task.state_name().as_str())?;
    statement.raw_bind_parameter(8, task.since.as_microsecond())?;
    statement.raw_bind_parameter(9, detail)?;
    statement.raw_bind_parameter(10, has_input.then(|| task.input.bytes.as_ref()))?;
    statement.raw_bind_parameter(11, task.output().map(|output| output.bytes.as_ref()))?;
    Ok(())
}

/// Reads a task from [`COLUMNS`]; its input and output have no bytes.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Task> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let detail: Detail<'_> = serde_json::from_str(text(8)?).map_err(|error| foreign(8, error))?;
    let output = detail.output.map(Cow::into_owned);
    let state = match (text(6)?, detail.failure, detail.working) {
        ("working", _, Some(Working { phase, attempt })) => State::Working { phase, attempt },
        ("success", _, _) => State::Success { output, undo: detail.undo.map(Cow::into_owned) },
        ("failed", Some(failure), _) => State::Failed { failure: failure.into_owned(), output },
        ("not_found", _, _) => State::Absent,
        (other, _, _) => return Err(foreign(6, format!("{other:?} is not the state of a whole row"))),
    };
    Ok(Task {
        entered: row.get(0)?,
        id: text(1)?.parse().map_err(|error| foreign(1, error))?,
        handler: text(2)?.parse::<HandlerName>().map_err(|error| foreign(2, error))?,
        run: row.get(3)?,
        revision: row.get(4)?,
        revoked: row.get(5)?,
        state,
        since: Timestamp::from_microsecond(row.get(7)?).map_err(|error| foreign(7, error))?,
        input: detail.input.into_owned(),
        attempts: detail.attempts.into_owned(),
        keys: detail.keys.into_owned(),
        notice_due: detail.notice_due,
        details_dropped: detail.details_dropped,
        trace: detail.trace,
    })
}

/// Reads a task from [`COLUMNS`], `input`, `output`. Also tells whether the row holds the input.
pub(super) fn read_whole(row: &Row<'_>) -> rusqlite::Result<(Task, bool)> {
    let mut task = read(row)?;
    let input = blob(row, 9)?;
    let has_input = input.is_some();
    task.input.bytes = input.unwrap_or_default();
    if let State::Success { output: Some(output), .. } | State::Failed { output: Some(output), .. } =
        &mut task.state
    {
        output.bytes = blob(row, 10)?.unwrap_or_default();
    }
    Ok((task, has_input))
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Bytes>> {
    Ok(row.get_ref(column)?.as_blob_or_null()?.map(Bytes::copy_from_slice))
}

pub(super) fn foreign(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}
