//! The lines of a body, read as they come. At most one of them is held, with what came in the same piece.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::timeout;

use crate::api::body::{Bodies, Share};
use crate::api::problem::Problem;

/// A line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// Counted from 1, blank lines too.
    pub(super) number: u64,
    pub(super) read: Read,
}

/// What was read of a line.
#[derive(Debug)]
pub(super) enum Read {
    /// All of it.
    Whole(Bytes),
    /// It was longer, and was skipped.
    TooLong { bytes_max: usize },
    /// Nothing came for so long; this is the last line.
    Stalled(Duration),
    /// Too much arrives at once; this is the last line.
    NoRoom(Problem),
    /// The body ended before its end; this is the last line.
    BrokenOff,
}

/// Each line of the body, in order.
pub(super) fn read(
    body: Body,
    bytes_max: usize,
    bodies: &Arc<Bodies>,
) -> impl Stream<Item = Line> + Send + use<> {
    let data = body.into_data_stream();
    let reader = Reader {
        data,
        patience: bodies.patience(),
        share: bodies.share(),
        bytes_max,
        buffer: BytesMut::new(),
        looked_at: 0,
        number: 0,
        is_skipping: false,
    };
    stream::unfold(Some(reader), |reader| async move { reader?.next().await })
}

struct Reader {
    data: BodyDataStream,
    /// How long nothing may come.
    patience: Duration,
    share: Share,
    bytes_max: usize,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no end of a line.
    looked_at: usize,
    /// Of the last line that was begun.
    number: u64,
    /// Whether the line that began before the buffer is too long.
    is_skipping: bool,
}

impl Reader {
    /// The next line, and the reader unless that was the last one.
    async fn next(mut self) -> Option<(Line, Option<Self>)> {
        loop {
            if let Some(text) = self.line_in_buffer() {
                match self.line(text) {
                    Some(line) => return Some((line, Some(self))),
                    None => continue,
                }
            }
            let last = match timeout(self.patience, self.data.next()).await {
                Ok(Some(Ok(piece))) => {
                    self.buffer.extend_from_slice(&piece);
                    match self.share.resize(self.buffer.len()) {
                        Ok(()) => continue,
                        Err(problem) => Read::NoRoom(problem),
                    }
                }
                Ok(Some(Err(_))) => Read::BrokenOff,
                Err(_elapsed) => Read::Stalled(self.patience),
                Ok(None) => {
                    // The last line may lack its end.
                    let text = self.buffer.split().freeze();
                    return self.line(text).map(|line| (line, None));
                }
            };
            return Some((Line { number: self.number + 1, read: last }, None));
        }
    }

    /// Takes a whole line out of the buffer, with its end.
    fn line_in_buffer(&mut self) -> Option<Bytes> {
        let unseen = self.buffer.get(self.looked_at..).unwrap_or_default();
        if let Some(end) = unseen.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.looked_at + end + 1);
            self.looked_at = 0;
            return Some(line.freeze());
        }
        if self.buffer.len() > self.bytes_max {
            self.is_skipping = true;
            self.buffer.clear();
        }
        self.looked_at = self.buffer.len();
        None
    }

    /// Counts a line; none where it is blank.
    fn line(&mut self, text: Bytes) -> Option<Line> {
        self.number += 1;
        let is_too_long = std::mem::take(&mut self.is_skipping) || text.len() > self.bytes_max;
        let bytes_max = self.bytes_max;
        let read = match is_too_long {
            true => Read::TooLong { bytes_max },
            false if text.trim_ascii().is_empty() => return None,
            false => Read::Whole(text),
        };
        Some(Line { number: self.number, read })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_piece_of_a_batch_has_its_time_and_no_tick_more() {
        let pauses = [29_999, 29_999, 30_001].map(Duration::from_millis);
        let pieces = stream::iter(pauses).then(|pause| async move {
            sleep(pause).await;
            Ok::<_, Infallible>("{}\n")
        });
        let bodies = Bodies::new(Duration::from_secs(30), 1 << 20);
        let mut lines = Box::pin(read(Body::from_stream(pieces), 100, &bodies));
        for number in [1, 2] {
            let begun = Instant::now();
            assert!(
                matches!(lines.next().await, Some(Line { number: found, read: Read::Whole(_) }) if found == number)
            );
            assert_eq!(begun.elapsed(), Duration::from_millis(29_999));
        }
        let begun = Instant::now();
        assert!(matches!(lines.next().await, Some(Line { number: 3, read: Read::Stalled(_) })));
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
        assert!(lines.next().await.is_none());
    }
}
