//! Connections of HTTP/1.1 to one receiver, without TLS. hyper speaks HTTP; here is who keeps a connection going and
//! what becomes of it between two calls.
//!
//! A connection has two sides: one takes requests, the other, the driver, reads and writes when it is polled. Whoever has
//! the connection has both, and polls the driver himself: the call while it waits for its answer and reads it, and
//! nobody while it is idle.
//!
//! Invariant: an idle connection has nothing left to write and nothing left to read, as far as anybody knows. What its
//! driver finds out when the next request is given to it, an end or bytes that nobody asked for, it finds before it takes
//! the request, which then goes to another connection (tests/it/handlers/pool.rs).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::header::{HOST, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service as _;

use super::client::{NoAnswer, POOL_IDLE};
use super::connect::Tcp;
use super::payload::Payload;

/// The connections to one receiver.
#[derive(Debug)]
pub(super) struct Pool {
    root: Uri,
    host: HeaderValue,
    tcp: Tcp,
    call_timeout: Duration,
    idle: Mutex<Idle>,
}

/// Connections that no call has.
#[derive(Debug, Default)]
struct Idle {
    /// Each with the moment since which it waits, the latest last: that one is used next, so that the others may age.
    connections: VecDeque<(Instant, Box<Connection>)>,
    /// Closes those that have waited for too long; there while there are any.
    sweeper: Option<JoinHandle<()>>,
}

/// A connection that a call has. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Lent {
    connection: Box<Connection>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Connection {
    requests: http1::SendRequest<Payload>,
    /// None once the connection has ended.
    driver: Option<http1::Connection<Socket, Payload>>,
    is_writing: Arc<AtomicBool>,
}

impl Pool {
    pub(super) fn new(root: Uri, tcp: Tcp, call_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { host: host(&root), root, tcp, call_timeout, idle: Mutex::default() })
    }

    /// Sends a request, whose URI is path and query alone, and waits for the head of its answer.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Payload>,
    ) -> Result<(Response<Incoming>, Lent), NoAnswer> {
        request.headers_mut().insert(HOST, self.host.clone());
        while let Some(mut connection) = self.take() {
            match connection.send(request).await {
                Ok(response) => return Ok((response, Lent { connection, pool: Arc::clone(self) })),
                Err(mut error) => match error.take_message() {
                    // It had ended before any of this was written.
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send(request).await.map_err(TrySendError::into_error)?;
        Ok((response, Lent { connection, pool: Arc::clone(self) }))
    }

    async fn connect(&self) -> Result<Box<Connection>, NoAnswer> {
        let stream = self.tcp.clone().call(self.root.clone()).await?;
        let is_writing = Arc::default();
        let socket = Socket { stream, is_writing: Arc::clone(&is_writing) };
        let (requests, driver) = http1::handshake(socket).await?;
        Ok(Box::new(Connection { requests, driver: Some(driver), is_writing }))
    }

    fn take(&self) -> Option<Box<Connection>> {
        let (since, connection) = self.idle().connections.pop_back()?;
        (since.elapsed() < POOL_IDLE).then_some(connection)
    }

    fn give_back(self: &Arc<Self>, mut connection: Box<Connection>) {
        if connection.is_writing() {
            spawn(finish(Arc::downgrade(self), connection, self.call_timeout));
            return;
        }
        // From now on it wakes nobody.
        connection.poll(&mut Context::from_waker(Waker::noop()));
        if !connection.is_idle() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle();
        idle.connections.push_back((now, connection));
        if idle.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            idle.sweeper = Some(spawn(sweep(Arc::downgrade(self), now + POOL_IDLE)));
        }
    }

    /// Closes the connections that have waited for too long. Returns when the next one will have.
    fn close_old(&self) -> Option<Instant> {
        let mut idle = self.idle();
        let old = idle.connections.partition_point(|(since, _)| since.elapsed() >= POOL_IDLE);
        let closed: Vec<_> = idle.connections.drain(..old).collect();
        let next = idle.connections.front().map(|(since, _)| *since + POOL_IDLE);
        if next.is_none() {
            idle.sweeper = None;
        }
        drop(idle);
        drop(closed);
        next
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when no connection is idle, or the pool is gone.
async fn sweep(pool: Weak<Pool>, mut next: Instant) {
    loop {
        sleep_until(next).await;
        match pool.upgrade().and_then(|pool| pool.close_old()) {
            Some(later) => next = later,
            None => return,
        }
    }
}

/// Writes what is left of a request that was answered before it was read: the receiver may still want the rest.
async fn finish(pool: Weak<Pool>, mut connection: Box<Connection>, limit: Duration) {
    let written = poll_fn(|cx| {
        connection.poll(cx);
        if connection.is_writing() { Poll::Pending } else { Poll::Ready(()) }
    });
    if timeout(limit, written).await.is_ok()
        && let Some(pool) = pool.upgrade()
    {
        pool.give_back(connection);
    }
}

#[expect(clippy::disallowed_methods, reason = "what it is used for may end at any moment")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work)
}

impl Lent {
    /// Reads and writes what can be read and written now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.connection.poll(cx);
    }

    /// For the next call, if it is good for one. The answer has been read to its end.
    pub(super) fn give_back(self) {
        self.pool.give_back(self.connection);
    }
}

impl Connection {
    /// An error gives the request back if none of it was written.
    async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Payload>>> {
        let response = self.requests.try_send_request(request);
        // It is the driver that brings it, when it is polled here: nothing else has to wake anybody. So tokio's budget,
        // which holds back what is there and wakes for it later, must not apply.
        let mut response = pin!(unconstrained(response));
        poll_fn(|cx| {
            self.poll(cx);
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // What came of it, an error too, is told to those who wait for the answer or its body: dropped, it tells them.
            self.driver = None;
        }
    }

    /// Whether a part of the last request waits to be written.
    fn is_writing(&self) -> bool {
        self.driver.is_some() && self.is_writing.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.driver.is_some() && self.requests.is_ready()
    }
}

/// The value of the header `Host`.
fn host(root: &Uri) -> HeaderValue {
    let host = root.host().unwrap_or_default();
    let value = match root.port() {
        Some(port) if port.as_u16() != 80 => HeaderValue::try_from(format!("{host}:{port}")),
        _ => HeaderValue::from_str(host),
    };
    #[expect(clippy::expect_used, reason = "the parser of URLs lets no other characters into a host")]
    value.expect("a host is visible ASCII")
}

/// A stream of which it is known whether the last write found no room. hyper takes the next request also when a part of the
/// last one still has to be written, and does not tell.
#[derive(Debug)]
struct Socket {
    stream: TokioIo<TcpStream>,
    is_writing: Arc<AtomicBool>,
}

impl Socket {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.is_writing.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}
