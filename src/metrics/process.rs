//! What the operating system knows of this process, as Linux tells it in `/proc`; elsewhere nothing is known.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

/// The process now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    /// None where there is no limit.
    pub(super) max_fds: Option<u64>,
    /// Since 1970.
    pub(super) start_seconds: f64,
}

impl Process {
    pub(super) fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the name of the program in brackets, which may hold anything.
        let (_, behind_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
        // Counted from 1 in proc(5), where the first one behind the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "a tick is a hundredth of a second")]
        let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            resident_bytes: field(24)? * page_size() as u64,
            // Less the one that reads them.
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64,
            max_fds: max_fds(),
            start_seconds: boot_seconds()? + seconds(field(22)?),
        })
    }
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// When the machine was started.
fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_what_this_process_uses() {
        let file = fs::File::open("/proc/self/stat").unwrap();
        let process = Process::now().unwrap();
        drop(file);
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        assert!(process.cpu_seconds < 3_600.0, "{process:?}");
        assert!((1 << 20..1 << 34).contains(&process.resident_bytes), "{process:?}");
        assert!(
            process.open_fds > 3 && process.max_fds.is_none_or(|max| process.open_fds < max),
            "{process:?}"
        );
        assert!((now - 3_600.0..now + 2.0).contains(&process.start_seconds), "{process:?} at {now}");
    }
}
