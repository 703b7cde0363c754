//! How the process ends: exit codes that scripts and supervisors can rely on.

use std::process::ExitCode;

/// An exit code; the numbers stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well; `healthcheck`: the service is ready.
    Fine = 0,
    /// `healthcheck`: the service is not ready. Otherwise something that nobody foresaw.
    Unhealthy = 1,
    /// A flag, the config or the environment is wrong; nothing has started.
    Usage = 2,
    /// The address to listen on cannot be had.
    CannotListen = 3,
    /// The store cannot be opened.
    CannotOpenStore = 4,
    /// The store failed while the service ran; what was not answered may not be recorded.
    StoreFailed = 5,
    /// `backup`, `export`: the copy cannot be written.
    CannotWrite = 6,
    /// The task that was asked about has failed, or a bulk operation failed for some of its tasks.
    TaskFailed = 10,
    /// The task is not found.
    NotFound = 11,
    /// Refused, because things are not so (409, 412); or some lines of a batch or an import were.
    Refused = 12,
    /// The service cannot be reached, or cannot do it now (429, 5xx): the same may succeed later.
    Unavailable = 13,
    /// The time to wait was up.
    TimedOut = 14,
    /// The token is missing, or does not allow it (401, 403).
    NotAllowed = 15,
}

/// The exit codes as the help shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  all went well; healthcheck: ready
  1  healthcheck: not ready; otherwise an unforeseen error
  2  a flag, the config or the environment is wrong
  3  cannot listen on the address
  4  cannot open the store
  5  the store failed while running
  6  backup, export: the copy cannot be written
Of the verbs that ask a running service:
  0  it is done, or was so already
  2  also: the service calls the request wrong
  10 the task has failed, or bulk failed for some tasks
  11 the task is not found
  12 refused, as things are (409, 412); a batch or an import: some lines were
  13 the service cannot be reached, or cannot do it now (429, 5xx)
  14 the time to wait was up
  15 the token is missing, or does not allow it (401, 403)";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
