//! What is told of a route: in which words, what it takes, and how it answers.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problems;
use crate::api::problem::ProblemType;
use crate::api::routes::Route;

/// What is told of one method of one path.
pub struct Operation {
    /// Its name for generated clients.
    id: &'static str,
    summary: &'static str,
    group: &'static str,
    about: &'static str,
    takes: &'static [Parameter],
    body: Option<Body>,
    answers: Vec<Answer>,
    /// Those that belong to this operation; those of all are added.
    problems: &'static [ProblemType],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) about: &'static str,
    /// JSON, as is the example.
    pub(super) schema: &'static str,
    pub(super) example: &'static str,
}

/// A header of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) example: &'static str,
}

struct Body {
    about: &'static str,
    is_required: bool,
    content: Content,
}

struct Answer {
    status: u16,
    about: &'static str,
    headers: &'static [Header],
    /// One for each media type; none where the answer has no body.
    content: Vec<Content>,
}

/// A body of one media type.
pub(super) struct Content {
    media: &'static str,
    shape: Shape,
    /// JSON where the shape is, else text.
    example: &'static str,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

enum Shape {
    Json(SchemaOf),
    /// JSON of this shape a line.
    Lines(SchemaOf),
    /// Server-sent events with JSON of this shape as their data; the schema is that of one event.
    Events(SchemaOf),
    Text,
    /// Whatever it is.
    Bytes,
}

/// JSON of a type of the code.
pub(super) fn json<T: JsonSchema>(example: &'static str) -> Content {
    let shape = Shape::Json(SchemaGenerator::subschema_for::<T>);
    Content { media: "application/json", shape, example }
}

/// JSON of a type of the code, one a line.
pub(super) fn lines<T: JsonSchema>(example: &'static str) -> Content {
    let shape = Shape::Lines(SchemaGenerator::subschema_for::<T>);
    Content { media: "application/x-ndjson", shape, example }
}

/// Events with JSON of a type of the code.
pub(super) fn events<T: JsonSchema>(example: &'static str) -> Content {
    let shape = Shape::Events(SchemaGenerator::subschema_for::<T>);
    Content { media: "text/event-stream", shape, example }
}

pub(super) fn text(media: &'static str, example: &'static str) -> Content {
    Content { media, shape: Shape::Text, example }
}

pub(super) fn bytes(example: &'static str) -> Content {
    Content { media: "*/*", shape: Shape::Bytes, example }
}

impl Operation {
    pub(super) fn new(
        group: &'static str,
        id: &'static str,
        summary: &'static str,
        about: &'static str,
    ) -> Self {
        Self { id, summary, group, about, takes: &[], body: None, answers: Vec::new(), problems: &[] }
    }

    /// The same under another name.
    pub(super) fn named(self, id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, ..self }
    }

    pub(super) fn takes(self, takes: &'static [Parameter]) -> Self {
        Self { takes, ..self }
    }

    pub(super) fn body(self, is_required: bool, about: &'static str, content: Content) -> Self {
        Self { body: Some(Body { about, is_required, content }), ..self }
    }

    pub(super) fn answer<const N: usize>(
        mut self,
        status: u16,
        about: &'static str,
        headers: &'static [Header],
        content: [Content; N],
    ) -> Self {
        self.answers.push(Answer { status, about, headers, content: content.into() });
        self
    }

    pub(super) fn problems(self, problems: &'static [ProblemType]) -> Self {
        Self { problems, ..self }
    }

    /// As OpenAPI has it.
    pub(super) fn told(
        &self,
        route: &Route,
        of_answers: &mut SchemaGenerator,
        of_requests: &mut SchemaGenerator,
    ) -> Value {
        let takes_id = self.takes.iter().any(|one| one.place == Place::Path && one.name == "id");
        let mut responses = problems::answers(route, takes_id, self.problems);
        responses
            .extend(self.answers.iter().map(|answer| (answer.status.to_string(), answer.told(of_answers))));
        // None where the service has no tokens.
        let (security, needs) = match route.scope {
            None => (json!([{}]), "Nobody needs a token.".to_owned()),
            Some(scope) => (
                json!([{ "token": [scope.as_str()] }, {}]),
                format!("Needs the scope `{scope}`, where there are tokens."),
            ),
        };
        let parameters: Vec<_> = self.takes.iter().map(Parameter::told).collect();
        let mut told = json!({
            "operationId": self.id,
            "tags": [self.group],
            "summary": self.summary,
            "description": format!("{}\n\n{needs}", self.about).trim_start(),
            "security": security,
            "parameters": parameters,
            "responses": responses,
        });
        if let (Some(Body { about, is_required, content }), Some(members)) =
            (&self.body, told.as_object_mut())
        {
            let content = Map::from_iter([content.told(of_requests)]);
            let body = json!({ "description": about, "required": is_required, "content": content });
            members.insert("requestBody".to_owned(), body);
        }
        told
    }
}

impl Parameter {
    fn told(&self) -> Value {
        let place = match self.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        };
        json!({
            "name": self.name,
            "in": place,
            "required": self.place == Place::Path,
            "description": self.about,
            "schema": parsed(self.schema),
            "example": parsed(self.example),
        })
    }
}

impl Answer {
    fn told(&self, generator: &mut SchemaGenerator) -> Value {
        let content: Map<_, _> = self.content.iter().map(|content| content.told(generator)).collect();
        json!({ "description": self.about, "headers": headers(self.headers), "content": content })
    }
}

impl Content {
    fn told(&self, generator: &mut SchemaGenerator) -> (String, Value) {
        let text = || Value::from(self.example);
        let (schema, example) = match self.shape {
            Shape::Json(of) => (of(generator).to_value(), parsed(self.example)),
            Shape::Lines(of) => (json!({ "type": "string", "x-line": of(generator) }), text()),
            Shape::Events(of) => {
                let data = json!({
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": of(generator),
                });
                let word = json!({ "type": "string" });
                let event = json!({ "id": word, "event": word, "data": data });
                (json!({ "type": "object", "properties": event }), text())
            }
            Shape::Text => (json!({ "type": "string" }), text()),
            Shape::Bytes => (json!({}), text()),
        };
        (self.media.to_owned(), json!({ "schema": schema, "example": example }))
    }
}

/// As OpenAPI has them.
pub(super) fn headers<'a>(headers: impl IntoIterator<Item = &'a Header>) -> Value {
    let told = headers.into_iter().map(|Header { name, about, example }| {
        let schema = json!({ "type": "string" });
        ((*name).to_owned(), json!({ "description": about, "schema": schema, "example": example }))
    });
    Value::Object(told.collect())
}

/// JSON that stands in the code; the tests see that it is some.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}
