//! A file of entries that are sorted by hash. It is written once, synced, and never changed.
//!
//! ```text
//! entry: hash, place; 8 bytes each, little endian
//! …
//! footer: how many entries, 8 bytes; CRC-32 of all before it, 4 bytes; "ids1"
//! ```
//!
//! In memory are a filter and the first hash of each block, so that a question costs at most one read, and mostly none.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::iter::Peekable;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Entry;
use super::filter::Filter;

const MAGIC: [u8; 4] = *b"ids1";
const ENTRY_BYTES: usize = 16;
const FOOTER_BYTES: usize = 16;
/// Entries in a block: 4 KiB.
const BLOCK: usize = 256;
/// Bytes that are written before they are synced, so that no sync holds up the journal's for long.
const SYNC_BYTES: usize = 4 << 20;
const BUFFER_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(in crate::store::embedded) struct Run {
    pub(in crate::store::embedded) number: u64,
    /// How often its entries were merged.
    pub(in crate::store::embedded) level: u32,
    file: File,
    entries: usize,
    /// The first hash of each block.
    fences: Vec<u64>,
    filter: Filter,
}

/// What is kept in memory of a run, made entry by entry.
struct Outline {
    entries: usize,
    fences: Vec<u64>,
    filter: Filter,
    checksum: crc32fast::Hasher,
}

impl Run {
    /// Writes at most `at_most` entries. The file is whole and durable on return, its name is after the folder was synced
    /// too. What an error leaves is written over by the next one with that number.
    pub(super) fn write<E: From<io::Error>>(
        folder: &Path,
        number: u64,
        level: u32,
        at_most: usize,
        entries: impl Iterator<Item = Result<Entry, E>>,
    ) -> Result<Self, E> {
        let mut outline = Outline::new(at_most);
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(path(folder, number))?;
        let mut block = Vec::with_capacity(BLOCK * ENTRY_BYTES);
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, &file);
        for entry in entries {
            block.extend_from_slice(&entry?.to_bytes());
            if block.len() < BLOCK * ENTRY_BYTES {
                continue;
            }
            outline.add_block(&block);
            writer.write_all(&block)?;
            block.clear();
            if outline.entries.is_multiple_of(SYNC_BYTES / ENTRY_BYTES) {
                writer.flush()?;
                file.sync_data()?;
            }
        }
        outline.add_block(&block);
        writer.write_all(&block)?;
        writer.write_all(&outline.footer())?;
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(outline.into_run(number, level, file))
    }

    /// Opens a run and reads it through. An error of kind `InvalidData` says that it is not whole.
    pub(in crate::store::embedded) fn open(folder: &Path, number: u64, level: u32) -> io::Result<Self> {
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let file = File::open(path(folder, number))?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let entries =
            bytes.checked_sub(FOOTER_BYTES).ok_or_else(|| damaged("it has no footer"))? / ENTRY_BYTES;
        if !bytes.is_multiple_of(ENTRY_BYTES) {
            return Err(damaged("there is something behind its footer"));
        }
        let mut outline = Outline::new(entries);
        let mut buffer = vec![0; BLOCK * ENTRY_BYTES];
        let (mut at, end) = (0, (entries * ENTRY_BYTES) as u64);
        while at < end {
            let bytes = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let (block, _) = buffer.split_at_mut(bytes);
            file.read_exact_at(block, at)?;
            outline.add_block(block);
            at += bytes as u64;
        }
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, end)?;
        if footer != outline.footer() {
            return Err(damaged("its footer does not fit what it holds"));
        }
        Ok(outline.into_run(number, level, file))
    }

    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.filter.may_hold(hash)
    }

    /// Adds the places of all entries with this hash.
    pub(super) fn find(&self, hash: u64, places: &mut Vec<u64>) -> io::Result<()> {
        // Entries with one hash may begin at the end of the block before the first that begins with it.
        let mut block = self.fences.partition_point(|first| *first < hash).saturating_sub(1);
        let mut buffer = [0; BLOCK * ENTRY_BYTES];
        while self.fences.get(block).is_some_and(|first| *first <= hash) {
            let at = block * BLOCK;
            let bytes = (self.entries - at).min(BLOCK) * ENTRY_BYTES;
            let (buffer, _) = buffer.split_at_mut(bytes);
            self.file.read_exact_at(buffer, (at * ENTRY_BYTES) as u64)?;
            let entries = buffer.as_chunks().0.iter().map(|bytes| Entry::from_bytes(*bytes));
            places.extend(entries.filter(|entry| entry.hash == hash).map(|entry| entry.place));
            block += 1;
        }
        Ok(())
    }

    pub(in crate::store::embedded) fn path(&self, folder: &Path) -> PathBuf {
        path(folder, self.number)
    }

    /// Removes the file; it is read from on until nobody has it any more.
    pub(super) fn remove(&self, folder: &Path) {
        if let Err(error) = fs::remove_file(self.path(folder)) {
            tracing::warn!(%error, run = self.number, "a file of the index that is not needed any more stays");
        }
    }

    fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, Part { file: self.file.try_clone()?, at: 0 });
        let mut bytes = [0; ENTRY_BYTES];
        Ok((0..self.entries).map(move |_| {
            reader.read_exact(&mut bytes)?;
            Ok(Entry::from_bytes(bytes))
        }))
    }
}

/// Reads a file from its beginning, wherever others read it.
struct Part {
    file: File,
    at: u64,
}

impl io::Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Where the run with this number is.
fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.ids"))
}

/// One run of all entries of these, but for those that are not needed: twice the same one, and, among several with one
/// hash, those whose row is not there.
pub(super) fn merge<E: From<io::Error>>(
    folder: &Path,
    number: u64,
    runs: &[Arc<Run>],
    mut is_there: impl FnMut(u64) -> Result<bool, E>,
) -> Result<Run, E> {
    let level = runs.iter().map(|run| run.level + 1).max().unwrap_or_default();
    let at_most = runs.iter().map(|run| run.entries).sum();
    let mut sorted = Merge { heads: Vec::new() };
    for run in runs {
        sorted.heads.push(run.entries()?.peekable());
    }
    let mut sorted = sorted.peekable();
    let mut last: Option<Entry> = None;
    let needed = std::iter::from_fn(|| {
        loop {
            let entry = match sorted.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let has_hash = |other: &Entry| other.hash == entry.hash;
            let is_alone = !last.as_ref().is_some_and(has_hash)
                && !sorted.peek().is_some_and(|next| next.as_ref().is_ok_and(has_hash));
            let is_repeated = last == Some(entry);
            last = Some(entry);
            if is_repeated {
                continue;
            }
            match if is_alone { Ok(true) } else { is_there(entry.place) } {
                Ok(true) => return Some(Ok(entry)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    });
    Run::write(folder, number, level, at_most, needed)
}

/// Several sorted sequences as one.
struct Merge<I: Iterator<Item = io::Result<Entry>>> {
    heads: Vec<Peekable<I>>,
}

impl<I: Iterator<Item = io::Result<Entry>>> Iterator for Merge<I> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        // An error comes before every entry.
        let first = |head: &mut Peekable<I>| head.peek().map(|entry| entry.as_ref().ok().copied());
        let heads = self.heads.iter_mut().filter_map(|head| first(head).map(|entry| (entry, head)));
        heads.min_by_key(|(entry, _)| *entry).and_then(|(_, head)| head.next())
    }
}

impl Outline {
    fn new(entries: usize) -> Self {
        Self {
            entries: 0,
            fences: Vec::with_capacity(entries.div_ceil(BLOCK)),
            filter: Filter::new(entries),
            checksum: crc32fast::Hasher::new(),
        }
    }

    /// A whole block, or what the last one holds.
    fn add_block(&mut self, block: &[u8]) {
        let (entries, _) = block.as_chunks();
        self.fences.extend(entries.first().map(|bytes| Entry::from_bytes(*bytes).hash));
        for bytes in entries {
            self.filter.add(Entry::from_bytes(*bytes).hash);
        }
        self.checksum.update(block);
        self.entries += entries.len();
    }

    fn footer(&self) -> [u8; FOOTER_BYTES] {
        let mut checksum = self.checksum.clone();
        let entries = (self.entries as u64).to_le_bytes();
        checksum.update(&entries);
        let mut footer = [0; FOOTER_BYTES];
        let parts = entries.into_iter().chain(checksum.finalize().to_le_bytes()).chain(MAGIC);
        footer.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        footer
    }

    fn into_run(self, number: u64, level: u32, file: File) -> Run {
        let Self { entries, fences, filter, .. } = self;
        Run { number, level, file, entries, fences, filter }
    }
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        (u128::from(self.hash) | u128::from(self.place) << 64).to_le_bytes()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the hash")]
    fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { hash: both as u64, place: (both >> 64) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry { hash: number * 7, place: number }
    }

    fn written(folder: &Path, number: u64, level: u32, entries: &[Entry]) -> Run {
        let entries_read = entries.iter().map(|entry| Ok::<_, io::Error>(*entry));
        Run::write(folder, number, level, entries.len(), entries_read).unwrap()
    }

    fn places(run: &Run, hash: u64) -> Vec<u64> {
        let mut places = Vec::new();
        run.find(hash, &mut places).unwrap();
        places
    }

    #[test]
    fn a_run_has_what_was_written_also_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        for (number, count) in (1..).zip([0, 1, BLOCK as u64 - 1, BLOCK as u64, BLOCK as u64 + 1, 700]) {
            let entries: Vec<_> = (1..=count).map(entry).collect();
            let made = written(folder.path(), number, 2, &entries);
            let opened = Run::open(folder.path(), number, 2).unwrap();
            assert_eq!((opened.number, opened.level, opened.entries), (number, 2, entries.len()));
            assert_eq!(opened.path(folder.path()), folder.path().join(format!("{number:08}.ids")));
            for run in [&made, &opened] {
                assert_eq!(run.fences.len(), entries.len().div_ceil(BLOCK));
                for entry in &entries {
                    assert!(run.may_hold(entry.hash));
                    assert_eq!(places(run, entry.hash), [entry.place], "of {count}");
                    assert!(places(run, entry.hash + 1).is_empty());
                }
                let read: Vec<_> = run.entries().unwrap().map(Result::unwrap).collect();
                assert_eq!(read, entries);
            }
        }
    }

    #[test]
    fn a_run_is_read_through_however_large_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let entries: Vec<_> = (1..=3 * (BUFFER_BYTES / ENTRY_BYTES) as u64).map(entry).collect();
        let run = written(folder.path(), 1, 0, &entries);
        let read = run.entries().unwrap().map(Result::unwrap);
        assert!(read.eq(entries));
    }

    #[test]
    fn one_hash_may_have_many_places_over_several_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let same = |place| Entry { hash: 50, place };
        let entries: Vec<_> =
            (1..=7).map(entry).chain((1..=600).map(same)).chain((8..=20).map(entry)).collect();
        let run = written(folder.path(), 1, 0, &entries);
        assert_eq!(places(&run, 50), (1..=600).collect::<Vec<_>>());
        assert_eq!((places(&run, 49), places(&run, 56)), (vec![7], vec![8]));
    }

    #[test]
    fn a_file_with_one_wrong_byte_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = written(folder.path(), 1, 0, &[entry(1), entry(2), entry(3)]);
        let file = run.path(folder.path());
        let whole = fs::read(&file).unwrap();
        assert_eq!(whole.len(), 3 * ENTRY_BYTES + FOOTER_BYTES);
        let kind = || Run::open(folder.path(), 1, 0).err().map(|error| error.kind());
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&file, &damaged).unwrap();
            assert_eq!(kind(), Some(io::ErrorKind::InvalidData), "byte {at}");
            fs::write(&file, &whole[..at]).unwrap();
            assert_eq!(kind(), Some(io::ErrorKind::InvalidData), "the first {at} bytes");
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(kind(), None);
        run.remove(folder.path());
        assert_eq!(kind(), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_merge_asks_only_for_rows_whose_hash_is_not_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |hash, place| Entry { hash, place };
        let runs = [
            written(folder.path(), 1, 1, &[at(1, 10), at(3, 30), at(5, 50)]),
            written(folder.path(), 2, 3, &[at(2, 20), at(3, 31), at(5, 50), at(6, 60)]),
            written(folder.path(), 3, 0, &[at(3, 32)]),
        ]
        .map(Arc::new);
        let mut asked = Vec::new();
        let is_there = |place| {
            asked.push(place);
            Ok::<_, io::Error>(place != 31)
        };
        let merged = merge(folder.path(), 4, &runs, is_there).unwrap();
        assert_eq!(asked, [30, 31, 32, 50]);
        assert_eq!((merged.number, merged.level, merged.entries), (4, 4, 6));
        let read: Vec<_> = merged.entries().unwrap().map(Result::unwrap).collect();
        assert_eq!(read, [at(1, 10), at(2, 20), at(3, 30), at(3, 32), at(5, 50), at(6, 60)]);

        let no_disk = |_| Err(io::Error::other("no disk"));
        assert_eq!(merge(folder.path(), 5, &runs, no_disk).unwrap_err().kind(), io::ErrorKind::Other);
    }
}
