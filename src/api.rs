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
//! | `POST /admin/reload` | `admin` |
//! | `GET /metrics` | `metrics` |
//! | `GET /openapi.json`, `/docs` | `openapi` |
//! | `GET /stats`, `/handlers`, `/livez`, `/readyz`, `/version` | `service` |
//!
//! `routes` lists all of them; `guard` lets requests in, `caller` knows what their tokens reach.
//!
//! Invariant: every answer that is not 2xx is `application/problem+json`, also for unknown routes and methods.

mod action;
mod admin;
mod batch;
mod body;
mod bulk;
mod caller;
mod events;
mod filter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod launch;
mod list;
mod lookup;
mod metrics;
mod openapi;
mod params;
mod path;
mod problem;
mod record;
mod routes;
mod service;
mod view;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{Method, Uri};

use self::problem::Problem;
use crate::access::Tokens;
use crate::handler::Handlers;
use crate::metrics::Requests;
use crate::recorder::Recorder;
use crate::task::Rate;

pub use admin::{Reload, ReloadError, Reloaded};
pub use body::Bodies;
pub use guard::Interface;
pub use openapi::{Operation, openapi};
pub use problem::ProblemType;
pub use routes::{Route, routes};
pub use view::notice;

/// What the interface answers from.
pub struct Api {
    /// Where launches go.
    pub recorder: Recorder,
    /// What a reload changes.
    pub live: Arc<ArcSwap<Live>>,
    /// The longest that a request may ask to wait.
    pub wait_max: Duration,
    /// What holds for the bodies of requests.
    pub bodies: Arc<Bodies>,
    /// The names under which it is served without tokens, besides those of the loopback; none where it is not known.
    pub hosts: Option<Vec<String>>,
    /// How often each address may fail with a token.
    pub auth_failures: Rate,
    /// Reads the config again.
    pub reload: Reload,
    /// Counts the requests to each of the [`routes`], in their order.
    pub requests: Arc<Requests>,
}

/// The part of the config that can change while the service runs. A request sees one or the other, whole.
#[derive(Debug)]
pub struct Live {
    /// What can be launched.
    pub handlers: Handlers,
    /// Who may do what.
    pub tokens: Tokens,
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
