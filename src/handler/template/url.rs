//! A URL with variables behind its host.
//!
//! Invariant: whatever the id, it renders to a valid URI of one fixed scheme, host and port; the checks are made once,
//! when it is parsed. No rendering adds a `.` or `..` segment: an id holds no `/`, is never `.` or `..`, and is never
//! empty, so a segment with an id in it cannot come to either; the numbers have digits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bytes::Bytes;
use hyper::Uri;
use hyper::http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{InvalidTemplate, Piece, Values, Variable, pieces, push_number};
use crate::handler::MASK;
use crate::task::TASK_ID_BYTES_MAX;

/// The longest path and query that may come of a template, in bytes; receivers refuse longer ones (many at 8 KiB).
const TARGET_BYTES_MAX: usize = 32 * 1024;

/// What is encoded in a path segment: all but RFC 3986's `pchar`.
const IN_PATH: &AsciiSet = &IN_QUERY
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// What is encoded in a query: all but the unreserved, since `+`, `=` and `&` mean something to a form.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A URL with variables behind its host: `http` or `https`, without user, password or fragment.
#[derive(Debug, Clone)]
pub struct UrlTemplate {
    text: Box<str>,
    root: Uri,
    authority: Authority,
    target: Target,
}

/// Path and query.
#[derive(Debug, Clone)]
enum Target {
    Constant(PathAndQuery),
    Rendered(Box<[Part]>),
}

#[derive(Debug, Clone)]
enum Part {
    Literal(Box<str>),
    InPath(Variable),
    InQuery(Variable),
}

impl UrlTemplate {
    /// The text as it was written, variables and all.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text with `***` in place of what may be a secret: the values in its query that are no variables.
    #[must_use]
    pub fn masked(&self) -> String {
        let Some((front, query)) = self.text.split_once('?') else { return self.text.to_string() };
        let masked = query.split('&').map(|part| match part.split_once('=') {
            Some((_, "" | "{id}" | "{run}" | "{attempt}")) => part.to_owned(),
            Some((name, _)) => format!("{name}={MASK}"),
            None if part.is_empty() => String::new(),
            None => MASK.to_owned(),
        });
        format!("{front}?{}", masked.collect::<Vec<_>>().join("&"))
    }

    /// Host and port, as in the text: what a message may name.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The address that stands in it in place of a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
    }

    /// Where it leads to: scheme, host and port, with `/` as the path.
    #[must_use]
    pub fn root(&self) -> &Uri {
        &self.root
    }

    /// Path and query for one attempt.
    pub(in crate::handler) fn target(&self, values: &Values<'_>) -> Result<PathAndQuery, InvalidUri> {
        match &self.target {
            Target::Constant(target) => Ok(target.clone()),
            Target::Rendered(parts) => {
                let mut text = String::with_capacity(self.text.len() + 32);
                parts.iter().for_each(|part| part.push_to(&mut text, values));
                PathAndQuery::from_maybe_shared(Bytes::from(text))
            }
        }
    }
}

impl Part {
    fn push_to(&self, text: &mut String, values: &Values<'_>) {
        let (variable, encoded) = match self {
            Self::Literal(literal) => return text.push_str(literal),
            Self::InPath(variable) => (variable, IN_PATH),
            Self::InQuery(variable) => (variable, IN_QUERY),
        };
        match variable {
            Variable::Id => text.extend(utf8_percent_encode(values.id.as_str(), encoded)),
            Variable::Run => push_number(text, values.run),
            Variable::Attempt => push_number(text, values.attempt),
        }
    }

    fn bytes_max(&self) -> usize {
        match self {
            Self::Literal(literal) => literal.len(),
            Self::InPath(_) | Self::InQuery(_) => TASK_ID_BYTES_MAX * "%XX".len(),
        }
    }
}

impl FromStr for UrlTemplate {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let (scheme, rest) = scheme(text)?;
        let (host_and_port, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority(host_and_port)?;
        let root = Uri::builder().scheme(scheme).authority(authority.clone()).path_and_query("/").build();
        let root = root.map_err(|error| InvalidTemplate(format!("the url: {error}")))?;
        Ok(Self { text: text.into(), root, authority, target: self::target(target)? })
    }
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn scheme(text: &str) -> Result<(Scheme, &str), InvalidTemplate> {
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Scheme::HTTP, rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Scheme::HTTPS, rest)),
        _ => Err(invalid("a url begins with http:// or https://")),
    }
}

fn authority(text: &str) -> Result<Authority, InvalidTemplate> {
    if text.contains(['{', '}']) {
        return Err(invalid(
            "no variable may stand in the host or port of a url; put it behind the first `/`",
        ));
    }
    if text.contains('@') {
        return Err(invalid("no user or password may stand in a url, which is shown; send a header instead"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err(invalid("the port of the url is no number from 1 to 65535"));
    }
    if !is_host(host) {
        return Err(invalid(
            "the url has no valid host; give a name, an IPv4 address such as 10.0.0.7, or an IPv6 address in []",
        ));
    }
    Authority::from_str(text).map_err(|error| InvalidTemplate(format!("the host of the url: {error}")))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    if is_number(text.trim_end_matches('.').rsplit('.').next().unwrap_or_default()) {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.starts_with(|first: char| first != '.') && text.len() <= 253 && text.bytes().all(is_name_byte)
}

/// A host that ends in a number is an IPv4 address to those who look names up, in spellings that differ from reader to
/// reader: `0177.1`, `0x7f.0.0.1`, `2130706433`. There is one that all read alike.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

fn target(text: &str) -> Result<Target, InvalidTemplate> {
    let mut parts = Vec::new();
    if !text.starts_with('/') {
        parts.push(Part::Literal("/".into()));
    }
    let mut in_query = false;
    for piece in pieces(text)? {
        parts.push(match piece {
            Piece::Literal(literal) => {
                check_literal(&literal)?;
                in_query |= literal.contains('?');
                Part::Literal(literal)
            }
            Piece::Variable(variable) if in_query => Part::InQuery(variable),
            Piece::Variable(variable) => Part::InPath(variable),
        });
    }
    let bytes_max: usize = parts.iter().map(Part::bytes_max).sum();
    if bytes_max > TARGET_BYTES_MAX {
        return Err(InvalidTemplate(format!(
            "the url may come to {bytes_max} bytes behind its host; at most {TARGET_BYTES_MAX} are allowed"
        )));
    }
    let mut constant = String::new();
    for part in &parts {
        match part {
            Part::Literal(literal) => constant.push_str(literal),
            Part::InPath(_) | Part::InQuery(_) => return Ok(Target::Rendered(parts.into())),
        }
    }
    PathAndQuery::from_maybe_shared(Bytes::from(constant))
        .map(Target::Constant)
        .map_err(|error| InvalidTemplate(format!("the path of the url: {error}")))
}

/// A literal of path and query holds the characters of RFC 3986 only, so that nobody on the way changes it.
fn check_literal(literal: &str) -> Result<(), InvalidTemplate> {
    for (at, c) in literal.char_indices() {
        match c {
            '#' => return Err(invalid("a url with a fragment (`#`) cannot be called; a `#` itself is %23")),
            '%' => {
                let digits = literal.get(at + 1..at + 3).unwrap_or_default();
                if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(invalid(
                        "a `%` in the url has no two hexadecimal digits; a `%` itself is %25",
                    ));
                }
            }
            _ if c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?".contains(c) => (),
            _ => {
                let encoded = utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC).to_string();
                return Err(InvalidTemplate(format!("{c:?} cannot stand in a url; write {encoded}")));
            }
        }
    }
    Ok(())
}

fn invalid(message: &str) -> InvalidTemplate {
    InvalidTemplate(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, id: &str) -> String {
        let id = id.parse().unwrap();
        let url = text.parse::<UrlTemplate>().unwrap();
        assert_eq!(url.as_str(), text);
        let target = url.target(&Values { id: &id, run: 7, attempt: 2 }).unwrap();
        format!("{}{target}", url.root().to_string().strip_suffix('/').unwrap())
    }

    fn error(text: &str) -> String {
        text.parse::<UrlTemplate>().unwrap_err().to_string()
    }

    #[test]
    fn values_are_encoded_by_where_they_stand() {
        let marks = "a_~@=+,:.-Z9";
        assert_eq!(rendered("http://h/x/{id}/y", marks), "http://h/x/a_~@=+,:.-Z9/y");
        assert_eq!(rendered("http://h/x?q={id}&r=/", marks), "http://h/x?q=a_~%40%3D%2B%2C%3A.-Z9&r=/");
        assert_eq!(
            rendered("https://h:8443/{id}/{run}?{id}={attempt}", "a+b"),
            "https://h:8443/a+b/7?a%2Bb=2"
        );
    }

    #[test]
    fn what_is_shown_has_no_value_of_the_query_but_the_variables() {
        for (text, shown) in [
            ("http://h/a=b/{id}", "http://h/a=b/{id}"),
            ("http://h/x?key=hush&of={id}&n={id}-hush", "http://h/x?key=***&of={id}&n=***"),
            ("http://h?hush", "http://h?***"),
            ("http://h/?a=hush=hush?hush&&b=", "http://h/?a=***&&b="),
        ] {
            assert_eq!(text.parse::<UrlTemplate>().unwrap().masked(), shown);
        }
    }

    #[test]
    fn a_url_without_a_path_gets_one() {
        assert_eq!(rendered("http://h", "a"), "http://h/");
        assert_eq!(rendered("HTTP://h?x={id}", "a"), "http://h/?x=a");
        assert_eq!(rendered("http://[::1]:8080", "a"), "http://[::1]:8080/");
        assert_eq!(rendered("http://[::1]/", "a"), "http://[::1]/");
    }

    #[test]
    fn no_id_makes_a_dot_segment() {
        for (template, id) in [("{id}", "..."), (".{id}", ".."), ("{id}.", "a"), ("{id}{id}", "...")] {
            let Ok(id) = id.parse() else { continue };
            let url = format!("http://h/x/{template}").parse::<UrlTemplate>().unwrap();
            let target = url.target(&Values { id: &id, run: 1, attempt: 1 }).unwrap();
            assert!(!target.path().ends_with("/.") && !target.path().ends_with("/.."), "{target}");
        }
    }

    #[test]
    fn the_longest_id_fits() {
        let id = "+".repeat(TASK_ID_BYTES_MAX);
        let text = format!("http://h/?{}", "{id}".repeat(40));
        assert_eq!(rendered(&text, &id).len(), "http://h/?".len() + 40 * 3 * TASK_ID_BYTES_MAX);
        assert!(error(&format!("http://h/?{}", "{id}".repeat(43))).contains("at most"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (text, because) in [
            ("", "http://"),
            ("h/x", "http://"),
            ("ftp://h/", "http://"),
            ("{id}://h/", "http://"),
            ("http://{id}/", "host or port"),
            ("http://h{id}", "host or port"),
            ("http://h:{run}/", "host or port"),
            ("http://user:secret@h/", "password"),
            ("http:///x", "host"),
            ("http://:80/", "host"),
            ("http://h o/", "host"),
            ("http://höst/", "host"),
            ("http://h%20/", "host"),
            ("http://[::1/", "host"),
            ("http://[h]/", "host"),
            ("http://::1/", "host"),
            ("http://127.1/", "host"),
            ("http://127.0.1/", "host"),
            ("http://0177.0.0.1/", "host"),
            ("http://0x7f.0.0.1/", "host"),
            ("http://127.0.0.0x1/", "host"),
            ("http://0X7F000001/", "host"),
            ("http://0x/", "host"),
            ("http://2130706433/", "host"),
            ("http://017700000001:80/", "host"),
            ("http://127.0.0.1./", "host"),
            ("http://127.0.0.256/", "host"),
            ("http://127.0.0.1.1/", "host"),
            ("http://a.example.1/", "host"),
            ("http://h:/", "port"),
            ("http://h:0/", "port"),
            ("http://h:65536/", "port"),
            ("http://h:+80/", "port"),
            ("http://h/#x", "fragment"),
            ("http://h#x", "fragment"),
            ("http://h/a b", "%20"),
            ("http://h/é", "%C3%A9"),
            ("http://h/{{x}}", "%7B"),
            ("http://h/\u{0}", "%00"),
            ("http://h/%2", "%25"),
            ("http://h/%{run}", "%25"),
            ("http://h/{nope}", "{nope}"),
        ] {
            let message = error(text);
            assert!(message.contains(because), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
