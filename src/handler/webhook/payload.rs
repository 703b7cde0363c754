//! The body of a call, which also knows whether the call was given to a connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Whether any of a request may have been sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<AtomicBool>);

/// The input of a task, unchanged and not copied.
///
/// A connection cannot write a request without asking its body first whether there is one, and nothing before the
/// connection asks. So the first question is the moment from which the call may have had an effect; a request that
/// waits for a connection, or comes back from one that had ended, was not asked.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Bytes,
    sent: Sent,
}

impl Sent {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Payload {
    pub(super) fn new(bytes: Bytes, sent: Sent) -> Self {
        Self { bytes, sent }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.sent.set();
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent.set();
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.sent.set();
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
