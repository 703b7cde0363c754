//! From a URL to a connection: names, TCP, TLS, and the pool. What goes wrong here is told apart by type, since it
//! decides whether a call is certain to have had no effect.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::ring;
use tokio::net::TcpStream;
use tower_service::Service;

use super::payload::Payload;

/// How long a connection waits in the pool for the next call. Common servers end an idle connection after 5 s (Node,
/// Apache); a call that meets that end on its way is in doubt, so we are the ones who end it.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// When a connection with several calls on it (HTTP/2) is asked whether it still lives, and how long it has to say so.
/// A call that times out does not end such a connection, so a dead one would fail every later call too.
const PING_EVERY: Duration = Duration::from_secs(10);

pub(super) type Client = legacy::Client<Connector, Payload>;

/// A client with its own pool. It follows no redirect, uses no proxy, and asks for no compression.
pub(super) fn client(call_timeout: Duration) -> Client {
    let mut tcp = HttpConnector::new_with_resolver(Resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    #[expect(
        clippy::expect_used,
        reason = "ring offers the default protocol versions; every webhook test needs it"
    )]
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(Arc::new(ring::default_provider()))
        .expect("ring offers TLS 1.2 and 1.3")
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(Tcp(tcp));
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_EVERY)
        .build(Connector { https, timeout: call_timeout.saturating_mul(2) })
}

/// Why there is no connection. Nothing was sent in any case.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NotConnected {
    /// The name has no address.
    #[error("{0}")]
    Name(String),
    /// No address of the host accepts a connection.
    #[error("{0}")]
    Refused(String),
    /// No TLS session.
    #[error("{0}")]
    Tls(String),
    /// Not in time.
    #[error("not within {0:?}")]
    TooSlow(Duration),
}

/// Makes connections, with or without TLS, and says by type what went wrong.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Tcp>,
    /// The pool goes on connecting in the background where a call got a free connection meanwhile; this bounds it.
    /// Longer than any call waits, whose own deadline decides.
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let limit = self.timeout;
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(Ok(stream)) => Ok(stream),
                // What is not ours comes from the layer above TCP.
                Ok(Err(error)) => Err(match error.downcast::<NotConnected>() {
                    Ok(ours) => *ours,
                    Err(error) => NotConnected::Tls(error.to_string()),
                }),
                Err(_elapsed) => Err(NotConnected::TooSlow(limit)),
            }
        })
    }
}

/// Makes TCP connections.
#[derive(Debug, Clone)]
struct Tcp(HttpConnector<Resolver>);

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            connecting.await.map_err(|error| match find::<NoAddress>(&error) {
                Some(NoAddress(why)) => NotConnected::Name(why.clone()),
                None => NotConnected::Refused(find(&error).map_or_else(|| error.to_string(), plainly)),
            })
        })
    }
}

/// Finds the addresses of a name, by the system's own rules.
#[derive(Debug, Clone)]
struct Resolver;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAddress(String);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let addresses: Vec<_> = found.map_err(|error| NoAddress(error.to_string()))?.collect();
            if addresses.is_empty() {
                return Err(NoAddress("the name has no address".to_owned()));
            }
            Ok(addresses.into_iter())
        })
    }
}

/// The first error of this type in a chain of causes.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn plainly(error: &io::Error) -> String {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        kind @ (AddrNotAvailable | ConnectionRefused | ConnectionReset | HostUnreachable
        | NetworkUnreachable | TimedOut) => kind.to_string(),
        _ => error.to_string(),
    }
}
