//! The place of a run in somebody's trace: a `traceparent` of W3C Trace Context.
//!
//! Invariant: a [`Trace`] that exists is valid, and is written in version 00.

use std::fmt::{self, Write as _};
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The version that we write, and how long its text is.
const VERSION: &str = "00";
const TEXT_BYTES: usize = 55;
/// The flags that have a meaning: sampled, and random trace id. Others are not passed on, as the standard asks.
const KNOWN_FLAGS: u8 = 0b11;
const SAMPLED: u8 = 0b01;

/// Which trace something belongs to, and below which span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Trace {
    id: NonZeroU128,
    span: NonZeroU64,
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct InvalidTrace;

/// A trace id as its 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct TraceId(NonZeroU128);

impl Trace {
    /// Which trace.
    #[must_use]
    pub fn id(&self) -> TraceId {
        TraceId(self.id)
    }

    /// Its id as bytes, the first digits first.
    #[must_use]
    pub fn id_bytes(&self) -> [u8; 16] {
        self.id.get().to_be_bytes()
    }

    /// The id of the span as bytes, the first digits first.
    #[must_use]
    pub fn span_bytes(&self) -> [u8; 8] {
        self.span.get().to_be_bytes()
    }

    /// The flags that are passed on.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether those before us record what they do.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace below another span; 0, which is the id of none, counts as 1.
    #[must_use]
    pub fn with_span(self, span: u64) -> Self {
        Self { span: NonZeroU64::new(span).unwrap_or(NonZeroU64::MIN), ..self }
    }
}

impl FromStr for Trace {
    type Err = InvalidTrace;

    /// A version that is not known yet may have more behind it, which is left out.
    fn from_str(text: &str) -> Result<Self, InvalidTrace> {
        let (known, rest) = text.split_at_checked(TEXT_BYTES).ok_or(InvalidTrace)?;
        let mut fields = known.split('-');
        let mut field = |digits: usize| {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            fields.next().filter(|field| field.len() == digits && field.bytes().all(is_digit))
        };
        let (version, trace_id, span_id, flags) = (field(2), field(32), field(16), field(2));
        let is_rest_right = match version.ok_or(InvalidTrace)? {
            VERSION => rest.is_empty(),
            "ff" => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !is_rest_right {
            return Err(InvalidTrace);
        }
        let read = || {
            Some(Self {
                id: NonZeroU128::new(u128::from_str_radix(trace_id?, 16).ok()?)?,
                span: NonZeroU64::new(u64::from_str_radix(span_id?, 16).ok()?)?,
                flags: u8::from_str_radix(flags?, 16).ok()? & KNOWN_FLAGS,
            })
        };
        read().ok_or(InvalidTrace)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}-{:032x}-{:016x}-{:02x}", self.id, self.span, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TryFrom<String> for Trace {
    type Error = InvalidTrace;

    fn try_from(text: String) -> Result<Self, InvalidTrace> {
        text.parse()
    }
}

impl From<Trace> for String {
    fn from(trace: Trace) -> Self {
        let mut text = Self::with_capacity(TEXT_BYTES);
        // Writing to a `String` does not fail.
        let _ = write!(text, "{trace}");
        text
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    #[test]
    fn a_traceparent_reads_and_reads_back() {
        for (text, written) in [
            (format!("00-{SPAN}-01"), format!("00-{SPAN}-01")),
            (format!("00-{SPAN}-00"), format!("00-{SPAN}-00")),
            (format!("00-{SPAN}-ff"), format!("00-{SPAN}-03")),
            (format!("cc-{SPAN}-01"), format!("00-{SPAN}-01")),
            (format!("cc-{SPAN}-01-what-is-new"), format!("00-{SPAN}-01")),
        ] {
            let trace: Trace = text.parse().unwrap();
            assert_eq!(trace.to_string(), written);
            assert!(written.ends_with(&format!("-{:02x}", trace.flags())));
            assert_eq!(trace.id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            let json = serde_json::to_string(&trace).unwrap();
            assert_eq!(serde_json::from_str::<Trace>(&json).unwrap(), trace);
        }
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            String::new(),
            "00".into(),
            format!("00-{SPAN}"),
            format!("00-{SPAN}-1"),
            format!("00-{SPAN}-01-"),
            format!("00-{SPAN}-01-x"),
            format!("00-{SPAN}-0x"),
            format!("00-{SPAN}-+1"),
            format!(" 00-{SPAN}-01"),
            format!("ff-{SPAN}-01"),
            format!("0-{SPAN}-001"),
            format!("cc-{SPAN}-01x"),
            format!("00-{}-01", SPAN.to_uppercase()),
            format!("00-{SPAN}-01").replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".into(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".into(),
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b77-01".into(),
            format!("00-{}é-01", &SPAN[..47]),
        ] {
            assert_eq!(text.parse::<Trace>(), Err(InvalidTrace), "{text}");
        }
    }

    #[test]
    fn another_span_is_in_the_same_trace() {
        let trace: Trace = format!("00-{SPAN}-01").parse().unwrap();
        let (other, none) = (trace.with_span(0x10), trace.with_span(0));
        assert_eq!(other.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000010-01");
        assert_eq!(none.to_string().parse(), Ok(none), "it is valid whatever it was made of");
        assert_eq!((other.id(), other.flags()), (trace.id(), trace.flags()));
        assert_eq!(other.id_bytes()[..2], [0x4b, 0xf9]);
        assert_eq!(other.span_bytes(), [0, 0, 0, 0, 0, 0, 0, 0x10]);
    }

    #[test]
    fn the_flag_of_the_caller_says_whether_it_is_sampled() {
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            assert_eq!(format!("00-{SPAN}-{flags}").parse::<Trace>().unwrap().is_sampled(), is_sampled);
        }
    }
}
