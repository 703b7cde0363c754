//! What a write came to, as far as the next ones are concerned.

use rusqlite::{ErrorCode, ffi};

use super::Health;

/// What a failed write means for the next ones. A failed fsync is final: the kernel may have dropped the pages, so a
/// second fsync that succeeds would prove nothing. So is a file that is damaged.
pub(super) fn health_after(error: &rusqlite::Error) -> Health {
    let is_fsync = |code| matches!(code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC);
    let is_damage = |code| matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase);
    match error.sqlite_error() {
        Some(cause) if is_fsync(cause.extended_code) || is_damage(cause.code) => {
            Health::Dead(error.to_string())
        }
        _ => Health::Unavailable(error.to_string()),
    }
}

/// Whether a commit that writes less may succeed.
pub(super) fn is_for_want_of_room(error: &rusqlite::Error) -> bool {
    let is_of_size =
        matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure));
    is_of_size && !matches!(health_after(error), Health::Dead(_))
}

/// Tells the operator.
pub(super) fn tell(health: &Health) {
    match health {
        Health::Writable => tracing::info!("the store writes again"),
        Health::Unavailable(error) => {
            tracing::warn!(
                error,
                "the store cannot write; launches are refused and outcomes wait until it can"
            );
        }
        Health::Dead(error) => tracing::error!(error, "the store will not write again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_failed_fsync_is_final_and_a_full_disk_is_not() {
        let health = |code| health_after(&failure(code));
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC, ffi::SQLITE_CORRUPT] {
            assert!(matches!(health(code), Health::Dead(_)), "{code}");
        }
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_BUSY] {
            assert!(matches!(health(code), Health::Unavailable(_)), "{code}");
        }
    }

    #[test]
    fn less_may_have_room_where_a_write_failed_and_not_where_a_sync_or_a_lock_did() {
        for (code, is_so) in [
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_IOERR_WRITE, true),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_CORRUPT, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_READONLY, false),
        ] {
            assert_eq!(is_for_want_of_room(&failure(code)), is_so, "{code}");
        }
    }
}
