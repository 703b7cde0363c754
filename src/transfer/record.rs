//! One record as a line.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::task::{
    ATTEMPTS_KEPT, Attempt, Digest, Failure, HandlerName, Input, Output, Phase, State, StateName, Task,
    TaskId, Trace, Undo,
};

/// The largest numbers that are taken in; they have to leave room to count on. No store has counted so far.
const COUNT_MAX: u32 = u32::MAX / 2;
const REVISION_MAX: u64 = i64::MAX.unsigned_abs() / 2;

/// A whole record. Bytes are `text` where they are UTF-8, else `base64`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record<'a> {
    id: TaskId,
    handler: HandlerName,
    state: StateName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    run: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    revision: u64,
    revoked: u32,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undo: Option<Undo>,
    input: InputLine<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<OutputLine<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<Attempt>,
    /// SHA-256 of the idempotency keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Digest>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    notice_due: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    details_dropped: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputLine<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    size: u64,
    sha256: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputLine<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<'a> Record<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
        // Field by field, so that one that comes to be is not left out; the place is the order of the lines.
        let Task {
            id,
            handler,
            run,
            revision,
            revoked,
            entered: _,
            since,
            state,
            input,
            attempts,
            keys,
            notice_due,
            details_dropped,
            trace,
        } = task;
        let (text, base64) = written(&input.bytes);
        let Input { media_type, size, digest, .. } = input;
        let input = InputLine { media_type: media_type.clone(), size: *size, sha256: *digest, text, base64 };
        let output = task.output().map(|output| {
            let (text, base64) = written(&output.bytes);
            OutputLine { media_type: output.media_type.clone(), truncated: output.truncated, text, base64 }
        });
        let undo = match state {
            State::Success { undo, .. } => undo.clone(),
            State::Working { .. } | State::Failed { .. } | State::Absent => None,
        };
        Self {
            id: id.clone(),
            handler: handler.clone(),
            state: task.state_name(),
            phase: task.phase(),
            run: *run,
            attempt: task.attempt(),
            revision: *revision,
            revoked: *revoked,
            since: *since,
            error: task.failure().cloned(),
            undo,
            input,
            output,
            attempts: attempts.clone(),
            keys: keys.clone(),
            notice_due: *notice_due,
            details_dropped: *details_dropped,
            trace: *trace,
        }
    }

    /// The task, without a place; or why the line is none.
    pub(super) fn into_task(self) -> Result<Task, String> {
        self.check_numbers().map_err(|why| format!("{} {why}", self.id))?;
        let id = self.id;
        let fault = |what: &str| format!("{id} {what}");
        // Stores keep microseconds, and not those of the very last second that there is.
        let since = Timestamp::from_microsecond(self.since.as_microsecond())
            .map_err(|_too_late| fault("has a time (since) that no store keeps"))?;
        let output = match self.output {
            None => None,
            Some(OutputLine { media_type, truncated, text, base64 }) => {
                let bytes = read(text, base64).map_err(|why| fault(&format!("has an output that {why}")))?;
                Some(Output { media_type, truncated, bytes })
            }
        };
        let is_bare = self.input.text.is_none()
            && self.input.base64.is_none()
            && self.attempts.is_empty()
            && output.is_none()
            && !self.notice_due;
        if self.details_dropped && !(is_bare && matches!(self.state, StateName::Success | StateName::Failed))
        {
            return Err(fault("has more than is left where details were dropped"));
        }
        let state = match (self.state, self.phase, self.attempt, self.error) {
            (StateName::Working, Some(phase), Some(attempt), None)
                if output.is_none() && !self.notice_due =>
            {
                State::Working { phase, attempt }
            }
            (StateName::Success, None, None, None) => State::Success { output, undo: self.undo.clone() },
            (StateName::Failed, None, None, Some(failure)) => State::Failed { failure, output },
            (StateName::Absent, None, None, None) if is_bare => State::Absent,
            (state, ..) => {
                let state = state.as_str();
                return Err(fault(&format!("is {state}, and does not have what belongs to that state")));
            }
        };
        if self.undo.is_some() && self.state != StateName::Success {
            return Err(fault("has an undo, which only a success has"));
        }
        let InputLine { media_type, size, sha256, text, base64 } = self.input;
        let bytes = read(text, base64).map_err(|why| fault(&format!("has an input that {why}")))?;
        let is_dropped = self.details_dropped && bytes.is_empty();
        if !is_dropped && (bytes.len() as u64 != size || Digest::of(&bytes) != sha256) {
            return Err(fault("has an input whose size or SHA-256 is another one than the line says"));
        }
        Ok(Task {
            handler: self.handler,
            run: self.run,
            revision: self.revision,
            revoked: self.revoked,
            entered: 0,
            since,
            state,
            input: Input { media_type, size, digest: sha256, bytes },
            attempts: self.attempts,
            keys: self.keys,
            notice_due: self.notice_due,
            details_dropped: self.details_dropped,
            trace: self.trace,
            id,
        })
    }

    /// Why no store has such a record. The times of attempts and pauses are read as microseconds, so that those which
    /// cannot be kept do not get here; there is no limit for outputs, because futures of the library have none.
    fn check_numbers(&self) -> Result<(), String> {
        let counts = [self.run, self.revoked, self.attempt.unwrap_or_default()];
        if counts.iter().any(|count| *count > COUNT_MAX) || self.revision > REVISION_MAX {
            return Err("has a number that no store has counted to".to_owned());
        }
        let of_attempts = self.attempts.iter().any(|attempt| attempt.run == 0 || attempt.attempt == 0);
        if self.run == 0 || self.revision == 0 || self.attempt == Some(0) || of_attempts {
            return Err("has a run, a revision or an attempt of 0; they count from 1".to_owned());
        }
        if self.attempts.iter().any(|attempt| attempt.run > self.run) {
            return Err("has an attempt of a run that it has not had".to_owned());
        }
        if self.attempts.len().max(self.keys.len()) > ATTEMPTS_KEPT {
            return Err(format!("has more attempts or keys than are remembered ({ATTEMPTS_KEPT})"));
        }
        Ok(())
    }
}

fn written(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok("") => (None, None),
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn read(text: Option<Cow<'_, str>>, base64: Option<String>) -> Result<Bytes, &'static str> {
    match (text, base64) {
        (None, None) => Ok(Bytes::new()),
        (Some(text), None) => Ok(text.into_owned().into_bytes().into()),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map(Bytes::from).map_err(|_foreign| "is not Base64 where it says so")
        }
        (Some(_), Some(_)) => Err("is both text and Base64"),
    }
}
