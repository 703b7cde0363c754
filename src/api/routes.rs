//! Every route, with the scope that it needs. The router is built from this list and from nothing else, so that a route
//! without a scope cannot be forgotten.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::openapi::{self, Operation, service as of, tasks};
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
    /// What is told of it.
    pub(super) operation: fn() -> Operation,
    to: MethodRouter<Arc<Api>>,
}

impl Route {
    fn new<H, T>(
        scope: impl Into<Option<Scope>>,
        method: Method,
        path: &'static str,
        operation: fn() -> Operation,
        handler: H,
    ) -> Self
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
        Self { method, path, scope: scope.into(), operation, to }
    }
}

/// Every route there is.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Scope::{Admin, Launch, Operate, Read};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    vec![
        Route::new(None, GET, "/livez", of::livez, service::livez),
        Route::new(None, GET, "/readyz", of::readyz, service::readyz),
        Route::new(None, GET, "/version", of::version, service::version),
        Route::new(None, GET, "/openapi.json", of::openapi, openapi::openapi_json),
        Route::new(None, GET, "/docs", of::docs, openapi::docs),
        Route::new(Read, GET, "/tasks", tasks::list, list::list),
        Route::new(Read, GET, "/tasks/{id}", tasks::record, record::record),
        Route::new(Read, GET, "/tasks/{id}/status", tasks::status, record::status),
        Route::new(Read, GET, "/tasks/{id}/result", tasks::result, record::result),
        Route::new(Read, POST, "/lookup", tasks::lookup, lookup::lookup),
        Route::new(Read, GET, "/events", of::events, events::events),
        Route::new(Read, GET, "/bulk", of::list_bulk, bulk::list),
        Route::new(Read, GET, "/bulk/{op}", of::view_bulk, bulk::view),
        Route::new(Read, GET, "/stats", of::stats, service::stats),
        Route::new(Read, GET, "/handlers", of::handlers, service::handlers),
        Route::new(Read, GET, "/metrics", of::metrics, metrics::metrics),
        Route::new(Launch, POST, "/tasks", tasks::launch_batch, batch::launch),
        Route::new(Launch, POST, "/tasks/{id}", tasks::launch, launch::launch),
        Route::new(Launch, Method::PUT, "/tasks/{id}", tasks::launch_by_put, launch::launch),
        Route::new(Operate, POST, "/tasks/{id}/retry", tasks::retry, action::retry),
        Route::new(Operate, POST, "/tasks/{id}/cancel", tasks::cancel, action::cancel),
        Route::new(Operate, POST, "/tasks/{id}/revoke", tasks::revoke, action::revoke),
        Route::new(Operate, Method::DELETE, "/tasks/{id}", tasks::forget, action::forget),
        Route::new(Operate, POST, "/bulk", of::begin_bulk, bulk::begin),
        Route::new(Operate, POST, "/bulk/{op}/cancel", of::cancel_bulk, bulk::cancel),
        Route::new(Operate, POST, "/handlers/{name}/pause", of::pause, action::pause),
        Route::new(Operate, POST, "/handlers/{name}/resume", of::resume, action::resume),
        Route::new(Admin, POST, "/admin/reload", of::reload, admin::reload),
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
    for (number, Route { method, path, scope, to, .. }) in routes().into_iter().enumerate() {
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
