//! What the fuzzer feeds to the store's files (tests/fuzz).

#![expect(clippy::panic, reason = "a promise that is broken is a finding")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::archive::Archive;
use super::ids::{Ids, Run};
use super::journal::{Entry, Journal};
use super::row;
use crate::task::{Task, TaskId};

thread_local! {
    static JOURNAL: std::cell::RefCell<Option<Journal>> = std::cell::RefCell::new(journal().ok());
    static ARCHIVE: Option<Connection> = archive().ok();
    static FOLDER: Option<PathBuf> = folder().ok();
}

/// A letter, and what a file holds: a commit of the journal (`j`), or a row of the archive (`a`). What is no record is an
/// error; a record stays the same when it is written again.
pub fn record(bytes: &[u8]) {
    match bytes.split_first() {
        Some((b'j', bytes)) => commit(bytes),
        Some((b'a', bytes)) => archived(bytes),
        _ => {}
    }
}

/// A letter, and a file of the index of ids, with its footer (`i`) or in need of one (`f`): what is not whole is an error,
/// and nothing is lost of what is written.
pub fn index(bytes: &[u8]) {
    match bytes.split_first() {
        Some((b'i', bytes)) => run(bytes),
        Some((b'f', bytes)) => run(&with_footer(bytes)),
        _ => {}
    }
}

/// Panics unless both files give a task back as it is.
pub fn keep(task: &Task) {
    let entry = Entry { task: task.clone(), is_whole: true };
    let kept = committed(&[entry]).and_then(|mut kept| kept.pop());
    assert_eq!(kept.map(|kept| kept.task).as_ref(), Some(task), "the journal keeps it otherwise");
    assert_eq!(in_archive(task).as_ref(), Some(task), "the archive keeps it otherwise");
}

fn journal() -> rusqlite::Result<Journal> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(&Journal::schema())?;
    Ok(Journal::new(connection))
}

fn archive() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(&Archive::schema())?;
    Ok(connection)
}

/// Of this process; who started it takes it away.
fn folder() -> std::io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("task-recorder-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The changes as JSON, 0xFF, and their bytes.
fn commit(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0xff);
    let Ok(changes) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let payload = parts.next();
    let read = JOURNAL.with_borrow(|journal| {
        let journal = journal.as_ref()?;
        journal.connection().execute("DELETE FROM journal", []).ok()?;
        let mut insert =
            journal.connection().prepare_cached("INSERT INTO journal VALUES (1, 1, ?, ?)").ok()?;
        insert.execute((changes, payload)).ok()?;
        journal.batch(1).ok().flatten()
    });
    let Some(read) = read.filter(|read| !read.entries.is_empty()) else { return };
    let again = committed(&read.entries).unwrap_or_default();
    let parts = |entries: &[Entry<Task>]| {
        entries.iter().map(|entry| (entry.task.clone(), entry.is_whole)).collect::<Vec<_>>()
    };
    assert_eq!(parts(&again), parts(&read.entries), "{changes}");
}

fn committed(entries: &[Entry<Task>]) -> Option<Vec<Entry<Task>>> {
    JOURNAL.with_borrow_mut(|journal| {
        let journal = journal.as_mut()?;
        journal.connection().execute("DELETE FROM journal", []).ok()?;
        let written = entries.iter().map(|entry| Entry { task: &entry.task, is_whole: entry.is_whole });
        journal.commit(1, 1, written, std::iter::empty()).ok()?;
        journal.batch(1).ok().flatten().map(|batch| batch.entries)
    })
}

/// The columns of a row with 0xFF between them; those that are numbers are written as such.
fn archived(bytes: &[u8]) {
    let columns = bytes.split(|byte| *byte == 0xff).map(|column| match std::str::from_utf8(column) {
        Ok(text) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
        Err(_) => Value::Blob(column.to_vec()),
    });
    let columns: Vec<_> = columns.chain(std::iter::repeat(Value::Null)).take(11).collect();
    let read = ARCHIVE.with(|archive| {
        let sql = "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?";
        let mut select = archive.as_ref()?.prepare_cached(sql).ok()?;
        select.query_row(params_from_iter(&columns), row::read_whole).ok()
    });
    if let Some(task) = read {
        assert_eq!(in_archive(&task).as_ref(), Some(&task), "{columns:?}");
    }
}

fn in_archive(task: &Task) -> Option<Task> {
    ARCHIVE.with(|archive| {
        let archive = archive.as_ref()?;
        archive.execute("DELETE FROM tasks", []).ok()?;
        let columns = row::COLUMNS;
        let insert =
            format!("INSERT INTO tasks ({columns}, input, output) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let mut insert = archive.prepare_cached(&insert).ok()?;
        row::bind(&mut insert, task).ok()?;
        insert.raw_execute().ok()?;
        let select = format!("SELECT {columns}, input, output FROM tasks");
        archive.prepare_cached(&select).ok()?.query_row([], row::read_whole).ok()
    })
}

/// What the file of a run needs behind its entries.
fn with_footer(entries: &[u8]) -> Vec<u8> {
    let entries = entries.get(..entries.len() / 16 * 16).unwrap_or_default();
    let mut file = entries.to_vec();
    file.extend((entries.len() as u64 / 16).to_le_bytes());
    let checksum = crc32fast::hash(&file);
    file.extend(checksum.to_le_bytes());
    file.extend(b"ids1");
    file
}

fn run(bytes: &[u8]) {
    FOLDER.with(|folder| {
        let Some(folder) = folder else { return };
        if fs::write(folder.join("00000001.ids"), bytes).is_err() {
            return;
        }
        let Ok(run) = Run::open(folder, 1, 0) else { return };
        assert_eq!(with_footer(bytes.get(..bytes.len() - 16).unwrap_or_default()), bytes, "it is not whole");
        let ids = Ids::new(folder, (0, 0), vec![Arc::new(run)], 1);
        let places: Vec<_> = bytes.chunks_exact(16).filter_map(|entry| entry.last_chunk()).collect();
        let tasks = (0..places.len()).filter_map(|number| number.to_string().parse::<TaskId>().ok());
        let rows: Vec<_> = tasks.zip(places).map(|(id, place)| (id, u64::from_le_bytes(*place))).collect();
        for (id, _) in &rows {
            // Any answer will do, as the entries are in no order.
            let _ = ids.places(id);
        }
        let written = Ids::new(folder, (0, 0), Vec::new(), 1);
        written.add(rows.iter().map(|(id, place)| (id, *place)));
        assert!(written.seal(2).is_ok(), "a run could not be written");
        let Ok(run) = Run::open(folder, 2, 0) else {
            panic!("a run that was written is not whole");
        };
        let read = Ids::new(folder, (0, 0), vec![Arc::new(run)], 1);
        for (id, place) in &rows {
            assert!(read.places(id).is_ok_and(|places| places.contains(place)), "{id} is lost");
        }
    });
}
