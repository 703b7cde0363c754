//! The store alone, small and large, beside a bare append log with fdatasync on the same disk.
//!
//! `cargo bench --bench store -- [--sizes 10000,10000000] [--ids N] [--clients N] [--rounds N] [--folder PATH]`
//!
//! The store is filled to each of the sizes through the same calls that a recorder makes, one id in ten as a failure, and
//! measured there:
//!
//! - transitions a second: a transition is one claim or one settle, made by so many clients at once. The log appends as
//!   many bytes a record, and syncs as many records at once. Both run in turn; the medians of the rounds count.
//! - the time of one claim and settle for a single client;
//! - status reads of ids that are in memory, archived and unknown, and list pages of 100 tasks, first and deep ones;
//! - memory of this process, bytes on disk, and the time from opening the folder until it can be used.
//!
//! Ids look random: ids in order would flatter the index of the archive.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench prints, and stops when it cannot go on"
)]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use task_recorder::store::{EmbeddedOptions, EmbeddedStore, Filter, Order, Query, Store};
use task_recorder::task::{ErrorKind, Failure, Input, StateName};
use tokio::task::JoinSet;

use self::support::figures::{Percentiles, Times, mebibytes, median, per_second, shown};
use self::support::load::Ids;
use self::support::process;
use self::support::records::{bytes_in, claim, claim_and_settle, claim_and_settle_all, id};

/// As the service has it.
#[cfg(target_arch = "x86_64")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a transition takes in the journal, roughly.
const LOG_RECORD_BYTES: usize = 300;
const FILLING_CLIENTS: usize = 512;
/// Tasks that stay working, so that their list has deep pages too.
const WORKING: u64 = 2_000;
/// Where their ids begin, and those of the measurements.
const WORKING_IDS: u64 = 1 << 50;
const MEASURED_IDS: u64 = 1 << 40;
const UNKNOWN_IDS: u64 = 1 << 45;
const READS: u64 = 2_000;
const PAGES: usize = 50;

#[derive(Debug, Parser)]
struct Options {
    /// How many settled ids the store has when it is measured, one size after the other; 2,000 at least.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000])]
    #[arg(value_parser = clap::value_parser!(u64).range(READS..))]
    sizes: Vec<u64>,
    /// How many ids a round claims and settles.
    #[arg(long, default_value_t = 100_000)]
    ids: u64,
    /// How many clients do so at once.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Where the store is made; it is removed afterwards.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let folder = support::folder_in(&options.folder);
    let path = folder.path().join("data");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // The store answers from within the runtime that it is opened in.
    let _entered = runtime.enter();
    let mut store = open(&path);
    let (mut filled, mut measured, mut results) = (0, MEASURED_IDS, Vec::new());
    runtime.block_on(async {
        for number in WORKING_IDS..WORKING_IDS + WORKING {
            drop(claim(&*store, number, Input::empty()).await);
        }
    });
    for size in &options.sizes {
        let began = Instant::now();
        runtime.block_on(claim_and_settle_all(&store, filled..*size, FILLING_CLIENTS, script));
        let filling = per_second(2 * (*size - filled), began.elapsed());
        filled = *size;
        println!("\nwith {size} ids, {} clients, {} rounds, medians", options.clients, options.rounds);
        line("filling, transitions/s", &[filling]);

        let (mut log, mut ours, mut commit) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            log.push(append_log(folder.path(), options.ids * 2, options.clients as u64));
            let (began, before) = (Instant::now(), commits(&*store));
            let end = measured + options.ids;
            runtime.block_on(claim_and_settle_all(&store, measured..end, options.clients, script));
            ours.push(per_second(options.ids * 2, began.elapsed()));
            commit.push((options.ids * 2) as f64 / (commits(&*store) - before) as f64);
            measured = end;
        }
        let (log, ours, commit) = (median(log), median(ours), median(commit));
        line("append log with fdatasync, transitions/s", &[log]);
        line("embedded store, transitions/s, x the log", &[ours, ours / log]);
        line("changes a commit", &[commit]);
        let single = runtime.block_on(single(&store, measured));
        measured += READS;
        line("one client, claim and settle, ms p50, p99", &[single.p50, single.p99]);
        let reads = runtime.block_on(reads(&store, measured));
        let pages = runtime.block_on(pages(&store));
        let rss = process::rss_bytes(std::process::id());
        runtime.block_on(store.close());
        drop(store);
        let disk = bytes_in(&path) as f64 / (filled + measured - MEASURED_IDS) as f64;
        let began = Instant::now();
        store = open(&path);
        let opened = began.elapsed().as_secs_f64();
        line("memory of this process, MiB", &[mebibytes(rss)]);
        line("disk bytes an id", &[disk]);
        line("opened after a close, s", &[opened]);
        results.push(json!({
            "ids": size, "filling_per_s": filling, "log_per_s": log, "store_per_s": ours, "ratio": ours / log,
            "changes_per_commit": commit,
            "single_ms_p50": single.p50, "single_ms_p99": single.p99, "status_ms": reads, "pages_ms": pages,
            "rss_mib": mebibytes(rss), "disk_bytes_per_id": disk, "open_s": opened,
        }));
    }
    runtime.block_on(store.close());
    println!("{}", json!({"bench": "store", "clients": options.clients, "sizes": results}));
}

fn line(name: &str, figures: &[f64]) {
    let figures: Vec<_> = figures.iter().map(|figure| format!("{:>12}", shown(*figure))).collect();
    println!("{name:<44}{}", figures.join(""));
}

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(path, &EmbeddedOptions::default()).unwrap())
}

fn commits(store: &dyn Store) -> u64 {
    store.tally().unwrap().changes.observed().count
}

/// One id in ten fails.
fn script(number: u64) -> (Input, Option<Failure>) {
    let fails = number.is_multiple_of(10);
    (Input::empty(), fails.then(|| Failure::new(ErrorKind::Refused, "nobody is there")))
}

async fn single(store: &Arc<dyn Store>, first: u64) -> Percentiles {
    let mut times = Times::default();
    for number in first..first + READS {
        let began = Instant::now();
        claim_and_settle(&**store, number, script).await;
        times.add(began.elapsed());
    }
    times.percentiles()
}

/// Reads beside a load of 8 clients.
async fn reads(store: &Arc<dyn Store>, measured: u64) -> Value {
    let load = Ids::new(measured..u64::MAX >> 1);
    let mut writing = JoinSet::new();
    for _ in 0..8 {
        let (store, load) = (Arc::clone(store), Arc::clone(&load));
        writing.spawn(async move {
            // Ids of their own, which are not counted.
            while let Some(number) = load.take() {
                claim_and_settle(&*store, number | 1 << 60, script).await;
            }
        });
    }
    let mut all = serde_json::Map::new();
    for (name, first) in [("in memory", WORKING_IDS), ("archived", 0), ("unknown", UNKNOWN_IDS)] {
        let mut times = Times::default();
        for number in first..first + READS {
            let id = id(number);
            let began = Instant::now();
            let found = store.get(&id).await.unwrap();
            times.add(began.elapsed());
            assert_eq!(found.is_some(), name != "unknown");
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        let times = times.percentiles();
        line(&format!("status, {name}, under load, ms p50, p99"), &[times.p50, times.p99]);
        all.insert(name.to_owned(), json!([times.p50, times.p99]));
    }
    load.stop();
    writing.join_all().await;
    Value::Object(all)
}

/// The first page of each state, and pages behind half of its tasks.
async fn pages(store: &Arc<dyn Store>) -> Value {
    let seq = store.events().seq();
    let mut all = serde_json::Map::new();
    for state in [StateName::Working, StateName::Success, StateName::Failed] {
        for (name, is_deep) in [("first", false), ("deep", true)] {
            // The working ones are the oldest.
            let middle = if state == StateName::Working { WORKING / 2 } else { seq / 2 };
            let mut times = Times::default();
            for _ in 0..PAGES {
                let filter = Filter { states: vec![state], ..Filter::default() };
                let after = is_deep.then_some(middle);
                let query = Query { filter, order: Order::Ascending, after, limit: 100 };
                let began = Instant::now();
                let page = store.list(&query).await.unwrap();
                times.add(began.elapsed());
                assert_eq!(page.tasks.len(), 100);
            }
            let times = times.percentiles();
            let name = format!("{} {name}", state.as_str());
            line(&format!("page of 100, {name}, ms p50, p99"), &[times.p50, times.p99]);
            all.insert(name, json!([times.p50, times.p99]));
        }
    }
    Value::Object(all)
}

/// Records a second of a file that is only appended to, `batch` records a sync.
fn append_log(folder: &Path, records: u64, batch: u64) -> f64 {
    let mut file = File::create(folder.join("log")).unwrap();
    let bytes = vec![7; LOG_RECORD_BYTES * usize::try_from(batch).unwrap()];
    let began = Instant::now();
    for _ in 0..records / batch {
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
    }
    per_second(records, began.elapsed())
}
