//! `GET /metrics`: what the service counts, for Prometheus and others who read its formats.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::Api;
use super::caller::Caller;
use super::params::Params;
use super::problem::{Problem, ProblemType};
use crate::metrics::{self, Format};

pub(super) async fn metrics(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    caller.may_do_all("the metrics of the whole service")?;
    let format = accepted(&headers)?;
    let text = metrics::text(&api.recorder, &api.requests, format).map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::unavailable(ProblemType::NotReady, "The metrics could not be written now.")
    })?;
    let media_type = match format {
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
    };
    Ok(([(header::CONTENT_TYPE, media_type), (header::VARY, "accept")], text).into_response())
}

/// OpenMetrics where `Accept` names it and prefers nothing else; the older format where it is allowed.
fn accepted(headers: &HeaderMap) -> Result<Format, Problem> {
    let headers: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if headers.is_empty() {
        return Ok(Format::Prometheus);
    }
    let ranges: Vec<_> = headers.iter().flat_map(|header| header.split(',')).map(Range::parse).collect();
    // Of several ranges that hold a type the most precise one counts.
    let quality = |precise: [(&str, &str); 3]| {
        precise.iter().find_map(|(media, version)| {
            let of = ranges.iter().filter(|range| range.is(media, version)).map(|range| range.quality);
            of.max_by(f32::total_cmp)
        })
    };
    let named = [("application/openmetrics-text", "1.0.0"); 3];
    let newer = quality(named).unwrap_or(0.0);
    let any_newer = quality([named[0], ("application/*", ""), ("*/*", "")]).unwrap_or(0.0);
    let older = quality([("text/plain", "0.0.4"), ("text/*", ""), ("*/*", "")]).unwrap_or(0.0);
    if newer > 0.0 && newer >= older {
        Ok(Format::OpenMetrics)
    } else if older > 0.0 {
        Ok(Format::Prometheus)
    } else if any_newer > 0.0 {
        Ok(Format::OpenMetrics)
    } else {
        let detail = "Metrics come as application/openmetrics-text (1.0.0) or text/plain (0.0.4).";
        Err(Problem::new(ProblemType::NotAcceptable, detail))
    }
}

/// A part of `Accept`.
struct Range {
    media: String,
    version: Option<String>,
    quality: f32,
}

impl Range {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        let mut range = Self { media: parts.next().unwrap_or_default(), version: None, quality: 1.0 };
        for part in parts {
            match part.split_once('=') {
                Some(("version", version)) => range.version = Some(version.trim_matches('"').to_owned()),
                Some(("q", quality)) => range.quality = quality.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        range
    }

    fn is(&self, media: &str, version: &str) -> bool {
        self.media == media && self.version.as_ref().is_none_or(|wanted| wanted == version)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const OLD_PROMETHEUS: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
        for (accept, format) in [
            (None, Some(Format::Prometheus)),
            (Some("*/*"), Some(Format::Prometheus)),
            (Some("text/html, */*;q=0.8"), Some(Format::Prometheus)),
            (Some(PROMETHEUS_2), Some(Format::OpenMetrics)),
            (Some(OLD_PROMETHEUS), Some(Format::Prometheus)),
            (Some("application/openmetrics-text"), Some(Format::OpenMetrics)),
            (
                Some("application/openmetrics-text; version=\"1.0.0\"; escaping=allow-utf-8"),
                Some(Format::OpenMetrics),
            ),
            (Some("application/openmetrics-text;version=0.0.1, text/plain;q=0.1"), Some(Format::Prometheus)),
            (Some("application/openmetrics-text;q=0.2, text/plain;q=0.3"), Some(Format::Prometheus)),
            (Some("application/openmetrics-text;q=0"), None),
            (Some("text/plain;q=0, */*"), Some(Format::OpenMetrics)),
            (Some("application/*"), Some(Format::OpenMetrics)),
            (Some("application/json"), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(accepted(&headers).ok(), format, "{accept:?}");
        }
    }
}
