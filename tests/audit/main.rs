//! An audit of the whole service from outside: many clients against a real process that is killed, starved and lied to,
//! and checkers that look at all that was seen.
//!
//! Without options it runs the short form, a part of `cargo test`. The long forms:
//!
//! ```sh
//! cargo test --test audit -- --rounds 500 --nemesis kill
//! cargo test --test audit -- --rounds 100 --nemesis power
//! cargo test --test audit -- --minutes 60                   # all nemeses, mixed
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "in a test that is how it fails, and what it says"
)]

mod answer;
mod asking;
mod bulk;
mod checker;
mod disk;
mod follower;
mod groups;
mod history;
mod life;
mod lists;
mod nemesis;
mod oracle;
mod proofs;
mod receiver;
mod shell;
mod tally;
mod workload;

#[path = "../it/support"]
#[expect(dead_code, reason = "the other tests need more of it")]
mod support {
    pub(crate) mod client;
    pub(crate) mod server;
    pub(crate) mod told;
}

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum as _};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::life::Life;
use crate::nemesis::Nemesis;
use crate::tally::Tally;

/// Rounds on one data folder; then all of it is audited, and another one begins.
const ROUNDS_A_LIFE: u64 = 20;

#[derive(Debug, Clone, Parser)]
struct Options {
    #[command(flatten)]
    test: Arguments,
    /// How many rounds, instead of the short form
    #[arg(long)]
    rounds: Option<u64>,
    /// For how long, instead of the short form
    #[arg(long)]
    minutes: Option<u64>,
    /// Which nemeses, with commas between them; a round has up to three of them [default: all]
    #[arg(long, value_delimiter = ',')]
    nemesis: Vec<Nemesis>,
    /// How many clients at once
    #[arg(long, default_value_t = 12)]
    clients: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut arguments = options.test.clone();
    // Each has many clients of its own.
    arguments.test_threads.get_or_insert(1);
    let mut trials = proofs::trials();
    if options.rounds.is_some() || options.minutes.is_some() {
        let nemeses = if options.nemesis.is_empty() { Nemesis::value_variants() } else { &options.nemesis };
        let nemeses: BTreeSet<_> = nemeses.iter().copied().collect();
        let length = Length {
            rounds: options.rounds.unwrap_or(u64::MAX),
            time: options.minutes.map_or(Duration::MAX, |minutes| Duration::from_secs(60 * minutes)),
        };
        let clients = options.clients;
        trials.push(Trial::test("the_long_form", move || audit(&nemeses, clients, length)));
    } else {
        trials.extend(short_form(options.clients));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// When it is enough.
#[derive(Debug, Clone, Copy)]
struct Length {
    rounds: u64,
    time: Duration,
}

fn short_form(clients: usize) -> Vec<Trial> {
    use Nemesis::{Clock, Descriptors, Full, Kill, Point, Power, ReadOnly, Receivers, Stop, Sync};
    let forms: [(&str, &[Nemesis], u64); 8] = [
        ("kill_9_under_load", &[Kill], 8),
        ("kill_9_at_named_points", &[Point], 16),
        ("power_loss", &[Power], 10),
        ("power_loss_after_syncs_that_fail", &[Sync, Power], 10),
        ("a_full_disk", &[Full], 3),
        ("a_read_only_disk", &[ReadOnly], 2),
        ("receivers_clocks_stops_and_descriptors", &[Receivers, Clock, Stop, Descriptors], 6),
        ("all_at_once", &[Kill, Power, Sync, Stop, Full, Clock, Receivers, Descriptors], 8),
    ];
    let is_possible = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    let mut trials = Vec::new();
    for (name, nemeses, rounds) in forms {
        let nemeses: BTreeSet<_> = nemeses.iter().copied().collect();
        let needs_more = nemeses.iter().any(|nemesis| nemesis.needs_disk() || *nemesis == Clock);
        if needs_more && !is_possible && std::env::var_os("CI").is_none() {
            eprintln!("not run: {name} needs root, /dev/fuse and faketime");
            continue;
        }
        let length = Length { rounds, time: Duration::MAX };
        trials.push(Trial::test(name, move || audit(&nemeses, clients, length)));
    }
    trials
}

fn audit(nemeses: &BTreeSet<Nemesis>, clients: usize, length: Length) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut tally = Tally::default();
    let audited = runtime.block_on(lives(nemeses, clients, length, &mut tally));
    eprintln!("{tally}");
    audited.map_err(Failed::from)
}

async fn lives(
    nemeses: &BTreeSet<Nemesis>,
    clients: usize,
    length: Length,
    tally: &mut Tally,
) -> Result<(), String> {
    let begun = Instant::now();
    let is_over = |tally: &Tally| tally.rounds >= length.rounds || begun.elapsed() >= length.time;
    while !is_over(tally) {
        let mut life = Life::begin(nemeses, clients).await?;
        let first = tally.rounds;
        while !is_over(tally) && tally.rounds - first < ROUNDS_A_LIFE {
            life.round(&drawn(nemeses, tally.rounds), tally).await?;
        }
        life.end(tally).await?;
        if length.time != Duration::MAX || length.rounds > 100 {
            eprintln!("{:.0?}: {tally}", begun.elapsed());
        }
    }
    Ok(())
}

/// One of them, and up to two more; one deadly one at most. Where all are deadly, one after the other.
fn drawn(nemeses: &BTreeSet<Nemesis>, round: u64) -> BTreeSet<Nemesis> {
    let all: Vec<_> = nemeses.iter().copied().collect();
    if all.iter().all(|nemesis| nemesis.is_deadly()) {
        let turn = usize::try_from(round).unwrap_or_default() % all.len();
        return BTreeSet::from([all[turn]]);
    }
    let mut drawn = BTreeSet::new();
    for _ in 0..=fastrand::usize(..3) {
        let one = all[fastrand::usize(..all.len())];
        if !one.is_deadly() || !drawn.iter().any(|other: &Nemesis| other.is_deadly()) {
            drawn.insert(one);
        }
    }
    drawn
}
