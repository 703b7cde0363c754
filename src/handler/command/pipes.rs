//! What goes into a command and what comes out of it.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use crate::task::Output;

const READ_BYTES: usize = 8 * 1024;

/// The three pipes of a command, fed and read at the same time, so that neither side waits for the other for ever.
#[derive(Debug)]
pub(super) struct Pipes {
    input: Feed,
    pub(super) output: Capture<ChildStdout>,
    pub(super) errors: Capture<ChildStderr>,
}

#[derive(Debug)]
struct Feed {
    pipe: Option<ChildStdin>,
    rest: Bytes,
}

/// The end of what a command writes into one of its pipes.
#[derive(Debug)]
pub(super) struct Capture<P> {
    pipe: Option<P>,
    /// At most `bytes_max` bytes; its front is given up as more comes in, so that it does not grow.
    tail: BytesMut,
    bytes_max: usize,
    is_cut: bool,
}

impl Pipes {
    /// Takes the pipes of a child that was just started.
    pub(super) fn of(
        child: &mut Child,
        input: Bytes,
        output_bytes_max: usize,
        errors_bytes_max: usize,
    ) -> Self {
        Self {
            input: Feed { pipe: child.stdin.take(), rest: input },
            output: Capture::of(child.stdout.take(), output_bytes_max),
            errors: Capture::of(child.stderr.take(), errors_bytes_max),
        }
    }

    /// Feeds and reads until both outputs have ended. May be dropped at any time and called again.
    pub(super) async fn pump(&mut self) {
        while self.output.pipe.is_some() || self.errors.pipe.is_some() {
            tokio::select! {
                () = self.input.more() => (),
                () = self.output.more() => (),
                () = self.errors.more() => (),
            }
        }
        // Nothing to read any more, but it may still be reading.
        while self.input.pipe.is_some() {
            self.input.more().await;
        }
    }

    /// Gives up what was not read of the input.
    pub(super) fn stop_feeding(&mut self) {
        self.input.pipe = None;
    }
}

impl Feed {
    /// Writes some of the input; never ends once there is nothing to write.
    async fn more(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        // A command need not read its input: that it closes the pipe is no failure.
        if self.rest.has_remaining() && pipe.write_buf(&mut self.rest).await.is_ok() {
            return;
        }
        self.pipe = None;
    }
}

impl<P: AsyncRead + Unpin> Capture<P> {
    fn of(pipe: Option<P>, bytes_max: usize) -> Self {
        Self { pipe, tail: BytesMut::new(), bytes_max, is_cut: false }
    }

    /// Reads some more; never ends once the pipe has ended.
    async fn more(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        self.tail.reserve(READ_BYTES);
        match pipe.read_buf(&mut self.tail).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(_) => {
                let excess = self.tail.len().saturating_sub(self.bytes_max);
                self.tail.advance(excess);
                self.is_cut |= excess > 0;
            }
        }
    }

    /// The captured end, as a text where it is one; none where nothing was kept.
    pub(super) fn into_output(self) -> Option<Output> {
        // Where the front was cut off within a character, the text begins at the next one.
        let begin = if self.is_cut {
            self.tail.iter().take(3).take_while(|byte| is_continuation(**byte)).count()
        } else {
            0
        };
        let text = self.tail.get(begin..).filter(|rest| std::str::from_utf8(rest).is_ok());
        let bytes = text.unwrap_or(&self.tail);
        if bytes.is_empty() {
            return None;
        }
        Some(Output {
            media_type: text.map(|_| "text/plain; charset=utf-8".to_owned()),
            truncated: self.is_cut,
            // A copy, since the buffer is larger than what it holds.
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// The last of it for a message: at most this many characters, without the white space around them; empty where
    /// nothing was written.
    pub(super) fn last_words(&self, chars_max: usize) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        let excess = text.chars().count().saturating_sub(chars_max);
        let last = text.chars().skip(excess).map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
        last.collect()
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn captured(bytes: &[u8], bytes_max: usize) -> Capture<&[u8]> {
        let mut capture = Capture::of(Some(bytes), bytes_max);
        while capture.pipe.is_some() {
            capture.more().await;
        }
        capture
    }

    #[tokio::test]
    async fn the_end_is_kept_in_bounded_memory() {
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
        let capture = captured(&bytes, 1000).await;
        assert!(capture.tail.capacity() <= 1000 + 4 * READ_BYTES, "{}", capture.tail.capacity());
        let output = capture.into_output().unwrap();
        assert_eq!(output.bytes, bytes[bytes.len() - 1000..]);
        assert!(output.truncated);
        assert_eq!(output.media_type, None);
    }

    #[tokio::test]
    async fn a_text_is_not_cut_within_a_character() {
        let output = captured("ééé".as_bytes(), 3).await.into_output().unwrap();
        assert_eq!((output.bytes, output.truncated), (Bytes::from("é"), true));
        let output = captured("ééé".as_bytes(), 6).await.into_output().unwrap();
        assert_eq!((output.bytes, output.truncated), (Bytes::from("ééé"), false));
        assert_eq!(output.media_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(captured(b"", 6).await.into_output(), None);
        assert_eq!(captured(b"x", 0).await.into_output(), None);
    }

    #[tokio::test]
    async fn the_last_words_are_short_and_plain() {
        let words = async |bytes: &[u8], max| captured(bytes, 1000).await.last_words(max);
        assert_eq!(words(b"one\ntwo\n\n", 100).await, "one\ntwo");
        assert_eq!(words("ünö".as_bytes(), 2).await, "nö");
        assert_eq!(words(b"\x1b[31mred\0", 100).await, "[31mred");
        assert_eq!(words(b"a\xffb\x07c", 100).await, "a\u{fffd}b c");
        assert_eq!(words(b" \n", 100).await, "");
    }
}
