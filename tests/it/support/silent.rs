//! A regular file whose bytes never come, as on a file system of a network that hangs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request,
};
use tempfile::TempDir;

const ROOT: u64 = 1;
const FILE: u64 = 2;
const TTL: Duration = Duration::from_secs(1);

/// It, mounted for as long as this lasts.
pub(crate) struct SilentFile {
    asked: Asked,
    session: Option<BackgroundSession>,
    folder: TempDir,
}

/// Those who wait for its bytes.
type Asked = Arc<Mutex<Vec<ReplyData>>>;

struct Mounted(Asked);

impl SilentFile {
    pub(crate) fn mount() -> Self {
        let folder = TempDir::new().expect("a folder");
        let asked = Asked::default();
        let session = fuser::spawn_mount(Mounted(Arc::clone(&asked)), folder.path(), &Config::default());
        Self { asked, session: Some(session.expect("a mount, which takes /dev/fuse")), folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("silent")
    }

    /// Whether somebody waits for its bytes.
    pub(crate) fn is_asked(&self) -> bool {
        !self.asked.lock().expect("the list").is_empty()
    }
}

impl Drop for SilentFile {
    fn drop(&mut self) {
        // Those who still wait get an error, because nobody else can end them.
        self.asked.lock().expect("the list").clear();
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

fn attributes(node: u64) -> FileAttr {
    let (kind, perm) =
        if node == ROOT { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o644) };
    FileAttr {
        ino: INodeNo(node),
        size: 64,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.entry(&TTL, &attributes(FILE), Generation(0));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(node.0));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.0.lock().expect("the list").push(reply);
    }
}
