//! Signatures after Standard Webhooks, and the ids by which a receiver knows a message again.
//!
//! Invariant: the id of a message holds no dot, so that `{id}.{timestamp}.{body}` is read in one way only.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::task::{Digest, Purpose, Task};

/// What a secret begins with.
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret with which messages are signed. It never prints.
#[derive(Clone)]
pub struct Secret(hmac::Key);

/// Why a text is no [`Secret`]; the text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// It does not begin as a secret does.
    #[error("a secret begins with whsec_")]
    Prefix,
    /// What follows is no base64.
    #[error("what follows whsec_ is no base64")]
    Base64,
    /// It is too short or too long.
    #[error("a secret has 24 to 64 bytes in base64, this one has {0}")]
    Length(usize),
}

/// The id of a message. That of a launch or a revoke is the same over attempts, relaunches and restarts, until a
/// success is revoked; that of a notice over all attempts to tell of one run.
pub(super) fn message_id(task: &Task, purpose: Purpose) -> String {
    let (prefix, generation) = match purpose {
        Purpose::Launch => ("task_", task.revoked),
        Purpose::Revoke => ("revoke_", task.revoked),
        Purpose::Notice => ("notice_", task.run),
    };
    // The number ends at the colon, so that no two of them look alike.
    let hash = Digest::of([&generation.to_string(), ":", task.id.as_str()].concat().as_bytes());
    let mut id = String::with_capacity(prefix.len() + 32);
    id.push_str(prefix);
    hash.push_half_to(&mut id);
    id
}

impl Secret {
    fn sign(&self, id: &str, timestamp: &str, body: &[u8], header: &mut String) {
        let mut message = hmac::Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            message.update(part);
        }
        header.push_str("v1,");
        BASE64_STANDARD.encode_string(message.sign(), header);
    }
}

/// The value of `webhook-signature`: one signature for each secret.
pub(super) fn signatures(secrets: &[Secret], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut header = String::with_capacity(secrets.len() * "v1, ".len() + secrets.len() * 44);
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        secret.sign(id, timestamp, body, &mut header);
    }
    header
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(InvalidSecret::Prefix)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_invalid| InvalidSecret::Base64)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(InvalidSecret::Length(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
