//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ServerOptions;
use super::framing::{Framing, Refusal};
use super::seats::{Seat, Taken, Told};
use super::stream::Stream;
use crate::api::Interface;

/// The largest buffer of a connection, in bytes. No head is longer.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long a client that was refused may take to read why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Serves a client until it goes, breaks the rules, or has to go.
pub(super) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    interface: Interface,
    options: Arc<ServerOptions>,
    taken: Taken,
) {
    let framing = Framing::new(options.head_bytes_max);
    let seat = Arc::clone(&taken.seat);
    let stream = Stream::new(stream, framing, Arc::clone(&seat), options.write_timeout);
    let service = {
        let interface = interface.clone();
        service_fn(move |request| answer(interface.clone(), request, peer, Arc::clone(&seat)))
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            told = taken.told() => match told {
                Told::Stop => Pin::new(&mut connection).graceful_shutdown(),
                Told::Leave => return,
            },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    if let (stream, Some(refusal)) = connection.into_parts().io.into_inner().into_parts() {
        // Who does not listen has gone.
        let _ = tokio::time::timeout(LAST_WORD, refuse(stream, &interface, refusal)).await;
    }
}

async fn answer(
    interface: Interface,
    request: Request<Incoming>,
    peer: IpAddr,
    seat: Arc<Seat>,
) -> Result<Response<Answer>, Infallible> {
    Ok(interface.answer(request, peer).await.map(|body| Answer { body, seat }))
}

/// The body of an answer, which counts when hyper has taken all of it.
struct Answer {
    body: Body,
    seat: Arc<Seat>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.seat.answered();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Says why the last request is not taken. hyper has no part in it: it has not seen the request.
async fn refuse(mut stream: TcpStream, interface: &Interface, refusal: Refusal) -> std::io::Result<()> {
    let response = match refusal {
        Refusal::Malformed(why) => interface.refuse(why),
        Refusal::HeadTooLarge(bytes_max) => interface.refuse_head(bytes_max),
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", parts.status, body.len()).into_bytes();
    for (name, value) in &parts.headers {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(&body);
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    // What the client still sends is read for a while: closing before it would take the answer away from the client.
    let mut unread = vec![0; BUFFER_BYTES_MAX];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
