//! Spans as OTLP has them, with the names of OpenTelemetry's semantic conventions where these have one.
//!
//! Invariant: of a URL it tells host and port alone, because the rest may hold a secret, and of an input, an output or a
//! message nothing (tests/it/spans.rs).

use hyper::http::uri::Scheme;
use jiff::Timestamp;
use prost::Message as _;

use super::message::{
    ExportRequest, KeyValue, Kind, PARENT_IS_KNOWN, PARENT_IS_REMOTE, Resource, ResourceSpans, Scope,
    ScopeSpans, SpanMessage, Status, StatusCode,
};
use crate::handler::webhook::WebhookSettings;
use crate::handler::{Action, Handler, Handlers};
use crate::spans::{Span, SpanKind};
use crate::task::{Code, ErrorKind, Purpose};

/// These spans as the body of one request.
pub(super) fn request(resource: &[(String, String)], spans: &[Span], handlers: &Handlers) -> Vec<u8> {
    let attributes = resource.iter().map(|(key, value)| KeyValue::new(key.as_str(), value.as_str()));
    let scope =
        Scope { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let scope_spans =
        ScopeSpans { scope: Some(scope), spans: spans.iter().map(|span| message(span, handlers)).collect() };
    let resource = Resource { attributes: attributes.collect() };
    let all = ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans] };
    ExportRequest { resource_spans: vec![all] }.encode_to_vec()
}

fn message(span: &Span, handlers: &Handlers) -> SpanMessage {
    let handler = handlers.get(span.handler.as_str()).map(AsRef::as_ref);
    let mut attributes = vec![
        KeyValue::new("task.id", span.task.as_str()),
        KeyValue::new("task.run", i64::from(span.run)),
        KeyValue::new("task.handler", span.handler.as_str()),
        KeyValue::new("task.outcome", if span.failure.is_some() { "failed" } else { "success" }),
    ];
    let (name, kind, parent_is_remote) = match span.kind {
        SpanKind::Run { attempts, queued } => {
            attributes.push(KeyValue::new("task.attempts", i64::from(attempts)));
            attributes.extend(queued.map(|time| KeyValue::new("task.queue_seconds", time.as_secs_f64())));
            (format!("run {}", span.handler), Kind::Consumer, true)
        }
        SpanKind::Call { purpose, attempt, code, is_of_failure } => {
            attributes.push(KeyValue::new("task.attempt", i64::from(attempt)));
            attributes.extend(code.map(of_code));
            let webhook = handler.and_then(|handler| webhook(handler, purpose, is_of_failure));
            attributes.extend(webhook.into_iter().flat_map(|settings| of_webhook(settings, attempt)));
            let (word, kind) = match (webhook, code) {
                (Some(settings), _) => (settings.method.as_str(), Kind::Client),
                (None, Some(Code::HttpStatus(_))) => ("call", Kind::Client),
                (None, _) => ("exec", Kind::Internal),
            };
            let of = match purpose {
                Purpose::Launch => "",
                Purpose::Revoke => " revoke",
                Purpose::Notice => " notice",
            };
            (format!("{word} {}{of}", span.handler), kind, purpose != Purpose::Launch)
        }
    };
    let status = span.failure.as_ref().map(|failure| {
        let kind = failure.kind.as_str();
        attributes.push(KeyValue::new("task.error_kind", kind));
        attributes.push(KeyValue::new("task.in_doubt", failure.in_doubt));
        // The conventions want the status itself where that is what was wrong.
        let error = match span.kind {
            SpanKind::Call { code: Some(Code::HttpStatus(status)), .. }
                if failure.kind == ErrorKind::Status =>
            {
                status.to_string()
            }
            _ => kind.to_owned(),
        };
        attributes.push(KeyValue::new("error.type", error));
        Status { message: kind.to_owned(), code: StatusCode::Error.into() }
    });
    let remote = if parent_is_remote { PARENT_IS_REMOTE } else { 0 };
    SpanMessage {
        trace_id: span.place.id_bytes().to_vec(),
        span_id: span.place.span_bytes().to_vec(),
        parent_span_id: span.parent.span_bytes().to_vec(),
        name,
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(span.started),
        end_time_unix_nano: nanoseconds(span.ended.max(span.started)),
        attributes,
        status,
        flags: u32::from(span.place.flags()) | PARENT_IS_KNOWN | remote,
    }
}

/// Whom a call went to, as the handler is configured now.
fn webhook(handler: &Handler, purpose: Purpose, is_of_failure: bool) -> Option<&WebhookSettings> {
    let action = match purpose {
        Purpose::Launch => Some(&handler.action),
        Purpose::Revoke => handler.revoke.as_ref(),
        Purpose::Notice => {
            let told = if is_of_failure { &handler.on_failure } else { &handler.on_success };
            return told.as_ref().map(|webhook| webhook.settings());
        }
    };
    match action? {
        Action::Webhook(webhook) => Some(webhook.settings()),
        Action::Command(_) => None,
    }
}

fn of_webhook(settings: &WebhookSettings, attempt: u32) -> Vec<KeyValue> {
    let root = settings.url.root();
    let is_secure = root.scheme() == Some(&Scheme::HTTPS);
    let port = root.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let mut attributes = vec![
        KeyValue::new("http.request.method", settings.method.as_str()),
        KeyValue::new("server.address", root.host().unwrap_or_default()),
        KeyValue::new("server.port", i64::from(port)),
        KeyValue::new("url.scheme", if is_secure { "https" } else { "http" }),
    ];
    if attempt > 1 {
        attributes.push(KeyValue::new("http.request.resend_count", i64::from(attempt - 1)));
    }
    attributes
}

fn of_code(code: Code) -> KeyValue {
    match code {
        Code::HttpStatus(status) => KeyValue::new("http.response.status_code", i64::from(status)),
        Code::ExitCode(code) => KeyValue::new("process.exit.code", i64::from(code)),
        Code::Signal(signal) => KeyValue::new("task.signal", i64::from(signal)),
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
