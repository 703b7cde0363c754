//! `/bulk`: one action on every task that a filter finds, in the background.

use std::sync::Arc;

use axum::extract::{self, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Api;
use super::body;
use super::caller::Caller;
use super::filter::{self, filter};
use super::openapi::shapes;
use super::params::Params;
use super::path::NamePath;
use super::problem::{Problem, ProblemType};
use super::view::{self, Time};
use crate::recorder::{Bulk, BulkAction, BulkFailure, BulkState};
use crate::store::Filter;
use crate::task::{ErrorKind, HandlerName, Reach};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BulkRequest", transform = shapes::bulk_request)]
pub(super) struct Wanted {
    #[schemars(schema_with = "shapes::bulk_action")]
    action: BulkAction,
    filter: Option<Map<String, Value>>,
    #[serde(default)]
    dry_run: bool,
    #[schemars(range(min = 1))]
    max: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Matched")]
pub(super) struct MatchedView {
    matched: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Bulk")]
pub(super) struct BulkView<'a> {
    op: u64,
    #[schemars(schema_with = "shapes::bulk_action")]
    action: &'a str,
    filter: FilterView<'a>,
    #[schemars(schema_with = "shapes::bulk_state")]
    state: &'a str,
    matched: u64,
    done: u64,
    skipped: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::bulk_failures")]
    failures: Option<&'a [BulkFailure]>,
    started: Time,
    ended: Option<Time>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BulkFilter")]
struct FilterView<'a> {
    #[schemars(schema_with = "shapes::state")]
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    handler: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shapes::error_kind")]
    error_kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_doubt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BulkList")]
pub(super) struct ListView<'a> {
    operations: Vec<BulkView<'a>>,
}

pub(super) async fn begin(
    State(api): State<Arc<Api>>,
    request: extract::Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = Caller::of(&parts);
    Params::parse(parts.uri.query(), &[])?;
    let Wanted { action, filter, dry_run, max } = body::json(&api.bodies, body).await?;
    caller.may_go_on(&api)?;
    let filter = caller.narrow(wanted_filter(action, &filter.unwrap_or_default())?)?;
    if max == Some(0) {
        return Err(Problem::invalid_parameter("max=0 is no number of tasks; it is 1 or more."));
    }
    let max = max.unwrap_or(u64::MAX);
    if dry_run {
        let matched = api.recorder.match_bulk(action, filter, max).await?;
        return Ok(view::json(StatusCode::OK, &MatchedView { matched }));
    }
    let bulk = api.recorder.begin_bulk(action, filter, max).await?;
    let mut response = view::json(StatusCode::ACCEPTED, &BulkView::whole(&bulk)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/bulk/{}", bulk.number)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A filter that says which of the tasks in the action's state are meant; nobody means all of them by saying nothing.
fn wanted_filter(action: BulkAction, given: &Map<String, Value>) -> Result<Filter, Problem> {
    let filter = filter(&Params::of_json(given, &filter::NAMES)?)?;
    let (word, state) = (action.as_str(), action.state());
    if filter == Filter::default() {
        let detail = format!(
            "A filter is needed that says which tasks are meant; {{\"state\":{:?}}} means all that {word} is for.",
            state.as_str()
        );
        return Err(Problem::new(ProblemType::MissingFilter, detail));
    }
    if let Some(other) = filter.states.iter().find(|named| **named != state) {
        let (other, state) = (other.as_str(), state.as_str());
        return Err(Problem::invalid_parameter(format!(
            "{word} is for tasks that are {state}, not {other}."
        )));
    }
    let is_about_failures = filter.error_kind.is_some() || filter.in_doubt.is_some();
    if is_about_failures && !matches!(action, BulkAction::Retry | BulkAction::Forget) {
        let detail = format!("error_kind and in_doubt are of failed tasks, {word} is for others.");
        return Err(Problem::invalid_parameter(detail));
    }
    Ok(filter)
}

/// Newest first, without the failures.
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    let bulks = api.recorder.bulks();
    let seen = bulks.iter().rev().filter(|bulk| caller.limits().is_none_or(|reach| is_within(bulk, reach)));
    let operations = seen.map(BulkView::short).collect();
    Ok(view::json(StatusCode::OK, &ListView { operations }))
}

pub(super) async fn view(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NamePath(op): NamePath,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    let bulk = api.bulk(&caller, &op)?;
    Ok(view::json(StatusCode::OK, &BulkView::whole(&bulk)))
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NamePath(op): NamePath,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    let Bulk { number, .. } = api.bulk(&caller, &op)?;
    let bulk = api.recorder.cancel_bulk(number).await?.ok_or_else(|| unknown(&op))?;
    if bulk.state == BulkState::Done {
        let detail = format!("The operation {op} is done; there is nothing left to stop.");
        return Err(Problem::new(ProblemType::NotRunning, detail));
    }
    Ok(view::json(StatusCode::ACCEPTED, &BulkView::whole(&bulk)))
}

impl Api {
    /// The operation with this number, if all that it is for is in reach.
    fn bulk(&self, caller: &Caller, op: &str) -> Result<Bulk, Problem> {
        let bulk =
            op.parse().ok().and_then(|number| self.recorder.bulk(number)).ok_or_else(|| unknown(op))?;
        match caller.limits() {
            Some(reach) if !is_within(&bulk, reach) => {
                Err(caller.out_of_reach(&format!("tasks that the operation {op} is for")))
            }
            Some(_) | None => Ok(bulk),
        }
    }
}

fn is_within(bulk: &Bulk, reach: &Reach) -> bool {
    let Filter { handler, prefix, reach: of_beginner, .. } = &bulk.filter;
    of_beginner.narrowed(handler.as_ref(), prefix.as_deref()).is_within(reach)
}

fn unknown(op: &str) -> Problem {
    let op: String = op.chars().take(100).collect();
    let detail = format!("No operation {op:?} is known; GET /bulk lists those that are.");
    Problem::new(ProblemType::UnknownOperation, detail)
}

impl<'a> BulkView<'a> {
    fn whole(bulk: &'a Bulk) -> Self {
        Self { failures: Some(&bulk.failures), ..Self::short(bulk) }
    }

    fn short(bulk: &'a Bulk) -> Self {
        Self {
            op: bulk.number,
            action: bulk.action.as_str(),
            filter: FilterView::new(bulk),
            state: bulk.state.as_str(),
            matched: bulk.matched,
            done: bulk.done,
            skipped: bulk.skipped,
            failed: bulk.failed,
            failures: None,
            started: Time(bulk.started),
            ended: bulk.ended.map(Time),
        }
    }
}

impl<'a> FilterView<'a> {
    fn new(bulk: &'a Bulk) -> Self {
        let filter = &bulk.filter;
        Self {
            state: bulk.action.state().as_str(),
            handler: filter.handler.as_ref().map(HandlerName::as_str),
            prefix: filter.prefix.as_deref(),
            error_kind: filter.error_kind.map(ErrorKind::as_str),
            in_doubt: filter.in_doubt,
            since: filter.since.map(Time),
            until: filter.until.map(Time),
        }
    }
}
