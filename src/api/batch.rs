//! `POST /tasks`: many launches in one request, a JSON object a line, answered line by line in the same order.
//!
//! The answers are a stream that reads the request when the client takes them: it holds at most [`IN_FLIGHT`]
//! launches, so many bytes of them, and one line more, however many lines come and however slowly the answers are read. A client that goes away
//! ends the reading; a launch that has begun owns itself and goes on.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub(super) mod fuzzing;
mod lines;
mod under_way;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{self, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use self::lines::{Line, Read};
use self::under_way::{Turn, UnderWay};
use super::Api;
use super::caller::Caller;
use super::launch::{Decided, LaunchView, may_see, trace};
use super::openapi::shapes;
use super::params::Params;
use super::problem::{Problem, ProblemType, ProblemView};
use crate::handler::Handler;
use crate::json;
use crate::task::{Input, Request, TaskId, Trace};

/// How many launches of one batch are under way at once: enough for whole commits.
const IN_FLIGHT: usize = 256;
/// How much longer a line may be than the largest input of all handlers: its id, its handler, its keys.
const ENVELOPE_BYTES: usize = 4 << 10;
const INPUT_TYPE: &str = "application/json";

/// A line of the request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LaunchLine")]
pub(super) struct LaunchLine<'a> {
    #[serde(borrow)]
    #[schemars(schema_with = "shapes::task_id")]
    id: Cow<'a, str>,
    #[serde(default)]
    #[schemars(schema_with = "shapes::handler_name")]
    handler: Option<String>,
    /// Its JSON text, unchanged, is the input; also `null`. Left out, the input is empty.
    #[serde(borrow, default, deserialize_with = "given")]
    #[schemars(with = "Option<serde_json::Value>")]
    input: Option<&'a RawValue>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A line of the answer.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AnswerLine")]
pub(super) enum AnswerLine<'a> {
    Decided {
        status: u16,
        #[serde(flatten)]
        launch: LaunchView<'a>,
    },
    Problem {
        line: u64,
        #[serde(flatten)]
        problem: ProblemView<'a>,
    },
}

pub(super) async fn launch(
    State(api): State<Arc<Api>>,
    request: extract::Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = Caller::of(&parts);
    let params = Params::parse(parts.uri.query(), &["handler"])?;
    is_ndjson(&parts.headers)?;
    let default = params.one("handler")?.map(|name| api.handler(&caller, Some(name))).transpose()?;
    let input_max =
        api.live.load().handlers.iter().map(|handler| handler.input_bytes_max).max().unwrap_or_default();
    let batch =
        Arc::new(Batch { api, caller, default, trace: trace(&parts.headers), under_way: UnderWay::new() });
    let answering = Arc::clone(&batch);
    let lines = lines::read(body, input_max + ENVELOPE_BYTES, &batch.api.bodies);
    let mut lines = Box::pin(lines.peekable());
    if parts.headers.contains_key(header::EXPECT) {
        // Reading is what sends 100 Continue, and behind the head of the answer it would be too late.
        let _ = lines.as_mut().peek().await;
    }
    let answers = lines
        .then(move |line| Arc::clone(&batch).entered(line))
        .map(move |entered| Arc::clone(&answering).answered(entered))
        .buffered(IN_FLIGHT)
        .ready_chunks(IN_FLIGHT)
        .map(|lines| Ok::<_, Infallible>(Bytes::from(lines.concat())));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response())
}

fn is_ndjson(headers: &HeaderMap) -> Result<(), Problem> {
    let declared =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(essence.as_str(), "application/x-ndjson" | "application/ndjson") {
        return Ok(());
    }
    let detail = "A batch has the Content-Type application/x-ndjson: a JSON object a line, each a launch. \
                  A single launch goes to /tasks/{id}.";
    Err(Problem::new(ProblemType::UnsupportedMediaType, detail).closing())
}

struct Batch {
    api: Arc<Api>,
    caller: Caller,
    /// The handler of lines that name none.
    default: Option<Arc<Handler>>,
    /// Of all its launches.
    trace: Option<Trace>,
    under_way: Arc<UnderWay>,
}

/// A line whose turn it is.
struct Entered {
    number: u64,
    launch: Result<(Turn, Request), Problem>,
}

impl Batch {
    async fn entered(self: Arc<Self>, line: Line) -> Entered {
        let Line { number, read } = line;
        let launch = match read {
            Read::Whole(text) => match self.parsed(&text) {
                Ok((id, request)) => Ok((Arc::clone(&self.under_way).enter(id, text.len()).await, request)),
                Err(problem) => Err(problem),
            },
            Read::TooLong { bytes_max } => Err(too_long(bytes_max)),
            Read::Stalled(patience) => Err(Problem::body_timeout(patience)),
            Read::NoRoom(problem) => Err(problem),
            Read::BrokenOff => Err(Problem::malformed("The body ended before it was complete.")),
        };
        Entered { number, launch }
    }

    /// What a line asks for.
    fn parsed(&self, text: &[u8]) -> Result<(TaskId, Request), Problem> {
        let LaunchLine { id, handler, input } = json::object(text).map_err(|error| malformed(&error))?;
        let id: TaskId = id.parse().map_err(|why| Problem::invalid_id(&id, &why))?;
        self.caller.may_name(&id)?;
        self.caller.may_go_on(&self.api).map_err(|problem| problem.with_id(&id))?;
        let handler = match (handler, &self.default) {
            (None, Some(default)) => Arc::clone(default),
            (name, _) => {
                self.api.handler(&self.caller, name.as_deref()).map_err(|problem| problem.with_id(&id))?
            }
        };
        let input = match input.map(|json| json.get().as_bytes()) {
            Some(json) if json.len() > handler.input_bytes_max => {
                return Err(Problem::input_too_large(handler.input_bytes_max).with_id(&id));
            }
            // A copy, because the line is a part of what came with it, and the input may live for long.
            Some(json) => Input::new(Some(INPUT_TYPE.to_owned()), Bytes::copy_from_slice(json)),
            None => Input::empty(),
        };
        Ok((id, Request { trace: self.trace, ..Request::new(handler.name.clone(), input) }))
    }

    /// The line that answers a line.
    async fn answered(self: Arc<Self>, entered: Entered) -> Vec<u8> {
        let Entered { number, launch } = entered;
        let (turn, request) = match launch {
            Ok(launch) => launch,
            Err(problem) => return refused(number, &problem),
        };
        let id = turn.id();
        match self.api.recorder.launch_in_lane(id.clone(), request).await {
            Ok(launch) => match may_see(&self.caller, &launch).and_then(|()| Decided::new(id, &launch)) {
                Ok(Decided { status, view, .. }) => {
                    written(&AnswerLine::Decided { status: status.as_u16(), launch: view })
                }
                Err(problem) => refused(number, &problem),
            },
            Err(error) => refused(number, &Problem::from(error).with_id(id)),
        }
    }
}

fn refused(line: u64, problem: &Problem) -> Vec<u8> {
    written(&AnswerLine::Problem { line, problem: problem.view() })
}

fn malformed(error: &serde_json::Error) -> Problem {
    let detail = format!("The line is no launch such as {{\"id\":\"order-42\",\"input\":{{}}}}: {error}.");
    Problem::new(ProblemType::MalformedLine, detail)
}

fn too_long(bytes_max: usize) -> Problem {
    let detail = format!("The line has more than the {bytes_max} bytes that the handlers can take.");
    Problem::new(ProblemType::InputTooLarge, detail)
}

fn written(line: &AnswerLine<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    if let Err(error) = serde_json::to_writer(&mut bytes, line) {
        tracing::error!(%error, "a line could not be written as JSON");
    }
    bytes.push(b'\n');
    bytes
}
