//! What the fuzzer feeds to the interface (tests/fuzz). Each function takes any bytes, and panics where a promise is
//! broken.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::path;
use crate::task::TaskId;

pub use super::batch::fuzzing::lines;
pub use super::list::fuzzing::query;

/// A number, so many sizes of pieces, and what is cut into these and the rest; with it as a whole.
pub(crate) fn cut(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let (count, rest) = bytes.split_first()?;
    let (sizes, whole) = rest.split_at(rest.len().min(usize::from(*count)));
    let (mut pieces, mut left) = (Vec::new(), whole);
    for size in sizes {
        let (piece, behind) = left.split_at(left.len().min(usize::from(*size)));
        pieces.push(piece);
        left = behind;
    }
    pieces.push(left);
    Some((pieces, whole))
}

/// The raw segment of a path: an id is what is left after one decoding, if it holds to the rules, and nothing else is.
pub fn id(bytes: &[u8]) {
    let Ok(segment) = std::str::from_utf8(bytes) else { return };
    let decoded = decoded_once(bytes);
    let is_id = (1..=255).contains(&decoded.len())
        && decoded.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_~@=+,:.-".contains(byte))
        && decoded != b"."
        && decoded != b"..";
    match path::parse(segment) {
        Ok(id) => {
            assert!(is_id, "{segment:?} is no id, and was taken for {id:?}");
            assert_eq!(id.as_str().as_bytes(), decoded, "{segment:?} was not decoded once");
            let all_encoded = percent_encode(&decoded, NON_ALPHANUMERIC).to_string();
            for again in [id.as_str(), &all_encoded, &all_encoded.to_lowercase().replace("%2d", "%2D")] {
                let is_same_text = decoded_once(again.as_bytes()) == decoded;
                assert_eq!(path::parse(again).is_ok_and(|same| same == id), is_same_text, "{again:?}");
            }
            let json = serde_json::to_string(&id).unwrap_or_default();
            assert_eq!(serde_json::from_str::<TaskId>(&json).ok(), Some(id));
        }
        Err(problem) => {
            assert!(!is_id, "{segment:?} is an id, and was refused");
            let view = problem.view();
            assert_eq!((view.status, view.r#type.as_str()), (400, "/problems/invalid-id"));
        }
    }
}

/// Percent-decoding, written once more.
fn decoded_once(mut bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::new();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        let byte = match (first, rest) {
            (b'%', [high, low, behind @ ..]) => digit(*high).zip(digit(*low)).map(|(high, low)| {
                bytes = behind;
                high << 4 | low
            }),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
    }
    decoded
}
