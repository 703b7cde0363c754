//! The description of the interface: OpenAPI 3.1, made of the list of routes, the types of the answers and the list of
//! problem types. `GET /openapi.json` gives it, `GET /docs` shows it.
//!
//! Invariant: no route is without its [`Operation`], because a route cannot be made without one; and what is answered is
//! what is told here (the tests compare every answer that they get, tests/it/openapi.rs).

mod operation;
mod page;
mod parameters;
mod problems;
pub(super) mod service;
pub(super) mod shapes;
pub(super) mod tasks;

use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::problem::ProblemView;
use super::routes::routes;

pub use self::operation::Operation;

/// What is true of all operations, beside what each tells itself.
const ABOUT: &str = "\
Launches a configured handler under an id that the caller chooses, and records what became of it. **An id that has \
succeeded never runs again, an id that is working is never launched twice, an id that failed may be launched again.**

Bodies are JSON; errors are `application/problem+json` (RFC 9457) with a stable `type`. Times are RFC 3339 in UTC with \
microseconds. `HEAD` is answered as `GET`, without the body. Where the service has tokens, each request but to the open \
paths needs one with the scope that the operation names; without tokens nobody needs one.";

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(DOCUMENT.to_string()));
static PAGE: LazyLock<page::Page> = LazyLock::new(|| page::Page::of(&DOCUMENT));

/// The document.
#[must_use]
pub fn openapi() -> &'static Value {
    &DOCUMENT
}

pub(super) async fn openapi_json() -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

pub(super) async fn docs() -> Response {
    let about = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE.policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (about, PAGE.html.clone()).into_response()
}

fn document() -> Value {
    let settings =
        || SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut of_answers = settings().for_serialize().into_generator();
    let mut of_requests = settings().for_deserialize().into_generator();
    of_answers.subschema_for::<ProblemView<'_>>();
    let mut paths = Map::new();
    for route in routes() {
        let told = (route.operation)().told(&route, &mut of_answers, &mut of_requests);
        let of_path = paths.entry(route.path).or_insert_with(|| json!({})).as_object_mut();
        of_path.map(|of_path| of_path.insert(route.method.as_str().to_ascii_lowercase(), told));
    }
    let mut schemas = of_answers.take_definitions(true);
    schemas.extend(of_requests.take_definitions(true));
    schemas.extend(shapes::shared());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "task-recorder",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [{ "name": tasks::GROUP }, { "name": service::BULK }, { "name": service::SERVICE }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems::elsewhere(),
            "examples": problems::examples(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The secret of a token of the config." },
            },
        },
    })
}
