//! `POST /tasks/{id}`, and `PUT`, which is the same: launch, or say how the id stands.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{self, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::action::AbsentView;
use super::body::{self, Bodies};
use super::caller::Caller;
use super::openapi::shapes;
use super::params::{Params, Wait};
use super::path::TaskPath;
use super::problem::{Problem, ProblemType};
use super::view::{self, StatusView};
use crate::handler::Handler;
use crate::recorder::{Launch, LaunchResult};
use crate::store::Refused;
use crate::task::{Digest, Input, Match, Refusal, Request, Task, TaskId, Trace};

/// An input under this size is copied.
const COPIED_BYTES: usize = 64 << 10;
/// The longest `Idempotency-Key`, in bytes.
const KEY_BYTES_MAX: usize = 255;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Launch")]
pub(super) struct LaunchView<'a> {
    #[serde(flatten)]
    status: StatusView<'a>,
    launched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::reason")]
    reason: Option<&'a str>,
}

/// A launch that was waited for, and whose record is gone.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GoneLaunch")]
pub(super) struct GoneView<'a> {
    #[serde(flatten)]
    absent: AbsentView<'a>,
    launched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::reason")]
    reason: Option<&'a str>,
}

pub(super) async fn launch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    request: extract::Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let params = Params::parse(parts.uri.query(), &["handler", "wait", "on_duplicate"])?;
    let wait = Wait::parse(&params, &parts.headers, api.wait_max)?;
    let duplicates = OnDuplicate::parse(&params)?;
    let handler = api.handler(&caller, params.one("handler")?)?;
    let (key, if_match) = (key(&parts.headers)?, if_match(&parts.headers)?);
    let if_unknown = if_none_match(&parts.headers)?;
    let input = input(&parts, body, handler.input_bytes_max, &api.bodies).await?;
    caller.may_go_on(&api)?;

    let trace = trace(&parts.headers);
    let request = Request { key, if_match, if_unknown, trace, ..Request::new(handler.name.clone(), input) };
    let launch = api.recorder.launch_in_lane(id.clone(), request).await?;
    api.answer_launch(&caller, &id, launch, wait, duplicates).await
}

/// What a launch that did not start is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDuplicate {
    /// 200, and how it stands.
    Tell,
    /// 409.
    Fail,
}

impl OnDuplicate {
    fn parse(params: &Params<'_>) -> Result<Self, Problem> {
        match params.one("on_duplicate")? {
            None => Ok(Self::Tell),
            Some("error") => Ok(Self::Fail),
            Some(other) => Err(Problem::invalid_parameter(format!("on_duplicate={other:?} is not error."))),
        }
    }
}

/// `Idempotency-Key`, as a digest: it is only ever compared.
fn key(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(Digest::of(key.as_bytes()))),
        _ => Err(Problem::invalid_header("One Idempotency-Key of 1 to 255 bytes is allowed.")),
    }
}

/// `traceparent`. One that is not valid counts as none, as W3C Trace Context has it.
pub(super) fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut traces = headers.get_all("traceparent").iter();
    let trace = traces.next()?.to_str().ok()?.trim().parse().ok();
    trace.filter(|_| traces.next().is_none())
}

/// `If-Match`: `*`, or the revisions that answers gave as `ETag`.
fn if_match(headers: &HeaderMap) -> Result<Option<Match>, Problem> {
    let mut revisions = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Some(Match::Any));
            }
            let number =
                tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
            let wrong =
                || Problem::invalid_header("If-Match is \"*\", or the ETag of an answer, such as \"3\".");
            revisions.push(number.ok_or_else(wrong)?);
        }
    }
    Ok((!revisions.is_empty()).then_some(Match::Revisions(revisions)))
}

/// `If-None-Match: *`: only if the id is unknown.
fn if_none_match(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(header::IF_NONE_MATCH).map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(b"*") => Ok(true),
        Some(_) => Err(Problem::invalid_header("If-None-Match of a launch is \"*\".")),
    }
}

impl Api {
    /// Waits if that is wanted, and says what a launch came to.
    pub(super) async fn answer_launch(
        &self,
        caller: &Caller,
        id: &TaskId,
        mut launch: Launch,
        wait: Wait,
        duplicates: OnDuplicate,
    ) -> Result<Response, Problem> {
        may_see(caller, &launch)?;
        if let Launch::Refused(refused) = &launch {
            let is_told = duplicates == OnDuplicate::Tell && duplicate_word(refused.reason).is_some();
            if !is_told {
                return Err(Problem::refused(id, refused));
            }
        }
        if wait.patience.is_some() {
            let reason = match &launch {
                Launch::Started(_) => None,
                Launch::Refused(refused) => duplicate_word(refused.reason),
            };
            let Some(now) = self.recorder.settled(launch, wait.patience).await? else {
                return Ok(gone(id, reason, wait));
            };
            launch = now;
            // While this waited, the id may have come to another handler.
            may_see(caller, &launch)?;
        }
        let mut response = answer(id, &launch)?;
        response.headers_mut().extend(wait.applied());
        Ok(response)
    }

    pub(super) fn handler(&self, caller: &Caller, name: Option<&str>) -> Result<Arc<Handler>, Problem> {
        let live = self.live.load();
        let handler = match name {
            Some(name) => {
                if let Ok(name) = name.parse() {
                    caller.may_use(&name)?;
                }
                live.handlers.get(name).ok_or_else(|| {
                    self.recorder.tally().count(LaunchResult::UnknownHandler);
                    self.unknown_handler(caller, name)
                })?
            }
            None => live.handlers.default_handler().ok_or_else(|| {
                let names = caller.names(&live.handlers);
                let detail = format!(
                    "No handler is the default, so name one with ?handler=; configured are: {names}."
                );
                Problem::new(ProblemType::HandlerRequired, detail)
            })?,
        };
        caller.may_use(&handler.name)?;
        Ok(Arc::clone(handler))
    }

    pub(super) fn unknown_handler(&self, caller: &Caller, name: &str) -> Problem {
        let names = caller.names(&self.live.load().handlers);
        let detail = format!("No handler is named {name:?}; configured are: {names}.");
        Problem::new(ProblemType::UnknownHandler, detail)
    }
}

/// Refuses to tell of a task out of reach.
pub(super) fn may_see(caller: &Caller, launch: &Launch) -> Result<(), Problem> {
    match launch {
        Launch::Started(task) | Launch::Refused(Refused { task: Some(task), .. }) => caller.may_see(task),
        Launch::Refused(Refused { task: None, .. }) => Ok(()),
    }
}

/// Reads the whole body, within its limits of size and time.
async fn input(parts: &Parts, body: Body, bytes_max: usize, bodies: &Arc<Bodies>) -> Result<Input, Problem> {
    let media_type = match parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => {
            let detail = "The Content-Type holds bytes outside of visible ASCII.";
            return Err(Problem::new(ProblemType::InvalidContentType, detail));
        }
    };
    let bytes = body::read(bodies, body, bytes_max, Problem::input_too_large).await?;
    // A small body is a slice of the connection's much larger read buffer, and would keep all of it for as long as the
    // record is in memory.
    let bytes = if bytes.len() < COPIED_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
    Ok(Input::new(media_type, bytes))
}

/// It was forgotten or revoked while this waited, so that the id is free again.
fn gone(id: &TaskId, reason: Option<&str>, wait: Wait) -> Response {
    let view = GoneView { absent: AbsentView::new(id), launched: reason.is_none(), reason };
    let mut response = view::json(StatusCode::OK, &view);
    response.headers_mut().extend(wait.applied());
    response
}

fn answer(id: &TaskId, launch: &Launch) -> Result<Response, Problem> {
    let Decided { status, task, view } = Decided::new(id, launch)?;
    let location = HeaderValue::try_from(["/tasks/", id.as_str()].concat()).ok();
    let headers = location.into_iter().map(|value| (header::LOCATION, value)).chain([view::etag(task)]);
    let mut response = view::json(status, &view).into_response();
    response.headers_mut().extend(headers);
    Ok(response)
}

/// What a launch came to, as an answer of its own or a line of a batch tells it.
pub(super) struct Decided<'a> {
    pub(super) status: StatusCode,
    pub(super) view: LaunchView<'a>,
    task: &'a Task,
}

impl<'a> Decided<'a> {
    /// Fails on a refusal that is no duplicate.
    pub(super) fn new(id: &TaskId, launch: &'a Launch) -> Result<Self, Problem> {
        let (task, reason) = match launch {
            Launch::Started(task) => (task, None),
            Launch::Refused(refused @ Refused { reason, task }) => match (task, duplicate_word(*reason)) {
                (Some(task), Some(word)) => (task, Some(word)),
                _ => return Err(Problem::refused(id, refused)),
            },
        };
        let is_accepted = reason.is_none() && task.is_working();
        let status = if is_accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
        let view = LaunchView { status: StatusView::new(task), launched: reason.is_none(), reason };
        Ok(Self { status, view, task })
    }
}

/// Why a launch was not needed, which is no error; none for other refusals.
fn duplicate_word(reason: Refusal) -> Option<&'static str> {
    match reason {
        Refusal::Working => Some("working"),
        Refusal::Success => Some("success"),
        Refusal::SameRequest => Some("same_request"),
        _ => None,
    }
}
