//! Who is let in: with tokens, who has one with the scope that the route needs; without, who means this service and is
//! no web page of somebody else's. Routes that need no scope are open to all.
//!
//! Invariant: no handler runs before this has let the request in (tests/it/tokens.rs).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use axum::response::{IntoResponse as _, Response};
use tower_service::Service as _;

use super::problem::{CHALLENGE, Problem, ProblemType};
use super::routes::{self, Known};
use super::{Api, Live};
use crate::access::{Failures, Invalid, Opened, Scope, Token, TooMany};

/// The whole interface: the routes, and the guard before them. Cheap to clone.
#[derive(Clone)]
pub struct Interface {
    router: Router,
    guard: Arc<Guard>,
}

struct Guard {
    api: Arc<Api>,
    known: matchit::Router<Vec<Known>>,
    failures: Failures,
}

/// What a request has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Any: what is not there is told only to those who have a token.
    Token,
    Scope(Scope),
}

impl Interface {
    /// The interface over this recorder and these handlers.
    #[must_use]
    pub fn new(api: Api) -> Self {
        let failures = Failures::new(api.auth_failures);
        let api = Arc::new(api);
        let (router, known) = routes::built(Arc::clone(&api));
        Self { router, guard: Arc::new(Guard { api, known, failures }) }
    }

    /// Answers a request that came from this address, and counts it.
    pub async fn answer<B>(mut self, mut request: Request<B>, peer: IpAddr) -> Response
    where
        B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let begun = Instant::now();
        let guard = Arc::clone(&self.guard);
        let known = guard.known(request.method(), request.uri().path());
        let response = match guard.admit(&request, known, peer) {
            Ok(opened) => {
                if let Some(opened) = opened {
                    request.extensions_mut().insert(opened);
                }
                let Ok(response) = self.router.call(request.map(Body::new)).await;
                response
            }
            Err(problem) => problem.into_response(),
        };
        let number = known.map(|known| known.number);
        guard.api.requests.count(number, response.status().as_u16(), begun.elapsed());
        response
    }

    /// Answers what is no HTTP, or HTTP that others may read differently.
    pub(crate) fn refuse(&self, why: &str) -> Response {
        self.refuse_with(Problem::malformed(why))
    }

    /// Answers a request whose head is over this limit.
    pub(crate) fn refuse_head(&self, bytes_max: usize) -> Response {
        self.refuse_with(Problem::head_too_large(bytes_max))
    }

    fn refuse_with(&self, problem: Problem) -> Response {
        let response = problem.into_response();
        self.guard.api.requests.count(None, response.status().as_u16(), Duration::ZERO);
        response
    }
}

impl Guard {
    /// The token that the request may use; none where there are no tokens, or where the route needs none.
    fn admit<B>(
        &self,
        request: &Request<B>,
        known: Option<&Known>,
        peer: IpAddr,
    ) -> Result<Option<Opened>, Problem> {
        let needs = match known {
            Some(Known { scope: None, .. }) => Needs::Nothing,
            Some(Known { scope: Some(scope), .. }) => Needs::Scope(*scope),
            None => Needs::Token,
        };
        // A probe asks under any name, mostly under an address. Nothing that it is told is worth a page's while.
        if needs == Needs::Nothing {
            return Ok(None);
        }
        let live = self.api.live.load();
        if live.tokens.is_empty() {
            return is_meant(&self.api, request.headers()).map(|()| None);
        }
        let opened = self.opened(&live, request.headers(), peer)?;
        match needs {
            Needs::Scope(scope) if !opened.token.scopes.contains(&scope) => {
                Err(too_narrow(&opened.token, scope))
            }
            Needs::Scope(_) | Needs::Token | Needs::Nothing => Ok(Some(opened)),
        }
    }

    /// The route of a request.
    fn known(&self, method: &Method, path: &str) -> Option<&Known> {
        // The router answers HEAD as it answers GET.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.known.at(path).ok()?.value.iter().find(|known| known.method == *method)
    }

    fn opened(&self, live: &Live, headers: &HeaderMap, peer: IpAddr) -> Result<Opened, Problem> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let secret = match (given.next(), given.next()) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid_header("One Authorization header is allowed."));
            }
            (Some(value), None) => secret(value),
            (None, _) => None,
        };
        let Some(secret) = secret else {
            return Err(Problem::token_required(
                "This needs a token, as the header Authorization: Bearer SECRET.",
            ));
        };
        // A right secret always opens, also where wrong ones came from the same address, which may be that of a proxy.
        // The limit is there to keep the log and the processor free; guesses are hopeless without it.
        let invalid = match live.tokens.opened_by(secret) {
            Ok(opened) => return Ok(opened),
            Err(invalid) => invalid,
        };
        self.failures.count(peer).map_err(|too_many| limited(peer, too_many))?;
        Err(refused(peer, &invalid))
    }
}

fn secret(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

fn refused(peer: IpAddr, invalid: &Invalid) -> Problem {
    let (kind, detail) = match invalid {
        Invalid::Unknown => (ProblemType::InvalidToken, "No token has this secret.".to_owned()),
        Invalid::Expired(token) => {
            (ProblemType::ExpiredToken, format!("The token {} has expired.", token.name))
        }
    };
    tracing::info!(%peer, reason = kind.code(), "a request with a bad token was refused");
    Problem::bad_token(kind, detail)
}

fn too_narrow(token: &Token, scope: Scope) -> Problem {
    let has: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    let detail = format!("This needs the scope {scope}; the token {} has {}.", token.name, has.join(", "));
    let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{scope}\"");
    Problem::new(ProblemType::InsufficientScope, detail).with_challenge(&challenge)
}

fn limited(peer: IpAddr, too_many: TooMany) -> Problem {
    if too_many.is_news {
        tracing::warn!(%peer, "bad tokens come from an address faster than server.auth_failures allows");
    }
    let seconds = u32::try_from(too_many.retry_after.as_secs() + 1).unwrap_or(u32::MAX);
    let detail = format!("Too many requests with bad tokens came from this address; wait {seconds} seconds.");
    Problem::new(ProblemType::TooManyFailures, detail).with_retry_after(seconds)
}

/// Without tokens, refuses what a web page of a stranger can make a browser send: a request to a name that the stranger
/// has pointed to this machine, and one that a page of another host sends.
fn is_meant(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let is_listed = |authority: &[u8]| {
        api.hosts.as_ref().is_some_and(|hosts| {
            let host = host_of(authority);
            host == b"127.0.0.1" || host == b"localhost" || is_of(host, hosts)
        })
    };
    if let Some(host) = host.filter(|host| api.hosts.is_some() && !is_listed(host)) {
        let host = String::from_utf8_lossy(host);
        let detail = format!(
            "Without tokens, {host:?} is not served: use localhost or 127.0.0.1, or name the host in server.hosts."
        );
        return Err(Problem::new(ProblemType::UnknownHost, detail));
    }
    let Some(origin) = headers.get(header::ORIGIN).map(HeaderValue::as_bytes) else { return Ok(()) };
    let authority = origin.windows(3).position(|piece| piece == b"://").and_then(|at| origin.get(at + 3..));
    if authority.is_some_and(|authority| Some(authority) == host || is_listed(authority)) {
        return Ok(());
    }
    let origin = String::from_utf8_lossy(origin);
    let detail = format!("Without tokens, requests from the web page {origin:?} are refused.");
    Err(Problem::new(ProblemType::ForeignOrigin, detail))
}

/// The host of `host:port`, an IPv6 address with its brackets.
fn host_of(authority: &[u8]) -> &[u8] {
    let end = match authority.first() {
        Some(b'[') => authority.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => authority.iter().position(|byte| *byte == b':'),
    };
    end.and_then(|end| authority.get(..end)).unwrap_or(authority)
}

fn is_of(host: &[u8], hosts: &[String]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let ip = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || ip.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        || hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
}
