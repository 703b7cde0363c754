//! Keeps the index of the archive's ids whole: opens it, writes runs, merges them, and makes it anew where it is not there.
//!
//! Which runs hold is said by the table `runs` of the archive, so that a run comes and goes in one commit. A crash
//! loses what was in memory; those rows are found by their place, or in the table `late` where a row was added behind
//! the others.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::archive::{Archive, ArchiveError};
use super::ids::{Ids, Run};
use super::row;
use crate::task::TaskId;

/// Rows read at once while the index is made anew.
const ROWS: u64 = 100_000;

/// The archive with its index.
pub(super) fn open(
    connection: Connection,
    folder: &Path,
    recent_max: usize,
) -> Result<Archive, ArchiveError> {
    let (ids, indexed_to) = load(&connection, folder, recent_max)?;
    let mut archive = Archive::new(connection, ids, indexed_to);
    archive.complete_index()?;
    Ok(archive)
}

impl Archive {
    /// Adds the rows that the runs lack.
    fn complete_index(&mut self) -> Result<(), ArchiveError> {
        let late = "SELECT entered, id FROM late JOIN tasks USING (entered) WHERE entered > ? LIMIT ?";
        self.index_rows(late, 0, |_, _| Ok(()))?;
        let began_at = self.indexed_to;
        let rows = "SELECT entered, id FROM tasks WHERE entered > ? ORDER BY entered LIMIT ?";
        self.index_rows(rows, began_at, |archive, last| {
            if began_at == 0 {
                tracing::info!(up_to = last, "making the index of the archive's ids anew");
            }
            archive.tend_index(last)
        })
    }

    fn index_rows(
        &mut self,
        sql: &str,
        mut after: u64,
        mut then: impl FnMut(&mut Self, u64) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        loop {
            let rows = self.rows_after(sql, after)?;
            let Some((_, last)) = rows.last() else { return Ok(()) };
            after = *last;
            self.ids.add(rows.iter().map(|(id, place)| (id, *place)));
            then(self, after)?;
        }
    }

    fn rows_after(&self, sql: &str, after: u64) -> rusqlite::Result<Vec<(TaskId, u64)>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((after, ROWS))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get_ref(1)?.as_str()?.parse().map_err(|error| row::foreign(1, error))?;
            found.push((id, row.get(0)?));
        }
        Ok(found)
    }

    /// Writes and merges runs when it is time. Every row up to this place has to be in the index, or in `late`.
    pub(super) fn tend_index(&mut self, indexed_to: u64) -> Result<(), ArchiveError> {
        if !self.ids.is_full() {
            return Ok(());
        }
        let number = self.next_run()?;
        let run = self.ids.seal(number)?;
        let transaction = self.connection.transaction()?;
        transaction.execute("INSERT INTO runs VALUES (?, ?)", (number, run.level))?;
        transaction.execute("UPDATE progress SET indexed_to = ?", [indexed_to])?;
        transaction.execute("DELETE FROM late", [])?;
        transaction.commit()?;
        self.indexed_to = indexed_to;
        self.ids.install(run);

        while let Some(runs) = self.ids.mergeable() {
            self.merge(&runs)?;
        }
        Ok(())
    }

    fn merge(&mut self, runs: &[Arc<Run>]) -> Result<(), ArchiveError> {
        let number = self.next_run()?;
        let merged = {
            let mut find = self.connection.prepare_cached("SELECT 1 FROM tasks WHERE entered = ?")?;
            self.ids.merge(runs, number, |place| find.exists([place]).map_err(ArchiveError::from))?
        };
        let transaction = self.connection.transaction()?;
        for run in runs {
            transaction.execute("DELETE FROM runs WHERE number = ?", [run.number])?;
        }
        transaction.execute("INSERT INTO runs VALUES (?, ?)", (number, merged.level))?;
        transaction.commit()?;
        self.ids.replace(runs, merged);
        Ok(())
    }

    fn next_run(&self) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT coalesce(max(number), 0) + 1 FROM runs", [], |row| row.get(0))
    }
}

/// The index as far as its runs go, and how far that is.
fn load(connection: &Connection, folder: &Path, recent_max: usize) -> Result<(Arc<Ids>, u64), ArchiveError> {
    let sql = "SELECT indexed_to, ids_key FROM progress";
    let (mut indexed_to, key): (u64, [u8; 16]) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let folder = folder.join("ids");
    fs::create_dir_all(&folder)?;
    let mut listed = connection.prepare("SELECT number, level FROM runs ORDER BY number")?;
    let listed =
        listed.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let opened = listed.iter().map(|(number, level)| Run::open(&folder, *number, *level).map(Arc::new));
    let runs = match opened.collect::<io::Result<Vec<_>>>() {
        Ok(runs) => runs,
        Err(error) => {
            let is_damage = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            );
            if !is_damage {
                return Err(error.into());
            }
            tracing::warn!(%error, "the index of the archive's ids is damaged; it is made anew, which takes a while");
            give_up(connection)?;
            indexed_to = 0;
            Vec::new()
        }
    };
    remove_others(&folder, &runs)?;
    let (first, second) = key.split_at(8);
    let half = |half: &[u8]| half.iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
    Ok((Arc::new(Ids::new(&folder, (half(first), half(second)), runs, recent_max)), indexed_to))
}

/// From the next opening on the index is made anew.
pub(super) fn give_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN; DELETE FROM runs; UPDATE progress SET indexed_to = 0; COMMIT")
}

/// A crash leaves files of runs that never held, or do not hold any more.
fn remove_others(folder: &Path, runs: &[Arc<Run>]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !runs.iter().any(|run| run.path(folder) == path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::success;

    /// Opens the archive of the folder, as a start does, where two ids make a run.
    fn opened(folder: &Path) -> Archive {
        let path = folder.join("archive.db");
        let is_new = !path.exists();
        let connection = Connection::open(path).unwrap();
        if is_new {
            connection.execute_batch(&Archive::schema()).unwrap();
        }
        open(connection, folder, 2).unwrap()
    }

    fn add(archive: &mut Archive, name: &str, place: u64) {
        archive.add(&[success(name, place, 0)], place, place).unwrap();
    }

    fn places(archive: &Archive, name: &str) -> Vec<u64> {
        archive.ids.places(&name.parse().unwrap()).unwrap()
    }

    fn numbers(archive: &Archive, sql: &str) -> Vec<u64> {
        let mut statement = archive.connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    const RUNS: &str = "SELECT number FROM runs ORDER BY number";
    const LATE: &str = "SELECT entered FROM late ORDER BY entered";

    #[test]
    fn a_start_finds_what_no_run_holds_also_where_it_was_added_behind_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = opened(folder.path());
        add(&mut archive, "a", 2);
        archive.tend_index(2).unwrap();
        assert!(numbers(&archive, RUNS).is_empty());
        add(&mut archive, "b", 5);
        archive.tend_index(5).unwrap();
        assert_eq!((numbers(&archive, RUNS), archive.indexed_to), (vec![1], 5));
        add(&mut archive, "late", 3);
        assert_eq!(numbers(&archive, LATE), [3]);
        drop(archive);

        let mut archive = opened(folder.path());
        assert_eq!(archive.indexed_to, 5);
        for (name, place) in [("a", 2), ("late", 3), ("b", 5)] {
            assert_eq!(places(&archive, name), [place], "{name}");
        }
        add(&mut archive, "c", 7);
        drop(archive);
        let mut archive = opened(folder.path());
        assert_eq!((numbers(&archive, RUNS), archive.indexed_to), (vec![1, 2], 7));
        assert!(numbers(&archive, LATE).is_empty(), "a run holds it");
        for number in 8..=15 {
            add(&mut archive, &format!("t-{number}"), number);
            archive.tend_index(number).unwrap();
        }
        assert_eq!(numbers(&archive, RUNS), [5, 6, 7], "the first four are one");
        let archive = opened(folder.path());
        for (name, place) in [("a", 2), ("late", 3), ("b", 5), ("c", 7), ("t-8", 8), ("t-15", 15)] {
            assert_eq!(places(&archive, name), [place], "{name}");
        }

        // Made anew, from the first row on.
        fs::write(folder.path().join("ids/00000007.ids"), "").unwrap();
        drop(archive);
        let mut archive = opened(folder.path());
        for (name, place) in [("a", 2), ("late", 3), ("b", 5), ("t-15", 15)] {
            assert_eq!(places(&archive, name), [place], "{name}");
        }
        give_up(&archive.connection).unwrap();
        assert!(numbers(&archive, RUNS).is_empty());
        add(&mut archive, "d", 16);
        drop(archive);
        let archive = opened(folder.path());
        for (name, place) in [("a", 2), ("late", 3), ("b", 5), ("d", 16)] {
            assert_eq!(places(&archive, name), [place], "{name}");
        }
    }

    #[test]
    fn files_that_are_no_runs_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = opened(folder.path());
        add(&mut archive, "a", 2);
        add(&mut archive, "b", 5);
        archive.tend_index(5).unwrap();
        let stranger = folder.path().join("ids/00000002.ids");
        fs::copy(folder.path().join("ids/00000001.ids"), &stranger).unwrap();
        drop(archive);
        assert_eq!(places(&opened(folder.path()), "a"), [2]);
        assert!(!stranger.exists());
    }

    #[test]
    fn each_archive_has_a_key_of_its_own_and_keeps_it() {
        let folders = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let written = folders.each_ref().map(|folder| {
            let mut archive = opened(folder.path());
            add(&mut archive, "a", 2);
            add(&mut archive, "b", 5);
            archive.tend_index(5).unwrap();
            fs::read(folder.path().join("ids/00000001.ids")).unwrap()
        });
        assert_ne!(written[0], written[1]);
        let key = "UPDATE progress SET ids_key = x'0102030405060708090a0b0c0d0e0f10'";
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        opened(one.path()).connection.execute(key, []).unwrap();
        let mut archive = opened(one.path());
        add(&mut archive, "a", 2);
        add(&mut archive, "b", 5);
        archive.tend_index(5).unwrap();
        let same = Ids::new(other.path(), (0x0102_0304_0506_0708, 0x090a_0b0c_0d0e_0f10), Vec::new(), 2);
        same.add([(&"a".parse().unwrap(), 2), (&"b".parse().unwrap(), 5)].into_iter());
        same.seal(1).unwrap();
        let [one, other] = [one.path().join("ids"), other.path().to_owned()]
            .map(|ids| fs::read(ids.join("00000001.ids")).unwrap());
        assert_eq!(one, other);
        for folder in folders {
            assert_eq!(places(&opened(folder.path()), "b"), [5]);
        }
    }
}
