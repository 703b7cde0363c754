//! The recorder as a library: a future that is ready at once is launched, runs and settles; with the store on disk and
//! with the store in memory. Beside it the crate `async_tasks_recorder`, which keeps everything in memory too.
//!
//! `cargo bench --bench in_process -- [--ids N] [--callers 64,512] [--rounds N] [--folder PATH]`
//!
//! A caller launches an id, waits until it has settled, and goes on with the next one. Nobody can wait for an outcome of
//! `async_tasks_recorder`; there a caller waits until its future has run, and at the end until no task works.
//! All of them take turns in this one process, and the medians of the rounds count.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tasks_recorder::AsyncTasksRecorder;
use clap::Parser;
use serde_json::json;
use task_recorder::recorder::{Launch, Recorder};
use task_recorder::store::{EmbeddedOptions, EmbeddedStore, MemoryStore, Store};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::support::figures::{self, median, micros_each, per_second, row, shown};
use self::support::load::Ids;
use self::support::process::Cpu;

const SUBJECTS: [Subject; 3] = [Subject::Embedded, Subject::Memory, Subject::Crate];

#[derive(Debug, Clone, Copy)]
enum Subject {
    Embedded,
    Memory,
    Crate,
}

#[derive(Debug, Parser)]
struct Options {
    /// How many ids a run launches.
    #[arg(long, default_value_t = 200_000)]
    ids: u64,
    /// How many callers launch at once, one run after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512])]
    callers: Vec<usize>,
    /// How often each runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the data folders are made.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run came to.
#[derive(Debug, Clone, Copy)]
struct Run {
    per_s: f64,
    cpu_micros: f64,
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{} ids a run, {} rounds, medians", options.ids, options.rounds);
    row(&["callers", "settled/s", "CPU us/task", "x the crate"].map(str::to_owned));
    let mut results = Vec::new();
    for callers in &options.callers {
        let mut runs = SUBJECTS.map(|_| Vec::new());
        for _ in 0..options.rounds {
            for (subject, runs) in SUBJECTS.iter().zip(&mut runs) {
                runs.push(runtime.block_on(run(*subject, *callers, &options)));
            }
        }
        let per_s = runs.each_ref().map(|runs| median(runs.iter().map(|run| run.per_s)));
        for ((subject, runs), per_s_of) in SUBJECTS.iter().zip(&runs).zip(per_s) {
            let cpu_micros = median(runs.iter().map(|run| run.cpu_micros));
            row(&[
                format!("{callers} {}", subject.name()),
                shown(per_s_of),
                shown(cpu_micros),
                shown(per_s_of / per_s[2]),
            ]);
            results.push(json!({
                "callers": callers,
                "subject": subject.name(),
                "settled_per_s": figures::json(per_s_of),
                "cpu_us_per_task": figures::json(cpu_micros),
            }));
        }
    }
    println!(
        "{}",
        json!({"bench": "in_process", "ids": options.ids, "rounds": options.rounds, "runs": results})
    );
}

async fn run(subject: Subject, callers: usize, options: &Options) -> Run {
    match subject {
        Subject::Embedded => {
            let folder = support::folder_in(&options.folder);
            let store =
                EmbeddedStore::open(&folder.path().join("data"), &EmbeddedOptions::default()).unwrap();
            with_store(Arc::new(store), callers, options.ids).await
        }
        Subject::Memory => with_store(Arc::new(MemoryStore::new()), callers, options.ids).await,
        Subject::Crate => with_the_crate(callers, options.ids).await,
    }
}

async fn with_store(store: Arc<dyn Store>, callers: usize, ids: u64) -> Run {
    let recorder = Recorder::new(store);
    let measuring = Measuring::begin();
    let numbers = Ids::new(0..ids);
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let (recorder, numbers) = (recorder.clone(), Arc::clone(&numbers));
        all.spawn(async move {
            while let Some(number) = numbers.take() {
                let id = support::id(number).parse().unwrap();
                let launch = recorder.launch_and_wait(id, async { Ok::<_, Infallible>(()) }).await.unwrap();
                assert!(
                    matches!(launch, Some(Launch::Started(task)) if !task.is_working()),
                    "it has run and settled"
                );
            }
        });
    }
    all.join_all().await;
    let run = measuring.end(ids);
    recorder.stop(Duration::from_secs(1)).await;
    run
}

async fn with_the_crate(callers: usize, ids: u64) -> Run {
    let recorder = AsyncTasksRecorder::<String>::new();
    let measuring = Measuring::begin();
    let numbers = Ids::new(0..ids);
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let (recorder, numbers) = (recorder.clone(), Arc::clone(&numbers));
        all.spawn(async move {
            while let Some(number) = numbers.take() {
                let (ran, has_run) = oneshot::channel();
                let work = async move { ran.send(()) };
                assert!(recorder.launch(support::id(number), work).await.is_ok(), "it was launched");
                has_run.await.unwrap();
            }
        });
    }
    all.join_all().await;
    while !recorder.get_working_tasks_ref().is_empty() {
        tokio::task::yield_now().await;
    }
    let run = measuring.end(ids);
    assert_eq!(recorder.get_success_tasks_ref().len() as u64, ids, "all have succeeded");
    run
}

struct Measuring {
    began: Instant,
    cpu: Cpu,
}

impl Measuring {
    fn begin() -> Self {
        Self { began: Instant::now(), cpu: Cpu::own() }
    }

    fn end(self, ids: u64) -> Run {
        let per_s = per_second(ids, self.began.elapsed());
        Run { per_s, cpu_micros: micros_each(Cpu::own().since(self.cpu), ids) }
    }
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded store",
            Self::Memory => "memory store",
            Self::Crate => "async_tasks_recorder",
        }
    }
}
