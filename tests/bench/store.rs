//! The store alone, beside a bare append log with fdatasync on the same disk.
//!
//! `cargo bench --bench store -- [--ids N] [--clients N] [--folder PATH]`
//!
//! A transition is one claim or one settle. The log appends as many bytes a record and syncs as many records at once as
//! the store has clients. Both run in turn, several times; the ratio of the medians is what to quote.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use task_recorder::store::{Claimed, EmbeddedOptions, EmbeddedStore, Store};
use task_recorder::task::{Attempt, Input, Request, TaskId};
use tokio::task::JoinSet;

const ROUNDS: usize = 3;
/// What a transition takes in the journal, roughly.
const LOG_RECORD_BYTES: usize = 300;

struct Options {
    ids: u64,
    clients: u64,
    folder: PathBuf,
}

fn main() {
    let options = Options::from_args();
    std::fs::create_dir_all(&options.folder).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(&options.folder).unwrap();
    let store = EmbeddedStore::open(&folder.path().join("data"), &EmbeddedOptions::default()).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);

    let (mut log, mut ours) = (Vec::new(), Vec::new());
    let mut first = 0;
    for _ in 0..ROUNDS {
        log.push(append_log(folder.path(), options.ids * 2, options.clients));
        ours.push(runtime.block_on(transitions(&store, first, &options)));
        first += options.ids;
    }
    let (log, ours) = (median(log), median(ours));
    runtime.block_on(store.close());

    println!("{} ids a round, {} clients, {ROUNDS} rounds, medians", options.ids, options.clients);
    println!("{:<28} {:>12} transitions/s", "append log with fdatasync", log);
    println!("{:<28} {:>12} transitions/s  {:.2} x the log", "embedded store", ours, ratio(ours, log));
    println!(
        "{{\"bench\":\"store\",\"clients\":{},\"ids\":{},\"log_per_s\":{log},\"store_per_s\":{ours}}}",
        options.clients, options.ids
    );
}

impl Options {
    fn from_args() -> Self {
        let mut options = Self { ids: 100_000, clients: 64, folder: PathBuf::from("target/bench") };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            match name.as_str() {
                "--ids" => options.ids = args.next().unwrap().parse().unwrap(),
                "--clients" => options.clients = args.next().unwrap().parse().unwrap(),
                "--folder" => options.folder = args.next().unwrap().into(),
                // cargo passes this one by itself.
                "--bench" => {}
                other => panic!("unknown option {other}"),
            }
        }
        options
    }
}

/// Transitions a second: each client claims and settles one id after the other.
async fn transitions(store: &Arc<dyn Store>, first: u64, options: &Options) -> u64 {
    let next = Arc::new(AtomicU64::new(first));
    let end = first + options.ids;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..options.clients {
        let (store, next) = (Arc::clone(store), Arc::clone(&next));
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    break;
                }
                let id: TaskId = format!("order-{number:012}").parse().unwrap();
                let request = Request::new("charge".parse().unwrap(), Input::empty());
                let Claimed::Started(claim) = store.claim(&id, request.into()).await.unwrap() else {
                    panic!("{id} was not new")
                };
                let now = Timestamp::now();
                let attempt = Attempt {
                    run: 1,
                    attempt: 1,
                    started: now,
                    ended: now,
                    code: None,
                    failure: None,
                    answer: None,
                };
                store.settle(claim, attempt, None).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    per_second(options.ids * 2, began.elapsed())
}

/// Records a second of a file that is only appended to, `batch` records a sync.
fn append_log(folder: &Path, records: u64, batch: u64) -> u64 {
    let mut file = File::create(folder.join("log")).unwrap();
    let bytes = vec![7; LOG_RECORD_BYTES * usize::try_from(batch).unwrap()];
    let began = Instant::now();
    for _ in 0..records / batch {
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
    }
    per_second(records, began.elapsed())
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a figure"
)]
fn per_second(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64()) as u64
}

#[expect(clippy::cast_precision_loss, reason = "a figure")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures[figures.len() / 2]
}
