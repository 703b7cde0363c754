//! The receiver's answer: its status, and as much of its body as is looked at and kept.

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
    /// Its beginning, of which `kept_max` bytes are kept in the end.
    beginning: Vec<u8>,
    beginning_max: usize,
    kept_max: usize,
    /// Whether that is everything.
    is_whole: bool,
}

impl Answer {
    /// Of its body the first `kept_max` bytes are kept, in memory until then the first `looked_at_max` where they are more.
    pub(super) fn of(response: Response<AnswerBody>, kept_max: usize, looked_at_max: usize) -> Self {
        let beginning_max = kept_max.max(looked_at_max);
        let (head, body) = response.into_parts();
        let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        Self {
            status: head.status,
            retry_after: head.headers.get(RETRY_AFTER).and_then(delay),
            media_type: media_type.map(str::to_owned),
            body,
            beginning: Vec::with_capacity(announced.min(beginning_max)),
            beginning_max,
            kept_max,
            is_whole: false,
        }
    }

    /// Reads up to the end or to the limit, whichever comes first. May be dropped at any time; what was read stays.
    pub(super) async fn read(&mut self) -> Result<(), hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            // A copy, since the frame is a slice of the connection's much larger read buffer and would keep all of it.
            let space = self.beginning_max - self.beginning.len();
            self.beginning.extend_from_slice(data.get(..space).unwrap_or(&data));
            if data.len() > space {
                return Ok(());
            }
        }
        self.is_whole = true;
        Ok(())
    }

    /// What was read so far.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// What is kept; none where that is nothing. Drops the rest, and with it the connection where the
    /// receiver is still sending.
    pub(super) fn into_output(mut self) -> Option<Output> {
        let truncated = !self.is_whole || self.beginning.len() > self.kept_max;
        self.beginning.truncate(self.kept_max);
        if self.beginning.is_empty() {
            return None;
        }
        self.beginning.shrink_to_fit();
        Some(Output { media_type: self.media_type, truncated, bytes: Bytes::from(self.beginning) })
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
