//! `POST /lookup`: how many ids stand, at once.

use std::sync::Arc;

use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::action::AbsentView;
use super::body;
use super::caller::Caller;
use super::openapi::shapes;
use super::params::Params;
use super::problem::Problem;
use super::view::{self, StatusView};
use crate::task::TaskId;

/// The most ids in one request.
pub(super) const IDS_MAX: usize = 1_000;
/// How many of them are read at once, where they are not in memory.
const READ_AT_ONCE: usize = 64;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LookupRequest")]
pub(super) struct Wanted {
    #[schemars(schema_with = "shapes::looked_up")]
    ids: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Found")]
pub(super) struct FoundView<'a> {
    tasks: Vec<OneView<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "FoundTask")]
enum OneView<'a> {
    Known(StatusView<'a>),
    Unknown(AbsentView<'a>),
}

pub(super) async fn lookup(
    State(api): State<Arc<Api>>,
    request: extract::Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = Caller::of(&parts);
    Params::parse(parts.uri.query(), &[])?;
    let Wanted { ids } = body::json(&api.bodies, body).await?;
    caller.may_go_on(&api)?;
    if ids.len() > IDS_MAX {
        let detail = format!("{} ids are too many at once; at most {IDS_MAX} are looked up.", ids.len());
        return Err(Problem::invalid_body(detail));
    }
    let parsed = |text: &String| text.parse().map_err(|why| Problem::invalid_id(text, &why));
    let ids = ids.iter().map(parsed).collect::<Result<Vec<TaskId>, _>>()?;
    ids.iter().try_for_each(|id| caller.may_name(id))?;

    let reads: Vec<_> = ids.iter().map(|id| api.recorder.status(id)).collect();
    let found: Vec<_> = stream::iter(reads).buffered(READ_AT_ONCE).try_collect().await?;
    found.iter().flatten().try_for_each(|task| caller.may_see(task))?;
    let tasks = ids.iter().zip(&found).map(|(id, task)| match task {
        Some(task) => OneView::Known(StatusView::new(task)),
        None => OneView::Unknown(AbsentView::new(id)),
    });
    Ok(view::json(StatusCode::OK, &FoundView { tasks: tasks.collect() }))
}
