//! How many files the process may have open, and how many connections are possible within that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What stays for handlers, commands and the store: a part of all files, and at least so many.
const RESERVED_PART: u64 = 5;
const RESERVED_MIN: u64 = 64;

/// Lets the process have as many files open as the system allows it, and says how many connections of those that are
/// `wanted` it can take so.
#[must_use]
pub fn connections_allowed(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let allowed = connections_within(files).min(wanted);
    if allowed < wanted {
        tracing::warn!(
            open_files = files,
            connections_max = allowed,
            "the system allows too few open files for server.connections_max connections; raise it (ulimit -Hn, LimitNOFILE=)"
        );
    }
    allowed
}

/// Of so many files.
fn connections_within(files: u64) -> usize {
    let reserved = (files / RESERVED_PART).max(RESERVED_MIN);
    usize::try_from(files.saturating_sub(reserved)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_stay_for_the_rest_of_the_service() {
        assert_eq!(
            [0, 10, 100, 1_024, 20_000, 1 << 20].map(connections_within),
            [1, 1, 36, 820, 16_000, 838_861]
        );
    }
}
