//! Where a chunked body ends: the grammar as hyper has it.

/// What the next byte has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    FirstDigit,
    Size,
    SizeSpace,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// The beginning of a line behind the last chunk.
    Line,
    Trailer,
    TrailerEnd,
    LastEnd,
    Over,
    Broken,
}

/// Follows a chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// Bytes that are left of the chunk.
    left: u64,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { at: At::FirstDigit, left: 0 }
    }

    /// Whether all of it has come.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether it is none.
    pub(super) fn is_broken(&self) -> bool {
        self.at == At::Broken
    }

    /// Takes what is of this body, and says how many bytes that are.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken)
            && !matches!(self.at, At::Over | At::Broken)
        {
            if self.at == At::Data {
                let data = (bytes.len() - taken).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= data as u64;
                taken += data;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.at = self.behind(byte);
                taken += 1;
            }
        }
        taken
    }

    fn behind(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            (At::FirstDigit, b) if b.is_ascii_hexdigit() => {
                self.left = 0;
                self.digit(b)
            }
            (At::Size, b) if b.is_ascii_hexdigit() => self.digit(b),
            (At::Size | At::SizeSpace, b' ' | b'\t') => At::SizeSpace,
            (At::Size | At::SizeSpace, b';') => At::Extension,
            (At::Size | At::SizeSpace | At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, b) if b != b'\n' => At::Extension,
            (At::SizeEnd, b'\n') => match self.left {
                0 => At::Line,
                _ => At::Data,
            },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::FirstDigit,
            (At::Line, b'\r') => At::LastEnd,
            (At::Trailer, b'\r') => At::TrailerEnd,
            (At::Line | At::Trailer, _) => At::Trailer,
            (At::TrailerEnd, b'\n') => At::Line,
            (At::LastEnd, b'\n') => At::Over,
            _ => At::Broken,
        }
    }

    fn digit(&mut self, digit: u8) -> At {
        let digit = char::from(digit).to_digit(16).map(u64::from);
        match digit.and_then(|digit| self.left.checked_mul(16)?.checked_add(digit)) {
            Some(left) => {
                self.left = left;
                At::Size
            }
            None => At::Broken,
        }
    }
}
