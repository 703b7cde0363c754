//! A disk of our own, mounted with FUSE, that can lose what was not synced, be full, refuse writes, fail to sync, and end
//! the process that uses it in front of or behind a certain write or sync.

pub(crate) mod files;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use self::files::{Files, Folder, Node, ROOT, SECTOR};

/// How long the kernel may remember names and sizes: it is told of every change, because it makes all of them.
const TTL: Duration = Duration::from_mins(1);
const BLOCK: u32 = 4096;

/// A mounted disk. Dropping it unmounts it.
pub(crate) struct Disk {
    session: Option<BackgroundSession>,
    shared: Arc<Shared>,
    folder: TempDir,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    trap: Option<Trap>,
    is_full: bool,
    is_read_only: bool,
    /// Of files whose names begin so, so many syncs succeed; the next one fails, and with it what it should have made last.
    failing_sync: Option<(&'static str, u32)>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    /// Writes and syncs that were refused.
    pub(crate) refused: u64,
}

/// What the process does when it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Write,
    Sync,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// Ends the process that does this for the so-manieth time (0: the next time) to a file whose name begins so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trap {
    pub(crate) act: Act,
    pub(crate) when: When,
    pub(crate) file: &'static str,
    pub(crate) after: u32,
}

impl Disk {
    pub(crate) fn mount() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                files: Files::new(),
                trap: None,
                is_full: false,
                is_read_only: false,
                failing_sync: None,
                counts: Counts::default(),
            }),
        });
        let folder = TempDir::new()?;
        let session = Some(mount(&shared, folder.path())?);
        Ok(Self { session, shared, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn arm(&self, trap: Trap) {
        self.remote().arm(trap);
    }

    /// What arms it from elsewhere.
    pub(crate) fn remote(&self) -> Remote {
        Remote(Arc::clone(&self.shared))
    }

    /// Takes back whatever it was to do.
    pub(crate) fn disarm(&self) {
        let mut inner = self.shared.inner();
        (inner.trap, inner.failing_sync) = (None, None);
        (inner.is_full, inner.is_read_only) = (false, false);
    }

    /// Whether files may not grow.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.shared.inner().is_full = is_full;
    }

    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.shared.inner().is_read_only = is_read_only;
    }

    pub(crate) fn fail_sync(&self, file: &'static str, after: u32) {
        self.shared.inner().failing_sync = Some((file, after));
    }

    /// Writes and syncs so far.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.inner().counts
    }

    /// Cuts the power: what was not synced is gone, but for each sector of it that is kept with this probability. Nobody
    /// may use it meanwhile. Returns how many sectors and names were lost.
    pub(crate) fn lose_power(&mut self, keep: f64) -> io::Result<u64> {
        // The kernel's cache goes with the mount.
        if let Some(session) = self.session.take() {
            match session.umount_and_join() {
                // What its thread was told when the mount went away in the middle of a read.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The kernel lets go of the files of a dead process a moment after it is gone.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => unmount(self.folder.path())?,
                joined => joined?,
            }
        }
        let lost = self.shared.inner().files.lose_power(keep);
        self.session = Some(mount(&self.shared, self.folder.path())?);
        Ok(lost)
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Disk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Remote(Arc<Shared>);

impl Remote {
    pub(crate) fn arm(&self, trap: Trap) {
        self.0.inner().trap = Some(trap);
    }
}

fn mount(shared: &Arc<Shared>, folder: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("audit".to_owned()), MountOption::NoAtime];
    fuser::spawn_mount(Mounted(Arc::clone(shared)), folder, &config)
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Ends the process if this is the moment for it, and says so. Its thread never hears of what it asked for.
    fn is_ended(&mut self, request: &Request, act: Act, when: When, node: u64) -> bool {
        if self.trap.is_none() {
            return false;
        }
        let name = self.name(node);
        let Some(trap) = &mut self.trap else { return false };
        let is_meant = trap.act == act && trap.when == when && name.starts_with(trap.file);
        // The shared memory of SQLite is written back by the kernel, whenever it likes.
        if !is_meant || name.ends_with("-shm") || request.pid() == 0 {
            return false;
        }
        if trap.after > 0 {
            trap.after -= 1;
            return false;
        }
        self.trap = None;
        let pid = i32::try_from(request.pid()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has ended already.
            let _ = kill_process(pid, Signal::KILL);
        }
        true
    }

    fn name(&mut self, node: u64) -> String {
        let mut folders = vec![ROOT];
        while let Some(folder) = folders.pop() {
            for (name, number) in
                self.files.folder(folder).map(|folder| folder.names.clone()).unwrap_or_default()
            {
                if number == node {
                    return name.to_string_lossy().into_owned();
                }
                if matches!(self.files.node(number), Some(Node::Folder(_))) {
                    folders.push(number);
                }
            }
        }
        String::new()
    }

    fn refuse(&mut self, error: Errno) -> Errno {
        self.counts.refused += 1;
        error
    }

    fn write(&mut self, request: &Request, node: u64, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        if self.is_read_only {
            return Err(self.refuse(Errno::EROFS));
        }
        let at = usize::try_from(at).map_err(|_too_far| Errno::EFBIG)?;
        let len = self.files.file(node).ok_or(Errno::ENOENT)?.bytes.len();
        if self.is_full && at + bytes.len() > len {
            return Err(self.refuse(Errno::ENOSPC));
        }
        if self.is_ended(request, Act::Write, When::Before, node) {
            return Err(Errno::EIO);
        }
        self.counts.writes += 1;
        self.files.file(node).ok_or(Errno::ENOENT)?.write(at, bytes);
        self.is_ended(request, Act::Write, When::After, node);
        Ok(())
    }

    fn sync(&mut self, request: &Request, node: u64) -> Result<(), Errno> {
        let name = self.name(node);
        match &mut self.failing_sync {
            Some((file, 0)) if name.starts_with(*file) => {
                self.failing_sync = None;
                if let Some(file) = self.files.file(node) {
                    file.fail_sync();
                }
                return Err(self.refuse(Errno::EIO));
            }
            Some((file, after)) if name.starts_with(*file) => *after -= 1,
            _ => {}
        }
        if self.is_ended(request, Act::Sync, When::Before, node) {
            return Err(Errno::EIO);
        }
        self.counts.syncs += 1;
        if let Some(file) = self.files.file(node) {
            file.sync();
        } else if let Some(folder) = self.files.folder(node) {
            folder.sync();
        }
        self.is_ended(request, Act::Sync, When::After, node);
        Ok(())
    }

    fn may_grow(&mut self) -> Result<(), Errno> {
        match (self.is_read_only, self.is_full) {
            (true, _) => Err(self.refuse(Errno::EROFS)),
            (false, true) => Err(self.refuse(Errno::ENOSPC)),
            (false, false) => Ok(()),
        }
    }

    fn make(&mut self, parent: u64, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        self.may_grow()?;
        let number = self.files.add(node);
        let folder = self.files.folder(parent).ok_or(Errno::ENOENT)?;
        folder.change(vec![(name.to_owned(), Some(number))]);
        self.attributes(number)
    }

    fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        if self.is_read_only {
            return Err(self.refuse(Errno::EROFS));
        }
        self.files.find(parent, name).ok_or(Errno::ENOENT)?;
        self.files.folder(parent).ok_or(Errno::ENOENT)?.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        self.may_grow()?;
        let number = self.files.find(from.0, from.1).ok_or(Errno::ENOENT)?;
        let taken = (from.1.to_owned(), None);
        let given = (to.1.to_owned(), Some(number));
        if from.0 == to.0 {
            self.files.folder(to.0).ok_or(Errno::ENOENT)?.change(vec![taken, given]);
        } else {
            self.files.folder(to.0).ok_or(Errno::ENOENT)?.change(vec![given]);
            self.files.folder(from.0).ok_or(Errno::ENOENT)?.change(vec![taken]);
        }
        Ok(())
    }

    fn resize(&mut self, node: u64, len: u64) -> Result<(), Errno> {
        let len = usize::try_from(len).map_err(|_too_long| Errno::EFBIG)?;
        let file = self.files.file(node).ok_or(Errno::ENOENT)?;
        let grows = len > file.bytes.len();
        if self.is_read_only || grows {
            self.may_grow()?;
        }
        self.files.file(node).ok_or(Errno::ENOENT)?.resize(len);
        Ok(())
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        let (kind, size) = match self.files.node(number).ok_or(Errno::ENOENT)? {
            Node::File(file) => (FileType::RegularFile, file.bytes.len() as u64),
            Node::Folder(_) => (FileType::Directory, 0),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(SECTOR as u64),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    fn names(&mut self, folder: u64) -> Vec<(u64, FileType, OsString)> {
        let names = self.files.folder(folder).map(|folder| folder.names.clone()).unwrap_or_default();
        let kind = |number| match self.files.node(number) {
            Some(Node::Folder(_)) => FileType::Directory,
            _ => FileType::RegularFile,
        };
        names.into_iter().map(|(name, number)| (number, kind(number), name)).collect()
    }
}

/// What the kernel asks.
struct Mounted(Arc<Shared>);

impl Mounted {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner()
    }
}

fn entry(reply: ReplyEntry, made: Result<FileAttr, Errno>) {
    match made {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn done(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut inner = self.inner();
        let found = inner.files.find(parent.0, name).ok_or(Errno::ENOENT);
        entry(reply, found.and_then(|number| inner.attributes(number)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inner().attributes(node.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut inner = self.inner();
        let resized = size.map_or(Ok(()), |size| inner.resize(node.0, size));
        match resized.and_then(|()| inner.attributes(node.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.inner().make(parent.0, name, Node::Folder(Folder::default())));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.inner().remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.inner().remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(reply, self.inner().rename((parent.0, name), (new_parent.0, new_name)));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut inner = self.inner();
        let Some(file) = inner.files.file(node.0) else { return reply.error(Errno::ENOENT) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
        let to = file.bytes.len().min(from + size as usize);
        reply.data(&file.bytes[from..to]);
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.inner().write(request, node.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, request: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.inner().sync(request, node.0));
    }

    fn fsyncdir(&self, request: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.inner().sync(request, node.0));
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = self.inner().names(node.0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (number, kind, name)) in names.into_iter().enumerate().skip(from) {
            if reply.add(INodeNo(number), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = if self.inner().is_full { 0 } else { 1 << 20 };
        reply.statfs(1 << 20, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.inner().make(parent.0, name, Node::File(files::File::default())) {
            Ok(attributes) => {
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }
}

/// Tries until nobody uses it any more.
#[expect(clippy::disallowed_methods, reason = "whoever loses power may block")]
fn unmount(folder: &Path) -> io::Result<()> {
    for _ in 0..1_000 {
        if !std::fs::read_to_string("/proc/self/mounts")?.contains(&*folder.to_string_lossy()) {
            return Ok(());
        }
        let _ = std::process::Command::new("umount").arg(folder).output()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::ErrorKind::ResourceBusy.into())
}
