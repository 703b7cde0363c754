//! The life of one data folder: rounds of load with a nemesis each, then rest, then the audit of all of it.

mod config;
mod rest;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::asking::ask;
use crate::checker::{self, Evidence};
use crate::disk::{Counts, Disk, Trap};
use crate::history::{Ask, Crash, History, How, Time};
use crate::nemesis::{Clock, FewDescriptors, Nemesis, Point, Watch};
use crate::receiver::{Mood, Receiver};
use crate::shell;
use crate::support::server::TestServer;
use crate::tally::Tally;
use crate::workload::{self, Workload};

/// For what has to happen; reached only where it does not.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long a point is waited for: some are rare.
const POINT_MAX: Duration = Duration::from_secs(3);
/// Launches that are refused before it has to be seen that it is not ready.
const REFUSED_MAX: usize = 10;
const LOAD_MS: std::ops::Range<u64> = 60..500;
const SIGKILL: i32 = 9;
/// What a service ends with that cannot trust its disk any more.
const STORE_FAILED: i32 = 5;
/// Ids from here on are launched while the disk takes nothing.
const PROBES: usize = 1_000_000;

pub(crate) struct Life {
    // Ends first, because it uses the others.
    server: TestServer,
    disk: Option<Disk>,
    clock: Option<(Clock, TempDir)>,
    receiver: Receiver,
    history: Arc<History>,
    workload: Workload,
    /// What commands log.
    commands: TempDir,
    wrong: Vec<String>,
    probes: usize,
}

impl Life {
    pub(crate) async fn begin(nemeses: &BTreeSet<Nemesis>, clients: usize) -> Result<Self, String> {
        let history = Arc::new(History::new());
        let receiver = Receiver::start(Arc::clone(&history)).await;
        let needs_disk = nemeses.iter().any(|nemesis| nemesis.needs_disk());
        let disk =
            if needs_disk { Some(Disk::mount().map_err(|error| format!("no disk: {error}"))?) } else { None };
        let clock = if nemeses.contains(&Nemesis::Clock) {
            let folder = TempDir::new().expect("a folder");
            let clock = Clock::new(folder.path()).ok_or("libfaketime is missing (Debian: faketime)")?;
            Some((clock, folder))
        } else {
            None
        };
        let environment = clock.iter().flat_map(|(clock, _)| clock.environment()).collect::<Vec<_>>();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let commands = TempDir::new().expect("a folder");
        let config = config::config(&receiver, disk.as_ref(), &shell::log(commands.path()));
        let server = tokio::task::block_in_place(|| TestServer::start_with(&config, &environment));
        let workload = Workload::start(Arc::clone(&history), clients);
        Ok(Self { server, disk, clock, receiver, history, workload, commands, wrong: Vec::new(), probes: 0 })
    }

    /// Load, these nemeses at once, and a service that runs again. At most one of them is deadly.
    pub(crate) async fn round(
        &mut self,
        nemeses: &BTreeSet<Nemesis>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        tally.rounds += 1;
        let is_wild = nemeses.contains(&Nemesis::Receivers);
        self.receiver.set_mood(if is_wild { Mood::Wild } else { Mood::Usual });
        let deadly = nemeses.iter().copied().find(|nemesis| nemesis.is_deadly());
        let at_point = deadly == Some(Nemesis::Point) || deadly == Some(Nemesis::Power) && fastrand::bool();
        let point = at_point.then(|| Point::ALL[fastrand::usize(..Point::ALL.len())]);
        let began = self.history.now();
        if let Some(point) = point {
            self.arm(point);
        }
        self.workload.point_to(Some(self.server.base()));
        self.load().await;
        for nemesis in nemeses.iter().filter(|nemesis| !nemesis.is_deadly()) {
            if self.server.ended().is_none() {
                *tally.nemeses.entry(*nemesis).or_default() += 1;
                self.harass(*nemesis, tally).await;
                self.load().await;
            }
        }
        match deadly {
            Some(deadly) => self.kill(deadly, point, began, tally).await,
            None => match self.server.ended() {
                Some(status) => Err(format!("the service ended by itself: {status}\n{}", self.server.log())),
                None => Ok(()),
            },
        }
    }

    async fn load(&self) {
        sleep(Duration::from_millis(fastrand::u64(LOAD_MS))).await;
    }

    fn arm(&self, point: Point) {
        let pid = self.server.pid();
        let after = fastrand::u32(..40);
        match point.watch() {
            Watch::Disk(act, when, file) => {
                // Only the files of the index are few.
                let after = if file == "0" { after / 20 } else { after };
                self.disk().arm(Trap { act, when, file, after });
            }
            Watch::DiskOfNext(..) => {}
            Watch::Client => self.workload.trap(u64::from(after), move || signal(pid, Signal::KILL)),
            Watch::Receiver(moment) => self.receiver.trap(moment, after, move || signal(pid, Signal::KILL)),
            Watch::DiskAfterCall(act, when, file) => {
                let disk = self.disk().remote();
                let deed = move || disk.arm(Trap { act, when, file, after: 0 });
                self.receiver.trap(crate::receiver::Moment::Answered, after, deed);
            }
        }
    }

    fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a life with this nemesis has a disk")
    }

    /// What the process survives.
    async fn harass(&mut self, nemesis: Nemesis, tally: &mut Tally) {
        match nemesis {
            Nemesis::Stop => {
                let pid = self.server.pid();
                signal(pid, Signal::STOP);
                sleep(Duration::from_millis(fastrand::u64(50..2_000))).await;
                signal(pid, Signal::CONT);
            }
            Nemesis::Full | Nemesis::ReadOnly => self.refuse_writes(nemesis, tally).await,
            Nemesis::Clock => {
                let (clock, _) = self.clock.as_ref().expect("a life with this nemesis has a clock");
                for _ in 0..3 {
                    clock.jump();
                    sleep(Duration::from_millis(fastrand::u64(20..100))).await;
                }
            }
            Nemesis::Descriptors => {
                let few = FewDescriptors::leave(self.server.pid(), fastrand::u64(0..4));
                sleep(Duration::from_millis(fastrand::u64(100..600))).await;
                drop(few);
            }
            Nemesis::Receivers | Nemesis::Kill | Nemesis::Point | Nemesis::Power | Nemesis::Sync => {}
        }
    }

    /// The service has to say that it cannot write, to go on answering, and to write again by itself.
    async fn refuse_writes(&mut self, nemesis: Nemesis, tally: &mut Tally) {
        let is_full = nemesis == Nemesis::Full;
        let set = |disk: &Disk, on| if is_full { disk.set_full(on) } else { disk.set_read_only(on) };
        set(self.disk(), true);
        let client = self.server.client();
        let begun = Instant::now();
        let (mut refused, mut is_unready) = (0, false);
        // A small write may fit into room that a file has already; then it is ready again, and rightly.
        while !is_unready && begun.elapsed() < POINT_MAX && self.server.ended().is_none() {
            self.probes += 1;
            let id = checker::id(PROBES + self.probes);
            let answer =
                ask(&self.history, &client, Ask::Launch, How::default(), &id, workload::PATIENCE).await;
            let Some(answer) = answer.filter(|answer| answer.status == 503) else { continue };
            refused += 1;
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let is_problem = answer.header("content-type") == Some("application/problem+json");
            if !is_problem || body["type"] != "/problems/store-unavailable" {
                self.wrong.push(format!("{nemesis:?}: a launch was refused with {body}"));
            }
            let ready = client.try_send(hyper::Method::GET, "/readyz", &[], "").await;
            is_unready = ready.is_ok_and(|answer| answer.status == 503);
            let read = ask(&self.history, &client, Ask::Read, How::default(), &id, workload::PATIENCE).await;
            if read.is_some_and(|answer| answer.status == 503) {
                self.wrong.push(format!("{nemesis:?}: a status is not answered"));
            }
        }
        *tally.refusing.entry(nemesis).or_default() += usize::from(refused > 0);
        if refused > REFUSED_MAX && !is_unready && self.server.ended().is_none() {
            self.wrong.push(format!("{nemesis:?}: {refused} launches refused, and it says that it is ready"));
        }
        sleep(Duration::from_millis(fastrand::u64(50..400))).await;
        set(self.disk(), false);
        let begun = Instant::now();
        while self.server.ended().is_none() {
            let ready = client.try_send(hyper::Method::GET, "/readyz", &[], "").await;
            if ready.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                self.wrong.push(format!("{nemesis:?}: it does not write again by itself"));
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the process, and starts the next one.
    async fn kill(
        &mut self,
        nemesis: Nemesis,
        point: Option<Point>,
        armed: Time,
        tally: &mut Tally,
    ) -> Result<(), String> {
        *tally.nemeses.entry(nemesis).or_default() += 1;
        let mut began = armed;
        let fails_index = nemesis == Nemesis::Sync && fastrand::u32(..4) == 0;
        let is_at_start = point == Some(Point::AtStart);
        let ended = match nemesis {
            // The index is written again, and it goes on.
            Nemesis::Sync if fails_index => {
                self.disk().fail_sync("0", fastrand::u32(..3));
                self.ended(POINT_MAX).await
            }
            Nemesis::Sync => {
                let (file, after) = [("journal", 20), ("archive", 3)][fastrand::usize(..2)];
                self.disk().fail_sync(file, fastrand::u32(..after));
                self.ended(PATIENCE).await
            }
            _ if point.is_some() && !is_at_start => self.ended(POINT_MAX).await,
            _ => None,
        };
        let ended = match ended {
            Some(status) => {
                *tally.points.entry(point).or_default() += usize::from(point.is_some());
                status
            }
            None if nemesis == Nemesis::Sync && !fails_index => {
                return Err(format!("a failed sync, and it goes on:\n{}", self.server.log()));
            }
            None => {
                began = self.history.now();
                self.server.kill_now();
                self.ended(PATIENCE).await.ok_or("it outlives kill -9")?
            }
        };
        let is_expected = match nemesis {
            Nemesis::Sync if !fails_index => ended.code() == Some(STORE_FAILED),
            _ => ended.signal() == Some(SIGKILL),
        };
        if !is_expected {
            return Err(format!("{nemesis:?}: the service ended by itself: {ended}\n{}", self.server.log()));
        }
        self.workload.point_to(None);
        self.calm_down();
        let loses_power = nemesis == Nemesis::Power || nemesis == Nemesis::Sync && fastrand::u32(..4) == 0;
        let what = format!("{nemesis:?} {point:?}, power lost: {loses_power}");
        let mut watched = if is_at_start { fastrand::u32(..3) } else { 0 };
        loop {
            tally.crashes += 1;
            if loses_power {
                self.unused().await?;
                self.lose_power(tally)?;
            }
            let left = watched;
            if let (1.., Some(Watch::DiskOfNext(act, when, file))) = (left, point.map(Point::watch)) {
                watched -= 1;
                self.disk().arm(Trap { act, when, file, after: fastrand::u32(..30) });
            }
            let started = tokio::task::block_in_place(|| self.server.try_restart());
            let ended = self.history.now();
            let crash = Crash { began, ended, is_recovered: started.is_ok(), what: what.clone() };
            self.history.noted().crashes.push(crash);
            began = ended;
            match started {
                Ok(()) => break,
                Err(_) if left > 0 => *tally.points.entry(point).or_default() += 1,
                Err(error) => return Err(format!("after {what}: {error}")),
            }
            self.calm_down();
        }
        // A trap of the start that did not spring.
        self.calm_down();
        Ok(())
    }

    /// Waits until nobody uses the disk.
    async fn unused(&self) -> Result<(), String> {
        let begun = Instant::now();
        while shell::is_used(self.disk().path()) {
            if begun.elapsed() > PATIENCE {
                return Err("somebody still uses the disk of a dead service".to_owned());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn lose_power(&mut self, tally: &mut Tally) -> Result<(), String> {
        // All of it, or torn.
        let keep = [0.0, 0.0, 0.2, 0.5, 0.9][fastrand::usize(..5)];
        let disk = self.disk.as_mut().expect("a life with this nemesis has a disk");
        let lost = tokio::task::block_in_place(|| disk.lose_power(keep));
        tally.power_losses += 1;
        tally.torn += u64::from(keep > 0.0);
        tally.sectors_lost += lost.map_err(|error| format!("the disk does not come back: {error}"))?;
        Ok(())
    }

    /// How the process ended, once it has.
    async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            let ended = self.server.ended();
            if ended.is_some() || begun.elapsed() > patience {
                if ended.is_some() && !self.server.is_sound() {
                    self.wrong.push(format!("a part of the service died:\n{}", self.server.log()));
                }
                return ended;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn calm_down(&self) {
        self.receiver.disarm();
        self.workload.disarm();
        if let Some(disk) = &self.disk {
            disk.disarm();
        }
    }

    /// Lets everything settle, and audits all that was seen.
    pub(crate) async fn end(self, tally: &mut Tally) -> Result<(), String> {
        self.calm_down();
        self.receiver.set_mood(Mood::Calm);
        let (requests, unknown, hung_up) = self.workload.counts();
        self.workload.stop().await;
        let mut rest = rest::rest(&self.history, &self.server).await;
        if let Ok(rest) = &mut rest {
            rest.clock_jumped = self.clock.is_some();
        }
        let log = self.server.log();
        let commands = shell::read(&self.history, &shell::log(self.commands.path()))?;
        let rest = rest.map_err(|error| format!("{error}\n{log}"))?;
        let noted = std::mem::take(&mut *self.history.noted());
        let left = shell::end(&commands, self.server.folder(), &noted.crashes);
        tally.commands += commands.calls.len();
        let calls = [self.receiver.calls(), commands.calls].concat();
        let evidence = Evidence { noted, calls, rest };
        tally.note(&evidence.noted);
        let data = self.disk.as_ref().map_or_else(|| self.server.data(), |disk| disk.path().join("data"));
        tally.index_runs += rest::index_runs(&data);
        if let Some(disk) = &self.disk {
            let Counts { writes, syncs, refused } = disk.counts();
            tally.writes += writes;
            tally.syncs += syncs;
            tally.refused += refused;
        }
        tally.requests += requests;
        tally.unknown += unknown;
        tally.hung_up += hung_up;
        tally.calls += evidence.calls.len() as u64;
        let begun = Instant::now();
        let findings = tokio::task::block_in_place(|| checker::check(&evidence));
        tally.checking += begun.elapsed();
        tally.ids += findings.ids;
        tally.judged += findings.judged;
        tally.unjudged += findings.unjudged;
        tally.entries_due += findings.entries_due;
        tally.events += findings.events;
        tally.lives += 1;
        let mut wrong = self.wrong;
        wrong.extend(left);
        wrong.extend(evidence.noted.oddities.iter().cloned());
        wrong.extend(findings.violations);
        tally.violations += wrong.len();
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.truncate(5);
        let crashes: Vec<_> = evidence.noted.crashes.iter().map(|crash| format!("{crash:?}")).collect();
        Err(format!("{}\ncrashes:\n{}\nlog:\n{log}", wrong.join("\n"), crashes.join("\n")))
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // An error means that it has ended already.
        let _ = kill_process(pid, signal);
    }
}
