//! The receiver's answer: its status, and as much of its body as is kept.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::client::AnswerBody;
use crate::task::Output;

/// An answer whose body is being read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the receiver asks to wait before it is called again.
    pub(super) retry_after: Option<Duration>,
    media_type: Option<String>,
    body: AnswerBody,
    kept: Vec<u8>,
    bytes_max: usize,
    /// Whether everything was read and kept.
    is_whole: bool,
}

impl Answer {
    pub(super) fn of(response: Response<AnswerBody>, bytes_max: usize) -> Self {
        let (head, body) = response.into_parts();
        let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        Self {
            status: head.status,
            retry_after: head.headers.get(RETRY_AFTER).and_then(delay),
            media_type: media_type.map(str::to_owned),
            body,
            kept: Vec::with_capacity(announced.min(bytes_max)),
            bytes_max,
            is_whole: false,
        }
    }

    /// Reads up to the end or to the limit, whichever comes first. May be dropped at any time; what was read is kept.
    pub(super) async fn read(&mut self) -> Result<(), hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            // A copy, since the frame is a slice of the connection's much larger read buffer and would keep all of it.
            let space = self.bytes_max - self.kept.len();
            self.kept.extend_from_slice(data.get(..space).unwrap_or(&data));
            if data.len() > space {
                return Ok(());
            }
        }
        self.is_whole = true;
        Ok(())
    }

    /// What was kept so far.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// What was kept; none where that is nothing. Drops the rest, and with it the connection where the
    /// receiver is still sending.
    pub(super) fn into_output(mut self) -> Option<Output> {
        if self.kept.is_empty() {
            return None;
        }
        self.kept.shrink_to_fit();
        Some(Output { media_type: self.media_type, truncated: !self.is_whole, bytes: Bytes::from(self.kept) })
    }
}

/// A `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn delay(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}
