//! How long the service takes from its start until it is ready, with a large store, and what memory it holds then and
//! after reads.
//!
//! `cargo bench --bench start -- [--folder PATH] [--ids N] [--kill] [--rounds N] [--reads N]`
//!
//! The folder is a store (the key `store.path`) with the ids of the benches from number 0 to N. One that is missing or
//! empty is filled with them first, in this process and not over HTTP; one that holds something is used as it is, and
//! is kept. Without `--folder` the store is made anew and removed afterwards.
//!
//! With `--kill` each start follows a `kill -9` under load, otherwise an orderly stop. Files are warm: the system may
//! have them in its cache. What it logs at its starts is told on standard error.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use hyper::StatusCode;
use serde_json::json;
use task_recorder::store::{EmbeddedOptions, EmbeddedStore, Store};
use task_recorder::task::{Failure, Input};

use self::support::client::{Connection, INPUT};
use self::support::figures::{self, Times, mebibytes, median, per_second, row, shown};
use self::support::load::{Ids, Load, Target};
use self::support::process::Process;
use self::support::receiver::Receiver;
use self::support::records::{bytes_in, claim_and_settle_all};

const FILLING_CALLERS: usize = 512;
const CONNECTIONS: usize = 64;
/// How long the load lasts that a kill ends.
const LOAD: Duration = Duration::from_secs(3);
/// Where the ids of that load begin.
const MEANWHILE: u64 = 1 << 40;

#[derive(Debug, Parser)]
struct Options {
    /// The store.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How many of the ids of the benches it holds.
    #[arg(long, default_value_t = 100_000)]
    ids: u64,
    /// Kill the service under load before each start.
    #[arg(long)]
    kill: bool,
    /// How often it starts.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How often the status of a random id is asked for after each start.
    #[arg(long, default_value_t = 10_000)]
    reads: u64,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one start came to.
struct Start {
    /// Until it was ready.
    took: Duration,
    rss_bytes: u64,
    rss_bytes_after_reads: u64,
    reads: Times,
    found: u64,
}

fn main() {
    let options = Options::parse();
    support::open_files(1 << 20);
    let own = support::folder_in(Path::new("target/bench"));
    let store = options.folder.clone().unwrap_or_else(|| own.path().join("data"));
    let is_empty = std::fs::read_dir(&store).map_or(true, |mut entries| entries.next().is_none());
    if is_empty {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(fill(&store, options.ids));
    }
    let store = std::fs::canonicalize(store).unwrap();
    let starts = support::runtime(1).block_on(async {
        let mut starts = Vec::new();
        for round in 0..options.rounds {
            starts.push(start(round, own.path(), &store, &options).await);
        }
        starts
    });

    let found: u64 = starts.iter().map(|start| start.found).sum();
    let took = starts.iter().map(|start| start.took.as_secs_f64() * 1e3);
    let (took, slowest) = (median(took.clone()), took.fold(0.0, f64::max));
    let rss = median(starts.iter().map(|start| mebibytes(start.rss_bytes)));
    let rss_after = median(starts.iter().map(|start| mebibytes(start.rss_bytes_after_reads)));
    let mut reads = Times::default();
    for start in starts {
        reads.append(start.reads);
    }
    let (files, reads) = (mebibytes(bytes_in(&store)), reads.percentiles());
    let after = if options.kill { "kill -9 under load" } else { "an orderly stop" };
    println!("a store of {} MiB, {} starts after {after}; times in ms", shown(files), options.rounds);
    for (name, figure) in [
        ("ready, median", took),
        ("ready, slowest", slowest),
        ("MiB once ready", rss),
        ("MiB after reads", rss_after),
        ("status p50", reads.p50),
        ("status p99", reads.p99),
    ] {
        row(&[name.to_owned(), shown(figure)]);
    }
    println!("{found} of {} ids that were asked for were found", reads.count);
    println!(
        "{}",
        json!({
            "bench": "start",
            "store_mib": figures::json(files),
            "killed": options.kill,
            "starts": options.rounds,
            "ready_ms": figures::json(took),
            "ready_ms_max": figures::json(slowest),
            "rss_mib": figures::json(rss),
            "reads": reads.count,
            "reads_found": found,
            "rss_mib_after_reads": figures::json(rss_after),
            "read_ms_p50": figures::json(reads.p50),
            "read_ms_p99": figures::json(reads.p99),
        })
    );
}

async fn start(round: u64, folder: &Path, store: &Path, options: &Options) -> Start {
    let receiver = Receiver::start();
    let handler =
        support::handler("charge", &receiver, "concurrency = 10000\nqueue = 10000000\ndefault = true");
    let config = format!("[store]\npath = {}\n{handler}", json!(store));
    if options.kill {
        let first = MEANWHILE + (round << 32);
        kill_under_load(Process::service(folder, &config), first).await;
    }

    let began = Instant::now();
    let process = Process::service(folder, &config);
    let mut connection = Connection::open(process.address).await;
    while connection.get("/readyz").await.0 != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    let rss_bytes = process.rss_bytes();
    let (mut reads, mut found) = (Times::default(), 0);
    for _ in 0..options.reads {
        let path = format!("/tasks/{}/status", support::id(fastrand::u64(..options.ids)));
        let asked = Instant::now();
        let (status, _) = connection.get(&path).await;
        reads.add(asked.elapsed());
        found += u64::from(status == StatusCode::OK);
    }
    let rss_bytes_after_reads = process.rss_bytes();
    process.stop();
    Start { took, rss_bytes, rss_bytes_after_reads, reads, found }
}

async fn kill_under_load(process: Process, first: u64) {
    let target = Target { status: None, ..Target::service(process.address) };
    let mut load = Load::open(target, CONNECTIONS).await;
    let timer = tokio::runtime::Handle::current().spawn(async {
        tokio::time::sleep(LOAD).await;
        drop(process);
    });
    let launched = load.run(&Ids::new(first..u64::MAX)).await;
    timer.await.unwrap();
    eprintln!("killed after {} launches", launched.answers.percentiles().count);
}

/// Claims and settles the ids, straight in the store.
async fn fill(path: &Path, ids: u64) {
    let began = Instant::now();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(path, &EmbeddedOptions::default()).unwrap());
    claim_and_settle_all(&store, 0..ids, FILLING_CALLERS, with_input).await;
    store.close().await;
    eprintln!("filled with {ids} ids, {} ids/s", shown(per_second(ids, began.elapsed())));
}

fn with_input(_: u64) -> (Input, Option<Failure>) {
    (Input::new(Some("application/json".to_owned()), INPUT.into()), None)
}
