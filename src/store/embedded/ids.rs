//! Where the archive holds which id: an index beside it, for the writer's question "was this id ever seen?" above all.
//!
//! An id is known by a keyed hash of 64 bits, its place is the key of its row. The newest entries are in memory; when
//! there are enough of them they are written as a [`Run`], a file that is sorted by hash and never changed, and runs of
//! one level are merged into one of the next. So an id costs some sixteen bytes a level of plain appending writes, however
//! many there are and in whatever order they come; a B-tree would touch a page of its own for each.
//!
//! Invariant: every row of the archive has an entry here. An entry is a hint: its row may be gone, or be another id's
//! with the same hash, so who finds one looks at the row. All of it can be made anew from the archive.

mod filter;
mod recent;
mod run;

use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use siphasher::sip::SipHasher13;

use self::recent::Recent;
pub(super) use self::run::Run;
use crate::sync::{AtomicU64, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::task::TaskId;

/// Runs of one level that are merged into one of the next.
const MERGED: usize = 4;

/// An entry, in the order of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) place: u64,
}

/// Shared by who asks and the archiver, which alone changes it.
#[derive(Debug)]
pub(super) struct Ids {
    folder: PathBuf,
    key: (u64, u64),
    /// Entries in memory that make a run.
    recent_max: usize,
    contents: RwLock<Contents>,
    /// Grows whenever tasks that were archived leave memory.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Contents {
    recent: Recent,
    /// Oldest first.
    runs: Vec<Arc<Run>>,
}

impl Ids {
    /// With the runs of the folder, oldest first. The key belongs to the runs.
    pub(super) fn new(folder: &Path, key: (u64, u64), runs: Vec<Arc<Run>>, recent_max: usize) -> Self {
        let contents = RwLock::new(Contents { runs, ..Contents::default() });
        Self { folder: folder.to_owned(), key, recent_max, contents, version: AtomicU64::new(0) }
    }

    /// See [`Ids::passed`].
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Tells that entries were added whose tasks leave memory now: who has looked into memory before, found nothing there
    /// and nothing here, has to look again.
    pub(super) fn pass(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn hash(&self, id: &TaskId) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(id.as_str().as_bytes());
        hasher.finish()
    }

    /// Whether there is an entry of the id, as far as memory tells: a `false` is certain.
    pub(super) fn may_hold(&self, id: &TaskId) -> bool {
        let hash = self.hash(id);
        let contents = self.read();
        contents.recent.places(hash).next().is_some() || contents.runs_that_may_hold(hash).next().is_some()
    }

    /// Where the row of the id may be; mostly one place, or none for an id that was never archived.
    pub(super) fn places(&self, id: &TaskId) -> io::Result<Vec<u64>> {
        let hash = self.hash(id);
        let (mut places, runs) = {
            let contents = self.read();
            let places: Vec<_> = contents.recent.places(hash).collect();
            // Nearly always there is none, and then nothing is allocated.
            let runs: Vec<_> = contents.runs_that_may_hold(hash).map(Arc::clone).collect();
            (places, runs)
        };
        for run in runs {
            run.find(hash, &mut places)?;
        }
        Ok(places)
    }

    /// Adds the places of rows.
    pub(super) fn add<'a>(&self, rows: impl Iterator<Item = (&'a TaskId, u64)>) {
        let entries: Vec<_> = rows.map(|(id, place)| Entry { hash: self.hash(id), place }).collect();
        let mut contents = self.write();
        for entry in entries {
            contents.recent.add(entry);
        }
    }

    /// Whether a run is to be made of what is in memory.
    pub(super) fn is_full(&self) -> bool {
        self.read().recent.len() >= self.recent_max
    }

    /// Writes what is in memory as a run with this number. It holds from [`Ids::install`] on.
    pub(super) fn seal(&self, number: u64) -> io::Result<Run> {
        let recent = self.read().recent.sorted();
        Run::write(&self.folder, number, 0, recent.len(), recent.into_iter().map(Ok))
    }

    /// Takes the run in place of what is in memory.
    pub(super) fn install(&self, run: Run) {
        let mut contents = self.write();
        contents.recent.clear();
        contents.runs.push(Arc::new(run));
    }

    /// The oldest runs of a level that has enough of them to be merged.
    pub(super) fn mergeable(&self) -> Option<Vec<Arc<Run>>> {
        let contents = self.read();
        let level = contents
            .runs
            .iter()
            .map(|run| run.level)
            .find(|level| contents.runs.iter().filter(|run| run.level == *level).count() >= MERGED)?;
        let runs = contents.runs.iter().filter(|run| run.level == level).take(MERGED);
        Some(runs.map(Arc::clone).collect())
    }

    /// Writes one run in place of these. Of entries with the same hash those stay whose row is there. It holds from
    /// [`Ids::replace`] on.
    pub(super) fn merge<E: From<io::Error>>(
        &self,
        runs: &[Arc<Run>],
        number: u64,
        is_there: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Run, E> {
        run::merge(&self.folder, number, runs, is_there)
    }

    /// Takes the run in place of those that it was merged from, and removes their files.
    pub(super) fn replace(&self, merged: &[Arc<Run>], by: Run) {
        let mut contents = self.write();
        let is_merged = |run: &Arc<Run>| merged.iter().any(|one| one.number == run.number);
        contents.runs.retain(|run| !is_merged(run));
        contents.runs.push(Arc::new(by));
        drop(contents);
        for run in merged {
            run.remove(&self.folder);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn runs_that_may_hold(&self, hash: u64) -> impl Iterator<Item = &Arc<Run>> {
        self.runs.iter().filter(move |run| run.may_hold(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    fn add(ids: &Ids, name: &str, place: u64) {
        ids.add([(&id(name), place)].into_iter());
    }

    fn places(ids: &Ids, name: &str) -> Vec<u64> {
        ids.places(&id(name)).unwrap()
    }

    #[test]
    fn an_id_has_its_places_in_memory_and_in_runs_and_others_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let ids = Ids::new(folder.path(), (1, 2), Vec::new(), 2);
        assert!(!ids.may_hold(&id("a")) && !ids.is_full());
        add(&ids, "a", 5);
        assert!(ids.may_hold(&id("a")) && !ids.may_hold(&id("b")) && !ids.is_full());
        add(&ids, "b", 7);
        assert!(ids.is_full());
        let run = ids.seal(1).unwrap();
        assert_eq!((places(&ids, "a"), places(&ids, "c")), (vec![5], vec![]), "it does not hold yet");
        ids.install(run);
        assert!(!ids.is_full() && ids.may_hold(&id("a")) && !ids.may_hold(&id("c")));
        add(&ids, "a", 9);
        assert_eq!((places(&ids, "a"), places(&ids, "b"), places(&ids, "c")), (vec![9, 5], vec![7], vec![]));

        let version = ids.version();
        ids.pass();
        assert_eq!(ids.version(), version + 1);
        let other = Ids::new(folder.path(), (1, 3), Vec::new(), 2);
        assert_ne!(ids.hash(&id("a")), ids.hash(&id("b")));
        assert_ne!(ids.hash(&id("a")), other.hash(&id("a")), "who does not know the key cannot tell");
    }

    #[test]
    fn the_oldest_runs_of_a_level_become_one_of_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let ids = Ids::new(folder.path(), (1, 2), Vec::new(), 1);
        for number in 1..=5 {
            let is_enough = number > MERGED as u64;
            assert_eq!(ids.mergeable().is_some(), is_enough, "before run {number}");
            add(&ids, &format!("t-{number}"), number);
            ids.install(ids.seal(number).unwrap());
        }
        let merged = ids.mergeable().unwrap();
        assert_eq!(merged.iter().map(|run| run.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let run = ids.merge(&merged, 6, |_| Ok::<_, io::Error>(true)).unwrap();
        assert_eq!(run.level, 1);
        ids.replace(&merged, run);
        assert!(ids.mergeable().is_none());
        for number in 1..=5 {
            assert_eq!(places(&ids, &format!("t-{number}")), [number]);
        }
        let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["00000005.ids", "00000006.ids"].map(|name| folder.path().join(name)));
    }
}
