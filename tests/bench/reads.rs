//! Reads while launches run: the status of one task, and pages of lists. Beside them a route that returns a constant:
//! `/livez` of the same process, so that all are asked under the same load.
//!
//! `cargo bench --bench reads -- [--ids N] [--connections N] [--reads N] [--folder PATH]`
//!
//! First the store is filled: ids that succeed, a tenth as many that fail, and a tenth as many that stay working.
//! `store.hot_tasks` is low, so that most of them are in the archive. Then launches run over some connections, and
//! another one, on a thread of its own, asks for one thing after the other in turn:
//!
//! - the status of a hot id (one that was launched a moment ago), of an archived one (one of the older half), and of an
//!   id that there is not;
//! - the first page of 100 of each state, oldest change first, and one that is nine tenths of the way in.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use hyper::StatusCode;
use serde_json::{Map, json};

use self::support::client::Connection;
use self::support::figures::{self, Percentiles, Times, per_second, row, shown};
use self::support::load::{Ids, Load, Target};
use self::support::process::Process;
use self::support::receiver::Receiver;

const FILLING_CONNECTIONS: usize = 64;
/// A page costs more than a status; it is asked for once in so many turns.
const TURNS_PER_PAGE: u64 = 10;
/// Where the ids begin that are launched while it reads, and those that are never launched.
const MEANWHILE: u64 = 1 << 40;
const NEVER: u64 = 1 << 50;

#[derive(Debug, Parser)]
struct Options {
    /// How many ids have succeeded before.
    #[arg(long, default_value_t = 100_000)]
    ids: u64,
    /// How many settled tasks the service keeps in memory.
    #[arg(long, default_value_t = 1_000)]
    hot_tasks: u64,
    /// How many connections launch meanwhile.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How often each status is asked for.
    #[arg(long, default_value_t = 10_000)]
    reads: u64,
    /// Where the data folder is made.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One of the things that are asked for.
struct Kind {
    name: String,
    expected: StatusCode,
    times: Times,
    path: Box<dyn FnMut() -> String + Send>,
}

fn main() {
    let options = Options::parse();
    support::open_files(1 << 20);
    let folder = support::folder_in(&options.folder);
    // The receiver lives on this runtime, and so does the load; the reader has one of its own, so that it waits for
    // neither.
    let runtime = support::runtime(1);
    let process = runtime.block_on(filled(folder.path(), &options));
    let target = Target { status: None, ..Target::service(process.address) };
    let ids = Ids::new(MEANWHILE..u64::MAX);
    let (launched, kinds) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let _stop = Stop(&ids);
            support::runtime(1).block_on(read(process.address, &ids, &options))
        });
        let load = async { Load::open(target, options.connections).await.run(&ids).await };
        (runtime.block_on(load), reading.join().unwrap())
    });

    println!(
        "{} ids that succeeded, {} connections that launch {:.0} ids/s; times in ms",
        options.ids,
        options.connections,
        per_second(launched.answers.percentiles().count as u64, launched.elapsed)
    );
    row(&["", "count", "p50", "p99", "max", "p50/constant", "p99/constant"].map(str::to_owned));
    let constant = kinds[0].times.percentiles();
    let mut results = Map::new();
    for kind in &kinds {
        let Percentiles { count, p50, p99, max } = kind.times.percentiles();
        let figures = [p50, p99, max, p50 / constant.p50, p99 / constant.p99];
        let cells = [kind.name.clone(), count.to_string()].into_iter().chain(figures.map(shown));
        row(&cells.collect::<Vec<_>>());
        results
            .insert(kind.name.clone(), json!({"p50_ms": figures::json(p50), "p99_ms": figures::json(p99)}));
    }
    println!(
        "{}",
        json!({"bench": "reads", "ids": options.ids, "connections": options.connections, "kinds": results})
    );
}

/// Gives out no more ids once the reader has ended, in whatever way.
struct Stop<'a>(&'a Ids);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A service whose store holds what is read.
async fn filled(folder: &Path, options: &Options) -> Process {
    let receiver = Receiver::start();
    let config = format!(
        "[server]\nwait_max = \"1h\"\n[store]\nhot_tasks = {}\n{}{}{}",
        options.hot_tasks,
        support::handler("charge", &receiver, "concurrency = 10000\nqueue = 10000000\ndefault = true"),
        support::handler("gone", &receiver, "concurrency = 10000\nqueue = 10000000"),
        // One is under way and is never answered, the others wait for their turn.
        support::handler("hold", &receiver, "concurrency = 1\nqueue = 10000000\ntimeout = \"24h\""),
    );
    let process = Process::service(folder, &config);
    let part = options.ids / 10;
    let mut first = 0;
    for (launch, count) in [("", options.ids), ("?handler=gone", part), ("?handler=hold", part)] {
        let target = Target { address: process.address, launch, status: None };
        let mut load = Load::open(target, FILLING_CONNECTIONS).await;
        let launched = load.run(&Ids::new(first..first + count)).await;
        assert_eq!((launched.refused, launched.broken), (0, 0), "every id was launched");
        first += count;
    }
    let mut asking = Connection::open(process.address).await;
    let filled = json!({"working": part, "success": options.ids, "failed": part});
    while asking.json("/stats").await["tasks"] != filled {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What is old moves to the archive.
    process.is_quiet().await;
    process
}

/// Asks for one thing after the other, in turns. The first kind is the constant.
async fn read(address: SocketAddr, ids: &Arc<Ids>, options: &Options) -> Vec<Kind> {
    let mut connection = Connection::open(address).await;
    let (old, lag) = (options.ids / 2, options.connections as u64 * 10);
    let meanwhile = Arc::clone(ids);
    let mut kinds = vec![
        Kind::new("constant (/livez)", StatusCode::OK, || "/livez".to_owned()),
        Kind::status("status, hot", StatusCode::OK, move || meanwhile.next() - lag),
        Kind::status("status, archived", StatusCode::OK, move || fastrand::u64(..old)),
        Kind::status("status, unknown", StatusCode::NOT_FOUND, || fastrand::u64(NEVER..)),
    ];
    for (state, count) in
        [("success", options.ids), ("failed", options.ids / 10), ("working", options.ids / 10)]
    {
        let first = format!("/tasks?state={state}&limit=100");
        let deep = format!("{first}&cursor={}", cursor_behind(&mut connection, state, count / 10 * 9).await);
        kinds.push(Kind::new(&format!("page of {state}, first"), StatusCode::OK, move || first.clone()));
        kinds.push(Kind::new(&format!("page of {state}, deep"), StatusCode::OK, move || deep.clone()));
    }
    // The load is under way, and the hot id has been launched.
    while ids.next() < MEANWHILE + lag * 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for turn in 0..options.reads {
        for kind in &mut kinds {
            if kind.name.starts_with("page") && turn % TURNS_PER_PAGE != 0 {
                continue;
            }
            let path = (kind.path)();
            let asked = Instant::now();
            let (status, _) = connection.get(&path).await;
            kind.times.add(asked.elapsed());
            assert_eq!(status, kind.expected, "{path}");
        }
    }
    kinds
}

/// Follows the cursor over at least so many tasks.
async fn cursor_behind(connection: &mut Connection, state: &str, count: u64) -> String {
    let first = format!("/tasks?state={state}&limit=100");
    let (mut path, mut seen) = (first.clone(), 0);
    loop {
        let page = connection.json(&path).await;
        seen += page["tasks"].as_array().unwrap().len() as u64;
        let next = page["next"].as_str().unwrap();
        if seen >= count {
            return next.to_owned();
        }
        path = format!("{first}&cursor={next}");
    }
}

impl Kind {
    fn new(name: &str, expected: StatusCode, path: impl FnMut() -> String + Send + 'static) -> Self {
        Self { name: name.to_owned(), expected, times: Times::default(), path: Box::new(path) }
    }

    fn status(name: &str, expected: StatusCode, mut number: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self::new(name, expected, move || format!("/tasks/{}/status", support::id(number())))
    }
}
