//! What the fuzzer feeds to lists (tests/fuzz).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::{Map, Value};

use super::{Format, KNOWN, Order, Params, Problem, cursor, filter, limit, next_link, order, written_cursor};
use crate::api::filter::NAMES;
use crate::api::params::Wait;
use crate::store::Filter;

/// What a request says of the list it wants.
type Asked = (Filter, Order, Option<usize>, Option<u64>);

/// The query of a list, or the filter of a bulk operation, and what else is read of a request's words: an error or a
/// meaning, of which the link to the next page says the same. A cursor is one that was given out, or an error.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(asked) = asked(text) {
        links_to_the_same(text, &asked);
    }
    cursors_are_told_apart(text);
    if let Ok(object) = serde_json::from_str::<Map<String, Value>>(text)
        && let Ok(params) = Params::of_json(&object, &NAMES)
    {
        let _ = filter(&params);
    }
    let Ok(value) = HeaderValue::from_str(text) else { return };
    let headers = HeaderMap::from_iter([(header::ACCEPT, value.clone())]);
    let _ = Format::accepted(&headers);
    let headers = HeaderMap::from_iter([(header::HeaderName::from_static("prefer"), value)]);
    let max = Duration::from_mins(5);
    for query in [None, Some(text)] {
        if let Ok(wait) =
            Params::parse(query, &["wait"]).and_then(|params| Wait::parse(&params, &headers, max))
        {
            assert!(wait.patience.is_none_or(|patience| patience <= max), "{text:?} waits for too long");
        }
    }
}

fn asked(query: &str) -> Result<Asked, Problem> {
    let params = Params::parse(Some(query), &KNOWN)?;
    let limit = limit(&params, Format::Json)?;
    let order = order(&params)?;
    Ok((filter(&params)?, order, limit, cursor(&params, order)?))
}

fn links_to_the_same(query: &str, asked: &Asked) {
    let (filter, order, limit, after) = asked;
    assert!(limit.is_none_or(|limit| (1..=1_000).contains(&limit)));
    let place = after.unwrap_or_default().wrapping_add(1) & i64::MAX.unsigned_abs();
    let Ok(uri) = format!("/tasks?{query}").parse::<Uri>() else { return };
    // A query ends at a `#`.
    if uri.query() != Some(query) {
        return;
    }
    let link = next_link(&uri, &written_cursor(*order, place));
    assert!(HeaderValue::from_str(&link).is_ok(), "{link:?} is no header");
    let next = link.strip_prefix("</tasks?").and_then(|link| link.strip_suffix(">; rel=\"next\""));
    let next = self::asked(next.unwrap_or_default()).ok();
    assert_eq!(next, Some((filter.clone(), *order, *limit, Some(place))), "{link}");
}

fn cursors_are_told_apart(text: &str) {
    let cursor_of = |text: &str, order| {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("cursor", text).finish();
        Params::parse(Some(&query), &KNOWN).and_then(|params| cursor(&params, order)).ok().flatten()
    };
    let bytes = text.bytes().take(8).fold(0, |number, byte| number << 8 | u64::from(byte));
    let place = bytes & i64::MAX.unsigned_abs();
    for (order, other) in [(Order::Ascending, Order::Descending), (Order::Descending, Order::Ascending)] {
        if let Some(place) = cursor_of(text, order) {
            assert_eq!(written_cursor(order, place), text, "no list gave this cursor");
        }
        let written = written_cursor(order, place);
        assert_eq!(cursor_of(&written, order), Some(place), "{written}");
        assert_eq!(cursor_of(&written, other), None, "{written}");
    }
}
