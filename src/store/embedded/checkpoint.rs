//! When the write-ahead log of a file is copied back into it.
//!
//! SQLite would do this by itself, but then the error of a failed fsync is swallowed and the fsync tried again, after
//! which the kernel may have dropped the pages. Here the error reaches the caller.

use rusqlite::Connection;

/// The log is copied back after about so many bytes.
const EVERY_BYTES: usize = 16 << 20;
/// What a commit writes at least: the page that it changes, and those above it.
const COMMIT_BYTES: usize = 2 * 4096;

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    bytes_since: usize,
}

impl Checkpoints {
    /// Notes a commit, with roughly the bytes it wrote.
    pub(super) fn note(&mut self, bytes: usize) {
        self.bytes_since += bytes + COMMIT_BYTES;
    }

    /// Copies the log back if enough has been written since the last time.
    pub(super) fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.bytes_since < EVERY_BYTES {
            return Ok(());
        }
        self.bytes_since = 0;
        // Passive: waits for no reader; what a reader still needs is copied next time.
        connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_copied_back_after_so_many_bytes_and_not_before() {
        let connection = Connection::open_in_memory().unwrap();
        let mut checkpoints = Checkpoints::default();
        let mut after = |bytes| {
            checkpoints.note(bytes);
            checkpoints.run(&connection).unwrap();
            checkpoints.bytes_since
        };
        assert_eq!(after(1_000), 1_000 + 8_192);
        assert_eq!(after(0), 1_000 + 2 * 8_192);
        assert_eq!(after(EVERY_BYTES - 1_000 - 3 * 8_192 - 1), EVERY_BYTES - 1);
        assert_eq!(after(0), 0);
        assert_eq!(after(EVERY_BYTES - 8_192), 0, "exactly so many are enough");
    }
}
