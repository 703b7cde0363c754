//! The whole service: launches over HTTP, webhooks to a receiver, outcomes on disk. Beside it the same work as an
//! in-memory recorder does it that is written with axum and the crate `async_tasks_recorder`.
//!
//! `cargo bench --bench service -- [--ids N] [--connections 1,64,512] [--rounds N] [--folder PATH]`
//!
//! Both are processes of their own, started anew for every run, on as many threads as tokio takes by itself; they take
//! turns, and the medians of the rounds count. The clients and the receiver are this process, whose own processor time
//! is told too.
//!
//! - Settled means that nothing works any more: the receiver has had its calls, and then `/stats` is asked until it
//!   counts no working task.
//! - From some launches on, one in 64, another connection asks for the status until it is settled: of the service with
//!   `?wait=`, of the other again and again. That tells how long it takes from launch to settled, the time of the last
//!   question included.
//! - Before each run a few launches warm up what is then measured.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

mod baseline;
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use self::support::client::Connection;
use self::support::figures::{self, Percentiles, mebibytes, median, micros_each, per_second, row, shown};
use self::support::load::{Ids, Load, Target};
use self::support::process::{Cpu, Process};
use self::support::receiver::Receiver;

/// Ids that warm up, as a multiple of the connections.
const WARM_UP: usize = 4;

#[derive(Debug, Parser)]
struct Options {
    /// How many ids a run launches.
    #[arg(long, default_value_t = 30_000)]
    ids: u64,
    /// How many connections launch at once, one run after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 512])]
    connections: Vec<usize>,
    /// How often both run.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of the clients and the receiver together. One is cheapest, while it is not busy all the time.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where the data folders are made.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Service,
    Baseline,
}

/// What one run came to.
#[derive(Debug)]
struct Run {
    launches_per_s: f64,
    settled_per_s: f64,
    launch: Percentiles,
    settle: Percentiles,
    cpu_micros: f64,
    own_cpu_micros: f64,
    rss_bytes_peak: u64,
    /// Not a number where the service does not tell.
    commits: f64,
    tasks_per_commit: f64,
}

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("baseline") {
        return baseline::serve(&args.next().unwrap());
    }
    let options = Options::parse();
    support::open_files(1 << 20);
    support::runtime(options.threads).block_on(compare(&options));
}

async fn compare(options: &Options) {
    println!("{} ids a run, {} rounds, medians; times in ms", options.ids, options.rounds);
    let heads =
        ["launches/s", "settled/s", "launch p50", "p99", "settled p50", "p99", "CPU us/task", "peak MiB"];
    let heads = ["connections"].iter().chain(&heads).chain(&["commits", "tasks/commit", "bench CPU us"]);
    row(&heads.map(|head| (*head).to_owned()).collect::<Vec<_>>());
    let mut results = Vec::new();
    for connections in &options.connections {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            ours.push(run(Subject::Service, *connections, options).await);
            theirs.push(run(Subject::Baseline, *connections, options).await);
        }
        print(&format!("{connections} service"), &ours);
        print(&format!("{connections} baseline"), &theirs);
        let ratio =
            |figure: fn(&Run) -> f64| median(ours.iter().map(figure)) / median(theirs.iter().map(figure));
        let (tasks, cpu) = (ratio(|run| run.settled_per_s), ratio(|run| run.cpu_micros));
        println!("{connections} service / baseline      {tasks:.2} x tasks/s, {cpu:.2} x CPU");
        results.push(json!({
            "connections": connections,
            "service": summary(&ours),
            "baseline": summary(&theirs),
            "tasks_per_s_ratio": figures::json(tasks),
            "cpu_ratio": figures::json(cpu),
        }));
    }
    println!(
        "{}",
        json!({"bench": "service", "ids": options.ids, "rounds": options.rounds, "runs": results})
    );
}

/// One run of a process of its own.
async fn run(subject: Subject, connections: usize, options: &Options) -> Run {
    let receiver = Receiver::start();
    let folder = support::folder_in(&options.folder);
    let process = match subject {
        Subject::Service => service(folder.path(), &receiver),
        Subject::Baseline => Process::this_bench(&["baseline", &receiver.address.to_string()]),
    };
    let target = match subject {
        Subject::Service => Target::service(process.address),
        Subject::Baseline => Target { address: process.address, launch: "", status: Some("") },
    };
    let mut load = Load::open(target, connections).await;
    let mut asking = Connection::open(process.address).await;
    let warm_up = (connections * WARM_UP) as u64;
    let warmed_up = load.run(&Ids::new(0..warm_up)).await;
    assert_eq!((warmed_up.refused, warmed_up.broken), (0, 0), "every id is launched");
    settled(&receiver, warm_up, &mut asking).await;

    let before = asking.json("/stats").await;
    let (cpu, own_cpu) = (process.cpu(), Cpu::own());
    let began = Instant::now();
    let launched = load.run(&Ids::new(warm_up..warm_up + options.ids)).await;
    settled(&receiver, warm_up + options.ids, &mut asking).await;
    let elapsed = began.elapsed();
    let (cpu, own_cpu) = (process.cpu().since(cpu), Cpu::own().since(own_cpu));
    let after = asking.json("/stats").await;
    assert_eq!((launched.refused, launched.broken), (0, 0), "every id was launched");
    assert_eq!(after["tasks"]["success"], warm_up + options.ids, "every id has succeeded");
    assert_eq!(receiver.calls(), warm_up + options.ids, "every id was called for once");

    let count = |stats: &Value| stats["store"]["commits"].as_f64().unwrap_or(f64::NAN);
    let commits = count(&after) - count(&before);
    Run {
        launches_per_s: per_second(options.ids, launched.elapsed),
        settled_per_s: per_second(options.ids, elapsed),
        launch: launched.answers.percentiles(),
        settle: launched.settles.percentiles(),
        cpu_micros: micros_each(cpu, options.ids),
        own_cpu_micros: micros_each(own_cpu, options.ids),
        rss_bytes_peak: process.rss_bytes_peak(),
        commits,
        tasks_per_commit: figures::real(options.ids) / commits,
    }
}

/// With limits that do not bind.
fn service(folder: &Path, receiver: &Receiver) -> Process {
    let handler =
        support::handler("charge", receiver, "concurrency = 100000\nqueue = 1000000\ndefault = true");
    let config = format!("[server]\nconnections_max = 100000\n{handler}");
    Process::service(folder, &config)
}

/// Returns when nothing works any more.
async fn settled(receiver: &Receiver, calls: u64, asking: &mut Connection) {
    receiver.reached(calls).await;
    while asking.json("/stats").await["tasks"]["working"] != 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn print(name: &str, runs: &[Run]) {
    let of = |figure: fn(&Run) -> f64| shown(median(runs.iter().map(figure)));
    row(&[
        name.to_owned(),
        of(|run| run.launches_per_s),
        of(|run| run.settled_per_s),
        of(|run| run.launch.p50),
        of(|run| run.launch.p99),
        of(|run| run.settle.p50),
        of(|run| run.settle.p99),
        of(|run| run.cpu_micros),
        of(|run| mebibytes(run.rss_bytes_peak)),
        of(|run| run.commits),
        of(|run| run.tasks_per_commit),
        of(|run| run.own_cpu_micros),
    ]);
}

fn summary(runs: &[Run]) -> Value {
    let of = |figure: fn(&Run) -> f64| figures::json(median(runs.iter().map(figure)));
    json!({
        "launches_per_s": of(|run| run.launches_per_s),
        "settled_per_s": of(|run| run.settled_per_s),
        "settled_per_s_each": runs.iter().map(|run| figures::json(run.settled_per_s)).collect::<Vec<_>>(),
        "launch_ms_p50": of(|run| run.launch.p50),
        "launch_ms_p99": of(|run| run.launch.p99),
        "settled_ms_p50": of(|run| run.settle.p50),
        "settled_ms_p99": of(|run| run.settle.p99),
        "settled_samples": of(|run| figures::real(run.settle.count as u64)),
        "cpu_us_per_task": of(|run| run.cpu_micros),
        "rss_mib_peak": of(|run| mebibytes(run.rss_bytes_peak)),
        "commits": of(|run| run.commits),
        "tasks_per_commit": of(|run| run.tasks_per_commit),
        "bench_cpu_us_per_task": of(|run| run.own_cpu_micros),
    })
}
