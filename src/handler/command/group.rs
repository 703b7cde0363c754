//! The process group of one run: the command and whatever it started.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
#[cfg(target_os = "linux")]
use tokio::io::Interest;
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// A started command that leads a process group of its own. Dropping it kills the whole group; tokio reaps the leader.
///
/// Invariant: while the leader is not reaped, its id names this group and no other one. So it is reaped last, by
/// [`Group::end`], after the group was killed; until then its exit is only watched.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// None once the leader is reaped.
    id: Option<Pid>,
    #[cfg(target_os = "linux")]
    leader: Option<AsyncFd<OwnedFd>>,
}

impl Group {
    /// Takes charge of a child that was started as the leader of its own group.
    pub(super) fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self {
            child,
            id,
            #[cfg(target_os = "linux")]
            leader: id.and_then(watch),
        }
    }

    /// Ends once the leader has exited. May be dropped and called again.
    pub(super) async fn exited(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(leader) = &self.leader
            && leader.readable().await.is_ok()
        {
            return;
        }
        // Where its exit cannot be watched, it has to be reaped. An error says that there is no such child any more.
        let _ = self.child.wait().await;
    }

    /// Sends a signal to every process of the group. That none is left is no error.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, signal);
        }
    }

    /// Kills what is left of the group, and says how its leader ended. Waits for that end.
    ///
    /// # Errors
    /// Where the system does not say how it ended.
    pub(super) async fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        let status = self.child.wait().await;
        self.id = None;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A handle that becomes readable when the process exits; none where the system has no such handles (left).
#[cfg(target_os = "linux")]
#[expect(deprecated, reason = "its successor is unsafe; an `OwnedFd` keeps the promise that it asks for")]
fn watch(id: Pid) -> Option<AsyncFd<OwnedFd>> {
    use rustix::process::{PidfdFlags, pidfd_open};
    AsyncFd::with_interest(pidfd_open(id, PidfdFlags::empty()).ok()?, Interest::READABLE).ok()
}
