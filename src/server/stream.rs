//! The bytes of a connection: what comes in is looked at, and what goes out has to be taken in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::{Framing, Refusal, Refused};
use super::seats::Seat;

/// A connection as hyper sees it.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
    framing: Framing,
    /// Why the request that comes next is not taken. Then nothing more is read.
    refused: Option<Refusal>,
    seat: Arc<Seat>,
    write_timeout: Duration,
    /// Runs while the client takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(inner: TcpStream, framing: Framing, seat: Arc<Seat>, write_timeout: Duration) -> Self {
        Self { inner, framing, refused: None, seat, write_timeout, patience: None }
    }

    /// The connection itself, and why its last request was not taken, where that is so.
    pub(super) fn into_parts(self) -> (TcpStream, Option<Refusal>) {
        (self.inner, self.refused)
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
            // An answer that is under way ends before; its end is what has this asked again.
            return if self.seat.is_busy() { Poll::Pending } else { Poll::Ready(Err(refused())) };
        }
        let known = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let piece = buffer.filled().get(known..).unwrap_or_default();
        if let Err(Refused { before, why }) = self.framing.follow(piece) {
            self.refused = Some(why);
            buffer.set_filled(known + before);
            if before == 0 {
                return if self.seat.is_busy() { Poll::Pending } else { Poll::Ready(Err(refused())) };
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a request is refused")
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A request that is refused has yet to be answered.
        if self.refused.is_some() {
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
