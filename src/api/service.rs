//! What is true of the service as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::caller::Caller;
use super::problem::{Problem, ProblemType};
use super::view::{self, StatusView};
use crate::handler::{Action, Handler, MASK};
use crate::recorder::LaneCounts;
use crate::store::{Health, StateCounts};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Counts")]
struct CountsView {
    working: u64,
    success: u64,
    failed: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Stats")]
pub(super) struct StatsView<'a> {
    tasks: CountsView,
    handlers: BTreeMap<&'a str, CountsView>,
    queued: usize,
    oldest_working: Option<StatusView<'a>>,
    unsettled: u64,
    stale_outcomes: u64,
    panics: u64,
    notices: NoticesView,
    /// None for a store that makes no commits.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreView>,
}

/// The commits of the store since the start, and the changes in them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StoreStats")]
struct StoreView {
    commits: u64,
    changes: u64,
}

/// How many outcomes are still to be told, were told, and were not told in time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NoticeStats")]
struct NoticesView {
    due: u64,
    told: u64,
    given_up: u64,
}

pub(super) async fn stats(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    caller
        .may_do_all("the figures of the whole service; GET /tasks and GET /handlers show what is in reach")?;
    let live = api.live.load();
    let counts = api.recorder.counts();
    let figures = api.recorder.figures();
    let body = StatsView {
        tasks: CountsView::new(counts.total()),
        handlers: counts
            .by_handler
            .iter()
            .map(|(name, one)| (name.as_str(), CountsView::new(*one)))
            .collect(),
        queued: live
            .handlers
            .iter()
            .filter_map(|one| api.recorder.lane_counts(&one.name))
            .map(|lane| lane.queued)
            .sum(),
        oldest_working: counts.oldest_working.as_deref().map(StatusView::new),
        unsettled: figures.unsettled,
        stale_outcomes: figures.stale,
        panics: figures.panics,
        notices: NoticesView {
            due: figures.notices_due,
            told: figures.notices_told,
            given_up: figures.notices_given_up,
        },
        store: api.recorder.store_tally().map(|tally| {
            let changes = tally.changes.observed();
            StoreView { commits: changes.count, changes: changes.sum }
        }),
    };
    Ok(view::json(StatusCode::OK, &body))
}

impl CountsView {
    fn new(counts: StateCounts) -> Self {
        Self { working: counts.working, success: counts.success, failed: counts.failed }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Handlers")]
pub(super) struct HandlersView<'a> {
    handlers: Vec<HandlerView<'a>>,
}

/// A handler as its operator may show it: no values of headers or in queries of URLs, because they may be secrets.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Handler")]
struct HandlerView<'a> {
    name: &'a str,
    default: bool,
    #[serde(flatten)]
    action: ActionView<'a>,
    input_bytes_max: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_success: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_failure: Option<String>,
    paused: bool,
    /// None for those who may not see all of its tasks.
    #[serde(flatten)]
    counts: Option<LaneView>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HandlerCounts")]
struct LaneView {
    running: usize,
    queued: usize,
    backing_off: usize,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schemars(rename = "Action")]
enum ActionView<'a> {
    Webhook { method: &'a str, url: String, headers: BTreeMap<&'a str, &'a str>, timeout_seconds: f64 },
    Command { command: Vec<&'a str>, timeout_seconds: f64 },
}

pub(super) async fn handlers(State(api): State<Arc<Api>>, caller: Caller) -> Response {
    let live = api.live.load();
    let lane = |handler: &Handler| api.recorder.lane_counts(&handler.name).unwrap_or_default();
    let handlers = live
        .handlers
        .iter()
        .filter(|handler| caller.may_use(&handler.name).is_ok())
        .map(|handler| HandlerView {
            name: handler.name.as_str(),
            default: handler.is_default,
            action: ActionView::new(handler),
            input_bytes_max: handler.input_bytes_max,
            on_success: handler.on_success.as_ref().map(|webhook| webhook.settings().url.masked()),
            on_failure: handler.on_failure.as_ref().map(|webhook| webhook.settings().url.masked()),
            paused: lane(handler).is_paused,
            counts: caller.may_steer(&handler.name).is_ok().then(|| LaneView::new(lane(handler))),
        })
        .collect();
    view::json(StatusCode::OK, &HandlersView { handlers })
}

impl LaneView {
    fn new(LaneCounts { running, queued, backing_off, .. }: LaneCounts) -> Self {
        Self { running, queued, backing_off }
    }
}

impl<'a> ActionView<'a> {
    fn new(handler: &'a Handler) -> Self {
        match &handler.action {
            Action::Webhook(webhook) => {
                let settings = webhook.settings();
                Self::Webhook {
                    method: settings.method.as_str(),
                    url: settings.url.masked(),
                    headers: settings.headers.iter().map(|(name, _)| (name.as_str(), MASK)).collect(),
                    timeout_seconds: settings.timeout.as_secs_f64(),
                }
            }
            Action::Command(command) => {
                let settings = command.settings();
                Self::Command {
                    command: settings.argv.iter().map(crate::handler::template::Template::as_str).collect(),
                    timeout_seconds: settings.timeout.as_secs_f64(),
                }
            }
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Live")]
pub(super) struct Live {
    live: bool,
}

/// The process answers.
pub(super) async fn livez() -> Response {
    view::json(StatusCode::OK, &Live { live: true })
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ready")]
pub(super) struct Ready {
    ready: bool,
}

/// The service takes launches.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let reason = match &*api.recorder.health().borrow() {
        _ if api.recorder.is_draining() => "The service is stopping.".to_owned(),
        Health::Writable => return Ok(view::json(StatusCode::OK, &Ready { ready: true })),
        Health::Unavailable(reason) => {
            format!("The store cannot write now ({reason}); it tries again by itself.")
        }
        Health::Dead(reason) => format!("The store has stopped for good ({reason})."),
    };
    Err(Problem::unavailable(ProblemType::NotReady, reason))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Version")]
pub(super) struct Version {
    name: &'static str,
    version: &'static str,
}

pub(super) async fn version() -> Response {
    let version = Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") };
    view::json(StatusCode::OK, &version)
}
