//! What is done with the data folder itself: backup, export, import.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{StoreConfig, StorePath};
use crate::exit::Exit;
use crate::store::{EmbeddedOptions, EmbeddedStore, Snapshot, Store as _};
use crate::transfer::{self, ExportError, Imported, RECORDS_AT_ONCE};

/// Copies the store into a folder.
#[must_use]
pub fn backup(config: &StoreConfig, target: &Path) -> Exit {
    let folder = match folder(config) {
        Ok(folder) => folder,
        Err(exit) => return exit,
    };
    let snapshot = match Snapshot::open(folder) {
        Ok(snapshot) => snapshot,
        Err(error) => return refuse(Exit::CannotOpenStore, &error),
    };
    let bar = bar("{wide_bar} {binary_bytes}/{binary_total_bytes} {eta}");
    let copied = snapshot.copy_to(target, |copied, of| {
        bar.set_length(of);
        bar.set_position(copied);
    });
    bar.finish_and_clear();
    match copied {
        Ok(()) => {
            say(&format_args!("{} is copied to {}", folder.display(), target.display()));
            Exit::Fine
        }
        Err(error) => refuse(Exit::CannotWrite, &error),
    }
}

/// Writes every record as a line.
#[must_use]
pub fn export(config: &StoreConfig, out: &mut impl Write) -> Exit {
    let folder = match folder(config) {
        Ok(folder) => folder,
        Err(exit) => return exit,
    };
    let snapshot = match Snapshot::open(folder) {
        Ok(snapshot) => snapshot,
        Err(error) => return refuse(Exit::CannotOpenStore, &error),
    };
    let bar = bar("{spinner} {pos} records");
    let exported = transfer::export(&snapshot, &mut BufWriter::new(out), |count| bar.set_position(count));
    bar.finish_and_clear();
    match exported {
        Ok(count) => {
            say(&format_args!("{count} records are exported"));
            Exit::Fine
        }
        // A reader that goes away early has seen what it wanted.
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(error @ ExportError::Output(_)) => refuse(Exit::CannotWrite, &error),
        Err(error @ ExportError::Store(_)) => refuse(Exit::CannotOpenStore, &error),
    }
}

/// Records the lines of a file.
#[must_use]
pub fn import(config: &StoreConfig, file: &Path) -> Exit {
    let folder = match folder(config) {
        Ok(folder) => folder,
        Err(exit) => return exit,
    };
    let mut lines: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        match File::open(file) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                say(&format_args!("{} cannot be read: {error}", file.display()));
                return Exit::Usage;
            }
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(Exit::Unhealthy, &error),
    };
    let options = config.embedded();
    // All that is written at once has a place, whatever the service is to refuse.
    let options = EmbeddedOptions { queue_max: options.queue_max.max(2 * RECORDS_AT_ONCE), ..options };
    let store = match EmbeddedStore::open(folder, &options) {
        Ok(store) => store,
        Err(error) => return refuse(Exit::CannotOpenStore, &error),
    };
    let bar = bar("{spinner} {pos} lines");
    let imported = runtime.block_on(async {
        let imported = transfer::import(&store, &mut lines, |count| bar.set_position(count)).await;
        store.close().await;
        imported
    });
    bar.finish_and_clear();
    match imported {
        Ok(imported) => tell(&imported),
        Err(error) => {
            let exit = match error {
                transfer::ImportError::Input { .. } => Exit::Usage,
                transfer::ImportError::Store { .. } => Exit::StoreFailed,
            };
            refuse(exit, &error)
        }
    }
}

fn tell(Imported { imported, same, refused, reasons }: &Imported) -> Exit {
    for reason in reasons {
        say(reason);
    }
    if *refused > reasons.len() as u64 {
        say(&format_args!("and {} more", refused - reasons.len() as u64));
    }
    say(&format_args!("{imported} records are imported, {same} were there already, {refused} are refused"));
    if *refused == 0 { Exit::Fine } else { Exit::Refused }
}

fn folder(config: &StoreConfig) -> Result<&Path, Exit> {
    match &config.path {
        StorePath::Folder(folder) => Ok(folder),
        StorePath::Memory => {
            say(&"the store is in memory, and no file holds it; name a folder with --store");
            Err(Exit::Usage)
        }
    }
}

/// Hidden where standard error is no terminal.
fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Says an error with its causes.
fn refuse(exit: Exit, error: &dyn Error) -> Exit {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    say(&text);
    exit
}

/// A line on standard error; where that is closed, the exit code says it alone.
fn say(what: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}
