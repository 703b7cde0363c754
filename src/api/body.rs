//! The bodies of requests, within their limits of size and time, and of what arrives at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::{Problem, ProblemType};
use crate::json;

/// The largest body that is read as one JSON value: 1,000 of the longest ids, and some air.
const JSON_BYTES_MAX: usize = 512 << 10;
/// So many bytes of each body are not counted: who sends little is served, whoever sends much meanwhile.
const UNCOUNTED_BYTES: usize = 16 << 10;

/// What holds for all bodies.
#[derive(Debug)]
pub struct Bodies {
    patience: Duration,
    bytes_left: AtomicUsize,
}

/// What a body that is arriving takes of the room for all; dropping it gives that back.
#[derive(Debug)]
pub(super) struct Share {
    bodies: Arc<Bodies>,
    counted: usize,
}

impl Bodies {
    /// A body may take `patience` to arrive, or a piece of a batch's; so many bytes may be held of those that are
    /// arriving.
    #[must_use]
    pub fn new(patience: Duration, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { patience, bytes_left: AtomicUsize::new(bytes_max) })
    }

    /// How long a body may take, or a piece of a batch's.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { bodies: Arc::clone(self), counted: 0 }
    }
}

impl Share {
    /// Takes room for so many bytes of this body, or gives some back. Fails where there is no room.
    pub(super) fn resize(&mut self, bytes: usize) -> Result<(), Problem> {
        let counted = bytes.saturating_sub(UNCOUNTED_BYTES);
        if counted == self.counted {
            return Ok(());
        }
        let with = |left: usize| (left + self.counted).checked_sub(counted);
        let left = &self.bodies.bytes_left;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).map_err(|_left| Problem::no_room())?;
        self.counted = counted;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bodies.bytes_left.fetch_add(self.counted, Ordering::Relaxed);
    }
}

/// The whole body. One that is larger is the problem that `too_large` makes of the limit.
pub(super) async fn read(
    bodies: &Arc<Bodies>,
    body: Body,
    bytes_max: usize,
    too_large: impl FnOnce(usize) -> Problem,
) -> Result<Bytes, Problem> {
    // One that says its size is refused before it is sent, where the client waits for that (Expect: 100-continue).
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max).closing());
    }
    match timeout(bodies.patience, collected(bodies, Limited::new(body, bytes_max))).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(Broken::NoRoom(problem))) => Err(problem.closing()),
        Ok(Err(Broken::Off(error))) if error.is::<LengthLimitError>() => Err(too_large(bytes_max).closing()),
        Ok(Err(Broken::Off(_))) => Err(Problem::malformed("The body ended before it was complete.")),
        Err(_elapsed) => Err(Problem::body_timeout(bodies.patience).closing()),
    }
}

/// Why a body is not there.
enum Broken {
    NoRoom(Problem),
    Off(axum::BoxError),
}

async fn collected(bodies: &Arc<Bodies>, mut body: Limited<Body>) -> Result<Bytes, Broken> {
    let mut share = bodies.share();
    // Mostly it comes in one piece, which is not copied.
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(Broken::Off)?.into_data() else { continue };
        if first.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
        share.resize(all.len().max(first.len())).map_err(Broken::NoRoom)?;
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The whole body as JSON of this shape.
pub(super) async fn json<T: DeserializeOwned>(bodies: &Arc<Bodies>, body: Body) -> Result<T, Problem> {
    let bytes = read(bodies, body, JSON_BYTES_MAX, too_large).await?;
    json::object(&bytes)
        .map_err(|error| Problem::invalid_body(format!("The body is not as it has to be: {error}.")))
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("The body has more than the {bytes_max} bytes that are taken here.");
    Problem::new(ProblemType::BodyTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use futures_util::{StreamExt as _, stream};
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Three pieces, each so many milliseconds after the one before.
    fn pieces(pauses: [u64; 3]) -> Body {
        let pieces = stream::iter(pauses).then(|pause| async move {
            sleep(Duration::from_millis(pause)).await;
            Ok::<_, Infallible>("piece")
        });
        Body::from_stream(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_its_time_as_a_whole_and_no_tick_more() {
        let bodies = Bodies::new(Duration::from_secs(30), 1 << 20);
        let begun = Instant::now();
        let body = read(&bodies, pieces([10_000, 10_000, 9_999]), 100, too_large).await;
        assert_eq!(
            (body.ok().as_deref(), begun.elapsed()),
            (Some(&b"piecepiecepiece"[..]), Duration::from_millis(29_999))
        );
        let begun = Instant::now();
        let late = read(&bodies, pieces([10_000, 10_000, 10_001]), 100, too_large).await;
        assert_eq!(late.unwrap_err().into_response().status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
    }
}
