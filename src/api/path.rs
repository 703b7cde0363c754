//! What a path names: one segment, decoded once, checked once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::caller::Caller;
use super::problem::Problem;
use crate::task::TaskId;

/// The id of `/tasks/{id}…`, which the token of the request may name.
pub(super) struct TaskPath(pub(super) TaskId);

/// The name or the number of `/handlers/{name}…` and `/bulk/{op}…`, as it was meant. One that is no UTF-8 is none that is
/// known.
pub(super) struct NamePath(pub(super) String);

/// The id that a raw segment names. Decoded exactly once, so that `%2F` is a slash, and refused.
pub(super) fn parse(segment: &str) -> Result<TaskId, Problem> {
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    decoded.parse().map_err(|why| Problem::invalid_id(&decoded, &why))
}

impl<S: Sync> FromRequestParts<S> for TaskPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let id = parse(segment(parts))?;
        Caller::of(parts).may_name(&id)?;
        Ok(Self(id))
    }
}

impl<S: Sync> FromRequestParts<S> for NamePath {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(percent_decode_str(segment(parts)).decode_utf8_lossy().into_owned()))
    }
}

/// Behind "", and "tasks" or the like; there may be more behind it.
fn segment(parts: &Parts) -> &str {
    parts.uri.path().split('/').nth(2).unwrap_or_default()
}
