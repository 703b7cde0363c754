//! `GET /events`: every change of the tasks as it happens, as server-sent events.
//!
//! Invariant: a reader costs what it is sent next and no more; who reads too slowly falls behind what the store keeps,
//! and is told so.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::caller::Caller;
use super::filter::state;
use super::params::Params;
use super::problem::Problem;
use super::view::EventView;
use crate::store::{Event, Feed, Gap};
use crate::task::{HandlerName, Reach, StateName, TaskId};

/// How long nothing is sent at most: proxies and clients take silence for a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The most events that are looked at for one piece of the answer.
const BATCH_MAX: usize = 256;
const KNOWN: [&str; 4] = ["handler", "state", "id", "after"];

pub(super) async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = Params::parse(uri.query(), &KNOWN)?;
    let mut wanted = Wanted::parse(&params)?;
    wanted.handler.iter().try_for_each(|handler| caller.may_use(handler))?;
    wanted.ids.iter().try_for_each(|id| caller.may_name(id))?;
    wanted.reach = caller.limits().cloned().unwrap_or_default();
    let feed = api.recorder.events();
    let after = after(&params, &headers)?.unwrap_or_else(|| feed.seq());
    let about = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx collects an answer before it passes it on, unless it is told.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let stands = move || caller.stands(&api);
    Ok((about, Body::from_stream(written(feed, wanted, after, stands))).into_response())
}

/// Which events a reader wants; what is empty does not narrow it.
#[derive(Debug, Default)]
struct Wanted {
    handler: Option<HandlerName>,
    states: Vec<StateName>,
    ids: HashSet<TaskId>,
    reach: Reach,
}

impl Wanted {
    fn parse(params: &Params<'_>) -> Result<Self, Problem> {
        let ids = params.all("id").map(|id| {
            let wrong = |why| Problem::invalid_parameter(format!("id={id:?} is not an id: {why}."));
            id.parse().map_err(wrong)
        });
        let states = params.all("state").map(|word| match word {
            "not_found" => Ok(StateName::Absent),
            word => state(word),
        });
        Ok(Self {
            handler: params.parsed("handler", "the name of a handler")?,
            states: states.collect::<Result<_, _>>()?,
            ids: ids.collect::<Result<_, _>>()?,
            reach: Reach::default(),
        })
    }

    fn admits(&self, event: &Event) -> bool {
        self.handler.as_ref().is_none_or(|handler| event.handler == *handler)
            && (self.states.is_empty() || self.states.contains(&event.state))
            && (self.ids.is_empty() || self.ids.contains(&event.id))
            && self.reach.has_id(&event.id)
            && self.reach.has_handler(&event.handler)
    }
}

/// Where to read on. A browser that connects again asks with the same parameters, so its header is the newer one.
fn after(params: &Params<'_>, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let after = params.parsed("after", "the id of an event, a number")?;
    let Some(value) = headers.get("last-event-id") else { return Ok(after) };
    match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        Some(seq) => Ok(Some(seq)),
        None => Err(Problem::invalid_parameter(
            "Last-Event-ID is not the id of an event, a number; leave it out to begin with what happens from now.",
        )),
    }
}

/// Where a reader is.
struct Reading {
    feed: Feed,
    wanted: Wanted,
    /// Everything up to here was sent or is not wanted.
    seq: u64,
    /// The last number that the reader knows.
    told: Option<u64>,
}

/// What the reader is sent, piece by piece, when it takes them. Ends when the store is closed, or when the reader may not
/// read any more.
fn written(
    feed: Feed,
    wanted: Wanted,
    after: u64,
    stands: impl Fn() -> bool + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let reading = Reading { feed, wanted, seq: after, told: None };
    stream::unfold((reading, stands), |(mut reading, stands)| async move {
        let piece = reading.next().await.filter(|_| stands())?;
        Some((Ok(Bytes::from(piece)), (reading, stands)))
    })
}

impl Reading {
    async fn next(&mut self) -> Option<String> {
        if self.told.is_none() {
            // At once, so that the reader knows where it is, also before the first event.
            let mut piece = String::from(": events\n");
            self.tell_place(&mut piece);
            return Some(piece);
        }
        let silent_until = Instant::now() + KEEP_ALIVE;
        loop {
            let batch = self.feed.after(self.seq, BATCH_MAX);
            let mut piece = String::new();
            if let Some(gap) = batch.gap {
                write_event(&mut piece, gap.to, "gap", &GapView::new(gap));
                self.told = Some(gap.to);
            }
            for event in batch.events.iter().filter(|event| self.wanted.admits(event)) {
                write_event(&mut piece, event.seq, event.state.as_str(), &EventView::new(event));
                self.told = Some(event.seq);
            }
            self.seq = batch.read_to;
            if !piece.is_empty() {
                return Some(piece);
            }
            match timeout_at(silent_until, self.feed.beyond(self.seq)).await {
                // There may always be more that is not wanted: others have their turn in between.
                Ok(true) if Instant::now() < silent_until => tokio::task::yield_now().await,
                Ok(false) => return None,
                Ok(true) | Err(_) => {
                    let mut piece = String::from(": still here\n");
                    self.tell_place(&mut piece);
                    return Some(piece);
                }
            }
        }
    }

    /// Tells how far the reader is, if that is news: an id without data is no event, but clients remember it. So one
    /// that wants little is not told of a gap where nothing for it was missed.
    fn tell_place(&mut self, piece: &mut String) {
        if self.told.replace(self.seq) != Some(self.seq) {
            // Writing to a string cannot fail.
            let _ = writeln!(piece, "id: {}", self.seq);
        }
        piece.push('\n');
    }
}

/// The changes that are not kept any more: those behind `from`, up to `to`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Gap")]
pub(super) struct GapView {
    from: u64,
    to: u64,
}

impl GapView {
    fn new(gap: Gap) -> Self {
        Self { from: gap.from, to: gap.to }
    }
}

fn write_event(piece: &mut String, seq: u64, name: &str, data: &impl Serialize) {
    match serde_json::to_string(data) {
        // JSON has no line breaks of its own. Writing to a string cannot fail.
        Ok(data) => drop(write!(piece, "id: {seq}\nevent: {name}\ndata: {data}\n\n")),
        Err(error) => tracing::error!(%error, "an event could not be written as JSON"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::store::{MemoryStore, Store as _};
    use crate::task::{Input, Request};

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_every_fifteen_seconds_and_tells_how_far_the_reader_is() {
        let store = MemoryStore::new();
        let wanted = Wanted { states: vec![StateName::Failed], ..Wanted::default() };
        let mut pieces = Box::pin(written(store.events(), wanted, 0, || true));
        let begun = Instant::now();
        assert_eq!(pieces.next().await.unwrap().unwrap(), ": events\nid: 0\n\n");
        assert_eq!(pieces.next().await.unwrap().unwrap(), ": still here\n\n");
        assert_eq!(begun.elapsed().as_secs(), 15);

        let start = Request::new("h".parse().unwrap(), Input::empty()).into();
        drop(store.claim(&"order".parse().unwrap(), start).await.unwrap());
        assert_eq!(pieces.next().await.unwrap().unwrap(), ": still here\nid: 1\n\n");
        assert_eq!(begun.elapsed().as_secs(), 30);
        store.close().await;
        assert_eq!(pieces.next().await, None);
    }
}
