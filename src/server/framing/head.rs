//! The lines of a head.

#![expect(
    clippy::indexing_slicing,
    reason = "a table has a place for every byte, and is made by the compiler"
)]

use axum::http::Uri;
use memchr::memchr;

use super::chunks::Chunks;
use super::{Place, Refusal};

/// The most digits of a Content-Length: an exabyte, less one.
const DIGITS_MAX: usize = 18;

pub(super) const NO_HTTP: Refusal = Refusal::Malformed("This is no HTTP request.");
pub(super) const NOT_LINES: Refusal =
    Refusal::Malformed("A head is made of visible characters and spaces, and each line ends with CR and LF.");

/// The first line of a head.
pub(super) struct FirstLine<'a> {
    target: &'a [u8],
    is_http_11: bool,
}

impl<'a> FirstLine<'a> {
    /// `line` is without its line feed.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let line = line.strip_suffix(b"\r").ok_or(NOT_LINES)?;
        let (request, version) =
            line.split_at_checked(line.len().saturating_sub(" HTTP/1.1".len())).ok_or(NO_HTTP)?;
        let is_http_11 = match version {
            b" HTTP/1.1" => true,
            b" HTTP/1.0" => false,
            [b' ', b'H', b'T', b'T', b'P', b'/', ..] => {
                return Err(Refusal::Malformed("HTTP/1.1 and HTTP/1.0 are spoken here, and nothing else."));
            }
            _ => return Err(NO_HTTP),
        };
        let method_end = request.iter().position(|byte| *byte == b' ').ok_or(NO_HTTP)?;
        let (method, target) = request.split_at(method_end);
        let target = target.get(1..).unwrap_or_default();
        let is_token = !method.is_empty() && method.iter().all(|byte| TOKEN[usize::from(*byte)]);
        if is_token { Ok(Self { target, is_http_11 }) } else { Err(NO_HTTP) }
    }
}

/// The lines of a head that say where it goes and what follows it.
#[derive(Default)]
pub(super) struct Fields<'a> {
    host: Few<'a>,
    length: Few<'a>,
    coding: Few<'a>,
}

impl<'a> Fields<'a> {
    /// Takes the line that these bytes begin with. Returns what is behind it; none where it is not all there.
    pub(super) fn add(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        let Some(colon) = bytes.iter().position(|byte| !TOKEN[usize::from(*byte)]) else { return Ok(None) };
        let (name, value) = bytes.split_at(colon);
        match value {
            [b':', ..] if colon > 0 => {}
            [b'\n', ..] if colon == 0 => return Err(NOT_LINES),
            b"\r" if colon == 0 => return Ok(None),
            _ => return Err(NO_HTTP),
        }
        let Some((value, behind)) = line(value) else { return Ok(None) };
        let few = match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => &mut self.host,
            14 if name.eq_ignore_ascii_case(b"content-length") => &mut self.length,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => &mut self.coding,
            _ => return Ok(Some(behind)),
        };
        few.add(value.get(1..).unwrap_or_default().trim_ascii());
        Ok(Some(behind))
    }

    /// What follows the head, if it can be read in one way only.
    pub(super) fn place_behind(&self, first: &FirstLine<'_>) -> Result<Place, Refusal> {
        let host = match self.host {
            Few::One(host) => host,
            Few::None if !first.is_http_11 => b"",
            Few::None | Few::Several => {
                return Err(Refusal::Malformed("A request has exactly one Host header."));
            }
        };
        if !is_plain(first.target) {
            check_target(first.target, host)?;
        }
        match (&self.length, &self.coding) {
            (Few::None, Few::None) => Ok(Place::Head),
            (Few::One(length), Few::None) => match number(length) {
                Some(0) => Ok(Place::Head),
                Some(length) => Ok(Place::Body(length)),
                None => Err(Refusal::Malformed("The Content-Length is a number.")),
            },
            (Few::None, Few::One(coding)) if first.is_http_11 && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Place::Chunks(Chunks::new()))
            }
            (Few::None, _) => Err(Refusal::Malformed(
                "No Transfer-Encoding is understood but one chunked, and that of HTTP/1.1 alone.",
            )),
            (Few::Several, Few::None) => Err(Refusal::Malformed("A request has at most one Content-Length.")),
            (_, Few::One(_) | Few::Several) => {
                Err(Refusal::Malformed("A request has a Content-Length or a Transfer-Encoding, not both."))
            }
        }
    }
}

/// The values of a header.
#[derive(Default)]
enum Few<'a> {
    #[default]
    None,
    One(&'a [u8]),
    Several,
}

impl<'a> Few<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::None => Self::One(value),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

/// The first line without its line feed, and what is behind it.
pub(super) fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, behind) = bytes.split_at_checked(memchr(b'\n', bytes)?)?;
    Some((line, behind.get(1..)?))
}

/// Whether there is no control character but tabs, and CR and LF nowhere but together. A CR at the end may have its LF
/// yet to come.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let (Some(&first), behind) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return true };
    // To the end in any case, and without a branch: so it is done for many bytes at once.
    let wrong = bytes.iter().zip(behind).fold(0, |wrong, (&byte, &next)| {
        let is_half = u8::from(byte == b'\r') ^ u8::from(next == b'\n');
        let is_control = u8::from(next < b' ') & u8::from(next != b'\t' && next != b'\r' && next != b'\n');
        wrong | is_half | is_control | u8::from(next == 0x7f)
    });
    wrong == 0 && !(first.is_ascii_control() && first != b'\r')
}

/// What names of headers, and methods, are made of.
static TOKEN: [bool; 256] = bytes_of(b"!#$%&'*+-.^_`|~");
/// What is in a path, or a query, and is allowed there by everybody.
static PLAIN: [bool; 256] = bytes_of(b"/?-_.~%&=+,:@");

/// Letters, digits, and these.
const fn bytes_of(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Whether a target is a path, and of characters that every parser takes.
fn is_plain(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(|byte| PLAIN[usize::from(*byte)])
}

/// The other targets: one that names a host has to name the one that the Host header names, because some go by the one
/// and some by the other.
fn check_target(target: &[u8], host: &[u8]) -> Result<(), Refusal> {
    const WRONG: Refusal = Refusal::Malformed("The target of the request is not allowed.");
    let uri = Uri::try_from(target).map_err(|_invalid| WRONG)?;
    match uri.authority() {
        _ if target.contains(&b'#') => Err(WRONG),
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            Err(Refusal::Malformed("The target of the request names another host than the Host header."))
        }
        Some(_) | None => Ok(()),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = digits.len() <= DIGITS_MAX && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}
