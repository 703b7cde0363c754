//! What is done to a task after its launch: retry, cancel, revoke, forget; and to a handler: pause, resume.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::caller::Caller;
use super::launch::{OnDuplicate, trace};
use super::openapi::shapes;
use super::params::{Params, Wait};
use super::path::{NamePath, TaskPath};
use super::problem::Problem;
use super::view::{self, StatusView};
use crate::store::Moved;
use crate::task::{HandlerName, Refusal, StateName, Task, TaskId};

pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = api.wait(&uri, &headers)?;
    api.may_move(&caller, &id).await?;
    let launch = api.recorder.retry_in_lane(id.clone(), trace(&headers)).await?;
    api.answer_launch(&caller, &id, launch, wait, OnDuplicate::Fail).await
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = api.wait(&uri, &headers)?;
    api.may_move(&caller, &id).await?;
    let task = match api.recorder.cancel(&id).await? {
        Moved::Done(task) => task,
        // Asked for before: it is on its way.
        Moved::Refused(refused) => match (refused.reason, &refused.task) {
            (Refusal::Canceling, Some(task)) => Arc::clone(task),
            _ => return Err(Problem::refused(&id, &refused)),
        },
    };
    api.answer_move(&caller, StatusCode::ACCEPTED, task, wait).await
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = api.wait(&uri, &headers)?;
    api.may_move(&caller, &id).await?;
    match api.recorder.revoke(&id).await? {
        Moved::Done(task) if task.is_revoking() => {
            api.answer_move(&caller, StatusCode::ACCEPTED, task, wait).await
        }
        Moved::Done(task) => Ok(absent(&task.id, wait)),
        Moved::Refused(refused) => Err(Problem::refused(&id, &refused)),
    }
}

pub(super) async fn forget(
    State(api): State<Arc<Api>>,
    caller: Caller,
    TaskPath(id): TaskPath,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    api.may_move(&caller, &id).await?;
    match api.recorder.forget(&id).await? {
        Moved::Done(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Moved::Refused(refused) => Err(Problem::refused(&id, &refused)),
    }
}

/// An id that is free.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Absent")]
pub(super) struct AbsentView<'a> {
    id: &'a str,
    #[schemars(schema_with = "shapes::not_found")]
    state: &'a str,
}

impl<'a> AbsentView<'a> {
    pub(super) fn new(id: &'a TaskId) -> Self {
        Self { id: id.as_str(), state: StateName::Absent.as_str() }
    }
}

/// The id is free again.
fn absent(id: &TaskId, wait: Wait) -> Response {
    let mut response = view::json(StatusCode::OK, &AbsentView::new(id));
    response.headers_mut().extend(wait.applied());
    response
}

impl Api {
    /// How long a request that takes no other parameter wants to wait.
    pub(super) fn wait(&self, uri: &Uri, headers: &HeaderMap) -> Result<Wait, Problem> {
        Wait::parse(&Params::parse(uri.query(), &["wait"])?, headers, self.wait_max)
    }

    /// The record after a move, once it has come to rest where that is waited for.
    async fn answer_move(
        &self,
        caller: &Caller,
        status: StatusCode,
        task: Arc<Task>,
        wait: Wait,
    ) -> Result<Response, Problem> {
        let id = task.id.clone();
        let (status, task) = match wait.patience {
            None => (status, Some(task)),
            Some(patience) => {
                let task = self.recorder.wait(&id, patience).await?;
                let is_at_rest = |task: &Arc<Task>| !task.is_working() && !task.is_revoking();
                (if task.as_ref().is_none_or(is_at_rest) { StatusCode::OK } else { status }, task)
            }
        };
        let Some(task) = task else { return Ok(absent(&id, wait)) };
        // While this waited, the id may have come to another handler.
        caller.may_see(&task)?;
        Ok(view::of_task(status, &StatusView::new(&task), &task, wait))
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Paused")]
pub(super) struct PausedView<'a> {
    name: &'a str,
    paused: bool,
}

pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NamePath(name): NamePath,
) -> Result<Response, Problem> {
    api.pause(&caller, &name, true).await
}

pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NamePath(name): NamePath,
) -> Result<Response, Problem> {
    api.pause(&caller, &name, false).await
}

impl Api {
    async fn pause(&self, caller: &Caller, name: &str, paused: bool) -> Result<Response, Problem> {
        let is_known = match name.parse::<HandlerName>() {
            Ok(name) => {
                caller.may_steer(&name)?;
                self.recorder.pause(&name, paused).await?
            }
            Err(_) => false,
        };
        if is_known {
            Ok(view::json(StatusCode::OK, &PausedView { name, paused }))
        } else {
            Err(self.unknown_handler(caller, name))
        }
    }
}
