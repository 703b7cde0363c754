//! Whole records as lines of JSON: out of a store, also one that is running, and into another one.
//!
//! Invariant: what is imported is what was exported, but for its place among the other records; an id of which the
//! store has ever known something stays as it is there (tests/it/transfer.rs).

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod record;

use std::io::{self, BufRead, Write};

use futures_util::future::join_all;

use self::record::Record;
use crate::json;
use crate::store::{Moved, OpenError, Refused, Snapshot, Store, StoreError};
use crate::task::{Change, Refusal, TaskId};

/// So many records, or bytes of lines, are written to the store at once.
pub const RECORDS_AT_ONCE: usize = 1_024;
const BYTES_AT_ONCE: usize = 8 << 20;
/// How many refused lines are told of.
const REFUSED_KEPT: usize = 20;

/// Why not everything was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The lines cannot be written.
    #[error("the lines cannot be written")]
    Output(#[from] io::Error),
}

/// Why an import ended early. What it has imported before stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The lines cannot be read.
    #[error("the lines cannot be read behind line {line}")]
    Input {
        /// The last one that was read.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be written.
    #[error("line {line} cannot be recorded")]
    Store {
        /// The first one that is not recorded.
        line: u64,
        /// What the store said.
        source: StoreError,
    },
}

/// What an import came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Records that the store did not have.
    pub imported: u64,
    /// Records that it had already, the same as in their line.
    pub same: u64,
    /// Lines that were refused.
    pub refused: u64,
    /// Why, of the first 20 of them.
    pub reasons: Vec<String>,
}

/// Writes every record as a line, in the order in which they entered their states. Returns how many.
///
/// # Errors
/// [`ExportError`]; the lines so far are written.
pub fn export(
    snapshot: &Snapshot,
    out: &mut impl Write,
    mut told: impl FnMut(u64),
) -> Result<u64, ExportError> {
    let mut count = 0;
    snapshot.tasks(|task| {
        serde_json::to_writer(&mut *out, &Record::new(task)).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        count += 1;
        told(count);
        Ok::<_, ExportError>(())
    })?;
    out.flush()?;
    Ok(count)
}

/// Records every line under the id that it has. A line is recorded whole or not at all; one that is no record, or whose
/// id is known with another record, is refused, and the others go on.
///
/// # Errors
/// [`ImportError`]; to be done again from the start then, what is recorded already is passed over.
pub async fn import(
    store: &dyn Store,
    lines: &mut impl BufRead,
    mut told: impl FnMut(u64),
) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let mut number = 0;
    let mut is_end = false;
    while !is_end {
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < RECORDS_AT_ONCE && bytes < BYTES_AT_ONCE {
            let mut line = Vec::new();
            let read = lines.read_until(b'\n', &mut line);
            let read = read.map_err(|source| ImportError::Input { line: number, source })?;
            if read == 0 {
                is_end = true;
                break;
            }
            number += 1;
            bytes += read;
            if line.trim_ascii().is_empty() {
                continue;
            }
            match json::object::<Record<'_>>(&line)
                .map_err(|error| error.to_string())
                .and_then(Record::into_task)
            {
                Ok(task) => records.push((number, task)),
                Err(why) => imported.refuse(number, &why),
            }
        }
        let changes = records.iter().map(|(_, task)| {
            let change = Change::Import(Box::new(task.clone()));
            store.change(&task.id, change)
        });
        let moved = join_all(changes).await;
        for ((line, task), moved) in records.iter().zip(moved) {
            match moved.map_err(|source| ImportError::Store { line: *line, source })? {
                Moved::Done(_) => imported.imported += 1,
                Moved::Refused(Refused { reason: Refusal::SameRequest, .. }) => imported.same += 1,
                Moved::Refused(refused) => match refused.task {
                    Some(known) => imported.refuse(*line, &taken(&known.id, known.state_name().as_str())),
                    None => imported.refuse(*line, &taken(&task.id, "not_found, after a revoke or forget")),
                },
            }
        }
        told(number);
    }
    Ok(imported)
}

impl Imported {
    fn refuse(&mut self, line: u64, why: &str) {
        self.refused += 1;
        if self.reasons.len() < REFUSED_KEPT {
            self.reasons.push(format!("line {line}: {why}"));
        }
    }
}

fn taken(id: &TaskId, state: &str) -> String {
    format!("{id} is known to this store already ({state}), and stays as it is there")
}
