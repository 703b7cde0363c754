//! What is done to the service while clients use it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::disk::{Act, When};
use crate::receiver::Moment;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Nemesis {
    /// `kill -9` at a random moment.
    Kill,
    /// `kill -9` at a named point.
    Point,
    /// Power loss at a random moment or at a named point: what was not synced is gone, wholly or sector by sector.
    Power,
    /// A sync fails; the service has to stop, and the power may go too.
    Sync,
    /// SIGSTOP for up to two seconds.
    Stop,
    /// No room on the disk for a while.
    Full,
    /// The disk is read-only for a while.
    ReadOnly,
    /// The clock jumps, forwards and backwards.
    Clock,
    /// The receiver hangs, resets and floods.
    Receivers,
    /// No file descriptors are left for a while.
    Descriptors,
}

impl Nemesis {
    /// Whether the process ends by it.
    pub(crate) fn is_deadly(self) -> bool {
        matches!(self, Self::Kill | Self::Point | Self::Power | Self::Sync)
    }

    /// Whether it works on a disk of our own.
    pub(crate) fn needs_disk(self) -> bool {
        matches!(self, Self::Point | Self::Power | Self::Sync | Self::Full | Self::ReadOnly)
    }
}

/// A moment at which a process can be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    BeforeAppend,
    AfterAppend,
    BeforeCommit,
    /// In front of publishing and answering, which nothing else separates.
    AfterCommit,
    AfterAnswer,
    BeforeHandler,
    AfterHandler,
    BeforeSettle,
    AfterSettle,
    BeforeArchiving,
    AfterArchiving,
    BeforeArchived,
    AfterArchived,
    BeforeIndexing,
    AfterIndexing,
    BeforeIndexed,
    AfterIndexed,
    AtStart,
}

/// What watches for a point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watch {
    Disk(Act, When, &'static str),
    /// The process that starts next.
    DiskOfNext(Act, When, &'static str),
    Client,
    Receiver(Moment),
    /// The next such thing that the disk is asked for when a call was answered.
    DiskAfterCall(Act, When, &'static str),
}

impl Point {
    pub(crate) const ALL: [Self; 18] = [
        Self::BeforeAppend,
        Self::AfterAppend,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::AfterAnswer,
        Self::BeforeHandler,
        Self::AfterHandler,
        Self::BeforeSettle,
        Self::AfterSettle,
        Self::BeforeArchiving,
        Self::AfterArchiving,
        Self::BeforeArchived,
        Self::AfterArchived,
        Self::BeforeIndexing,
        Self::AfterIndexing,
        Self::BeforeIndexed,
        Self::AfterIndexed,
        Self::AtStart,
    ];

    pub(crate) fn watch(self) -> Watch {
        const JOURNAL: &str = "journal";
        const ARCHIVE: &str = "archive";
        // Its files are numbered.
        const INDEX: &str = "0";
        match self {
            Self::BeforeAppend => Watch::Disk(Act::Write, When::Before, JOURNAL),
            Self::AfterAppend => Watch::Disk(Act::Write, When::After, JOURNAL),
            Self::BeforeCommit => Watch::Disk(Act::Sync, When::Before, JOURNAL),
            Self::AfterCommit => Watch::Disk(Act::Sync, When::After, JOURNAL),
            Self::AfterAnswer => Watch::Client,
            Self::BeforeHandler => Watch::Receiver(Moment::Called),
            Self::AfterHandler => Watch::Receiver(Moment::Answered),
            Self::BeforeSettle => Watch::DiskAfterCall(Act::Sync, When::Before, JOURNAL),
            Self::AfterSettle => Watch::DiskAfterCall(Act::Sync, When::After, JOURNAL),
            Self::BeforeArchiving => Watch::Disk(Act::Write, When::Before, ARCHIVE),
            Self::AfterArchiving => Watch::Disk(Act::Write, When::After, ARCHIVE),
            Self::BeforeArchived => Watch::Disk(Act::Sync, When::Before, ARCHIVE),
            Self::AfterArchived => Watch::Disk(Act::Sync, When::After, ARCHIVE),
            Self::BeforeIndexing => Watch::Disk(Act::Write, When::Before, INDEX),
            Self::AfterIndexing => Watch::Disk(Act::Write, When::After, INDEX),
            Self::BeforeIndexed => Watch::Disk(Act::Sync, When::Before, INDEX),
            Self::AfterIndexed => Watch::Disk(Act::Sync, When::After, INDEX),
            Self::AtStart => Watch::DiskOfNext(Act::Write, When::After, ""),
        }
    }
}

/// A clock that jumps, for a process that starts with these variables in its environment.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Keeps its offset in this folder. None where the library is not installed.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        let places = fs::read_dir("/usr/lib").ok()?.flatten();
        let library = places
            .map(|place| place.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists())?;
        let clock = Self { library, offset: folder.join("clock") };
        clock.set(0);
        Some(clock)
    }

    pub(crate) fn environment(&self) -> [(String, String); 4] {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        [
            pair("LD_PRELOAD", self.library.display().to_string()),
            pair("FAKETIME_TIMESTAMP_FILE", self.offset.display().to_string()),
            pair("FAKETIME_NO_CACHE", "1".to_owned()),
            // Only the wall clock jumps; the other one counts from the start of the machine.
            pair("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Sets it off by so many seconds.
    pub(crate) fn set(&self, seconds: i64) {
        let next = self.offset.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n")).expect("the clock's file");
        fs::rename(&next, &self.offset).expect("the clock's file");
    }

    pub(crate) fn jump(&self) {
        const HOUR: i64 = 3_600;
        let jumps = [-400 * 24 * HOUR, -24 * HOUR, -HOUR, -2, 0, 1, 90, HOUR, 400 * 24 * HOUR];
        self.set(jumps[fastrand::usize(..jumps.len())]);
    }
}

/// Leaves a process so many more file descriptors than it has open, until this is dropped.
#[derive(Debug)]
pub(crate) struct FewDescriptors {
    process: Pid,
    before: Rlimit,
}

impl FewDescriptors {
    pub(crate) fn leave(pid: u32, more: u64) -> io::Result<Self> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        let maximum = getrlimit(Resource::Nofile).maximum;
        let few = Rlimit { current: Some(open + more), maximum };
        let before = prlimit(Some(process), Resource::Nofile, few)?;
        Ok(Self { process, before })
    }
}

impl Drop for FewDescriptors {
    fn drop(&mut self) {
        // An error means that the process has ended.
        let _ = prlimit(Some(self.process), Resource::Nofile, self.before);
    }
}
