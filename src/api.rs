//! The HTTP interface: requests in, recorder calls, answers out. It decides nothing about tasks.
//!
//! | path | module |
//! | --- | --- |
//! | `POST`/`PUT /tasks/{id}` | `launch` |
//! | `GET /tasks/{id}`, `/status`, `/result` | `record` |
//! | `POST /tasks/{id}/retry`, `/cancel`, `/revoke`, `DELETE /tasks/{id}`, `POST /handlers/{name}/pause`, `/resume` | `action` |
//! | `GET /tasks` | `list` |
//! | `POST /tasks` | `batch` |
//! | `POST /lookup` | `lookup` |
//! | `POST /bulk`, `GET /bulk`, `GET /bulk/{op}`, `POST /bulk/{op}/cancel` | `bulk` |
//! | `GET /events` | `events` |
//! | `GET /stats`, `/handlers`, `/livez`, `/readyz`, `/version` | `service` |
//!
//! Invariant: every answer that is not 2xx is `application/problem+json`, also for unknown routes and methods.

mod action;
mod batch;
mod body;
mod bulk;
mod events;
mod filter;
mod launch;
mod list;
mod lookup;
mod params;
mod path;
mod problem;
mod record;
mod service;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};

use crate::handler::Handlers;
use crate::recorder::Recorder;

pub use problem::Problem;
pub use view::notice;

/// What the interface answers from.
#[derive(Clone)]
pub struct Api {
    /// Where launches go.
    pub recorder: Recorder,
    /// What can be launched.
    pub handlers: Arc<Handlers>,
    /// The longest that a request may ask to wait.
    pub wait_max: Duration,
    /// How long a request's body may take to arrive, or a piece of a batch's.
    pub body_timeout: Duration,
}

/// The routes over this recorder and these handlers.
pub fn router(api: Api) -> Router {
    let router = Router::new()
        .route("/tasks", get(list::list).post(batch::launch))
        .route(
            "/tasks/{id}",
            post(launch::launch).put(launch::launch).get(record::record).delete(action::forget),
        )
        .route("/tasks/{id}/status", get(record::status))
        .route("/tasks/{id}/result", get(record::result))
        .route("/tasks/{id}/retry", post(action::retry))
        .route("/tasks/{id}/cancel", post(action::cancel))
        .route("/tasks/{id}/revoke", post(action::revoke))
        .route("/lookup", post(lookup::lookup))
        .route("/bulk", get(bulk::list).post(bulk::begin))
        .route("/bulk/{op}", get(bulk::view))
        .route("/bulk/{op}/cancel", post(bulk::cancel))
        .route("/handlers/{name}/pause", post(action::pause))
        .route("/handlers/{name}/resume", post(action::resume))
        .route("/events", get(events::events))
        .route("/stats", get(service::stats))
        .route("/handlers", get(service::handlers))
        .route("/livez", get(service::livez))
        .route("/readyz", get(service::readyz))
        .route("/version", get(service::version));
    router.fallback(unknown_route).method_not_allowed_fallback(unknown_method).with_state(Arc::new(api))
}

async fn unknown_route(uri: Uri) -> Problem {
    // An id with a slash in it is another path; say so, instead of only "no such path".
    if let Some(rest) = uri.path().strip_prefix("/tasks/") {
        return match path::parse(rest) {
            Err(problem) => problem,
            Ok(_) => Problem::not_found_route(uri.path()),
        };
    }
    Problem::not_found_route(uri.path())
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    Problem::method_not_allowed(&method, uri.path())
}
