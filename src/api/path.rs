//! The id in a path: one segment, decoded once, checked once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::caller::Caller;
use super::problem::Problem;
use crate::task::TaskId;

/// The id of `/tasks/{id}…`, which the token of the request may name.
pub(super) struct TaskPath(pub(super) TaskId);

/// The id that a raw segment names. Decoded exactly once, so that `%2F` is a slash, and refused.
pub(super) fn parse(segment: &str) -> Result<TaskId, Problem> {
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    decoded.parse().map_err(|why| Problem::invalid_id(&decoded, &why))
}

impl<S: Sync> FromRequestParts<S> for TaskPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        // "", "tasks", the id, and perhaps what is asked of it.
        let id = parse(parts.uri.path().split('/').nth(2).unwrap_or_default())?;
        Caller::of(parts).may_name(&id)?;
        Ok(Self(id))
    }
}
