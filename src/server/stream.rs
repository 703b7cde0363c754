//! The bytes of a connection: what comes in is looked at, and what goes out has to be taken in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::{Framing, Refusal, Refused};
use super::seats::Seat;

/// A connection as hyper sees it.
///
/// Invariant: a request that is refused takes nothing from those before it. hyper is told of it, as a failed read, when
/// it has answered them all and every byte of the answers has left its buffer (tests/it/hostile).
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
    framing: Framing,
    /// Why the request that comes next is not taken. Then nothing more is read.
    refused: Option<Refusal>,
    /// Whether hyper knows.
    is_told: bool,
    /// Who waits to be told.
    waiting: Option<Waker>,
    seat: Arc<Seat>,
    /// How many answers have gone out to their last byte.
    sent: u64,
    write_timeout: Duration,
    /// Runs while the client takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(inner: TcpStream, framing: Framing, seat: Arc<Seat>, write_timeout: Duration) -> Self {
        Self {
            inner,
            framing,
            refused: None,
            is_told: false,
            waiting: None,
            seat,
            sent: 0,
            write_timeout,
            patience: None,
        }
    }

    /// The connection itself, and why its last request was not taken, where that has ended it.
    pub(super) fn into_parts(self) -> (TcpStream, Option<Refusal>) {
        (self.inner, self.refused.filter(|_| self.is_told))
    }

    /// Whether every request so far has its answer.
    fn is_idle(&self) -> bool {
        self.sent == self.framing.requests()
    }

    /// Tells hyper that a request is refused, once those before it are answered.
    fn refuse(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_idle() {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.is_told = true;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a request is refused")))
    }

    /// Gives up a client that has taken nothing for too long.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.patience.is_some() {
                self.patience = None;
            }
            return written;
        }
        let write_timeout = self.write_timeout;
        let patience =
            self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(write_timeout))).as_mut();
        if patience.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // The system would keep what is unsent for minutes, for a client that is not there.
        let _ = self.inner.set_zero_linger();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            return self.refuse(cx);
        }
        let known = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let piece = buffer.filled().get(known..).unwrap_or_default();
        let followed = self.framing.follow(piece);
        if !self.is_idle() {
            self.seat.busy();
        }
        if let Err(Refused { before, why }) = followed {
            self.refused = Some(why);
            buffer.set_filled(known + before);
            if before == 0 {
                return self.refuse(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper asks when its buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answered = self.seat.answers();
        if self.sent != answered {
            self.sent = answered;
            if self.is_idle() {
                self.seat.idle();
                self.waiting.take().into_iter().for_each(Waker::wake);
            }
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A request that is refused has yet to be answered.
        if self.is_told {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::super::seats::Seats;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_take_nothing_for_the_write_timeout_and_no_tick_longer() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let (write_timeout, taken) = (Duration::from_mins(2), Seats::new(1).take().await);
        let mut stream = Stream::new(near, Framing::new(1_000), Arc::clone(&taken.seat), write_timeout);
        let mut last = Instant::now();
        let error = loop {
            match stream.write(&vec![0; 65_536]).await {
                Ok(_) => last = Instant::now(),
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), last.elapsed()), (io::ErrorKind::TimedOut, write_timeout));
        drop(far);
    }
}
