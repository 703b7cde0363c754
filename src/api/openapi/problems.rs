//! Which problems each route may answer with.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::operation::{self, Header};
use super::parameters as p;
use crate::api::problem::{ProblemType, ProblemView};
use crate::api::routes::Route;

/// Whoever asks.
const OF_ALL: [ProblemType; 2] = [ProblemType::MalformedRequest, ProblemType::HeadTooLarge];
/// Where a token is needed, or where there are none, to be meant.
const OF_GUARDED: [ProblemType; 8] = [
    ProblemType::ForeignOrigin,
    ProblemType::UnknownHost,
    ProblemType::InvalidHeader,
    ProblemType::TokenRequired,
    ProblemType::InvalidToken,
    ProblemType::ExpiredToken,
    ProblemType::InsufficientScope,
    ProblemType::TooManyFailures,
];

/// The answers of a route that are problems, by status: its own, and those that it shares with others.
pub(super) fn answers(route: &Route, takes_id: bool, own: &[ProblemType]) -> Map<String, Value> {
    let mut kinds: BTreeSet<_> = OF_ALL.into_iter().chain(own.iter().copied()).collect();
    if route.scope.is_some() {
        kinds.extend(OF_GUARDED);
        kinds.insert(ProblemType::InvalidParameter);
    }
    if takes_id {
        kinds.extend([ProblemType::InvalidId, ProblemType::OutOfReach, ProblemType::StoreUnavailable]);
    }
    let mut by_status = BTreeMap::<_, Vec<_>>::new();
    for kind in kinds {
        by_status.entry(kind.status()).or_default().push(kind);
        // The handler of a task that was launched once may be gone.
        if takes_id && kind == ProblemType::UnknownHandler {
            by_status.entry(StatusCode::CONFLICT).or_default().push(kind);
        }
    }
    by_status.into_iter().map(|(status, kinds)| (status.as_str().to_owned(), answer(&kinds))).collect()
}

/// The answers to what is no operation.
pub(super) fn elsewhere() -> Value {
    json!({
        "UnknownRoute": answer(&[ProblemType::UnknownRoute]),
        "MethodNotAllowed": answer(&[ProblemType::MethodNotAllowed]),
    })
}

/// Every type, by its code.
pub(super) fn examples() -> Value {
    let all = ProblemType::ALL.iter().map(|kind| {
        let told = json!({ "summary": kind.title(), "description": kind.when(), "value": example(*kind) });
        (kind.code().to_owned(), told)
    });
    Value::Object(all.collect())
}

/// An answer that is one of these problems.
fn answer(kinds: &[ProblemType]) -> Value {
    let about: Vec<_> = kinds.iter().map(|kind| format!("- `{}`: {}", kind.code(), kind.when())).collect();
    let examples = kinds.iter().map(|kind| {
        let code = kind.code();
        (code.to_owned(), json!({ "$ref": format!("#/components/examples/{code}") }))
    });
    let examples: Map<_, _> = examples.collect();
    json!({
        "description": about.join("\n"),
        "headers": operation::headers(kinds.iter().find_map(|kind| header(*kind)).as_ref()),
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "examples": examples,
        } },
    })
}

/// The header that goes with a type; those of one status have the same.
fn header(kind: ProblemType) -> Option<Header> {
    match kind.status() {
        StatusCode::UNAUTHORIZED => Some(p::WWW_AUTHENTICATE),
        StatusCode::METHOD_NOT_ALLOWED => Some(p::ALLOW),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(p::RETRY_AFTER),
        _ if kind == ProblemType::InsufficientScope => Some(p::WWW_AUTHENTICATE),
        _ => None,
    }
}

fn example(kind: ProblemType) -> Value {
    let state = match kind {
        ProblemType::NotFound => Some("not_found"),
        ProblemType::Duplicate | ProblemType::NoResult | ProblemType::NotFailed | ProblemType::NotSuccess => {
            Some("working")
        }
        ProblemType::Revoking | ProblemType::NotWorking | ProblemType::DetailsDropped => Some("success"),
        ProblemType::HandlerMismatch
        | ProblemType::InputMismatch
        | ProblemType::InputDropped
        | ProblemType::Conflict => Some("failed"),
        _ => None,
    };
    let fault = ["config.toml:3:1: unknown key \"lissten\"; did you mean \"listen\"?".to_owned()];
    json!(ProblemView {
        r#type: format!("/problems/{}", kind.code()),
        title: kind.title(),
        status: kind.status().as_u16(),
        detail: &kind.when().replace('`', ""),
        id: state.map(|_| "order-42"),
        state,
        errors: if kind == ProblemType::InvalidConfig { &fault } else { &[] },
    })
}
