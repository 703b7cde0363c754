//! A collector of spans: a receiver whose calls are read with the published types of OTLP.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::receiver::{Call, Receiver};
use super::until;

/// What has come of one request.
pub(crate) fn read(call: &Call) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(call.body.clone()).unwrap_or_else(|error| panic!("{error}: {call:?}"))
}

/// Every span that a collector was sent, in order of arrival.
pub(crate) fn spans(collector: &Receiver) -> Vec<Told> {
    let requests = collector.calls();
    let spans = requests.iter().flat_map(|call| read(call).resource_spans);
    spans.flat_map(|of| of.scope_spans).flat_map(|of| of.spans).map(Told::of).collect()
}

/// The same, once there are so many.
pub(crate) async fn so_many_spans(collector: &Receiver, count: usize) -> Vec<Told> {
    until(&format!("{count} spans"), || spans(collector).len() >= count).await;
    let spans = spans(collector);
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

/// A span, with its ids in digits and its attributes as text.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// As it came.
    pub(crate) span: Span,
}

impl Told {
    fn of(span: Span) -> Self {
        Self {
            trace: digits(&span.trace_id),
            id: digits(&span.span_id),
            parent: digits(&span.parent_span_id),
            name: span.name.clone(),
            attributes: texts(&span.attributes),
            span,
        }
    }

    /// An attribute, which has to be there.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.attributes.get(key).unwrap_or_else(|| panic!("no {key}: {self:#?}"))
    }
}

fn digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Attributes as text.
pub(crate) fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &any_value::Value| match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::BoolValue(bool) => bool.to_string(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let value = |pair: &KeyValue| text(pair.value.as_ref().unwrap().value.as_ref().unwrap());
    let all: BTreeMap<_, _> = attributes.iter().map(|pair| (pair.key.clone(), value(pair))).collect();
    assert_eq!(all.len(), attributes.len(), "one is there twice: {attributes:?}");
    all
}
