//! What the service answers, as far as the verbs look at it: what else it says is passed on as it is, and what it does
//! not say is left out.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;

use crate::exit::Exit;

/// A whole answer: as the service wrote it, and what was read of it.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) text: Bytes,
    pub(super) value: T,
}

/// How a task stands.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) handler: Option<String>,
    pub(super) phase: Option<String>,
    pub(super) run: Option<u64>,
    pub(super) attempt: Option<u64>,
    pub(super) since: Option<String>,
    pub(super) error: Option<Error>,
    pub(super) in_doubt: Option<bool>,
    pub(super) revoke_error: Option<RevokeError>,
    pub(super) launched: Option<bool>,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Error {
    pub(super) kind: String,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct RevokeError {
    pub(super) error: Error,
}

/// Several tasks.
#[derive(Debug, Deserialize)]
pub(super) struct Tasks<T> {
    pub(super) tasks: Vec<T>,
}

/// An error of the service.
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    #[serde(default)]
    pub(super) r#type: String,
    pub(super) detail: String,
}

/// A line of the answer to a batch.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum BatchLine {
    /// Refused. Comes first, because it may say how the task stands too.
    Refused(BatchProblem),
    /// Launched, or not needed.
    Decided(Box<Status>),
}

/// A line of a batch that was refused.
#[derive(Debug, Deserialize)]
pub(super) struct BatchProblem {
    pub(super) line: u64,
    pub(super) status: u16,
    pub(super) detail: String,
}

/// A dry run of a bulk operation.
#[derive(Debug, Deserialize)]
pub(super) struct Matched {
    pub(super) matched: u64,
}

/// A bulk operation.
#[derive(Debug, Deserialize)]
pub(super) struct Bulk {
    pub(super) op: u64,
    pub(super) action: String,
    pub(super) state: String,
    pub(super) matched: u64,
    pub(super) done: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    #[serde(default)]
    pub(super) failures: Vec<BulkFailure>,
}

/// A task that a bulk operation failed for.
#[derive(Debug, Deserialize)]
pub(super) struct BulkFailure {
    pub(super) id: String,
    pub(super) reason: String,
}

/// Changes that are not told any more.
#[derive(Debug, Deserialize)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Status {
    /// Whether nothing of it is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.state != "working" && self.phase.as_deref() != Some("revoking")
    }

    pub(super) fn is_failed(&self) -> bool {
        self.state == "failed"
    }
}

impl Problem {
    /// The exit code for a problem of this status.
    pub(super) fn exit(&self, status: StatusCode) -> Exit {
        match status.as_u16() {
            401 | 403 => Exit::NotAllowed,
            404 if self.r#type.ends_with("/not-found") || self.r#type.ends_with("/unknown-operation") => {
                Exit::NotFound
            }
            409 | 410 | 412 => Exit::Refused,
            408 | 429 | 500.. => Exit::Unavailable,
            _ => Exit::Usage,
        }
    }
}
