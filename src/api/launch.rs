//! `POST /tasks/{id}`, and `PUT`, which is the same: launch, or say how the id stands.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::time::timeout;

use super::Api;
use super::params::{Params, Wait};
use super::path::TaskPath;
use super::problem::Problem;
use super::view::{self, StatusView};
use crate::handler::Handler;
use crate::recorder::Launch;
use crate::store::Refused;
use crate::task::{Input, Refusal, Start, Task, TaskId};

#[derive(Serialize)]
struct LaunchView<'a> {
    #[serde(flatten)]
    status: StatusView<'a>,
    launched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

pub(super) async fn launch(
    State(api): State<Arc<Api>>,
    TaskPath(id): TaskPath,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let params = Params::parse(parts.uri.query(), &["handler", "wait"])?;
    let wait = Wait::parse(&params, &parts.headers, api.wait_max)?;
    let handler = Arc::clone(api.handler(params.one("handler")?)?);
    let input = input(&parts, body, handler.input_bytes_max, api.body_timeout).await?;

    let start = Start::Launch { handler: handler.name.clone(), input };
    let work = move |task: Arc<Task>| async move { handler.run(&task, 1).await };
    let mut launch = api.recorder.start(id.clone(), start, work).await?;
    if wait.patience.is_some() {
        launch = api.recorder.settled(launch, wait.patience).await?;
    }
    let mut response = answer(&id, &launch)?;
    response.headers_mut().extend(wait.applied());
    Ok(response)
}

impl Api {
    fn handler(&self, name: Option<&str>) -> Result<&Arc<Handler>, Problem> {
        match name {
            Some(name) => self.handlers.get(name).ok_or_else(|| self.unknown_handler(name)),
            None => self.handlers.default_handler().ok_or_else(|| {
                let detail = format!(
                    "No handler is the default, so name one with ?handler=; configured are: {}.",
                    self.handler_names()
                );
                Problem::new(StatusCode::BAD_REQUEST, "handler-required", "A handler has to be named", detail)
            }),
        }
    }

    pub(super) fn unknown_handler(&self, name: &str) -> Problem {
        let detail = format!("No handler is named {name:?}; configured are: {}.", self.handler_names());
        Problem::new(StatusCode::NOT_FOUND, "unknown-handler", "The handler is unknown", detail)
    }

    fn handler_names(&self) -> String {
        self.handlers.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Reads the whole body, within its limits of size and time.
async fn input(parts: &Parts, body: Body, bytes_max: usize, patience: Duration) -> Result<Input, Problem> {
    let media_type = match parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => {
            let detail = "The Content-Type holds bytes outside of visible ASCII.";
            let title = "The Content-Type is not allowed";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-content-type", title, detail));
        }
    };
    // One that says its size is refused before it is sent, where the client waits for that (Expect: 100-continue).
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let collected = timeout(patience, Limited::new(body, bytes_max).collect()).await;
    let bytes: Bytes = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large(bytes_max)),
        Ok(Err(_)) => return Err(Problem::malformed("The body ended before it was complete.")),
        Err(_elapsed) => {
            let detail = format!("The body did not arrive within {} seconds.", patience.as_secs());
            let title = "The body took too long";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", title, detail).closing());
        }
    };
    Ok(Input::new(media_type, bytes))
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("The body has more than the {bytes_max} bytes that this handler takes.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "input-too-large", "The input is too large", detail).closing()
}

fn answer(id: &TaskId, launch: &Launch) -> Result<Response, Problem> {
    let (task, reason) = match launch {
        Launch::Started(task) => (task, None),
        Launch::Refused(Refused { reason, task: Some(task) }) => {
            (task, Some(reason_word(id, *reason, task)?))
        }
        Launch::Refused(Refused { task: None, .. }) => return Err(Problem::not_found(id)),
    };
    let is_accepted = reason.is_none() && task.is_working();
    let status = if is_accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
    let body = LaunchView { status: StatusView::new(task), launched: reason.is_none(), reason };
    let location = HeaderValue::try_from(format!("/tasks/{id}")).ok();
    let headers = location.into_iter().map(|value| (header::LOCATION, value)).chain([view::etag(task)]);
    let mut response = view::json(status, &body).into_response();
    response.headers_mut().extend(headers);
    Ok(response)
}

fn reason_word(id: &TaskId, reason: Refusal, task: &Task) -> Result<&'static str, Problem> {
    match reason {
        Refusal::Working => Ok("working"),
        Refusal::Success => Ok("success"),
        Refusal::HandlerMismatch => {
            let detail = format!(
                "{id} belongs to the handler {}; a task keeps the handler it began with.",
                task.handler
            );
            let title = "The id belongs to another handler";
            Err(Problem::new(StatusCode::CONFLICT, "handler-mismatch", title, detail).with_task(task))
        }
        Refusal::NotFound | Refusal::NotFailed | Refusal::NotSuccess | Refusal::Stale => {
            let detail = format!("{id} was not launched: {reason}.");
            Err(Problem::new(StatusCode::CONFLICT, "not-launched", "Not launched", detail).with_task(task))
        }
    }
}
