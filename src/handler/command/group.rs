//! The process group of one run: the command and whatever it started.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
#[cfg(target_os = "linux")]
use tokio::io::Interest;
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::time::sleep;

/// How often a leader is looked at that cannot be watched: no such handles in this system, or no room for one more.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A started command that leads a process group of its own. Dropping it kills the whole group; tokio reaps the leader.
///
/// Invariant: while the leader is not reaped, its id names this group and no other one. So it is reaped last, by
/// [`Group::end`], after the group was killed; until then its exit is only watched.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// None once the leader is reaped and the group killed.
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
        while let Some(id) = self.id {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(id), options) {
                Ok(Some(_)) => return,
                Ok(None) | Err(Errno::INTR) => sleep(LOOK_AGAIN).await,
                Err(_) => break,
            }
        }
        // It cannot be looked at either: it is reaped, after which its id is not used again.
        let _ = self.child.wait().await;
        self.signal(Signal::KILL);
        self.id = None;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn started(script: &str) -> Group {
        let mut command = tokio::process::Command::new("sh");
        Group::of(command.args(["-c", script]).process_group(0).spawn().unwrap())
    }

    /// Once it were reaped, another process could have its id.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_leader_that_has_exited_is_not_reaped_before_its_group_is_killed() {
        for is_watched in [true, false] {
            let mut group = started("exit 3");
            assert!(group.leader.is_some());
            if !is_watched {
                group.leader = None;
            }
            group.exited().await;
            let id = group.id.unwrap().as_raw_nonzero();
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            assert!(stat.contains(") Z "), "{is_watched}: {stat:?}");
            assert_eq!(group.end().await.unwrap().code(), Some(3));
            assert!(group.id.is_none());
        }
    }
}
