//! The accept loop: connections in, requests to the interface, a deadline on everything that a client could leave open.
//!
//! It is not `axum::serve`, which gives a client for ever to send a request's head.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Interface;

/// How long the loop pauses after a failed accept, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long open requests may take to end when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The limits of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The most connections at once; further ones wait in the system's queue.
    pub connections_max: usize,
    /// How long a request's head may take to arrive, counted from the end of the request before it.
    pub header_timeout: Duration,
}

/// Serves until `stopping`, then lets open requests end for a moment.
pub async fn serve(
    listener: TcpListener,
    interface: Interface,
    options: ServerOptions,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(options.connections_max));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stopping.cancelled() => break,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly "too many open files": it passes when connections end.
                tracing::warn!(%error, "no connection can be accepted now");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        pause = PAUSE_MIN;
        // A client that cannot be answered at once is answered a little later.
        let _ = stream.set_nodelay(true);
        let interface = interface.clone();
        let service = service_fn(move |request| answer(interface.clone(), request, peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), place))
}

async fn answer(
    interface: Interface,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Response<Body>, std::convert::Infallible> {
    Ok(match ambiguity(&request) {
        Some(why) => interface.refuse(why),
        None => interface.answer(request, peer).await,
    })
}

/// What a proxy in front may read differently than we do (RFC 9112, sections 3.2 and 6.1). hyper lets these pass.
fn ambiguity(request: &Request<Incoming>) -> Option<&'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some("A request has exactly one Host header.");
    }
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    (!codings.all(is_chunked)).then_some("No Transfer-Encoding is understood but chunked.")
}
