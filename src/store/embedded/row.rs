//! A task as it is stored: what people look for in columns, the rest as JSON, input and output as bytes beside it.
//! A row of the archive has real columns; a change in the journal has the same as a JSON array.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, Statement};
use serde::{Deserialize, Serialize, Serializer};

use crate::task::{Attempt, Digest, Failure, Input, Output, Phase, State, Task, Trace, Undo};

/// How both tables declare what follows their keys. `since` is in microseconds since 1970.
pub(super) const DECLARED: &str = "id TEXT NOT NULL, handler TEXT NOT NULL, run INTEGER NOT NULL, \
    revision INTEGER NOT NULL, revoked INTEGER NOT NULL, state TEXT NOT NULL, since INTEGER NOT NULL, \
    detail TEXT NOT NULL, input BLOB, output BLOB";
/// What a statement reads or writes without the blobs, in the order of [`read`] and [`bind`].
pub(super) const COLUMNS: &str = "entered, id, handler, run, revision, revoked, state, since, detail";

/// What people look for. `since` is in microseconds since 1970. As JSON an array, in this order.
#[derive(Deserialize)]
pub(super) struct Columns<'a> {
    entered: u64,
    id: &'a str,
    handler: &'a str,
    run: u32,
    revision: u64,
    revoked: u32,
    state: &'a str,
    since: i64,
}

/// The rest, but for the bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct Detail<'a> {
    /// None where another record has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<Cow<'a, Input>>,
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

impl<'a> Columns<'a> {
    pub(super) fn of(task: &'a Task) -> Self {
        Self {
            entered: task.entered,
            id: task.id.as_str(),
            handler: task.handler.as_str(),
            run: task.run,
            revision: task.revision,
            revoked: task.revoked,
            state: task.state_name().as_str(),
            since: task.since.as_microsecond(),
        }
    }
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { entered, id, handler, run, revision, revoked, state, since } = self;
        (entered, id, handler, run, revision, revoked, state, since).serialize(serializer)
    }
}

impl<'a> Detail<'a> {
    /// Of a task, with this as its input.
    pub(super) fn of(task: &'a Task, input: Option<&'a Input>) -> Self {
        Self {
            input: input.map(Cow::Borrowed),
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
        }
    }

    pub(super) fn has_input(&self) -> bool {
        self.input.is_some()
    }
}

/// The task; its input and output have no bytes. Without an input in its detail it has an empty one.
pub(super) fn task(columns: &Columns<'_>, detail: Detail<'_>) -> Result<Task, Unreadable> {
    let output = detail.output.map(Cow::into_owned);
    let state = match (columns.state, detail.failure, detail.working) {
        ("working", _, Some(Working { phase, attempt })) => State::Working { phase, attempt },
        ("success", _, _) => State::Success { output, undo: detail.undo.map(Cow::into_owned) },
        ("failed", Some(failure), _) => State::Failed { failure: failure.into_owned(), output },
        ("not_found", _, _) => State::Absent,
        (other, _, _) => return Err(format!("{other:?} is not the state of a whole record").into()),
    };
    Ok(Task {
        id: columns.id.parse()?,
        handler: columns.handler.parse()?,
        run: columns.run,
        revision: columns.revision,
        revoked: columns.revoked,
        entered: columns.entered,
        since: Timestamp::from_microsecond(columns.since)?,
        state,
        input: detail.input.map_or_else(Input::empty, Cow::into_owned),
        attempts: detail.attempts.into_owned(),
        keys: detail.keys.into_owned(),
        notice_due: detail.notice_due,
        details_dropped: detail.details_dropped,
        trace: detail.trace,
    })
}

/// What is wrong with a row.
type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Gives the bytes of its output to a task that has one.
pub(super) fn set_output(task: &mut Task, bytes: Bytes) {
    if let State::Success { output: Some(output), .. } | State::Failed { output: Some(output), .. } =
        &mut task.state
    {
        output.bytes = bytes;
    }
}

/// Binds [`COLUMNS`], then `input` and `output`.
pub(super) fn bind(statement: &mut Statement<'_>, task: &Task) -> rusqlite::Result<()> {
    let detail = serde_json::to_string(&Detail::of(task, Some(&task.input)))
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let columns = Columns::of(task);
    statement.raw_bind_parameter(1, columns.entered)?;
    statement.raw_bind_parameter(2, columns.id)?;
    statement.raw_bind_parameter(3, columns.handler)?;
    statement.raw_bind_parameter(4, columns.run)?;
    statement.raw_bind_parameter(5, columns.revision)?;
    statement.raw_bind_parameter(6, columns.revoked)?;
    statement.raw_bind_parameter(7, columns.state)?;
    statement.raw_bind_parameter(8, columns.since)?;
    statement.raw_bind_parameter(9, detail)?;
    statement.raw_bind_parameter(10, task.input.bytes.as_ref())?;
    statement.raw_bind_parameter(11, task.output().map(|output| output.bytes.as_ref()))?;
    Ok(())
}

/// Reads a task from [`COLUMNS`]; its input and output have no bytes.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Task> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let columns = Columns {
        entered: row.get(0)?,
        id: text(1)?,
        handler: text(2)?,
        run: row.get(3)?,
        revision: row.get(4)?,
        revoked: row.get(5)?,
        state: text(6)?,
        since: row.get(7)?,
    };
    let detail: Detail<'_> = serde_json::from_str(text(8)?).map_err(|error| foreign(8, error))?;
    if !detail.has_input() {
        return Err(foreign(8, "its input is missing"));
    }
    task(&columns, detail).map_err(|error| foreign(8, error))
}

/// Reads a task from [`COLUMNS`], `input`, `output`.
pub(super) fn read_whole(row: &Row<'_>) -> rusqlite::Result<Task> {
    let mut task = read(row)?;
    let blob =
        |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_bytes_or_null()?.unwrap_or_default());
    task.input.bytes = Bytes::copy_from_slice(blob(9)?);
    set_output(&mut task, Bytes::copy_from_slice(blob(10)?));
    Ok(task)
}

pub(super) fn foreign(column: usize, error: impl Into<Unreadable>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}
