//! The accept loop: connections in, requests to the interface, a deadline on everything that a client could leave open.
//!
//! It is not `axum::serve`, which gives a client for ever to send a request's head.

mod connection;
mod files;
mod framing;
mod seats;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::seats::{Seats, Taken};
use crate::api::Interface;
use crate::pauses::Pauses;

pub use files::connections_allowed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use framing::fuzzing;

/// How long the loop pauses after a failed accept, at first and at most.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(10), Duration::from_secs(1));
/// How long open requests may take to end when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The limits of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The most connections at once. A further one takes the place of one that waits for a request, or waits itself.
    pub connections_max: usize,
    /// How long a request's head may take to arrive, counted from the end of the request before it.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// The largest head of a request, in bytes, at most 65,536.
    pub head_bytes_max: usize,
}

/// Serves until `stopping`, then lets open requests end for a moment.
pub async fn serve(
    listener: TcpListener,
    interface: Interface,
    options: ServerOptions,
    stopping: CancellationToken,
) {
    let seats = Seats::new(options.connections_max);
    let options = Arc::new(options);
    let connections = TaskTracker::new();
    loop {
        let next = next(&listener, &seats);
        let (stream, peer, taken) = tokio::select! {
            accepted = next => accepted,
            () = stopping.cancelled() => break,
        };
        // A client that cannot be answered at once is answered a little later.
        let _ = stream.set_nodelay(true);
        connections.spawn(connection::serve(stream, peer, interface.clone(), Arc::clone(&options), taken));
    }
    drop(listener);
    seats.stop();
    connections.close();
    if tokio::time::timeout(LAST_ANSWERS, connections.wait()).await.is_err() {
        tracing::warn!("some connections were cut off");
    }
}

/// The next connection, once there is a place for it.
async fn next(listener: &TcpListener, seats: &Arc<Seats>) -> (TcpStream, IpAddr, Taken) {
    let mut pauses = PAUSES;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip(), seats.take().await),
            Err(error) => {
                // Mostly "too many open files": it passes when connections end.
                tracing::warn!(%error, "no connection can be accepted now");
                tokio::time::sleep(pauses.take()).await;
            }
        }
    }
}
