//! How long the service ever stalls: the longest time without any answer to a launch, under load. An answer follows
//! its commit, so that is a time without a commit.
//!
//! `cargo bench --bench stall -- [--seconds N] [--connections N] [--folder PATH]`
//!
//! Beside it, in the same run and on the same disk, a thread appends 20 KB and syncs them (fdatasync) again and again,
//! with small pauses: no store can be quicker than the disk. Both tell the longest times and when each ended.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver as Told, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;

use self::support::figures::{self, Longest, Percentiles, Times, per_second, row, shown};
use self::support::load::{Ids, Load, Target};
use self::support::process::Process;
use self::support::receiver::Receiver;

const SYNCED_BYTES: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Parser)]
struct Options {
    /// How long it launches.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// How many connections launch at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Where the data folder is made.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    support::open_files(1 << 20);
    let folder = support::folder_in(&options.folder);
    let path = folder.path().to_owned();
    let (stop, stopped) = mpsc::channel();
    let disk = std::thread::spawn(move || sync_again_and_again(&path, &stopped));
    let launched = support::runtime(1).block_on(async {
        let receiver = Receiver::start();
        let handler =
            support::handler("charge", &receiver, "concurrency = 10000\nqueue = 10000000\ndefault = true");
        let process = Process::service(folder.path(), &handler);
        let target = Target { status: None, ..Target::service(process.address) };
        let mut load = Load::open(target, options.connections).await;
        let ids = Ids::new(0..u64::MAX);
        let timer = Arc::clone(&ids);
        let time = Duration::from_secs(options.seconds);
        tokio::runtime::Handle::current().spawn(async move {
            tokio::time::sleep(time).await;
            timer.stop();
        });
        load.run(&ids).await
    });
    drop(stop);
    let (syncs, longest) = disk.join().unwrap();
    assert_eq!(launched.broken, 0, "the service was there to the end");

    let answers = launched.answers.percentiles();
    let rate = per_second(answers.count as u64, launched.elapsed);
    println!(
        "{} s at {} connections, {} launches/s, {} refused; times in ms",
        options.seconds,
        options.connections,
        shown(rate),
        launched.refused
    );
    row(&["", "count", "p50", "p99", "max"].map(str::to_owned));
    print("answer to a launch", answers);
    print("20 KB and fdatasync", syncs);
    let (gap, sync) = (launched.gaps.first(), longest.first());
    println!("longest without an answer:  {}", launched.gaps.shown());
    println!("longest fdatasync:          {}", longest.shown());
    println!("the longest gap is {} x the longest fdatasync", shown(gap / sync));
    println!(
        "{}",
        json!({
            "bench": "stall",
            "seconds": options.seconds,
            "connections": options.connections,
            "launches_per_s": figures::json(rate),
            "refused": launched.refused,
            "gap_ms_max": figures::json(gap),
            "answer_ms_p99": figures::json(answers.p99),
            "fdatasync_ms_p50": figures::json(syncs.p50),
            "fdatasync_ms_p99": figures::json(syncs.p99),
            "fdatasync_ms_max": figures::json(sync),
        })
    );
}

/// Until the other end is gone.
fn sync_again_and_again(folder: &Path, stopped: &Told<()>) -> (Percentiles, Longest) {
    let mut file = File::create(folder.join("synced")).unwrap();
    let bytes = vec![7; SYNCED_BYTES];
    let began = Instant::now();
    let (mut times, mut longest) = (Times::default(), Longest::default());
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let started = Instant::now();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        times.add(started.elapsed());
        longest.add(started.elapsed(), began.elapsed());
    }
    (times.percentiles(), longest)
}

fn print(name: &str, times: Percentiles) {
    let figures = [times.p50, times.p99, times.max].map(shown);
    row(&[name.to_owned(), times.count.to_string()].into_iter().chain(figures).collect::<Vec<_>>());
}
