//! A reader of `/events`.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::history::{History, Id, Seen, Tiding, Told};

/// Reads on behind what this stream was told, and notes it, until the connection ends or this is enough. Fails where it
/// cannot be read.
pub(crate) async fn read(
    history: &History,
    number: usize,
    base: &str,
    is_enough: impl Fn(u64) -> bool,
) -> Result<(), String> {
    let (query, mut place) = {
        let stream = &history.noted().streams[number];
        let handler = stream.handler.map(|handler| format!("handler={handler}&"));
        let state = stream.state.map(|state| format!("state={}&", state.as_str()));
        (handler.unwrap_or_default() + &state.unwrap_or_default(), stream.place())
    };
    // Both say where to go on; a header wins over the parameter.
    let (after, header) = if fastrand::bool() { (place, None) } else { (0, Some(place)) };
    let mut request = Request::get(format!("{base}/events?{query}after={after}"));
    if let Some(place) = header {
        request = request.header("last-event-id", place);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let pool: Pool<_, Empty<Bytes>> = Pool::builder(TokioExecutor::new()).build_http();
    let response = pool.request(request).await.map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(response.status().to_string());
    }
    let mut body = response.into_body();
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        text.push_str(std::str::from_utf8(&bytes).map_err(|error| error.to_string())?);
        // What is not whole comes again.
        while let Some(end) = text.find("\n\n") {
            let piece: String = text.drain(..end + 2).collect();
            let at = history.now();
            let mut noted = history.noted();
            match parse(&piece) {
                Some(what) => {
                    place = place.max(what.place());
                    // Each connection begins with where it is, which is no news.
                    let is_news = !matches!(what, Tiding::Place(to) if to == noted.streams[number].place());
                    if is_news {
                        noted.streams[number].told.push(Told { at, what });
                    }
                }
                None if piece.starts_with(':') => {}
                None => noted.oddities.push(format!("no event: {piece}")),
            }
        }
        if is_enough(place) {
            return Ok(());
        }
    }
    Ok(())
}

fn parse(piece: &str) -> Option<Tiding> {
    let field = |name: &str| piece.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let seq = field("id")?.parse().ok()?;
    let Some(event) = field("event") else { return Some(Tiding::Place(seq)) };
    let data: Value = serde_json::from_str(field("data")?).ok()?;
    if event == "gap" {
        return Some(Tiding::Gap { from: data["from"].as_u64()?, to: data["to"].as_u64()? });
    }
    let seen = Seen::of(data["revision"].as_u64()?, &data)?;
    (event == seen.name.as_str()).then(|| Tiding::Event {
        seq,
        id: Id::from(data["id"].as_str().unwrap_or("")),
        seen,
    })
}

/// Reads every stream that wants all events up to the end of everything.
pub(crate) async fn catch_up(history: &Arc<History>, base: &str) -> Result<(), String> {
    // A new reader is told where the end is.
    let last = end(base).await?;
    let streams = history.noted().streams.len();
    for number in 0..streams {
        let is_wanted = {
            let stream = &history.noted().streams[number];
            stream.handler.is_none() && stream.state.is_none()
        };
        if !is_wanted {
            continue;
        }
        if history.noted().streams[number].place() < last {
            read(history, number, base, |place| place >= last).await?;
        }
        history.noted().streams[number].is_whole = true;
    }
    Ok(())
}

/// The number of the last change.
async fn end(base: &str) -> Result<u64, String> {
    let request = Request::get(format!("{base}/events"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let pool: Pool<_, Empty<Bytes>> = Pool::builder(TokioExecutor::new()).build_http();
    let mut body = pool.request(request).await.map_err(|error| error.to_string())?.into_body();
    let frame = body.frame().await.ok_or("no answer of /events")?.map_err(|error| error.to_string())?;
    let bytes = frame.into_data().map_err(|_trailers| "no data of /events")?;
    match parse(std::str::from_utf8(&bytes).map_err(|error| error.to_string())?) {
        Some(Tiding::Place(place)) => Ok(place),
        other => Err(format!("/events begins with {other:?}")),
    }
}
