//! What is known of one id: its status, its record, its result.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::caller::Caller;
use super::params::Wait;
use super::path::TaskPath;
use super::problem::{Problem, ProblemType};
use super::view::{self, RecordView, StatusView};
use crate::task::{Output, Task, TaskId};

pub(super) async fn status(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (task, wait) = api.look_up(&caller, &id, &uri, &headers).await?;
    Ok(view::of_task(StatusCode::OK, &StatusView::new(&task), &task, wait))
}

pub(super) async fn record(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (task, wait) = api.look_up(&caller, &id, &uri, &headers).await?;
    Ok(view::of_task(StatusCode::OK, &RecordView::new(&task), &task, wait))
}

/// The bytes as the handler gave them. They come from elsewhere, so a browser must not run them as a page of ours.
pub(super) async fn result(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (task, wait) = api.look_up(&caller, &id, &uri, &headers).await?;
    let Some(output) = task.output() else {
        if task.details_dropped {
            let detail = format!("The details of {id} are not kept any more, its result among them.");
            let problem = Problem::new(ProblemType::DetailsDropped, detail);
            return Err(problem.with_task(&task));
        }
        let detail = format!("{id} is {} and has no result.", task.state_name().as_str());
        let problem = Problem::new(ProblemType::NoResult, detail);
        return Err(problem.with_task(&task));
    };
    let safety = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox")),
    ];
    let about = [
        (header::CONTENT_TYPE, media_type(output)),
        (HeaderName::from_static("task-state"), HeaderValue::from_static(task.state_name().as_str())),
        (
            HeaderName::from_static("task-result-truncated"),
            HeaderValue::from_static(if output.truncated { "true" } else { "false" }),
        ),
    ];
    let mut response = output.bytes.clone().into_response();
    let headers = about.into_iter().chain(safety).chain(wait.applied()).chain([view::etag(&task)]);
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

impl Api {
    async fn look_up(
        &self,
        caller: &Caller,
        id: &TaskId,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(Arc<Task>, Wait), Problem> {
        let wait = self.wait(uri, headers)?;
        let found = match wait.patience {
            None => self.recorder.status(id).await?,
            Some(patience) => {
                let found = self.recorder.wait(id, patience).await?;
                caller.may_go_on(self)?;
                found
            }
        };
        let task = found.ok_or_else(|| Problem::not_found(id))?;
        caller.may_see(&task)?;
        Ok((task, wait))
    }
}

fn media_type(output: &Output) -> HeaderValue {
    let declared = output.media_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    declared.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"))
}
