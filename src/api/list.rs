//! `GET /tasks`: pages as JSON, or every match as a stream of JSON lines or of bare ids.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub(super) mod fuzzing;

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::caller::Caller;
use super::filter::filter;
use super::params::Params;
use super::problem::{Problem, ProblemType};
use super::view::{self, ListedView};
use crate::store::{Order, Page, Query, StoreError};
use crate::task::{HandlerName, Task};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
const KNOWN: [&str; 10] =
    ["state", "handler", "prefix", "error_kind", "in_doubt", "since", "until", "order", "cursor", "limit"];

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Page")]
pub(super) struct PageView<'a> {
    tasks: Vec<ListedView<'a>>,
    next: Option<String>,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Ndjson,
    PlainText,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = Params::parse(uri.query(), &KNOWN)?;
    let format = Format::accepted(&headers)?;
    let limit = limit(&params, format)?;
    let order = order(&params)?;
    let filter = caller.narrow(filter(&params)?)?;
    let query = Query { filter, order, after: cursor(&params, order)?, limit: LIMIT_DEFAULT };
    if let Some(handler) = &query.filter.handler {
        api.known(&caller, handler)?;
    }
    if format != Format::Json {
        return Ok(streamed(api, caller, query, limit, format));
    }
    let query = Query { limit: limit.unwrap_or(LIMIT_DEFAULT), ..query };
    let page = api.recorder.list(&query).await?;
    Ok(paged(&uri, &page, order))
}

impl Api {
    /// Refuses a name that is not configured and that no task has: an empty list would look as if all were well.
    fn known(&self, caller: &Caller, handler: &HandlerName) -> Result<(), Problem> {
        let is_known = self.live.load().handlers.get(handler.as_str()).is_some()
            || self.recorder.counts().by_handler.contains_key(handler);
        if is_known { Ok(()) } else { Err(self.unknown_handler(caller, handler.as_str())) }
    }
}

fn paged(uri: &Uri, page: &Page, order: Order) -> Response {
    let next = page.next.map(|place| written_cursor(order, place));
    let link = next.as_ref().map(|next| next_link(uri, next));
    let tasks = page.tasks.iter().map(|task| ListedView::new(task)).collect();
    let mut response = view::json(StatusCode::OK, &PageView { tasks, next });
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The same request with another cursor.
fn next_link(uri: &Uri, cursor: &str) -> String {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.filter(|(name, _)| name != "cursor")).append_pair("cursor", cursor);
    format!("</tasks?{}>; rel=\"next\"", query.finish())
}

/// Reads page after page while the client takes them. Ends with what was there when it began, however busy it is, and
/// whatever the clock says.
fn streamed(api: Arc<Api>, caller: Caller, query: Query, limit: Option<usize>, format: Format) -> Response {
    let lines =
        stream::try_unfold(Some(Rest { api, caller, query, limit, end: None }), move |rest| async move {
            let Some(mut rest) = rest else { return Ok::<_, io::Error>(None) };
            if !rest.caller.stands(&rest.api) {
                return Err(io::Error::other("the token is not valid any more"));
            }
            // The client sees only that the stream breaks off.
            let (tasks, is_last) = rest.page().await.map_err(|error| {
                tracing::warn!(%error, "list broken off");
                io::Error::other(error)
            })?;
            Ok(Some((format.lines(&tasks), (!is_last).then_some(rest))))
        });
    let media_type = [(header::CONTENT_TYPE, format.media_type())];
    (media_type, Body::from_stream(lines)).into_response()
}

/// What is still to be streamed.
struct Rest {
    api: Arc<Api>,
    caller: Caller,
    query: Query,
    limit: Option<usize>,
    /// The place of the last task that was there at the beginning.
    end: Option<u64>,
}

impl Rest {
    /// The next tasks, and whether they are the last ones.
    async fn page(&mut self) -> Result<(Vec<Arc<Task>>, bool), StoreError> {
        let (recorder, query) = (&self.api.recorder, &mut self.query);
        let end = match self.end {
            Some(end) => end,
            None => match recorder.newest(&query.filter.states).await? {
                Some(end) => end,
                None => return Ok((Vec::new(), true)),
            },
        };
        self.end = Some(end);
        query.limit = self.limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        let Page { mut tasks, next } = recorder.list(query).await?;
        tasks.retain(|task| task.entered <= end);
        let is_behind = |place| query.order == Order::Ascending && place >= end;
        self.limit = self.limit.map(|limit| limit - tasks.len());
        query.after = next;
        Ok((tasks, next.is_none_or(is_behind) || self.limit == Some(0)))
    }
}

impl Format {
    /// The first of the media types in `Accept` that is served; JSON where anything will do.
    fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut is_asked = false;
        for header in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in header.split(',') {
                is_asked = true;
                match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                    "application/json" | "application/*" | "*/*" => return Ok(Self::Json),
                    "application/x-ndjson" | "application/ndjson" => return Ok(Self::Ndjson),
                    "text/plain" | "text/*" => return Ok(Self::PlainText),
                    _ => {}
                }
            }
        }
        if !is_asked {
            return Ok(Self::Json);
        }
        let detail = "A list comes as application/json, application/x-ndjson or text/plain.";
        Err(Problem::new(ProblemType::NotAcceptable, detail))
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::PlainText => "text/plain; charset=utf-8",
        }
    }

    fn lines(self, tasks: &[Arc<Task>]) -> Bytes {
        let mut lines = Vec::with_capacity(tasks.len() * 128);
        for task in tasks {
            if self == Self::PlainText {
                lines.extend_from_slice(task.id.as_str().as_bytes());
            } else if let Err(error) = serde_json::to_writer(&mut lines, &ListedView::new(task)) {
                tracing::error!(%error, "a task could not be written as JSON");
            }
            lines.push(b'\n');
        }
        lines.into()
    }
}

fn order(params: &Params<'_>) -> Result<Order, Problem> {
    match params.one("order")? {
        None | Some("asc") => Ok(Order::Ascending),
        Some("desc") => Ok(Order::Descending),
        Some(other) => Err(Problem::invalid_parameter(format!("order={other:?} is not asc or desc."))),
    }
}

fn limit(params: &Params<'_>, format: Format) -> Result<Option<usize>, Problem> {
    let max = if format == Format::Json { LIMIT_MAX } else { usize::MAX };
    let shape = format!("a number from 1 to {LIMIT_MAX}");
    let Some(limit) = params.parsed::<usize>("limit", &shape)? else { return Ok(None) };
    if (1..=max).contains(&limit) {
        Ok(Some(limit))
    } else {
        Err(Problem::invalid_parameter(format!("limit={limit} is not {shape}.")))
    }
}

/// A cursor is a place and the order in which it was reached.
fn written_cursor(order: Order, place: u64) -> String {
    format!("{}{place:x}", order_letter(order))
}

fn cursor(params: &Params<'_>, order: Order) -> Result<Option<u64>, Problem> {
    let Some(text) = params.one("cursor")? else { return Ok(None) };
    let place = text.strip_prefix(order_letter(order)).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    // One spelling each: the one in which it was given.
    let is_given = |place: &u64| *place <= i64::MAX.unsigned_abs() && written_cursor(order, *place) == text;
    match place.filter(is_given) {
        Some(place) => Ok(Some(place)),
        None => Err(Problem::new(
            ProblemType::InvalidCursor,
            format!(
                "{text:?} is no cursor that a list in this order gave; leave it out to start from the beginning."
            ),
        )),
    }
}

fn order_letter(order: Order) -> char {
    match order {
        Order::Ascending => 'a',
        Order::Descending => 'd',
    }
}
