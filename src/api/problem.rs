//! Errors as the client sees them: RFC 9457 problem details with a stable type, a plain sentence, and no internals.

mod kind;

use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::kind::ProblemType;

use super::openapi::shapes;
use crate::recorder::{BulkError, LaunchError};
use crate::store::{Refused, StoreError};
use crate::task::{InvalidName, Refusal, StateName, Task, TaskId};

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER: u32 = 1;
/// Which token is wanted, in `WWW-Authenticate`.
pub(super) const CHALLENGE: &str = "Bearer realm=\"task-recorder\"";

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ProblemType,
    status: StatusCode,
    detail: String,
    id: Option<TaskId>,
    state: Option<StateName>,
    /// After how many seconds the same request may succeed.
    retry_after: Option<u32>,
    /// Apart, because it is rare and a problem is passed around by value.
    more: Option<Box<More>>,
    /// Whether the connection cannot be used any further.
    is_closing: bool,
}

/// What few problems have.
#[derive(Debug, Default)]
struct More {
    /// Which token is wanted.
    challenge: Option<HeaderValue>,
    /// Each thing that is wrong, where they are several.
    errors: Vec<String>,
}

/// A problem as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemView<'a> {
    pub(super) r#type: String,
    pub(super) title: &'a str,
    pub(super) status: u16,
    pub(super) detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::any_state")]
    pub(super) state: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) errors: &'a [String],
}

impl Problem {
    /// A problem of this type, with the status that the type has.
    pub(super) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        let (status, detail) = (kind.status(), detail.into());
        let (id, state, retry_after, more) = (None, None, None, None);
        Self { kind, status, detail, id, state, retry_after, more, is_closing: false }
    }

    /// With `WWW-Authenticate`.
    pub(super) fn with_challenge(self, challenge: &str) -> Self {
        let challenge = HeaderValue::from_str(challenge).ok();
        Self { more: Some(Box::new(More { challenge, ..More::default() })), ..self }
    }

    /// With `Retry-After`, in seconds.
    pub(super) fn with_retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn with_errors(self, errors: Vec<String>) -> Self {
        Self { more: Some(Box::new(More { errors, ..More::default() })), ..self }
    }

    pub(super) fn with_task(mut self, task: &Task) -> Self {
        self.id = Some(task.id.clone());
        self.state = Some(task.state_name());
        self
    }

    pub(super) fn with_id(mut self, id: &TaskId) -> Self {
        self.id = Some(id.clone());
        self
    }

    pub(super) fn invalid_id(found: &str, why: &InvalidName) -> Self {
        let found: String = found.chars().take(100).collect();
        let detail = format!("{found:?} is no task id: {why}.");
        Self::new(ProblemType::InvalidId, detail)
    }

    pub(super) fn invalid_parameter(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidParameter, detail)
    }

    pub(super) fn invalid_body(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidBody, detail)
    }

    pub(super) fn invalid_header(detail: &str) -> Self {
        Self::new(ProblemType::InvalidHeader, detail)
    }

    /// A move that is not legal now.
    pub(super) fn refused(id: &TaskId, refused: &Refused) -> Self {
        let Some(task) = &refused.task else {
            return match refused.reason {
                Refusal::Precondition => Self::precondition(format!("{id} is not known.")),
                _ => Self::not_found(id),
            };
        };
        let kind = match refused.reason {
            Refusal::Precondition => {
                return Self::precondition(format!("{id} has the revision {}.", task.revision))
                    .with_task(task);
            }
            Refusal::Working | Refusal::Success | Refusal::SameRequest => ProblemType::Duplicate,
            Refusal::HandlerMismatch => ProblemType::HandlerMismatch,
            Refusal::InputMismatch => ProblemType::InputMismatch,
            Refusal::Revoking => ProblemType::Revoking,
            Refusal::NotWorking | Refusal::Canceling => ProblemType::NotWorking,
            Refusal::NotFailed => ProblemType::NotFailed,
            Refusal::NotSuccess => ProblemType::NotSuccess,
            Refusal::InputDropped => ProblemType::InputDropped,
            Refusal::NotFound | Refusal::Stale | Refusal::DetailsDropped | Refusal::NoticeDue => {
                ProblemType::Conflict
            }
        };
        let detail = match refused.reason {
            Refusal::HandlerMismatch => {
                format!(
                    "{id} belongs to the handler {}; a task keeps the handler it began with.",
                    task.handler
                )
            }
            Refusal::InputDropped => format!(
                "The input of {id} is not kept any more (retention.details); launch {id} again with its input, of \
                 {} bytes.",
                task.input.size
            ),
            reason => format!("{id} is {}: {reason}; nothing was changed.", task.state_name().as_str()),
        };
        Self::new(kind, detail).with_task(task)
    }

    fn precondition(detail: String) -> Self {
        Self::new(ProblemType::PreconditionFailed, detail)
    }

    pub(super) fn not_found(id: &TaskId) -> Self {
        let detail = format!("No task with the id {id} is known.");
        let problem = Self::new(ProblemType::NotFound, detail);
        Self { id: Some(id.clone()), state: Some(StateName::Absent), ..problem }
    }

    pub(super) fn input_too_large(bytes_max: usize) -> Self {
        let detail = format!("The input has more than the {bytes_max} bytes that this handler takes.");
        Self::new(ProblemType::InputTooLarge, detail)
    }

    /// Nothing of a body has come for so long.
    pub(super) fn body_timeout(patience: Duration) -> Self {
        let detail = format!("The body did not arrive within {} seconds.", patience.as_secs_f64());
        Self::new(ProblemType::BodyTimeout, detail)
    }

    pub(super) fn not_found_route(path: &str) -> Self {
        let detail = format!("Nothing is served at {path}.");
        Self::new(ProblemType::UnknownRoute, detail)
    }

    pub(super) fn method_not_allowed(method: &Method, path: &str) -> Self {
        let detail = format!("{path} does not take {method}; the Allow header names what it takes.");
        Self::new(ProblemType::MethodNotAllowed, detail)
    }

    /// 503: the same request may succeed soon.
    pub(super) fn unavailable(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self::new(kind, detail).with_retry_after(RETRY_AFTER)
    }

    /// As many bytes of bodies are arriving as may.
    pub(super) fn no_room() -> Self {
        let detail =
            "More bodies are arriving than there is room for (server.bodies_max); nothing was changed.";
        Self::unavailable(ProblemType::TooManyBodies, detail)
    }

    fn draining() -> Self {
        let detail = "The service is stopping and launches nothing any more; nothing was changed.";
        Self::unavailable(ProblemType::Draining, detail)
    }

    /// A request without a token.
    pub(super) fn token_required(detail: &str) -> Self {
        Self::new(ProblemType::TokenRequired, detail).with_challenge(CHALLENGE)
    }

    /// A token that opens nothing.
    pub(super) fn bad_token(kind: ProblemType, detail: impl Into<String>) -> Self {
        let title = kind.title();
        let challenge = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{title}\"");
        Self::new(kind, detail).with_challenge(&challenge)
    }

    /// The token of a request has expired, or a reload took it away, while the request was answered; or it had none, and
    /// needs one since.
    pub(super) fn token_over(has_token: bool) -> Self {
        if has_token {
            let detail = "The token is not valid any more; nothing was changed.";
            Self::bad_token(ProblemType::InvalidToken, detail)
        } else {
            Self::token_required("This needs a token by now; nothing was changed.")
        }
    }

    /// The connection cannot be used any further.
    pub(super) fn closing(self) -> Self {
        Self { is_closing: true, ..self }
    }

    pub(super) fn head_too_large(bytes_max: usize) -> Self {
        let detail =
            format!("The head of the request has more than {bytes_max} bytes, or more than 100 lines.");
        Self::new(ProblemType::HeadTooLarge, detail).closing()
    }

    /// What is no HTTP, or a request that others may read differently.
    pub(super) fn malformed(detail: &str) -> Self {
        Self::new(ProblemType::MalformedRequest, detail).closing()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = match &error {
            StoreError::Busy => "More launches are under way than the disk can record; nothing was changed.",
            StoreError::Unavailable(_) => "The record cannot be written now; nothing was changed.",
            StoreError::Dead(_) | StoreError::Closed => {
                "The service does not take writes any more and will stop; ask again when it runs."
            }
            StoreError::Unreadable(_) => "The record cannot be read now.",
        };
        match &error {
            StoreError::Unreadable(_) => tracing::warn!(%error, "request answered with 503"),
            // The store has told of it once; a line a refused request would bury that.
            _ => tracing::debug!(%error, "request answered with 503"),
        }
        Self::unavailable(ProblemType::StoreUnavailable, detail)
    }
}

impl From<LaunchError> for Problem {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Store(error) => Self::from(error),
            LaunchError::QueueFull => {
                let detail = "As many tasks wait for this handler as its queue takes; nothing was changed.";
                let problem = Self::new(ProblemType::QueueFull, detail);
                problem.with_retry_after(RETRY_AFTER)
            }
            LaunchError::UnknownHandler => {
                let detail = "The handler of this task is not configured any more; nothing was changed.";
                Self { status: StatusCode::CONFLICT, ..Self::new(ProblemType::UnknownHandler, detail) }
            }
            LaunchError::Draining => Self::draining(),
        }
    }
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Store(error) => Self::from(error),
            BulkError::Draining => Self::draining(),
            BulkError::TooMany => {
                let detail = "As many operations are running as are allowed; nothing was begun.";
                let problem = Self::new(ProblemType::TooManyOperations, detail);
                problem.with_retry_after(RETRY_AFTER)
            }
        }
    }
}

impl Problem {
    /// What it says, in an answer of its own or in a line of a batch.
    pub(super) fn view(&self) -> ProblemView<'_> {
        ProblemView {
            r#type: format!("/problems/{}", self.kind.code()),
            title: self.kind.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            id: self.id.as_ref().map(TaskId::as_str),
            state: self.state.map(StateName::as_str),
            errors: self.more.as_ref().map(|more| more.errors.as_slice()).unwrap_or_default(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings and a number always make JSON.
        let body = serde_json::to_vec(&self.view()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.more.and_then(|more| more.challenge) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.is_closing {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
