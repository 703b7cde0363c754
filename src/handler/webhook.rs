//! A handler that calls a URL.
//!
//! Invariant: one attempt is one request, sent at most once; redirects are not followed. The only thing done again is
//! handing a request to another connection when the pooled one had ended before any of it was written.
//! Invariant: a failure is in doubt if and only if the request may have been sent (tests/it/handlers/webhook.rs).

mod answer;
mod client;
mod connect;
mod egress;
mod failure;
mod lookup;
mod payload;
mod pool;
mod signature;
mod tls;

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use jiff::Timestamp;
use regex::bytes::Regex;
use tokio_util::sync::CancellationToken;

use self::answer::Answer;
use self::client::Client;
use self::payload::{Payload, Sent};
use self::signature::{message_id, signatures};
use super::template::{Template, UrlTemplate, Values};
use crate::task::{Code, ErrorKind, Failure, Outcome, Purpose, Task, Trace};

pub use self::egress::{Egress, EgressRule, InvalidRule};
pub use self::signature::{InvalidSecret, Secret};
pub use self::tls::{Authorities, CertificateChain, InvalidPem, PrivateKey, Tls};

const TASK_ID: HeaderName = HeaderName::from_static("task-id");
const TASK_RUN: HeaderName = HeaderName::from_static("task-run");
const TASK_ATTEMPT: HeaderName = HeaderName::from_static("task-attempt");
const TASK_EVENT: HeaderName = HeaderName::from_static("task-event");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("task-recorder/", env!("CARGO_PKG_VERSION")));
/// How much of an answer `success_body` is matched on, in bytes, where less of it is kept.
const LOOKED_AT_BYTES_MAX: usize = 64 * 1024;
/// Headers of every call: the three of the task, the three of its signature, its trace, content type and user agent,
/// length and host.
const OWN_HEADERS: usize = 11;

/// What to call, and which answers are a success.
pub struct WebhookSettings {
    /// Where to; variables only behind the host.
    pub url: UrlTemplate,
    /// `POST` unless the config says otherwise.
    pub method: Method,
    /// Sent besides those that every call carries. A `content-type` here is for inputs without one, a `user-agent`
    /// replaces ours; a reserved one ([`is_reserved`]) is never sent.
    pub headers: Vec<(HeaderName, Template)>,
    /// One deadline over connecting, sending, and the whole answer.
    pub timeout: Duration,
    /// The statuses that are a success, as inclusive ranges; 200 to 299 unless the config says otherwise.
    pub success: Vec<std::ops::RangeInclusive<u16>>,
    /// A pattern that the answer's body has to hold besides; it is matched on the part that is kept, and on the first
    /// 64 KiB where that is less.
    pub success_body: Option<Regex>,
    /// How much of the answer is kept, in bytes.
    pub output_bytes_max: usize,
    /// Which addresses may be connected to.
    pub egress: Egress,
    /// Each call is signed with each of them.
    pub secrets: Vec<Secret>,
    /// Whom it trusts over https, and as whom it presents itself.
    pub tls: Tls,
}

/// A handler that calls a URL.
pub struct Webhook {
    settings: WebhookSettings,
    headers: Vec<(HeaderName, Value)>,
    client: Client,
}

/// The value of a configured header.
enum Value {
    /// The same for every call.
    Constant(HeaderValue),
    /// Made anew for every call.
    Rendered(Template),
}

/// What one call says.
struct Call<'a> {
    values: Values<'a>,
    media_type: Option<&'a str>,
    body: Bytes,
    /// The id of the message.
    id: String,
    /// Its own in the trace of its task.
    span: Option<Trace>,
    /// Of a notice: what happened.
    event: Option<&'static str>,
}

/// Whether a header belongs to the call itself and cannot be configured: those of the task, and those that say how
/// a message is framed or where it goes.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "task-id"
            | "task-run"
            | "task-attempt"
            | "task-event"
            | "webhook-id"
            | "webhook-timestamp"
            | "webhook-signature"
            | "traceparent"
            | "connection"
            | "content-length"
            | "expect"
            | "host"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

impl Webhook {
    /// A webhook with these settings and its own pool of connections.
    #[must_use]
    pub fn new(settings: WebhookSettings) -> Self {
        let configured = settings.headers.iter().filter(|(name, _)| !is_reserved(name));
        let headers = configured.map(|(name, template)| {
            let value = template.constant().and_then(sensitive);
            (name.clone(), value.map_or_else(|| Value::Rendered(template.clone()), Value::Constant))
        });
        let client = Client::new(&settings.url, settings.timeout, &settings.egress, &settings.tls);
        Self { headers: headers.collect(), client, settings }
    }

    /// What it was made with. The values of the headers may be secret.
    #[must_use]
    pub fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    pub(super) async fn run(
        &self,
        task: &Task,
        attempt: u32,
        purpose: Purpose,
        ending: &CancellationToken,
    ) -> Outcome {
        let call = Call {
            values: Values { id: &task.id, run: task.run, attempt },
            media_type: task.input.media_type.as_deref(),
            body: task.input.bytes.clone(),
            id: message_id(task, purpose),
            span: task.call_span(purpose, attempt),
            event: None,
        };
        self.call(&call, ending).await
    }

    /// Tells of the outcome of a run, with this JSON as the body. `attempt` counts how often it was tried to tell.
    pub async fn tell(&self, task: &Task, body: Bytes, attempt: u32, ending: &CancellationToken) -> Outcome {
        let call = Call {
            values: Values { id: &task.id, run: task.run, attempt },
            media_type: Some("application/json"),
            body,
            id: message_id(task, Purpose::Notice),
            span: task.call_span(Purpose::Notice, attempt),
            event: Some(task.state_name().as_str()),
        };
        self.call(&call, ending).await
    }

    async fn call(&self, call: &Call<'_>, ending: &CancellationToken) -> Outcome {
        let receiver = self.settings.url.authority();
        if ending.is_cancelled() {
            return Outcome::failed(failure::ended(receiver, false));
        }
        let limit = self.settings.timeout;
        let sent = Sent::default();
        let request = match self.request(call, &sent) {
            Ok(request) => request,
            Err(message) => return Outcome::failed(Failure::without_effect(ErrorKind::Error, message)),
        };
        let mut deadline = pin!(tokio::time::sleep(limit));
        let response = tokio::select! {
            biased;
            response = self.client.send(request) => response,
            () = &mut deadline => return Outcome::failed(failure::too_late(limit, receiver, sent.get())),
            () = ending.cancelled() => return Outcome::failed(failure::ended(receiver, sent.get())),
        };
        let mut answer = match response {
            Ok(response) => {
                let looked_at_max = self.pattern(response.status()).map_or(0, |_pattern| LOOKED_AT_BYTES_MAX);
                Answer::of(response, self.settings.output_bytes_max, looked_at_max)
            }
            Err(error) => return Outcome::failed(failure::no_answer(&error, receiver, sent.get())),
        };
        let status = answer.status;
        let end = tokio::select! {
            biased;
            end = answer.read() => end.map_err(|error| failure::broken_off(&error, status, receiver)),
            () = &mut deadline => Err(failure::unfinished(limit, status, receiver)),
            () = ending.cancelled() => Err(failure::ended(receiver, true)),
        };
        self.outcome(answer, end)
    }

    fn request(&self, call: &Call<'_>, sent: &Sent) -> Result<Request<Payload>, String> {
        let mut request = Request::new(Payload::new(call.body.clone(), sent.clone()));
        *request.method_mut() = self.settings.method.clone();
        let target = self.settings.url.target(&call.values);
        *request.uri_mut() = Uri::from(target.map_err(|error| format!("no valid url: {error}"))?);
        *request.headers_mut() = self.headers(call)?;
        Ok(request)
    }

    fn headers(&self, call: &Call<'_>) -> Result<HeaderMap, String> {
        let values = &call.values;
        let mut headers = HeaderMap::with_capacity(self.headers.len() + OWN_HEADERS);
        headers.insert(USER_AGENT, OUR_USER_AGENT);
        for (name, value) in &self.headers {
            let value = match value {
                Value::Constant(value) => value.clone(),
                Value::Rendered(template) => sensitive(&template.render(values))
                    .ok_or_else(|| format!("the configured value of the header {name} is no header value"))?,
            };
            if name == USER_AGENT || name == CONTENT_TYPE {
                headers.insert(name.clone(), value);
            } else {
                headers.append(name.clone(), value);
            }
        }
        if let Some(media_type) = call.media_type {
            let value = HeaderValue::from_bytes(media_type.as_bytes())
                .map_err(|_invalid| "the media type of the input is no header value".to_owned())?;
            headers.insert(CONTENT_TYPE, value);
        }
        if call.body.is_empty() && matches!(self.settings.method, Method::POST | Method::PUT | Method::PATCH)
        {
            // hyper states the length of a body, but not that there is none; some receivers insist on it (411).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        headers.insert(TASK_ID, ours(values.id.as_str())?);
        headers.insert(TASK_RUN, HeaderValue::from(values.run));
        match call.event {
            Some(event) => headers.insert(TASK_EVENT, HeaderValue::from_static(event)),
            None => headers.insert(TASK_ATTEMPT, HeaderValue::from(values.attempt)),
        };
        if let Some(span) = call.span {
            headers.insert(TRACEPARENT, ours(&span.to_string())?);
        }
        headers.insert(WEBHOOK_ID, ours(&call.id)?);
        if !self.settings.secrets.is_empty() {
            let timestamp = Timestamp::now().as_second().to_string();
            let signatures = signatures(&self.settings.secrets, &call.id, &timestamp, &call.body);
            headers.insert(WEBHOOK_SIGNATURE, ours(&signatures)?);
            headers.insert(WEBHOOK_TIMESTAMP, ours(&timestamp)?);
        }
        Ok(headers)
    }

    fn is_success(&self, status: StatusCode) -> bool {
        self.settings.success.iter().any(|range| range.contains(&status.as_u16()))
    }

    /// What the body of an answer with this status has to hold.
    fn pattern(&self, status: StatusCode) -> Option<&Regex> {
        self.settings.success_body.as_ref().filter(|_| self.is_success(status))
    }

    /// A status outside the success rule decides alone; for a success the body has to end (or reach the limit) and fit.
    fn outcome(&self, answer: Answer, end: Result<(), Failure>) -> Outcome {
        let receiver = self.settings.url.authority();
        let status = answer.status;
        let result = if self.is_success(status) {
            end.and_then(|()| match self.pattern(status) {
                Some(pattern) if !pattern.is_match(answer.beginning()) => Err(Failure::new(
                    ErrorKind::Body,
                    format!("{receiver} answered {status}, but the body does not fit `{pattern}`"),
                )),
                _ => Ok(()),
            })
        } else {
            Err(failure::status(status, receiver))
        };
        let retry_after = answer.retry_after;
        let code = Some(Code::HttpStatus(status.as_u16()));
        Outcome { code, output: answer.into_output(), result, retry_after }
    }
}

/// A value that we made of visible ASCII.
fn ours(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_invalid| format!("{text:?} is no header value"))
}

/// A configured value, marked as one that is neither printed nor kept in HTTP/2's table of headers.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhook").field(&self.settings).finish()
    }
}

/// Without the values of the headers, which may be secret, and without secrets.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("WebhookSettings")
            .field("url", &self.url.as_str())
            .field("method", &self.method)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("success", &self.success)
            .field("success_body", &self.success_body)
            .field("output_bytes_max", &self.output_bytes_max)
            .field("egress", &self.egress)
            .field("secrets", &self.secrets.len())
            .field("tls", &self.tls)
            .finish()
    }
}
