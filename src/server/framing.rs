//! Where requests begin and end, read along with hyper: it finds the heads that a proxy in front may read differently
//! than hyper does (RFC 9112, sections 3.2, 6.1, 11.2), and those that hyper would refuse without a word.
//!
//! It changes nothing and takes less than hyper: what it lets pass can be read in one way only, so that both agree on
//! where a request ends. Where they would not, hyper's own rules hold: it goes by the coding where there is a length too,
//! and closes.
//! Invariant: a head that is refused never reaches a handler, wherever the pieces were cut (tests/it/hostile).

mod chunks;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod head;

use self::chunks::Chunks;
use self::head::{Fields, FirstLine, NO_HTTP, NOT_LINES, is_text, line};

/// The most lines of a head behind the first one; hyper takes no more.
const LINES_MAX: usize = 100;

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    head_bytes_max: usize,
    place: Place,
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    /// Whether its first line is there.
    has_line: bool,
    /// How many heads have passed.
    requests: u64,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum Place {
    Head,
    /// A body with so many bytes left.
    Body(u64),
    Chunks(Chunks),
    /// A body that is broken: hyper closes, and nothing that follows is a request.
    Broken,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed(&'static str),
    /// Its head has more than so many bytes, or too many lines.
    HeadTooLarge(usize),
}

/// A piece with a head in it that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// So many bytes of the piece are of requests before it.
    pub(super) before: usize,
    pub(super) why: Refusal,
}

impl Framing {
    pub(super) fn new(head_bytes_max: usize) -> Self {
        Self { head_bytes_max, place: Place::Head, head: Vec::new(), has_line: false, requests: 0 }
    }

    /// How many requests have begun so far, of those that are taken.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Takes in the next bytes. After a refusal there is nothing more to ask it.
    pub(super) fn follow(&mut self, piece: &[u8]) -> Result<(), Refused> {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = match &mut self.place {
                Place::Head => {
                    let before = piece.len() - rest.len();
                    self.head(rest).map_err(|why| Refused { before, why })?
                }
                Place::Body(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                    taken
                }
                Place::Chunks(chunks) => {
                    let taken = chunks.follow(rest);
                    if chunks.is_broken() {
                        self.place = Place::Broken;
                    } else if chunks.is_over() {
                        self.place = Place::Head;
                    }
                    taken
                }
                Place::Broken => rest.len(),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes bytes of a head, and says how many.
    fn head(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let known = self.head.len();
        let is_first_line = !self.has_line && rest.contains(&b'\n');
        let parsed = if known == 0 {
            self.parsed(rest)?
        } else {
            self.head.extend_from_slice(rest);
            // Who sends it byte by byte does not have it parsed as often: only what may be wrong by now, or complete.
            if is_first_line || has_end(&self.head, known) { self.parsed(&self.head)? } else { None }
        };
        let Some((bytes, place)) = parsed else {
            if known == 0 {
                self.head.extend_from_slice(rest);
            }
            self.has_line |= is_first_line;
            return if self.head.len() < self.head_bytes_max {
                Ok(rest.len())
            } else {
                Err(self.too_large())
            };
        };
        self.head = Vec::new();
        self.has_line = false;
        self.requests += 1;
        self.place = place;
        Ok(bytes - known)
    }

    /// The size of the head that these bytes begin with, and what follows it; none where it is not all there.
    fn parsed(&self, bytes: &[u8]) -> Result<Option<(usize, Place)>, Refusal> {
        let mut rest = bytes;
        // Empty lines before a request are no part of it.
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        let Some((first, behind)) = line(rest) else {
            // Who speaks something else may never end a line.
            return if is_text(rest) { Ok(None) } else { Err(NO_HTTP) };
        };
        let first = FirstLine::parse(first)?;
        rest = behind;
        let mut fields = Fields::default();
        for _ in 0..=LINES_MAX {
            if let Some(behind) = rest.strip_prefix(b"\r\n") {
                let size = bytes.len() - behind.len();
                if size > self.head_bytes_max {
                    break;
                }
                if !is_text(bytes.get(..size).unwrap_or_default()) {
                    return Err(NOT_LINES);
                }
                return fields.place_behind(&first).map(|place| Some((size, place)));
            }
            match fields.add(rest)? {
                Some(behind) => rest = behind,
                None => return Ok(None),
            }
        }
        Err(self.too_large())
    }

    fn too_large(&self) -> Refusal {
        Refusal::HeadTooLarge(self.head_bytes_max)
    }
}

/// Whether a head may end in what follows the known bytes.
fn has_end(head: &[u8], known: usize) -> bool {
    let unseen = head.get(known.saturating_sub(3)..).unwrap_or_default();
    unseen.windows(2).any(|two| two == b"\n\n") || unseen.windows(3).any(|three| three == b"\n\r\n")
}
