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
