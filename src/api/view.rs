//! Tasks as JSON, and the headers that go with them.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::openapi::shapes;
use super::params::Wait;
use crate::store::Event;
use crate::task::{Attempt, Code, Failure, Input, Output, Phase, State, StateName, Task, TraceId, Undo};

/// What is true of a task now: `GET /tasks/{id}/status`, and the answer to a launch.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub(super) struct StatusView<'a> {
    id: &'a str,
    #[schemars(schema_with = "shapes::state")]
    state: &'a str,
    handler: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::phase")]
    phase: Option<&'a str>,
    run: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    since: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Time>,
    #[serde(flatten)]
    failure: Option<FailureView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoke_error: Option<FailureView<'a>>,
}

/// A line of a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Listed")]
pub(super) struct ListedView<'a> {
    id: &'a str,
    #[schemars(schema_with = "shapes::state")]
    state: &'a str,
    handler: &'a str,
    run: u32,
    since: Time,
    #[serde(flatten)]
    failure: Option<FailureView<'a>>,
}

/// The whole record: `GET /tasks/{id}`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Record")]
pub(super) struct RecordView<'a> {
    #[serde(flatten)]
    status: StatusView<'a>,
    revision: u64,
    revoked: u32,
    input: InputView<'a>,
    attempts: Vec<AttemptView<'a>>,
    details_dropped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultView<'a>>,
}

/// A change: `GET /events`. It says why it failed by the kind alone; the record has the words.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub(super) struct EventView<'a> {
    id: &'a str,
    #[schemars(schema_with = "shapes::any_state")]
    state: &'a str,
    handler: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::phase")]
    phase: Option<&'a str>,
    run: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    revision: u64,
    since: Time,
    #[serde(flatten)]
    failure: Option<KindView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoke_error: Option<KindView<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventFailure")]
struct KindView<'a> {
    error: OnlyKind<'a>,
    in_doubt: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventError")]
struct OnlyKind<'a> {
    #[schemars(schema_with = "shapes::error_kind")]
    kind: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Failure")]
struct FailureView<'a> {
    error: ErrorView<'a>,
    in_doubt: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
struct ErrorView<'a> {
    #[schemars(schema_with = "shapes::error_kind")]
    kind: &'a str,
    message: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Input")]
struct InputView<'a> {
    media_type: Option<&'a str>,
    size: u64,
    sha256: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Result")]
struct ResultView<'a> {
    media_type: Option<&'a str>,
    size: usize,
    truncated: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
struct AttemptView<'a> {
    run: u32,
    attempt: u32,
    started: Time,
    ended: Time,
    #[schemars(schema_with = "shapes::outcome")]
    outcome: &'a str,
    #[serde(flatten)]
    #[schemars(schema_with = "shapes::code")]
    code: Option<Code>,
    #[serde(flatten)]
    failure: Option<FailureView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
}

/// RFC 3339 in UTC with microseconds.
pub(super) struct Time(pub(super) Timestamp);

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Time")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

impl<'a> StatusView<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
        let next_attempt_at = match task.phase() {
            Some(Phase::BackingOff { next_attempt_at }) => Some(Time(next_attempt_at)),
            _ => None,
        };
        let revoke_error = match &task.state {
            State::Success { undo: Some(Undo::Failed(failure)), .. } => Some(FailureView::new(failure)),
            _ => None,
        };
        Self {
            id: task.id.as_str(),
            state: task.state_name().as_str(),
            handler: task.handler.as_str(),
            phase: task.phase().map(Phase::as_str).or(task.is_revoking().then_some("revoking")),
            run: task.run,
            attempt: task.attempt(),
            since: Time(task.since),
            next_attempt_at,
            failure: task.failure().map(FailureView::new),
            revoke_error,
        }
    }
}

impl<'a> ListedView<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
        Self {
            id: task.id.as_str(),
            state: task.state_name().as_str(),
            handler: task.handler.as_str(),
            run: task.run,
            since: Time(task.since),
            failure: task.failure().map(FailureView::new),
        }
    }
}

impl<'a> EventView<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        let failure = |of| {
            let (kind, in_doubt) = event.failure.filter(|_| event.state == of)?;
            Some(KindView { error: OnlyKind { kind: kind.as_str() }, in_doubt })
        };
        Self {
            id: event.id.as_str(),
            state: event.state.as_str(),
            handler: event.handler.as_str(),
            phase: event.phase.map(Phase::as_str).or(event.is_revoking.then_some("revoking")),
            run: event.run,
            attempt: event.attempt,
            revision: event.revision,
            since: Time(event.since),
            failure: failure(StateName::Failed),
            revoke_error: failure(StateName::Success),
        }
    }
}

impl<'a> RecordView<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
        Self {
            status: StatusView::new(task),
            revision: task.revision,
            revoked: task.revoked,
            input: InputView::new(&task.input),
            attempts: task.attempts.iter().map(AttemptView::new).collect(),
            details_dropped: task.details_dropped,
            trace_id: task.trace_id(),
            result: task.output().map(ResultView::new),
        }
    }
}

impl<'a> FailureView<'a> {
    fn new(failure: &'a Failure) -> Self {
        let error = ErrorView { kind: failure.kind.as_str(), message: &failure.message };
        Self { error, in_doubt: failure.in_doubt }
    }
}

impl<'a> InputView<'a> {
    fn new(input: &'a Input) -> Self {
        Self { media_type: input.media_type.as_deref(), size: input.size, sha256: input.digest.to_string() }
    }
}

impl<'a> ResultView<'a> {
    fn new(output: &'a Output) -> Self {
        Self {
            media_type: output.media_type.as_deref(),
            size: output.bytes.len(),
            truncated: output.truncated,
        }
    }
}

impl<'a> AttemptView<'a> {
    fn new(attempt: &'a Attempt) -> Self {
        let state = if attempt.failure.is_some() { StateName::Failed } else { StateName::Success };
        Self {
            run: attempt.run,
            attempt: attempt.attempt,
            started: Time(attempt.started),
            ended: Time(attempt.ended),
            outcome: state.as_str(),
            code: attempt.code,
            failure: attempt.failure.as_ref().map(FailureView::new),
            answer: attempt.answer.as_deref(),
        }
    }
}

/// The JSON that tells of an outcome: the record as `GET /tasks/{id}` gives it, and `event`.
#[must_use]
pub fn notice(task: &Task) -> Bytes {
    #[derive(Serialize)]
    struct NoticeView<'a> {
        event: &'a str,
        #[serde(flatten)]
        record: RecordView<'a>,
    }
    let view = NoticeView { event: task.state_name().as_str(), record: RecordView::new(task) };
    serde_json::to_vec(&view).map_or_else(
        |error| {
            tracing::error!(%error, "a notice could not be written as JSON");
            Bytes::new()
        },
        Bytes::from,
    )
}

/// `ETag: "<revision>"`.
pub(super) fn etag(task: &Task) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(["\"", &task.revision.to_string(), "\""].concat());
    (header::ETAG, value.unwrap_or_else(|_| HeaderValue::from_static("\"0\"")))
}

/// An answer about a task: with its `ETag`, and with what was made of the wish to wait.
pub(super) fn of_task(status: StatusCode, body: &impl Serialize, task: &Task, wait: Wait) -> Response {
    let mut response = json(status, body);
    response.headers_mut().extend(wait.applied().into_iter().chain([etag(task)]));
    response
}

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
