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
}

/// The exit codes as the help shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  all went well; healthcheck: ready
  1  healthcheck: not ready; otherwise an unforeseen error
  2  a flag, the config or the environment is wrong
  3  cannot listen on the address
  4  cannot open the store
  5  the store failed while running";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
