//! What makes the calls of one webhook: over connections of our own, or over those of hyper's client.

use std::error::Error;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{Connector, Tcp};
use super::egress::Egress;
use super::payload::Payload;
use super::pool::{Lent, Pool};
use super::tls::Tls;
use crate::handler::template::UrlTemplate;

/// How long a connection waits in a pool for the next call. Common servers end an idle connection after 5 s (Node,
/// Apache); a call that meets that end on its way is in doubt, so we are the ones who end it.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(4);
/// When a connection with several calls on it (HTTP/2) is asked whether it still lives, and how long it has to say so.
/// A call that times out does not end such a connection, so a dead one would fail every later call too.
const PING_EVERY: Duration = Duration::from_secs(10);

/// Why there is no answer: [`NotConnected`](super::connect::NotConnected), or what went wrong with HTTP, which has a
/// [`hyper::Error`] among its causes.
pub(super) type NoAnswer = Box<dyn Error + Send + Sync>;

/// Makes calls to one receiver, over connections that it keeps. It follows no redirect, uses no proxy, and asks for no
/// compression.
#[derive(Debug)]
pub(super) enum Client {
    /// Over `http`: HTTP/1.1. The call itself does all the work of its connection, which is much cheaper than hyper's
    /// client with its task for each connection.
    Plain(Arc<Pool>),
    /// Over `https`: HTTP/1.1 or 2, as the receiver chooses. One connection of HTTP/2 has many calls on it.
    Secure { root: Uri, client: Box<legacy::Client<Connector, Payload>> },
}

/// The body of an answer. Reading it to its end gives its connection back; dropping it before ends the call.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Incoming,
    /// What has to be kept going while the body is read.
    connection: Option<Lent>,
}

impl Client {
    /// For calls to the host and port of this URL.
    pub(super) fn new(url: &UrlTemplate, call_timeout: Duration, egress: &Egress, tls: &Tls) -> Self {
        let (root, tcp) = (url.root().clone(), Tcp::new(egress, call_timeout));
        if root.scheme() != Some(&Scheme::HTTPS) {
            return Self::Plain(Pool::new(root, tcp, call_timeout));
        }
        // Its pool goes on connecting in the background where a call got a free connection meanwhile; this bounds it.
        // Longer than any call waits, whose own deadline decides.
        let connector = Connector::new(tcp, tls, call_timeout.saturating_mul(2));
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_EVERY)
            .build(connector);
        Self::Secure { root, client: Box::new(client) }
    }

    /// Sends a request, whose URI is path and query alone, and waits for the head of its answer. Dropping the future
    /// ends the call.
    pub(super) async fn send(&self, mut request: Request<Payload>) -> Result<Response<AnswerBody>, NoAnswer> {
        match self {
            Self::Plain(pool) => {
                let (response, connection) = pool.send(request).await?;
                Ok(response.map(|body| AnswerBody { body, connection: Some(connection) }))
            }
            Self::Secure { root, client } => {
                let mut parts = root.clone().into_parts();
                parts.path_and_query = mem::take(request.uri_mut()).into_parts().path_and_query;
                *request.uri_mut() = Uri::from_parts(parts)?;
                let response = client.request(request).await?;
                Ok(response.map(|body| AnswerBody { body, connection: None }))
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        let Some(connection) = &mut self.connection else { return frame };
        if frame.is_pending() {
            connection.poll(cx);
            frame = Pin::new(&mut self.body).poll_frame(cx);
        }
        if let Poll::Ready(None) = frame
            && let Some(connection) = self.connection.take()
        {
            connection.give_back();
        }
        frame
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
