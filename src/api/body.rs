//! The bodies of requests, within their limits of size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::{Problem, ProblemType};

/// The largest body that is read as one JSON value: 1,000 of the longest ids, and some air.
const JSON_BYTES_MAX: usize = 512 << 10;

/// The whole body. One that is larger is the problem that `too_large` makes of the limit.
pub(super) async fn read(
    body: Body,
    bytes_max: usize,
    patience: Duration,
    too_large: impl FnOnce(usize) -> Problem,
) -> Result<Bytes, Problem> {
    // One that says its size is refused before it is sent, where the client waits for that (Expect: 100-continue).
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max).closing());
    }
    match timeout(patience, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max).closing()),
        Ok(Err(_)) => Err(Problem::malformed("The body ended before it was complete.")),
        Err(_elapsed) => Err(Problem::body_timeout(patience).closing()),
    }
}

/// The whole body as JSON of this shape.
pub(super) async fn json<T: DeserializeOwned>(body: Body, patience: Duration) -> Result<T, Problem> {
    let bytes = read(body, JSON_BYTES_MAX, patience, too_large).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::invalid_body(format!("The body is not as it has to be: {error}.")))
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("The body has more than the {bytes_max} bytes that are taken here.");
    Problem::new(ProblemType::BodyTooLarge, detail)
}
