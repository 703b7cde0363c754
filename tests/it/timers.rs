//! Each timer of the recorder and of the handlers, to the millisecond: paused time passes only when nothing else is to do.

mod server;

use std::future::pending;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use hyper::Method;
use jiff::Timestamp;
use serde_json::json;
use task_recorder::handler::command::CommandSettings;
use task_recorder::handler::webhook::{Egress, Tls, WebhookSettings};
use task_recorder::handler::{Action, Command, Webhook};
use task_recorder::recorder::{
    Bulk, BulkAction, BulkState, LaneSpec, Launch, NoticeSpec, Recorder, RecoveryReport, Work,
};
use task_recorder::store::{Filter, MemoryStore, Moved, Store, StoreError};
use task_recorder::task::{
    Change, Code, ErrorKind, Failure, Input, OnCrash, Outcome, Policy, Rate, Request, Retention, Retry,
    Start, StartKind, StateName, Task,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::handlers::{assert_failed, handler as handler_that};
use crate::life::retry;
use crate::stores::{RETRY, attempt, claim, failure, handler, id, launch, success};
use crate::support::clock::Clock;
use crate::support::meddled::{Asked, Meddler, meddled};
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::task;

/// Time that no test lets pass.
const LONG: Duration = Duration::from_hours(10_000);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn seconds(seconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
    seconds.into_iter().map(Duration::from_secs).collect()
}

/// The moments at which something was done.
#[derive(Debug, Default)]
struct Moments(Mutex<Vec<Instant>>);

impl Moments {
    fn note(&self) {
        self.0.lock().unwrap().push(Instant::now());
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The times between them.
    fn pauses(&self) -> Vec<Duration> {
        self.0.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// Work that comes to this at once, and its moments.
fn work(outcome: impl Fn(u32) -> Outcome + Send + Sync + 'static) -> (Work, Arc<Moments>) {
    let moments = Arc::<Moments>::default();
    let (noted, outcome) = (Arc::clone(&moments), Arc::new(outcome));
    let work: Work = Arc::new(move |_, attempt, _| {
        noted.note();
        let outcome = Arc::clone(&outcome);
        async move { outcome(attempt) }.boxed()
    });
    (work, moments)
}

/// Work that takes this long, unless it is told to end.
fn takes(time: Duration) -> Work {
    Arc::new(move |_, _, ending: CancellationToken| {
        async move {
            tokio::select! {
                biased;
                () = sleep(time) => success(),
                () = ending.cancelled() => failure(ErrorKind::Canceled),
            }
        }
        .boxed()
    })
}

fn lane(work: Work, policy: Policy) -> LaneSpec {
    LaneSpec { handler: handler("h"), policy, work, undo: None, notices: NoticeSpec::default() }
}

fn over_memory(lane: LaneSpec) -> Recorder {
    Recorder::with_lanes(Arc::new(MemoryStore::new()), [lane])
}

async fn start(recorder: &Recorder, name: &str) {
    let request = Request::new(handler("h"), Input::empty());
    let launched = recorder.launch_in_lane(id(name), request).await.unwrap();
    assert!(matches!(launched, Launch::Started(_)), "{launched:?}");
}

async fn settled(recorder: &Recorder, name: &str) -> Arc<Task> {
    let task = recorder.wait(&id(name), LONG).await.unwrap().unwrap();
    assert!(!task.is_working() && !task.is_revoking());
    task
}

fn nobody_there() -> Outcome {
    failure(ErrorKind::Refused)
}

fn asking_for(retry_after: Duration) -> Outcome {
    let failure = Failure::status(503, "not now");
    Outcome { code: Some(Code::HttpStatus(503)), retry_after: Some(retry_after), ..Outcome::failed(failure) }
}

/// Fails as a test wants it to.
struct Failing<F>(F);

#[async_trait]
impl<F: Fn(Asked<'_>) -> Option<StoreError> + Send + Sync + 'static> Meddler for Failing<F> {
    async fn before(&self, asked: Asked<'_>) -> Result<(), StoreError> {
        (self.0)(asked).map_or(Ok(()), Err)
    }
}

/// A store that fails so many times when it is asked for this, and the moments of these and the next.
fn failing(
    error: &StoreError,
    times: usize,
    is_meant: impl Fn(Asked<'_>) -> bool + Send + Sync + 'static,
) -> (Arc<dyn Store>, Arc<Moments>) {
    let (moments, error) = (Arc::<Moments>::default(), error.clone());
    let noted = Arc::clone(&moments);
    let fails = move |asked: Asked<'_>| {
        if !is_meant(asked) {
            return None;
        }
        noted.note();
        (noted.count() <= times).then(|| error.clone())
    };
    (meddled(&Arc::new(Failing(fails))), moments)
}

fn full() -> StoreError {
    StoreError::Unavailable("no space left".to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_begins_when_its_pause_is_over_and_no_tick_before() {
    let (fails, moments) = work(|_| nobody_there());
    let recorder = over_memory(lane(fails, Policy { retry: retry(7), ..Policy::default() }));
    start(&recorder, "order").await;
    settled(&recorder, "order").await;
    assert_eq!(moments.pauses(), seconds([1, 2, 4, 8, 10, 10]));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_a_pause_gets_that_and_at_most_the_cap() {
    let asked = |attempt| asking_for([ms(0), ms(7_001), ms(10_000), ms(86_400_000)][attempt as usize % 4]);
    let (fails, moments) = work(asked);
    let recorder = over_memory(lane(fails, Policy { retry: retry(5), ..Policy::default() }));
    start(&recorder, "order").await;
    settled(&recorder, "order").await;
    assert_eq!(moments.pauses(), [7_001, 10_000, 10_000, 8_000].map(ms));
}

#[tokio::test(start_paused = true)]
async fn the_attempts_to_undo_a_success_have_the_same_pauses() {
    let (fails, moments) = work(|_| nobody_there());
    let (well, _) = work(|_| success());
    let undo = Some(fails);
    let policy = Policy { retry: retry(6), ..Policy::default() };
    let recorder = over_memory(LaneSpec { undo, ..lane(well, policy) });
    start(&recorder, "order").await;
    settled(&recorder, "order").await;
    assert!(matches!(recorder.revoke(&id("order")).await.unwrap(), Moved::Done(_)));
    assert_eq!(settled(&recorder, "order").await.state_name(), StateName::Success);
    assert_eq!(moments.pauses(), seconds([1, 2, 4, 8, 10]));
}

#[tokio::test(start_paused = true)]
async fn starts_are_apart_by_the_rate_and_by_no_tick_less() {
    let (well, moments) = work(|_| success());
    let rate = Some(Rate { starts: 8, per: Duration::from_secs(1) });
    let recorder = over_memory(lane(well, Policy { rate, ..Policy::default() }));
    for number in 0..20 {
        start(&recorder, &format!("t-{number}")).await;
    }
    for number in 0..20 {
        settled(&recorder, &format!("t-{number}")).await;
    }
    assert_eq!(moments.pauses(), vec![ms(125); 19]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_over_with_its_time_or_with_the_run() {
    let recorder = over_memory(lane(takes(ms(60_000)), Policy::default()));
    let begun = Instant::now();
    start(&recorder, "order").await;
    for (patience, is_working, passed) in
        [(ms(40_000), true, 40_000), (ms(19_999), true, 59_999), (ms(1_000), false, 60_000)]
    {
        let task = recorder.wait(&id("order"), patience).await.unwrap().unwrap();
        assert_eq!((task.is_working(), begun.elapsed()), (is_working, ms(passed)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_written_again_after_growing_pauses() {
    for error in [full(), StoreError::Busy] {
        let (store, moments) =
            failing(&error, 8, |asked| matches!(asked, Asked::Change(Change::Settle { .. })));
        let (well, _) = work(|_| success());
        let recorder = Recorder::with_lanes(store, [lane(well, Policy::default())]);
        start(&recorder, "order").await;
        assert_eq!(settled(&recorder, "order").await.state_name(), StateName::Success);
        assert_eq!(moments.pauses(), [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000].map(ms));
    }
}

/// The pauses of a lane whose runs succeed and whose notices come to this, until the last one is over.
async fn notice_pauses(
    store: Arc<dyn Store>,
    outcome: impl Fn(u32) -> Outcome + Send + Sync + 'static,
) -> Vec<Duration> {
    let (told, moments) = work(outcome);
    let (well, _) = work(|_| success());
    let defaults = NoticeSpec::default();
    let retry = Retry { jitter: 0.0, ..defaults.retry };
    let notices = NoticeSpec { on_success: Some(told), retry, ..defaults };
    let recorder = Recorder::with_lanes(store, [LaneSpec { notices, ..lane(well, Policy::default()) }]);
    start(&recorder, "order").await;
    settled(&recorder, "order").await;
    while recorder.figures().notices_due > 0 {
        sleep(Duration::from_hours(1)).await;
    }
    moments.pauses()
}

#[tokio::test(start_paused = true)]
async fn notices_are_tried_again_after_1_s_up_to_5_min() {
    let store = Arc::new(MemoryStore::new());
    let pauses = notice_pauses(store, |attempt| if attempt < 13 { nobody_there() } else { success() }).await;
    assert_eq!(pauses, seconds([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]));
}

#[tokio::test(start_paused = true)]
async fn a_notice_waits_for_as_long_as_it_is_asked_to_up_to_5_min() {
    let asked = |attempt| match attempt {
        1 => asking_for(ms(7_001)),
        2 => asking_for(ms(300_000)),
        3 => asking_for(ms(300_001)),
        _ => success(),
    };
    assert_eq!(notice_pauses(Arc::new(MemoryStore::new()), asked).await, [7_001, 300_000, 300_000].map(ms));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_notice_is_written_again_every_two_seconds() {
    let (store, moments) =
        failing(&full(), 4, |asked| matches!(asked, Asked::Change(Change::EndNotice { .. })));
    assert!(notice_pauses(store, |_| success()).await.is_empty(), "it is told once");
    assert_eq!(moments.pauses(), seconds([2, 2, 2, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_runs_the_grace_period_and_no_tick_more() {
    for (takes_ms, left_ms, state) in
        [(19_999, 19_999, StateName::Success), (20_001, 20_000, StateName::Failed)]
    {
        let recorder = over_memory(lane(takes(ms(takes_ms)), Policy::default()));
        start(&recorder, "order").await;
        let begun = Instant::now();
        recorder.stop(ms(20_000)).await;
        assert_eq!(begun.elapsed(), ms(left_ms));
        assert_eq!(recorder.status(&id("order")).await.unwrap().unwrap().state_name(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_7_s_or_longer_for_runs_that_were_told_to_end_and_1_s_more_for_their_outcomes() {
    let told = |ending_ms| -> Work {
        Arc::new(move |_, _, ending: CancellationToken| {
            async move {
                ending.cancelled().await;
                sleep(ms(ending_ms)).await;
                failure(ErrorKind::Canceled)
            }
            .boxed()
        })
    };
    for (ending_ms, left_ms, is_recorded) in
        [(6_999, 26_999, true), (7_999, 27_999, true), (8_001, 28_000, false)]
    {
        let recorder = over_memory(lane(told(ending_ms), Policy::default()));
        start(&recorder, "order").await;
        let begun = Instant::now();
        recorder.stop(ms(20_000)).await;
        assert_eq!(begun.elapsed(), ms(left_ms));
        let task = recorder.status(&id("order")).await.unwrap().unwrap();
        assert_eq!(!task.is_working(), is_recorded, "{ending_ms}");
    }

    // A command has as long as its config says, and so has one that began before a reload took that back.
    let ending = Policy { ending: ms(600_000), ..Policy::default() };
    for (ending_ms, left_ms, is_recorded) in
        [(601_999, 621_999, true), (602_999, 622_999, true), (603_001, 623_000, false)]
    {
        let recorder = over_memory(lane(told(ending_ms), ending.clone()));
        start(&recorder, "order").await;
        recorder.reload(Vec::new()).await.unwrap();
        let begun = Instant::now();
        recorder.stop(ms(20_000)).await;
        assert_eq!(begun.elapsed(), ms(left_ms));
        let task = recorder.status(&id("order")).await.unwrap().unwrap();
        assert_eq!(!task.is_working(), is_recorded, "{ending_ms}");
    }

    // An outcome that cannot be written is given up after the 7 s.
    let (store, _) =
        failing(&full(), usize::MAX, |asked| matches!(asked, Asked::Change(Change::Settle { .. })));
    let recorder = Recorder::with_lanes(store, [lane(told(0), Policy::default())]);
    start(&recorder, "order").await;
    let begun = Instant::now();
    recorder.stop(ms(20_000)).await;
    assert_eq!(begun.elapsed(), ms(27_000));
}

#[tokio::test(start_paused = true)]
async fn old_records_are_looked_for_in_each_interval_and_later_after_errors() {
    let errors = 8;
    let (store, moments) = failing(&full(), errors, |asked| matches!(asked, Asked::List));
    let recorder = Recorder::new(store);
    let interval = ms(90_000);
    recorder.retain(&Retention { failed: Some(Duration::from_hours(24)), interval, ..Retention::default() });
    sleep_until(Instant::now() + Duration::from_mins(12)).await;
    let pauses = moments.pauses();
    assert_eq!(pauses[..errors], seconds([1, 2, 4, 8, 16, 32, 60, 60]));
    assert!(
        pauses.len() >= errors + 3 && pauses[errors..].iter().all(|pause| *pause == interval),
        "{pauses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_settles_again_after_5_ms_what_the_store_had_no_room_for() {
    let (store, moments) =
        failing(&StoreError::Busy, 5, |asked| matches!(asked, Asked::Change(Change::Settle { .. })));
    drop(claim(&*store, &id("order"), launch("in")).await);
    let report = Recorder::new(store).recover().await.unwrap();
    assert_eq!((report.interrupted, moments.pauses()), (1, vec![ms(5); 5]));
}

#[tokio::test(start_paused = true)]
async fn a_start_asks_again_after_5_ms_whatever_the_store_had_no_room_for() {
    let meant: [fn(Asked<'_>) -> bool; 4] = [
        |asked| matches!(asked, Asked::Notes),
        |asked| matches!(asked, Asked::Change(Change::Claim(Start { kind: StartKind::Retry { .. }, .. }))),
        |asked| matches!(asked, Asked::Change(Change::EndRevoke { .. })),
        |asked| matches!(asked, Asked::Change(Change::EndNotice { .. })),
    ];
    for (number, is_meant) in meant.into_iter().enumerate() {
        let (store, moments) = failing(&StoreError::Busy, 5, is_meant);
        drop(claim(&*store, &id("runs"), launch("in")).await);
        crate::stores::run(&*store, &id("revokes"), success()).await;
        store.change(&id("revokes"), Change::BeginRevoke).await.unwrap();
        let due = claim(&*store, &id("tells"), launch("in")).await.with_notice(true);
        store.settle(due, attempt(1, &success()), None).await.unwrap();

        let (well, _) = work(|_| success());
        let policy = Policy { on_crash: OnCrash::Retry, ..Policy::default() };
        let recorder = Recorder::with_lanes(store, [lane(well, policy)]);
        assert_eq!(recorder.recover().await.unwrap().launched_again, 1, "{number}");
        assert_eq!(moments.pauses()[..5], [ms(5); 5], "{number}");
        let task = settled(&recorder, "runs").await;
        assert_eq!((task.run, task.state_name()), (2, StateName::Success), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_looks_again_after_5_ms_what_became_of_a_bulk_operation() {
    let (store, moments) = failing(&StoreError::Busy, 5, |asked| matches!(asked, Asked::Get));
    let bulk = Bulk {
        number: 1,
        action: BulkAction::Forget,
        filter: Filter::default(),
        state: BulkState::Running,
        matched: 1,
        done: 0,
        skipped: 0,
        failed: 0,
        failures: Vec::new(),
        started: Timestamp::UNIX_EPOCH,
        ended: None,
    };
    let in_hand = json!([{"id": "order", "entered": 2, "run": 1, "revision": 2}]);
    let note = json!({"bulk": bulk, "last": 2, "after": 2, "in_hand": in_hand});
    store.put_note("bulk/00000000000000000001", Some(note.to_string().into_bytes())).await.unwrap();
    let recorder = Recorder::new(store);
    recorder.recover().await.unwrap();
    assert_eq!((moments.pauses(), recorder.bulk(1).unwrap().done), (vec![ms(5); 5], 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_start_has_settled_it_launches_again_also_when_it_fails_itself() {
    let settles = AtomicUsize::new(0);
    let (store, claims) = failing(&full(), 3, move |asked| match asked {
        Asked::Change(Change::Settle { .. }) => settles.fetch_add(1, Ordering::Relaxed) == 2,
        Asked::Change(Change::Claim(Start { kind: StartKind::Retry { .. }, .. })) => true,
        _ => false,
    });
    for name in ["a", "b", "c", "d"] {
        drop(claim(&*store, &id(name), launch("in")).await);
    }
    let (hangs, policy) = (takes(LONG), Policy { on_crash: OnCrash::Retry, ..Policy::default() });
    let recorder = Recorder::with_lanes(store, [lane(hangs, policy)]);
    assert_eq!(recorder.recover().await, Err(full()));
    assert!(claims.count() > 3, "they were tried until it could be written");
    for (name, run) in [("a", 2), ("b", 2), ("c", 1), ("d", 2)] {
        let task = recorder.status(&id(name)).await.unwrap().unwrap();
        assert!(task.is_working() && task.run == run, "{task:?}");
    }
}

/// It ends between the two changes that make one run of the other.
#[tokio::test(start_paused = true)]
async fn what_a_start_has_settled_and_not_launched_again_the_next_one_launches() {
    let is_retry =
        |change: &Change| matches!(change, Change::Claim(Start { kind: StartKind::Retry { .. }, .. }));
    let gone = StoreError::Unreadable("it goes down".to_owned());
    let (store, _) =
        failing(&gone, 3, move |asked| matches!(asked, Asked::Change(change) if is_retry(change)));
    let ids = ["a", "b", "c"].map(id);
    for id in &ids {
        drop(claim(&*store, id, launch("in")).await);
    }
    crate::stores::run(&*store, &id("other"), failure(ErrorKind::Interrupted)).await;
    let policy = Policy { on_crash: OnCrash::Retry, ..Policy::default() };
    let start = || Recorder::with_lanes(Arc::clone(&store), [lane(takes(LONG), policy.clone())]);
    assert_eq!(start().recover().await, Err(gone.clone()));
    // Somebody else, with another service at it, was faster with one of them, and has forgotten another.
    drop(claim(&*store, &ids[1], RETRY).await);
    store.change(&ids[2], Change::Forget).await.unwrap();

    let recorder = start();
    assert_eq!(
        recorder.recover().await,
        Ok(RecoveryReport { interrupted: 1, launched_again: 2, resumed: 0 }),
        "the one that was owed, and the one that was cut off since"
    );
    let runs = async |id| recorder.status(id).await.unwrap().map(|task| (task.run, task.is_working()));
    assert_eq!(runs(&ids[0]).await, Some((2, true)));
    assert_eq!(runs(&ids[1]).await, Some((3, true)));
    assert_eq!(runs(&ids[2]).await, None);
    assert_eq!(runs(&id("other")).await, Some((1, false)), "nobody owes that");
    assert_eq!(store.notes("").await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_bulk_operation_tries_again_after_10_ms_up_to_250_ms() {
    // Of each task: whether it is still as it was.
    let (store, moments) = failing(&full(), 7, |asked| matches!(asked, Asked::Get));
    crate::stores::run(&*store, &id("order"), nobody_there()).await;
    assert_eq!(moments.count(), 0);
    let recorder = Recorder::new(store);
    let begun = recorder.begin_bulk(BulkAction::Forget, Filter::default(), 10).await.unwrap();
    while recorder.bulk(begun.number).unwrap().ended.is_none() {
        sleep(Duration::from_mins(1)).await;
    }
    assert_eq!(recorder.bulk(begun.number).unwrap().done, 1);
    assert_eq!(moments.pauses()[..7], [10, 20, 40, 80, 160, 250, 250].map(ms));
}

#[tokio::test(start_paused = true)]
async fn a_call_may_take_as_long_as_its_timeout_and_no_tick_longer() {
    let late = |behaviour| async move {
        let receiver = Receiver::start().await;
        receiver.by_default(behaviour);
        receiver
    };
    for (behaviour, says) in
        [(Behaviour::NeverAnswer, "30s"), (Behaviour::StallInBody(Answer::of(200).body("some of it")), "30s")]
    {
        let mut clock = Clock::hold();
        let receiver = late(behaviour).await;
        let settings = WebhookSettings {
            url: receiver.url("/").parse().unwrap(),
            method: Method::POST,
            headers: Vec::new(),
            timeout: ms(30_000),
            success: vec![200..=299],
            success_body: None,
            output_bytes_max: 1_000,
            egress: Egress::default(),
            secrets: Vec::new(),
            tls: Tls::default(),
        };
        let webhook = handler_that(Action::Webhook(Webhook::new(settings)));
        let (task, ending) = (task("t", None, "in"), CancellationToken::new());
        let mut call = pin!(webhook.run(&task, 1, &ending));
        let arrival = async {
            tokio::select! {
                outcome = &mut call => panic!("{outcome:?}"),
                () = receiver.wait_for(1) => {}
            }
        };
        clock.now("the call to arrive", arrival).await;
        let outcome = clock.until(ms(30_000), call, "its end").await;
        assert_failed(&outcome, ErrorKind::Timeout, true, says);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_gets_term_when_its_time_is_up_and_kill_when_that_does_not_help() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo told >> told' TERM; : > ready; while :; do read -r line; sleep 0.01; done";
    let settings = CommandSettings {
        argv: ["sh", "-c", script].iter().map(|argument| argument.parse().unwrap()).collect(),
        env: vec!["PATH".to_owned()],
        cwd: Some(folder.path().to_owned()),
        timeout: ms(60_000),
        kill_after: ms(5_000),
        success: vec![0],
        output_bytes_max: 1_000,
    };
    let mut clock = Clock::hold();
    let command = handler_that(Action::Command(Command::new(settings)));
    let (task, ending) = (task("t", None, ""), CancellationToken::new());
    let mut run = pin!(command.run(&task, 1, &ending));
    let is_there = |name: &'static str| exists(folder.path().join(name));
    let begins = async {
        tokio::select! {
            outcome = &mut run => panic!("{outcome:?}"),
            () = is_there("ready") => {}
        }
    };
    clock.now("the command to begin", begins).await;
    clock.pass(ms(59_999), run.as_mut()).await;
    assert!(!folder.path().join("told").exists());
    clock.pass(ms(1), run.as_mut()).await;
    clock.now("TERM to arrive", is_there("told")).await;
    let outcome = clock.until(ms(5_000), run, "its end").await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "was killed");
}

/// Returns when there is such a file, however long that takes.
async fn exists(path: impl AsRef<Path> + Send + 'static) {
    let look = move || {
        while !path.as_ref().exists() {
            std::thread::park_timeout(ms(2));
        }
    };
    if tokio::task::spawn_blocking(look).await.is_err() {
        pending::<()>().await;
    }
}
