//! What an attempt came to: success or a failure of a known kind, and what was captured on the way.
//!
//! Invariant: every failure says whether it may have had an effect (`in_doubt`), by the table at [`ErrorKind`].

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What one attempt of a handler came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status, exit code or signal, where there was one.
    pub code: Option<Code>,
    /// The captured response body or standard output, where there was one.
    pub output: Option<Output>,
    /// Success, or why not.
    pub result: Result<(), Failure>,
    /// How long the receiver asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// A success without a code or an output.
    #[must_use]
    pub fn success() -> Self {
        Self { code: None, output: None, result: Ok(()), retry_after: None }
    }

    /// A failure without a code or an output.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), ..Self::success() }
    }

    /// Whether another attempt may follow in the same run: after a failure that certainly had no effect and may pass,
    /// and, with `in_doubt`, after one that may have had an effect. Never after a receiver's plain refusal.
    #[must_use]
    pub fn may_be_retried(&self, in_doubt: bool) -> bool {
        let Err(failure) = &self.result else { return false };
        match (failure.kind, self.code) {
            (ErrorKind::Refused | ErrorKind::Dns | ErrorKind::Tls | ErrorKind::Spawn, _)
            | (ErrorKind::Status, Some(Code::HttpStatus(429 | 503))) => true,
            (ErrorKind::Timeout | ErrorKind::ConnectionLost, _) => in_doubt || !failure.in_doubt,
            (ErrorKind::Status, Some(Code::HttpStatus(code))) if is_refusal(code) => false,
            (ErrorKind::Status, Some(Code::HttpStatus(_)))
            | (
                ErrorKind::Body
                | ErrorKind::Signal
                | ErrorKind::ExitCode
                | ErrorKind::Error
                | ErrorKind::Panic,
                _,
            ) => in_doubt,
            (
                ErrorKind::Egress
                | ErrorKind::Status
                | ErrorKind::Canceled
                | ErrorKind::Interrupted
                | ErrorKind::Shutdown,
                _,
            ) => false,
        }
    }
}

/// The number with which a handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The status of the webhook's answer.
    HttpStatus(u16),
    /// The exit code of the command.
    ExitCode(i32),
    /// The signal that ended the command.
    Signal(i32),
}

/// What a handler gave back: a webhook's response body, a command's output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Output {
    /// As the receiver declared it; none where it declared nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Whether the handler gave more than was kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The bytes, unchanged. Stored beside the record, not inside it.
    #[serde(skip)]
    pub bytes: Bytes,
}

impl Output {
    /// The beginning as text, at most so many bytes of it; none where there is none.
    #[must_use]
    pub fn beginning(&self, bytes_max: usize) -> Option<String> {
        let beginning = self.bytes.get(..bytes_max).unwrap_or(&self.bytes);
        (!beginning.is_empty()).then(|| String::from_utf8_lossy(beginning).into_owned())
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One of a closed set.
    pub kind: ErrorKind,
    /// A sentence for people; nothing decides on it.
    pub message: String,
    /// Whether the handler may have had an effect all the same.
    pub in_doubt: bool,
}

impl Failure {
    /// A failure of this kind, in doubt as the table at [`ErrorKind::in_doubt`] says.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), in_doubt: kind.in_doubt() }
    }

    /// A webhook's answer outside its success rule. Every 3xx and 4xx, and 503, says that the receiver refused; every
    /// other may have had an effect.
    #[must_use]
    pub fn status(code: u16, message: impl Into<String>) -> Self {
        Self { in_doubt: !is_refusal(code), ..Self::new(ErrorKind::Status, message) }
    }

    /// A failure of this kind that happened before anything was sent or started.
    #[must_use]
    pub fn without_effect(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { in_doubt: false, ..Self::new(kind, message) }
    }
}

/// Whether an answer with this status says that the receiver refused. Every other may have had an effect: 5xx but 503, a
/// 2xx that is not the one that was wanted, a number that HTTP does not have.
fn is_refusal(code: u16) -> bool {
    matches!(code, 300..=499 | 503)
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, in_doubt: $doubt:literal;)*) => {
        /// The closed set of reasons for which a run fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for this kind in answers, filters and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether a failure of this kind may have had an effect. A `status` is decided by its code
            /// ([`Failure::status`]), a `timeout` is not in doubt while nothing was sent.
            #[must_use]
            pub const fn in_doubt(self) -> bool {
                match self { $(Self::$variant => $doubt,)* }
            }
        }
    };
}

error_kinds! {
    /// Nobody accepted the connection.
    Refused = "refused", in_doubt: false;
    /// The name of the receiver was not found.
    Dns = "dns", in_doubt: false;
    /// The receiver is at an address that its handler may not connect to.
    Egress = "egress", in_doubt: false;
    /// No TLS session could be agreed on.
    Tls = "tls", in_doubt: false;
    /// The time was up before the outcome was known.
    Timeout = "timeout", in_doubt: true;
    /// The connection ended before the answer did.
    ConnectionLost = "connection_lost", in_doubt: true;
    /// The receiver answered outside the success rule.
    Status = "status", in_doubt: false;
    /// The answer came, but its body does not fit the success rule.
    Body = "body", in_doubt: true;
    /// The command could not be started.
    Spawn = "spawn", in_doubt: false;
    /// The command ran to its end and said that it failed.
    ExitCode = "exit_code", in_doubt: false;
    /// A signal ended the command.
    Signal = "signal", in_doubt: true;
    /// The future of a run returned an error.
    Error = "error", in_doubt: false;
    /// The handler's code panicked.
    Panic = "panic", in_doubt: true;
    /// A caller canceled the run.
    Canceled = "canceled", in_doubt: true;
    /// The service ended without knowing the outcome.
    Interrupted = "interrupted", in_doubt: true;
    /// The service stopped before the run ended.
    Shutdown = "shutdown", in_doubt: true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_refuses_leaves_no_doubt() {
        for (code, in_doubt) in [300, 304, 404, 429, 499, 503]
            .map(|code| (code, false))
            .into_iter()
            .chain([101, 200, 202, 299, 500, 501, 502, 504, 599, 600, 999].map(|code| (code, true)))
        {
            let failure = Failure::status(code, "it answered");
            assert_eq!((failure.kind, failure.in_doubt), (ErrorKind::Status, in_doubt), "{code}");
        }
        assert!(ErrorKind::Timeout.in_doubt());
        assert!(!Failure::without_effect(ErrorKind::Timeout, "before anything was sent").in_doubt);
    }

    #[test]
    fn the_beginning_of_an_output_is_no_longer_than_asked_for() {
        let output = |bytes: &'static str| Output { bytes: bytes.into(), ..Output::default() };
        assert_eq!(output("two apples").beginning(3).as_deref(), Some("two"));
        assert_eq!(output("two").beginning(3).as_deref(), Some("two"));
        assert_eq!(output("two").beginning(4).as_deref(), Some("two"));
        assert_eq!(output("").beginning(3), None);
        assert_eq!(output("two").beginning(0), None);
    }
}
