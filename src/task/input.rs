//! What a task is launched with: bytes of any media type, passed on unchanged.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The input of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The `Content-Type` it came with, unchanged; none where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The bytes, unchanged. Stored beside the record, not inside it.
    #[serde(skip)]
    pub bytes: Bytes,
}

impl Input {
    /// The input with these bytes.
    #[must_use]
    pub fn new(media_type: Option<String>, bytes: Bytes) -> Self {
        Self { media_type, size: bytes.len() as u64, digest: Digest::of(&bytes), bytes }
    }

    /// What is known of it without its bytes.
    #[must_use]
    pub fn without_bytes(&self) -> Self {
        Self { bytes: Bytes::new(), ..self.clone() }
    }

    /// No input: no bytes, no media type.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(None, Bytes::new())
    }
}

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Appends the first half of its digits, where that is enough to tell one from another.
    pub fn push_half_to(&self, text: &mut String) {
        let digits = self.digits();
        let (half, _) = digits.split_at(digits.len() / 2);
        text.push_str(std::str::from_utf8(half).unwrap_or_default());
    }

    fn digits(&self) -> [u8; 64] {
        let mut text = [0; 64];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// The digit of a number under 16.
const fn hex_digit(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let mut digest = [0; 32];
        let is_hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex {
            return Err(serde::de::Error::custom("a SHA-256 has 64 hexadecimal digits"));
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(serde::de::Error::custom)?;
            *byte = u8::from_str_radix(pair, 16).map_err(serde::de::Error::custom)?;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_published_one_and_reads_back() {
        // FIPS 180-2, appendix B.1: SHA-256 of "abc".
        let digest = Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{text}\"")).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"ba78\"").is_err());
        assert!(serde_json::from_str::<Digest>(&format!("\"{}\"", text.replace('f', "g"))).is_err());

        let mut half = "task_".to_owned();
        digest.push_half_to(&mut half);
        assert_eq!(half, "task_ba7816bf8f01cfea414140de5dae2223");
    }
}
