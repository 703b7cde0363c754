//! What the fuzzer feeds to batches (tests/fuzz).

#![expect(clippy::panic, reason = "a promise that is broken is a finding")]

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::lines::{self, Read};
use super::{LaunchLine, malformed, refused};
use crate::api::body::Bodies;
use crate::api::fuzzing::cut;
use crate::json;

const LINE_BYTES_MAX: usize = 64;

thread_local! {
    static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_time().build().ok();
}

/// A number, so many sizes of pieces, and the lines of a batch: each is read once and whole, wherever the pieces were
/// cut, and is a launch or an error that is one line.
pub fn lines(bytes: &[u8]) {
    let Some((pieces, body)) = cut(bytes) else { return };
    let pieces: Vec<_> =
        pieces.into_iter().map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect();
    let bodies = Bodies::new(Duration::from_hours(1), 1 << 30);
    let read = lines::read(Body::from_stream(stream::iter(pieces)), LINE_BYTES_MAX, &bodies);
    let read = RUNTIME.with(|runtime| {
        let _context = runtime.as_ref().map(Runtime::enter);
        // All of it is there.
        read.map(|line| (line.number, line.read)).collect::<Vec<_>>().now_or_never()
    });
    let mut read = read.unwrap_or_default().into_iter();
    for (line, number) in body.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        let is_too_long = line.len() > LINE_BYTES_MAX;
        if !is_too_long && line.trim_ascii().is_empty() {
            continue;
        }
        match read.next() {
            Some((found, Read::Whole(text))) if !is_too_long => assert_eq!((found, &*text), (number, line)),
            Some((found, Read::TooLong { .. })) if is_too_long => assert_eq!(found, number),
            other => panic!("line {number} was read as {other:?}"),
        }
    }
    assert!(read.next().is_none(), "more lines than there are");
    for line in body.split(|byte| *byte == b'\n') {
        launch(line);
    }
}

fn launch(line: &[u8]) {
    match json::object::<LaunchLine<'_>>(line) {
        Ok(LaunchLine { id, handler, input }) => {
            // An input is not read: it may hold a number that is too large for others, or half a character.
            let Ok(value) = serde_json::from_slice::<Value>(line) else { return };
            let text = |name: &str| value.get(name).and_then(Value::as_str);
            assert_eq!(text("id"), Some(id.as_ref()));
            assert_eq!(text("handler"), handler.as_deref());
            let read = input.map(|input| serde_json::from_str::<Value>(input.get()).ok());
            assert_eq!(read.flatten().as_ref(), value.get("input"), "its input is the JSON text of the line");
        }
        Err(error) => {
            let mut answer = refused(1, &malformed(&error));
            assert_eq!(answer.pop(), Some(b'\n'));
            assert!(!answer.contains(&b'\n') && serde_json::from_slice::<Value>(&answer).is_ok());
        }
    }
}
