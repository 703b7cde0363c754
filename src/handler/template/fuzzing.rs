//! What the fuzzer feeds to templates (tests/fuzz).

use hyper::header::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Template, UrlTemplate, Values};
use crate::task::TaskId;

/// A template, the byte 0xFF, an id, 0xFF, and numbers: whatever the variables stand for, it stays within its place in a
/// URL, and in a header.
pub fn rendered(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0xff);
    let mut part = || parts.next().unwrap_or_default();
    let (text, id, numbers) = (part(), part(), part());
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(id) = std::str::from_utf8(id).ok().and_then(|id| id.parse::<TaskId>().ok()) else { return };
    let Ok(plain) = "x".parse::<TaskId>() else { return };
    let number = |bytes: &[u8]| bytes.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    let (run, attempt) = numbers.split_at(numbers.len() / 2);
    let values = Values { id: &id, run: number(run), attempt: number(attempt) };
    if let Ok(template) = text.parse::<Template>() {
        within_a_text(&template, text, &values);
    }
    if let Ok(url) = text.parse::<UrlTemplate>() {
        within_a_url(&url, text, &values, &Values { id: &plain, run: 1, attempt: 1 });
    }
}

fn within_a_text(template: &Template, text: &str, values: &Values<'_>) {
    assert_eq!(template.as_str(), text);
    let rendered = template.render(values);
    if !text.contains("{{") && !text.contains("}}") {
        assert_eq!(rendered, substituted(text, values, str::to_owned));
    }
    if template.is_header_value() {
        let is_control = |c: char| c.is_control() && c != '\t';
        assert!(HeaderValue::from_str(&rendered).is_ok() && !rendered.contains(is_control), "{rendered:?}");
    }
}

fn within_a_url(url: &UrlTemplate, text: &str, values: &Values<'_>, plain: &Values<'_>) {
    let target = |values| url.target(values).map(|target| target.to_string()).unwrap_or_default();
    let (made, plainly) = (target(values), target(plain));
    let root = url.root();
    let origin = root.to_string();
    let written = text.get(..origin.len() - 1).unwrap_or_default();
    assert!(written.eq_ignore_ascii_case(origin.trim_end_matches('/')), "{text:?} leads to {origin}");
    assert_eq!(root.authority().map(hyper::http::uri::Authority::as_str), Some(url.authority()));
    assert!(made.starts_with('/'), "{text:?} became {made:?}");
    // The same segments, parameters and the rest of its outline as with values that mean nothing anywhere.
    assert_eq!(outline(&made), outline(&plainly), "{text:?} became {made:?}");
    let behind = text.get(written.len()..).unwrap_or_default();
    let encoded = substituted(behind, values, |id| utf8_percent_encode(id, NON_ALPHANUMERIC).to_string());
    let encoded = if encoded.starts_with('/') { encoded } else { format!("/{encoded}") };
    let decoded = |text| percent_decode_str(text).collect::<Vec<_>>();
    assert_eq!(decoded(&made), decoded(&encoded), "{text:?} became {made:?}");
}

fn substituted(text: &str, values: &Values<'_>, id: impl Fn(&str) -> String) -> String {
    let with_numbers = text.replace("{run}", &values.run.to_string());
    let with_numbers = with_numbers.replace("{attempt}", &values.attempt.to_string());
    with_numbers.replace("{id}", &id(values.id.as_str()))
}

/// What holds a URL together: how many segments are in the path, which of them are dots, and the marks of its query.
fn outline(target: &str) -> (Vec<&str>, Vec<char>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_dots =
        |segment: &str| matches!(percent_decode_str(segment).collect::<Vec<_>>().as_slice(), b"." | b"..");
    let segments = path.split('/').map(|segment| if is_dots(segment) { segment } else { "" }).collect();
    let marks = query.chars().filter(|c| "/?&=+#;".contains(*c)).collect();
    (segments, marks)
}
