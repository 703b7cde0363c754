//! What the fuzzer feeds to the framing (tests/fuzz).

use super::{Framing, Place};
use crate::api::fuzzing::cut;

const HEAD_BYTES_MAX: usize = 512;

/// A number, so many sizes of pieces, and the bytes of a connection: wherever they were cut, the same requests are let
/// pass, and the same one is refused.
pub fn pieces(bytes: &[u8]) {
    let Some((pieces, whole)) = cut(bytes) else { return };
    same(followed([whole]), followed(pieces));
    same(followed([whole]), followed(whole.chunks(1)));
}

/// What became of a connection: where the last head begins, or what follows its heads, and whether it was refused.
struct Verdict {
    framing: Framing,
    at: usize,
    is_refused: bool,
}

impl Verdict {
    fn words(&self) -> (usize, String, bool) {
        let place = match &self.framing.place {
            Place::Head => "head".to_owned(),
            other => format!("{other:?}"),
        };
        (self.at, place, self.is_refused)
    }
}

fn followed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let mut framing = Framing::new(HEAD_BYTES_MAX);
    let mut before = 0;
    for piece in pieces {
        let begun = framing.head.len();
        if let Err(refused) = framing.follow(piece) {
            assert!(refused.before <= piece.len());
            // A head that was begun in a piece before this one has nothing before it in this one.
            let begun = if refused.before == 0 { begun } else { 0 };
            return Verdict { framing, at: before + refused.before - begun, is_refused: true };
        }
        assert!(framing.head.len() < HEAD_BYTES_MAX, "a head is kept beyond its limit");
        before += piece.len();
    }
    let at = before - framing.head.len();
    Verdict { framing, at, is_refused: false }
}

/// A head that has not ended may be refused sooner or later, but not let pass.
fn same(whole: Verdict, cut: Verdict) {
    let words = (whole.words(), cut.words());
    if words.0 == words.1 {
        return;
    }
    assert_eq!((whole.at, whole.is_refused), (cut.at, !cut.is_refused), "{words:?}");
    let mut open = if whole.is_refused { cut.framing } else { whole.framing };
    assert!(!open.head.is_empty(), "{words:?}");
    assert!(open.follow(b"\r\n\r\n").is_err(), "{words:?}, and it would be let pass");
}
