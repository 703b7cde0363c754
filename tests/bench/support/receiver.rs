//! What the webhooks of a measured process call: it answers at once, and counts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

/// Connections that wait to be accepted; with too few of them a burst would wait for TCP to try again.
const BACKLOG: u32 = 4096;

/// Lives as long as its runtime.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicU64>,
}

impl Receiver {
    /// Paths that begin with `/gone` are answered with 410, those that begin with `/hold` never, all others with 200.
    pub(crate) fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(BACKLOG).unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), calls: Arc::default() };
        tokio::runtime::Handle::current().spawn(accept(listener, Arc::clone(&receiver.calls)));
        receiver
    }

    /// Calls that came so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns when so many calls have come.
    pub(crate) async fn reached(&self, calls: u64) {
        while self.calls() < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn accept(listener: TcpListener, calls: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let calls = Arc::clone(&calls);
        let service = service_fn(move |request| answer(request, Arc::clone(&calls)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let _ = body.collect().await;
    calls.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    if parts.uri.path().starts_with("/gone") {
        *response.status_mut() = StatusCode::GONE;
    } else if parts.uri.path().starts_with("/hold") {
        std::future::pending::<()>().await;
    }
    Ok(response)
}
