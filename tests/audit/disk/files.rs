//! Files and folders in memory, each as programs see it and as it would be after a power cut.
//!
//! What was not synced is kept as a list of changes; a sync of that file, or of that folder for its names, makes them
//! last. Nothing else does: not a close, not a sync of another file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Storage writes so many bytes wholly or not at all.
pub(crate) const SECTOR: usize = 512;
pub(crate) const ROOT: u64 = 1;

#[derive(Debug)]
pub(crate) struct Files {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

#[derive(Debug)]
pub(crate) enum Node {
    File(File),
    Folder(Folder),
}

#[derive(Debug, Default)]
pub(crate) struct File {
    /// As programs see it.
    pub(crate) bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Folder {
    pub(crate) names: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// In order; the names of one entry change together.
    unsynced: Vec<Vec<(OsString, Option<u64>)>>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Change {
    fn make(&self, file: &mut Vec<u8>) {
        match self {
            Self::Resize(len) => file.resize(*len, 0),
            Self::Write { at, bytes } => write(file, *at, bytes),
        }
    }
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

impl File {
    fn change(&mut self, change: Change) {
        change.make(&mut self.bytes);
        self.unsynced.push(change);
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.change(Change::Write { at, bytes: bytes.to_vec() });
    }

    pub(crate) fn resize(&mut self, len: usize) {
        self.change(Change::Resize(len));
    }

    pub(crate) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.make(&mut self.durable);
        }
    }

    /// A sync that failed. As with a real kernel, programs go on to see what they wrote, and no later sync writes it.
    pub(crate) fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    /// Drops what was not synced, but for each sector of it that is kept by chance. Returns how many sectors were dropped.
    fn lose(&mut self, keep: f64) -> u64 {
        let mut lost = 0;
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Resize(_) => {
                    if fastrand::f64() < keep {
                        change.make(&mut self.durable);
                    }
                }
                Change::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = bytes.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
                        if fastrand::f64() < keep {
                            write(&mut self.durable, at + from, &bytes[from..to]);
                        } else {
                            lost += 1;
                        }
                        from = to;
                    }
                }
            }
        }
        self.bytes.clone_from(&self.durable);
        lost
    }
}

impl Folder {
    pub(crate) fn change(&mut self, names: Vec<(OsString, Option<u64>)>) {
        apply(&mut self.names, &names);
        self.unsynced.push(names);
    }

    pub(crate) fn sync(&mut self) {
        for names in self.unsynced.drain(..) {
            apply(&mut self.durable, &names);
        }
    }

    /// Keeps some of the changes that were made first.
    fn lose(&mut self, keep: f64) -> u64 {
        let mut unsynced = std::mem::take(&mut self.unsynced).into_iter();
        let mut lost = 0;
        for names in unsynced.by_ref() {
            if fastrand::f64() >= keep {
                lost += 1;
                break;
            }
            apply(&mut self.durable, &names);
        }
        self.names.clone_from(&self.durable);
        lost + unsynced.count() as u64
    }
}

fn apply(folder: &mut BTreeMap<OsString, u64>, names: &[(OsString, Option<u64>)]) {
    for (name, node) in names {
        match node {
            Some(node) => drop(folder.insert(name.clone(), *node)),
            None => drop(folder.remove(name)),
        }
    }
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]), last: ROOT }
    }

    pub(crate) fn add(&mut self, node: Node) -> u64 {
        self.last += 1;
        self.nodes.insert(self.last, node);
        self.last
    }

    pub(crate) fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    pub(crate) fn file(&mut self, number: u64) -> Option<&mut File> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn folder(&mut self, number: u64) -> Option<&mut Folder> {
        match self.nodes.get_mut(&number) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    pub(crate) fn find(&mut self, folder: u64, name: &OsStr) -> Option<u64> {
        self.folder(folder)?.names.get(name).copied()
    }

    /// What a power cut leaves: what was synced, and of the rest each sector with this probability. Returns how many
    /// sectors and names were lost.
    pub(crate) fn lose_power(&mut self, keep: f64) -> u64 {
        let lost = |node: &mut Node| match node {
            Node::File(file) => file.lose(keep),
            Node::Folder(folder) => folder.lose(keep),
        };
        let lost = self.nodes.values_mut().map(lost).sum();
        // Files without a name are gone.
        let mut named = vec![ROOT];
        let mut next = 0;
        while let Some(node) = named.get(next) {
            next += 1;
            if let Some(Node::Folder(folder)) = self.nodes.get(node) {
                named.extend(folder.names.values());
            }
        }
        self.nodes.retain(|number, _| named.contains(number));
        lost
    }
}
