//! Every route, with the scope that it needs. The router is built from this list and from nothing else, so that a route
//! without a scope cannot be forgotten.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::{Api, action, admin, batch, bulk, events, launch, list, lookup, metrics, record, service};
use crate::access::Scope;

/// One method of one path.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{id}`, `{op}` and `{name}` for what varies.
    pub path: &'static str,
    /// What a token has to be good for; none where nobody needs a token.
    pub scope: Option<Scope>,
    to: MethodRouter<Arc<Api>>,
}

impl Route {
    fn new<H, T>(scope: impl Into<Option<Scope>>, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        let to = match method {
            Method::POST => post(handler),
            Method::PUT => put(handler),
            Method::DELETE => delete(handler),
            _ => get(handler),
        };
        Self { method, path, scope: scope.into(), to }
    }
}

/// Every route there is.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Scope::{Admin, Launch, Operate, Read};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    vec![
        Route::new(None, GET, "/livez", service::livez),
        Route::new(None, GET, "/readyz", service::readyz),
        Route::new(None, GET, "/version", service::version),
        Route::new(Read, GET, "/tasks", list::list),
        Route::new(Read, GET, "/tasks/{id}", record::record),
        Route::new(Read, GET, "/tasks/{id}/status", record::status),
        Route::new(Read, GET, "/tasks/{id}/result", record::result),
        Route::new(Read, POST, "/lookup", lookup::lookup),
        Route::new(Read, GET, "/events", events::events),
        Route::new(Read, GET, "/bulk", bulk::list),
        Route::new(Read, GET, "/bulk/{op}", bulk::view),
        Route::new(Read, GET, "/stats", service::stats),
        Route::new(Read, GET, "/handlers", service::handlers),
        Route::new(Read, GET, "/metrics", metrics::metrics),
        Route::new(Launch, POST, "/tasks", batch::launch),
        Route::new(Launch, POST, "/tasks/{id}", launch::launch),
        Route::new(Launch, Method::PUT, "/tasks/{id}", launch::launch),
        Route::new(Operate, POST, "/tasks/{id}/retry", action::retry),
        Route::new(Operate, POST, "/tasks/{id}/cancel", action::cancel),
        Route::new(Operate, POST, "/tasks/{id}/revoke", action::revoke),
        Route::new(Operate, Method::DELETE, "/tasks/{id}", action::forget),
        Route::new(Operate, POST, "/bulk", bulk::begin),
        Route::new(Operate, POST, "/bulk/{op}/cancel", bulk::cancel),
        Route::new(Operate, POST, "/handlers/{name}/pause", action::pause),
        Route::new(Operate, POST, "/handlers/{name}/resume", action::resume),
        Route::new(Admin, POST, "/admin/reload", admin::reload),
    ]
}

/// A route as the guard sees it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) method: Method,
    pub(super) scope: Option<Scope>,
    /// Its place in the list of routes.
    pub(super) number: usize,
}

/// The router, and the routes of each of its paths, found by the same rules.
pub(super) fn built(api: Arc<Api>) -> (Router, matchit::Router<Vec<Known>>) {
    let (mut router, mut by_path) = (Router::new(), Vec::<(&str, Vec<Known>)>::new());
    for (number, Route { method, path, scope, to }) in routes().into_iter().enumerate() {
        router = router.route(path, to);
        let known = Known { method, scope, number };
        match by_path.iter_mut().find(|(other, _)| *other == path) {
            Some((_, of_path)) => of_path.push(known),
            None => by_path.push((path, vec![known])),
        }
    }
    let mut table = matchit::Router::new();
    for (path, of_path) in by_path {
        // The router has taken the same paths.
        if let Err(error) = table.insert(path, of_path) {
            tracing::error!(%error, path, "a path needs any token, because its scope is not found");
        }
    }
    let router = router.fallback(super::unknown_route).method_not_allowed_fallback(super::unknown_method);
    (router.with_state(api), table)
}
