//! The life of a run beyond its launch: attempts, limits, cancel, retry, revoke, forget, recovery, safe launches.
//! Timers are tested under paused time, over the store in memory; the rest over HTTP, in the real binary.

mod actions;
mod attempts;
mod backlog;
mod cancel;
mod conditions;
mod contest;
mod limits;
mod receivers;
mod recovery;
mod revoke;
mod stop;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use task_recorder::recorder::{LaneCounts, LaneSpec, Launch, LaunchError, NoticeSpec, Recorder, Work};
use task_recorder::store::{MemoryStore, Refused, Store};
use task_recorder::task::{
    Code, ErrorKind, Failure, Input, Outcome, Phase, Policy, Refusal, Request, Retry, Task,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::stores::{failure, handler, id};
use crate::support::within;

/// Longer than anything that a test lets happen; under paused time that costs nothing.
const LONG: Duration = Duration::from_hours(1_000);

/// What an attempt does.
#[derive(Debug, Clone)]
enum Play {
    /// Ends so, at once.
    End(Outcome),
    /// Ends so after this time, or as soon as it is told to.
    After(Duration, Outcome),
    /// Ends so with the next permit, or as soon as it is told to.
    Held(Arc<Semaphore>, Outcome),
    /// Ends so once it is told to.
    UntilTold(Outcome),
    /// Ends so this time after it was told to.
    TakesItsTime(Duration, Outcome),
    /// Never ends, whatever it is told.
    Deaf,
    Panic,
}

/// An attempt that was begun.
#[derive(Debug, Clone)]
struct Call {
    id: String,
    run: u32,
    attempt: u32,
    at: Instant,
    input: Bytes,
}

/// Work that does what a test tells it to, and remembers each attempt.
#[derive(Debug)]
struct Script {
    played: Mutex<Played>,
    calls: watch::Sender<usize>,
}

#[derive(Debug)]
struct Played {
    /// What the attempts for an id do, one after the other; the last one stays.
    plays: HashMap<String, VecDeque<Play>>,
    default: Play,
    calls: Vec<Call>,
    active: usize,
    peak: usize,
}

impl Script {
    fn new() -> Arc<Self> {
        let default = Play::End(Outcome::success());
        let played = Played { plays: HashMap::new(), default, calls: Vec::new(), active: 0, peak: 0 };
        Arc::new(Self { played: Mutex::new(played), calls: watch::Sender::new(0) })
    }

    fn on(&self, id: &str, plays: impl IntoIterator<Item = Play>) {
        self.played().plays.insert(id.to_owned(), plays.into_iter().collect());
    }

    fn by_default(&self, play: Play) {
        self.played().default = play;
    }

    fn calls(&self) -> Vec<Call> {
        self.played().calls.clone()
    }

    /// The ids of all attempts, in the order in which they began.
    fn order(&self) -> Vec<String> {
        self.played().calls.iter().map(|call| call.id.clone()).collect()
    }

    fn count(&self, id: &str) -> usize {
        self.played().calls.iter().filter(|call| call.id == id).count()
    }

    /// The most attempts that were under way at once.
    fn peak(&self) -> usize {
        self.played().peak
    }

    async fn wait_for(&self, calls: usize) {
        let mut begun = self.calls.subscribe();
        within("attempts to begin", begun.wait_for(|begun| *begun >= calls)).await.unwrap();
    }

    fn work(self: &Arc<Self>) -> Work {
        let script = Arc::clone(self);
        Arc::new(move |task, attempt, ending| Arc::clone(&script).play(task, attempt, ending).boxed())
    }

    async fn play(self: Arc<Self>, task: Arc<Task>, attempt: u32, ending: CancellationToken) -> Outcome {
        let play = self.begin(&task, attempt);
        let _active = Active(&self);
        let told = || Outcome::failed(Failure::new(ErrorKind::Canceled, "it was told to end"));
        match play {
            Play::End(outcome) => outcome,
            Play::After(time, outcome) => tokio::select! {
                () = tokio::time::sleep(time) => outcome,
                () = ending.cancelled() => told(),
            },
            Play::Held(permits, outcome) => tokio::select! {
                permit = permits.acquire() => {
                    permit.unwrap().forget();
                    outcome
                }
                () = ending.cancelled() => told(),
            },
            Play::UntilTold(outcome) => {
                ending.cancelled().await;
                outcome
            }
            Play::TakesItsTime(time, outcome) => {
                ending.cancelled().await;
                tokio::time::sleep(time).await;
                outcome
            }
            Play::Deaf => std::future::pending().await,
            Play::Panic => panic!("as it was told to"),
        }
    }

    fn begin(&self, task: &Task, attempt: u32) -> Play {
        let mut played = self.played();
        let (id, run, at) = (task.id.to_string(), task.run, Instant::now());
        let play = match played.plays.get_mut(&id) {
            Some(plays) if plays.len() > 1 => plays.pop_front(),
            Some(plays) => plays.front().cloned(),
            None => None,
        };
        played.calls.push(Call { id, run, attempt, at, input: task.input.bytes.clone() });
        played.active += 1;
        played.peak = played.peak.max(played.active);
        let play = play.unwrap_or_else(|| played.default.clone());
        drop(played);
        self.calls.send_modify(|calls| *calls += 1);
        play
    }

    fn played(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that is under way.
struct Active<'a>(&'a Script);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.played().active -= 1;
    }
}

/// A recorder with two lanes: `h`, with the policy of the test and an action that undoes, and `plain`.
struct Stage {
    recorder: Recorder,
    /// What both lanes do.
    work: Arc<Script>,
    /// What undoes a success of `h`.
    undo: Arc<Script>,
}

impl Stage {
    fn new(policy: Policy) -> Self {
        Self::over(Arc::new(MemoryStore::new()), policy)
    }

    fn over(store: Arc<dyn Store>, policy: Policy) -> Self {
        let (work, undo) = (Script::new(), Script::new());
        let lane = |name, policy, undo| LaneSpec {
            handler: handler(name),
            policy,
            work: work.work(),
            undo,
            notices: NoticeSpec::default(),
        };
        let lanes = [lane("h", policy, Some(undo.work())), lane("plain", Policy::default(), None)];
        Self { recorder: Recorder::with_lanes(store, lanes), work, undo }
    }

    async fn launch(&self, name: &str) -> Result<Launch, LaunchError> {
        self.recorder.launch_in_lane(id(name), request("h")).await
    }

    /// Launches what is free.
    async fn start(&self, name: &str) -> Arc<Task> {
        match self.launch(name).await.unwrap() {
            Launch::Started(task) => task,
            Launch::Refused(refused) => panic!("{name} is refused: {refused:?}"),
        }
    }

    /// Launches what is free, and waits for the outcome.
    async fn run(&self, name: &str) -> Arc<Task> {
        self.start(name).await;
        self.settled(name).await
    }

    async fn status(&self, name: &str) -> Option<Arc<Task>> {
        self.recorder.status(&id(name)).await.unwrap()
    }

    async fn found(&self, name: &str) -> Arc<Task> {
        self.status(name).await.unwrap()
    }

    /// The record once it is neither working nor being revoked.
    async fn at_rest(&self, name: &str) -> Option<Arc<Task>> {
        let task = self.recorder.wait(&id(name), LONG).await.unwrap();
        assert!(task.as_ref().is_none_or(|task| !task.is_working() && !task.is_revoking()), "{task:?}");
        task
    }

    async fn settled(&self, name: &str) -> Arc<Task> {
        self.at_rest(name).await.unwrap()
    }

    /// The record once it is so. Under paused time that takes a few milliseconds of it.
    async fn once(&self, name: &str, is_so: impl Fn(&Task) -> bool) -> Arc<Task> {
        let reached = async {
            loop {
                match self.status(name).await {
                    Some(task) if is_so(&task) => return task,
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        within("a record to change", reached).await
    }

    async fn backing_off(&self, name: &str) -> Arc<Task> {
        self.once(name, |task| matches!(task.phase(), Some(Phase::BackingOff { .. }))).await
    }

    async fn once_counted(&self, is_so: impl Fn(&LaneCounts) -> bool) {
        let reached = async {
            while !is_so(&self.counts()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("the lane to change", reached).await;
    }

    fn counts(&self) -> LaneCounts {
        self.recorder.lane_counts(&handler("h")).unwrap()
    }

    async fn pause(&self, is_paused: bool) {
        assert!(self.recorder.pause(&handler("h"), is_paused).await.unwrap());
    }
}

fn request(name: &str) -> Request {
    Request::new(handler(name), Input::new(None, "the input".into()))
}

/// Pauses without jitter: 1, 2, 4, 8, 10, 10, … seconds.
pub(crate) fn retry(attempts: u32) -> Retry {
    Retry { attempts, max_interval: Duration::from_secs(10), jitter: 0.0, ..Retry::default() }
}

fn tried(attempts: u32) -> Policy {
    Policy { retry: retry(attempts), ..Policy::default() }
}

fn one_at_once() -> Policy {
    Policy { concurrency: 1, ..Policy::default() }
}

/// What a receiver answers that is outside of the success rule.
fn answered(code: u16) -> Outcome {
    Outcome {
        code: Some(Code::HttpStatus(code)),
        ..Outcome::failed(Failure::status(code, format!("it answered {code}")))
    }
}

fn refused_by_nobody() -> Play {
    Play::End(failure(ErrorKind::Refused))
}

fn held() -> (Arc<Semaphore>, Play) {
    let permits = Arc::new(Semaphore::new(0));
    (Arc::clone(&permits), Play::Held(permits, Outcome::success()))
}

fn refusal(launch: Result<Launch, LaunchError>) -> Option<Refusal> {
    match launch.unwrap() {
        Launch::Started(_) => None,
        Launch::Refused(Refused { reason, .. }) => Some(reason),
    }
}

fn failed_as(task: &Task) -> Option<(ErrorKind, bool)> {
    task.failure().map(|failure| (failure.kind, failure.in_doubt))
}

/// The run and number of each attempt that is remembered.
fn attempts_of(task: &Task) -> Vec<(u32, u32)> {
    task.attempts.iter().map(|attempt| (attempt.run, attempt.attempt)).collect()
}
