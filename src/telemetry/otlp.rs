//! Sends spans to a collector of OpenTelemetry: OTLP over HTTP, in protobuf.
//!
//! Invariant: who tells a span never waits for a collector, slow or dead (tests/it/spans.rs). What a collector does not
//! take after a few tries is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::encode;
use super::message::ExportResponse;
use crate::api::Live;
use crate::config::OtlpConfig;
use crate::spans::{Span, SpanTally, Spans};
use crate::task::Retry;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("task-recorder/", env!("CARGO_PKG_VERSION")));
/// How often one request is tried, and with which pauses: some 8 s in all, enough for a collector that is restarted.
const RETRY: Retry = Retry {
    attempts: 5,
    initial: Duration::from_millis(500),
    factor: 2.0,
    max_interval: Duration::from_secs(5),
    jitter: 0.2,
    in_doubt: true,
};
/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often it is said at most that spans are lost.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// How long a connection without a request is kept: for longer than the pause between two of them.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Sends what it is told, until it is stopped.
#[derive(Debug)]
pub struct Exporter {
    tally: Arc<SpanTally>,
    stopping: CancellationToken,
    giving_up: CancellationToken,
    sending: JoinSet<()>,
}

impl Exporter {
    /// Begins to send. The handlers say whom calls went to.
    #[must_use]
    pub fn start(config: OtlpConfig, live: Arc<ArcSwap<Live>>) -> (Self, Spans) {
        let (spans, told) = Spans::new(config.queue_max, config.sample_ratio);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config.tls.config())
            .https_or_http()
            .enable_all_versions()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        let tally = Arc::clone(spans.tally());
        let (stopping, giving_up) = (CancellationToken::new(), CancellationToken::new());
        let sender = Sender {
            config,
            client,
            live,
            told,
            tally: Arc::clone(&tally),
            stopping: stopping.clone(),
            giving_up: giving_up.clone(),
            said: (None, 0),
        };
        let mut sending = JoinSet::new();
        sending.spawn(sender.run());
        (Self { tally, stopping, giving_up, sending }, spans)
    }

    /// Sends what is left, until it is `enough`; what is left then is dropped and counted. To be called when nobody tells
    /// spans any more.
    pub async fn stop(mut self, enough: impl Future<Output = ()>) {
        self.stopping.cancel();
        let is_done = tokio::select! {
            _ = self.sending.join_next() => true,
            () = enough => false,
        };
        if !is_done {
            self.giving_up.cancel();
            self.sending.join_next().await;
        }
        let (exported, dropped) =
            (self.tally.exported.load(Ordering::Relaxed), self.tally.dropped.load(Ordering::Relaxed));
        if is_done {
            tracing::debug!(exported, dropped, "no spans are left to export");
        } else {
            tracing::warn!(exported, dropped, "stopped before all spans were exported");
        }
    }
}

struct Sender {
    config: OtlpConfig,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    live: Arc<ArcSwap<Live>>,
    told: mpsc::Receiver<Span>,
    tally: Arc<SpanTally>,
    stopping: CancellationToken,
    giving_up: CancellationToken,
    /// When it was last said that spans are lost, and how many were by then.
    said: (Option<Instant>, u64),
}

/// Why a collector has not taken a request.
struct NotTaken {
    why: String,
    /// Whether it may take it later, and when it wants to be asked.
    may_pass: bool,
    asked: Option<Duration>,
}

impl Sender {
    async fn run(mut self) {
        let giving_up = self.giving_up.clone();
        loop {
            let batch = self.batch().await;
            if batch.is_empty() {
                return;
            }
            let result = tokio::select! {
                result = self.send(&batch) => result,
                () = giving_up.cancelled() => return self.give_up(batch.len()),
            };
            let (lost, why) = match result {
                Ok(0) => (0, "more were told than the queue takes".to_owned()),
                Ok(rejected) => (rejected, "the collector has rejected them".to_owned()),
                Err(why) => (batch.len(), why),
            };
            let (taken, lost) = ((batch.len() - lost) as u64, lost as u64);
            self.tally.exported.fetch_add(taken, Ordering::Relaxed);
            self.tally.dropped.fetch_add(lost, Ordering::Relaxed);
            self.say(&why);
        }
    }

    /// Counts what is not sent any more: what was under way, and what waits.
    fn give_up(mut self, mut lost: usize) {
        self.told.close();
        while self.told.try_recv().is_ok() {
            lost += 1;
        }
        self.tally.dropped.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// The next spans to send together; none where it is to stop and has them all.
    async fn batch(&mut self) -> Vec<Span> {
        let (mut batch, max) = (Vec::new(), self.config.batch_max);
        tokio::select! {
            biased;
            _ = self.told.recv_many(&mut batch, max) => {}
            () = self.stopping.cancelled() => return batch,
        }
        let due = Instant::now() + self.config.interval;
        while batch.len() < max {
            let room = max - batch.len();
            tokio::select! {
                biased;
                more = timeout_at(due, self.told.recv_many(&mut batch, room)) => match more {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                },
                () = self.stopping.cancelled() => break,
            }
        }
        batch
    }

    /// Sends a batch, and says how many of it were rejected, or why none of it was taken.
    async fn send(&mut self, batch: &[Span]) -> Result<usize, String> {
        let body = encode::request(&self.config.resource, batch, &self.live.load().handlers);
        let body = Bytes::from(body);
        let mut attempt = 1;
        loop {
            let not_taken = match timeout(self.config.timeout, self.post(body.clone())).await {
                Ok(Ok(rejected)) => return Ok(rejected.min(batch.len())),
                Ok(Err(not_taken)) => not_taken,
                Err(_elapsed) => {
                    let why = format!("the collector has not answered within {:?}", self.config.timeout);
                    NotTaken { why, may_pass: true, asked: None }
                }
            };
            if !not_taken.may_pass || attempt >= RETRY.attempts || self.stopping.is_cancelled() {
                return Err(not_taken.why);
            }
            // The queue may have been full meanwhile.
            self.say(&not_taken.why);
            let pause = RETRY.pause(attempt, not_taken.asked, fastrand::f64());
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stopping.cancelled() => {}
            }
            attempt += 1;
        }
    }

    async fn post(&self, body: Bytes) -> Result<usize, NotTaken> {
        let failed = |why: String| NotTaken { why, may_pass: true, asked: None };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.config.endpoint.clone();
        request.headers_mut().extend(self.config.headers.iter().cloned());
        request.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        request.headers_mut().insert(USER_AGENT, OUR_USER_AGENT);
        let response = self.client.request(request).await;
        let response = response
            .map_err(|error| failed(format!("the collector was not reached: {}", innermost(&error))))?;
        let (status, asked) = (response.status(), retry_after(&response));
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        if !status.is_success() {
            let may_pass = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            );
            return Err(NotTaken { why: format!("the collector answered {status}"), may_pass, asked });
        }
        // It has them; an answer that cannot be read changes nothing about that.
        let answer = body.ok().and_then(|body| ExportResponse::decode(body.to_bytes()).ok());
        let rejected = answer.and_then(|answer| answer.partial_success).map_or(0, |part| part.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or(0))
    }

    /// Says that spans are lost, if some are of which it was not said, and not too often.
    fn say(&mut self, why: &str) {
        let dropped = self.tally.dropped.load(Ordering::Relaxed);
        let (when, said) = self.said;
        if dropped > said && when.is_none_or(|when| when.elapsed() >= SAY_EVERY) {
            tracing::warn!(spans = dropped - said, error = why, "spans dropped");
            self.said = (Some(Instant::now()), dropped);
        }
    }
}

fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The cause behind all others, which says what has happened.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
