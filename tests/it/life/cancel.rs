//! Cancel in every phase, exactly once, and what it leaves of the run.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use task_recorder::recorder::{LaneCounts, Recorder};
use task_recorder::store::{Moved, Refused, StoreError};
use task_recorder::task::{Change, ErrorKind, Outcome, Phase, Policy, Rate, Refusal, State, Task};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Play, Stage, answered, failed_as, held, one_at_once, refusal, refused_by_nobody, retry, tried};
use crate::stores::{Kind, failure, id};
use crate::support::meddled::{Asked, Meddler, meddled};
use crate::support::within;

const CANCELED: Option<(ErrorKind, bool)> = Some((ErrorKind::Canceled, true));
const CANCELED_BEFORE: Option<(ErrorKind, bool)> = Some((ErrorKind::Canceled, false));

async fn cancel(stage: &Stage, name: &str) -> Result<Arc<Task>, Refusal> {
    match stage.recorder.cancel(&id(name)).await.unwrap() {
        Moved::Done(task) => Ok(task),
        Moved::Refused(Refused { reason, .. }) => Err(reason),
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_working_cannot_be_canceled() {
    let stage = Stage::new(tried(1));
    stage.run("good").await;
    stage.work.on("bad", [refused_by_nobody()]);
    stage.run("bad").await;
    for (name, reason) in
        [("good", Refusal::NotWorking), ("bad", Refusal::NotWorking), ("unknown", Refusal::NotFound)]
    {
        let before = stage.status(name).await;
        assert_eq!(cancel(&stage, name).await, Err(reason));
        assert_eq!(stage.status(name).await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_queued_ends_at_once_and_never_begins() {
    let stage = Stage::new(Policy { queue_max: 2, ..one_at_once() });
    let (permits, play) = held();
    stage.work.on("first", [play]);
    for name in ["first", "second", "third"] {
        stage.start(name).await;
    }
    let canceled = cancel(&stage, "second").await.unwrap();
    assert_eq!(failed_as(&canceled), CANCELED_BEFORE);
    assert_eq!(canceled.attempts.len(), 0);
    assert_eq!(cancel(&stage, "second").await, Err(Refusal::NotWorking));
    // Its place in the queue is free.
    assert_eq!(stage.counts().queued, 1);
    stage.start("fourth").await;
    permits.add_permits(1);
    stage.settled("fourth").await;
    assert_eq!(stage.work.order(), ["first", "third", "fourth"]);
    assert_eq!(stage.found("second").await, canceled);

    // It may be launched again.
    let again = stage.run("second").await;
    assert_eq!((again.run, again.failure()), (2, None));
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_is_canceling_until_its_attempt_has_ended() {
    let stage = Stage::new(Policy { retry: retry(5), ..one_at_once() });
    let (permits, play) = held();
    let slow = Play::TakesItsTime(Duration::from_secs(3), failure(ErrorKind::Canceled));
    stage.work.on("order", [slow, play]);
    stage.start("order").await;
    stage.work.wait_for(1).await;
    let canceling = cancel(&stage, "order").await.unwrap();
    assert_eq!(canceling.phase(), Some(Phase::Canceling));
    assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Working));
    assert_eq!(cancel(&stage, "order").await, Err(Refusal::Canceling));
    assert_eq!(stage.counts().running, 1, "its place is taken until then");
    let task = stage.settled("order").await;
    assert_eq!((failed_as(&task), task.attempts.len()), (CANCELED, 1));
    assert!(task.failure().unwrap().message.contains("a caller canceled the run"), "{task:?}");
    assert_eq!(cancel(&stage, "order").await, Err(Refusal::NotWorking));
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(stage.work.calls().len(), 1, "what was canceled is not tried again");

    // The next run is not told to end.
    stage.start("order").await;
    stage.work.wait_for(2).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(stage.found("order").await.phase(), Some(Phase::Running));
    permits.add_permits(1);
    let task = stage.settled("order").await;
    assert!(matches!(task.state, State::Success { .. }));
    assert_eq!(task.run, 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_backs_off_ends_at_once_and_never_runs_again() {
    let stage = Stage::new(Policy { retry: retry(5), ..one_at_once() });
    stage.work.on("order", [refused_by_nobody(), Play::UntilTold(Outcome::success())]);
    stage.start("order").await;
    stage.backing_off("order").await;
    let canceled = cancel(&stage, "order").await.unwrap();
    assert_eq!(failed_as(&canceled), CANCELED_BEFORE);
    assert_eq!(
        (canceled.attempts.len(), canceled.attempts[0].failure.as_ref().unwrap().kind),
        (1, ErrorKind::Refused)
    );
    assert_eq!(stage.counts(), LaneCounts::default(), "nothing of it is left in the lane");

    // A run that follows before the pause is over is not taken for it.
    stage.work.on("order", [Play::After(Duration::from_mins(5), Outcome::success())]);
    assert_eq!(stage.start("order").await.run, 2);
    tokio::time::sleep(Duration::from_mins(2)).await;
    let calls: Vec<_> = stage.work.calls().iter().map(|call| (call.run, call.attempt)).collect();
    assert_eq!(calls, [(1, 1), (2, 1)]);
    let task = stage.settled("order").await;
    assert_eq!((task.run, task.failure()), (2, None));
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(stage.work.calls().len(), 2);
    assert_eq!(stage.recorder.figures().stale, 0);
    assert_eq!(stage.counts(), LaneCounts::default());
}

#[tokio::test(start_paused = true)]
async fn one_that_succeeds_although_it_was_told_to_end_has_succeeded() {
    let stage = Stage::new(tried(3));
    stage.work.on("order", [Play::UntilTold(Outcome::success())]);
    stage.start("order").await;
    stage.work.wait_for(1).await;
    assert_eq!(cancel(&stage, "order").await.unwrap().phase(), Some(Phase::Canceling));
    let task = stage.settled("order").await;
    assert!(matches!(task.state, State::Success { .. }), "{task:?}");
    assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Success));

    // One that fails by itself says how.
    stage.work.on("fails", [Play::UntilTold(answered(500))]);
    stage.start("fails").await;
    stage.work.wait_for(2).await;
    cancel(&stage, "fails").await.unwrap();
    assert_eq!(failed_as(&*stage.settled("fails").await), Some((ErrorKind::Status, true)));
}

/// Holds every change of one kind until it is let go.
struct Holding {
    holds: fn(&Change) -> bool,
    /// Whether what is held is recorded already, and only the answer is missing.
    is_recorded: bool,
    is_held: AtomicBool,
    arrived: Notify,
    go: Notify,
}

#[async_trait]
impl Meddler for Holding {
    async fn before(&self, asked: Asked<'_>) -> Result<(), StoreError> {
        if let Asked::Change(change) = asked
            && !self.is_recorded
        {
            self.hold(change).await;
        }
        Ok(())
    }

    async fn behind(&self, change: &Change) {
        if self.is_recorded {
            self.hold(change).await;
        }
    }
}

impl Holding {
    /// Holds such changes before they are recorded.
    fn before(holds: fn(&Change) -> bool) -> Arc<Self> {
        Self::new(holds, false)
    }

    /// Holds the answers to such changes.
    fn behind(holds: fn(&Change) -> bool) -> Arc<Self> {
        Self::new(holds, true)
    }

    fn new(holds: fn(&Change) -> bool, is_recorded: bool) -> Arc<Self> {
        let is_held = AtomicBool::new(true);
        Arc::new(Self { holds, is_recorded, is_held, arrived: Notify::new(), go: Notify::new() })
    }

    async fn hold(&self, change: &Change) {
        if (self.holds)(change) && self.is_held.load(Ordering::SeqCst) {
            self.arrived.notify_one();
            self.go.notified().await;
        }
    }

    fn let_go(&self) {
        self.is_held.store(false, Ordering::SeqCst);
        self.go.notify_one();
    }
}

/// A caller who goes away while the answer to what he asked for is held.
async fn hangs_up<T: Debug>(holding: &Holding, asked: impl Future<Output = T>) {
    tokio::select! {
        moved = asked => panic!("the answer is held: {moved:?}"),
        () = holding.arrived.notified() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_comes_behind_the_attempt_ends_no_revoke_of_the_success() {
    let holding = Holding::before(|change| matches!(change, Change::Settle { .. }));
    let stage = Stage::over(meddled(&holding), tried(1));
    stage.start("order").await;
    // The attempt has succeeded, which is not recorded yet.
    holding.arrived.notified().await;
    assert_eq!(cancel(&stage, "order").await.unwrap().phase(), Some(Phase::Canceling));
    holding.let_go();
    let task = stage.settled("order").await;
    assert!(matches!(task.state, State::Success { .. }), "{task:?}");

    let (permits, play) = held();
    stage.undo.on("order", [play]);
    assert!(matches!(stage.recorder.revoke(&id("order")).await.unwrap(), Moved::Done(_)));
    stage.undo.wait_for(1).await;
    permits.add_permits(1);
    assert_eq!(stage.at_rest("order").await, None, "nobody told the revoke to end");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_canceled_between_two_attempts_ends_canceled_and_has_no_third() {
    let holding = Holding::before(|change| matches!(change, Change::BackOff { .. }));
    let stage = Stage::over(meddled(&holding), tried(5));
    stage.work.by_default(Play::End(answered(503)));
    stage.start("order").await;
    // The attempt has ended, and that another one follows is not recorded yet.
    holding.arrived.notified().await;
    assert_eq!(cancel(&stage, "order").await.unwrap().phase(), Some(Phase::Canceling));
    holding.let_go();
    let task = stage.settled("order").await;
    assert_eq!((failed_as(&task), task.attempts.len()), (CANCELED_BEFORE, 1));
    assert!(task.failure().unwrap().message.contains("503"), "{task:?}");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(stage.work.calls().len(), 1);
    assert_eq!(stage.recorder.figures().stale, 0);

    // The next run has its attempts.
    stage.work.by_default(Play::End(Outcome::success()));
    assert_eq!(stage.run("order").await.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_revoke_that_is_recorded_goes_on_without_its_caller() {
    let holding = Holding::behind(|change| matches!(change, Change::BeginRevoke));
    let stage = Stage::over(meddled(&holding), tried(1));
    stage.run("order").await;
    hangs_up(&holding, stage.recorder.revoke(&id("order"))).await;
    assert!(stage.found("order").await.is_revoking());
    holding.let_go();
    assert_eq!(stage.at_rest("order").await, None, "the success is undone");
    assert_eq!(stage.undo.count("order"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_is_recorded_goes_on_without_its_caller() {
    let holding = Holding::behind(|change| matches!(change, Change::Cancel { .. }));
    let stage = Stage::over(meddled(&holding), one_at_once());
    stage.work.on("runs", [Play::UntilTold(failure(ErrorKind::Canceled))]);
    stage.start("runs").await;
    stage.start("queued").await;
    stage.work.wait_for(1).await;

    hangs_up(&holding, stage.recorder.cancel(&id("queued"))).await;
    assert_eq!(stage.counts().queued, 1, "it was not taken out yet");
    holding.go.notify_one();
    stage.once_counted(|counts| counts.queued == 0).await;

    hangs_up(&holding, stage.recorder.cancel(&id("runs"))).await;
    assert_eq!(stage.found("runs").await.phase(), Some(Phase::Canceling));
    holding.let_go();
    assert_eq!(failed_as(&*stage.settled("runs").await), CANCELED, "the attempt is told to end");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_canceled_before_it_is_in_the_queue_is_not_put_there() {
    let holding = Holding::behind(|change| matches!(change, Change::Claim(_)));
    let stage = Stage::over(meddled(&holding), one_at_once());
    stage.work.on("runs", [Play::UntilTold(failure(ErrorKind::Canceled))]);
    hangs_up(&holding, stage.start("runs")).await;
    holding.go.notify_one();

    hangs_up(&holding, stage.start("queued")).await;
    assert_eq!(failed_as(&cancel(&stage, "queued").await.unwrap()), CANCELED_BEFORE);
    assert_eq!(stage.counts().queued, 1, "its place is kept for it");
    holding.let_go();
    stage.once_counted(|counts| counts.queued == 0).await;
    stage.work.wait_for(1).await;
    assert_eq!((stage.work.count("runs"), stage.work.count("queued")), (1, 0));
    cancel(&stage, "runs").await.unwrap();
    assert_eq!(failed_as(&*stage.settled("runs").await), CANCELED);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_canceled_as_it_begins_to_back_off_does_not_stay_in_the_lane() {
    let holding = Holding::behind(|change| matches!(change, Change::BackOff { .. }));
    let stage = Stage::over(meddled(&holding), tried(5));
    stage.work.by_default(refused_by_nobody());
    stage.start("order").await;
    // It backs off, and is not among those that do yet.
    holding.arrived.notified().await;
    assert_eq!(failed_as(&cancel(&stage, "order").await.unwrap()), CANCELED_BEFORE);
    holding.let_go();
    stage.once_counted(|counts| counts.running == 0).await;
    assert_eq!(stage.counts(), LaneCounts::default());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_canceled_as_it_begins_takes_no_start_from_those_behind_it() {
    let holding = Holding::before(|change| matches!(change, Change::Begin { .. }));
    let rate = Some(Rate { starts: 1, per: Duration::from_mins(1) });
    let stage = Stage::over(meddled(&holding), Policy { rate, ..Policy::default() });
    for name in ["first", "second", "third"] {
        stage.start(name).await;
    }
    // It is the turn of the second, which is not recorded yet.
    holding.arrived.notified().await;
    assert_eq!(failed_as(&cancel(&stage, "second").await.unwrap()), CANCELED_BEFORE);
    let now = Instant::now();
    holding.let_go();
    stage.settled("third").await;
    assert!(now.elapsed() < Duration::from_secs(1), "it started after {:?}", now.elapsed());
    assert_eq!(stage.work.order(), ["first", "third"]);
}

/// Cancels from 64 sides at once, and returns how many of them did it.
async fn cancel_64_times(recorder: &Recorder, name: &str) -> usize {
    let barrier = Arc::new(Barrier::new(64));
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (recorder, name, barrier) = (recorder.clone(), id(name), Arc::clone(&barrier));
        callers.spawn(async move {
            barrier.wait().await;
            match recorder.cancel(&name).await.unwrap() {
                Moved::Done(_) => 1,
                Moved::Refused(Refused { reason: Refusal::Canceling | Refusal::NotWorking, .. }) => 0,
                Moved::Refused(refused) => panic!("{refused:?}"),
            }
        });
    }
    callers.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_cancels_at_once_exactly_one_is_done_in_every_phase() {
    for kind in [Kind::Memory, Kind::Embedded] {
        let store = kind.open();
        let stage = Stage::over(store.shared(), Policy { retry: retry(3), ..one_at_once() });
        for turn in 0..15 {
            let (backs_off, runs, waits) = (format!("b{turn}"), format!("r{turn}"), format!("q{turn}"));
            stage.work.on(&backs_off, [refused_by_nobody()]);
            stage.start(&backs_off).await;
            stage.backing_off(&backs_off).await;
            let calls = stage.work.calls().len();
            stage.work.on(&runs, [Play::UntilTold(failure(ErrorKind::Canceled))]);
            stage.start(&runs).await;
            stage.work.wait_for(calls + 1).await;
            stage.start(&waits).await;
            for (name, expected) in
                [(&waits, CANCELED_BEFORE), (&backs_off, CANCELED_BEFORE), (&runs, CANCELED)]
            {
                assert_eq!(cancel_64_times(&stage.recorder, name).await, 1, "{name}");
                let task = within("it ends", stage.settled(name)).await;
                assert_eq!((failed_as(&task), task.run), (expected, 1), "{name}");
            }
            assert_eq!((stage.work.count(&waits), stage.work.count(&runs)), (0, 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_races_with_the_end_agrees_with_the_record() {
    let stage = Stage::new(Policy { concurrency: 4, ..Policy::default() });
    let (mut canceled, mut succeeded) = (0, 0);
    for turn in 0..600_u64 {
        let name = format!("t{turn}");
        let (permits, play) = held();
        stage.work.on(&name, [play]);
        stage.start(&name).await;
        let mut ending = JoinSet::new();
        ending.spawn(async move { permits.add_permits(1) });
        for _ in 0..turn % 5 {
            tokio::task::yield_now().await;
        }
        let answer = cancel(&stage, &name).await;
        let task = within("it ends", stage.settled(&name)).await;
        match (answer, &task.state) {
            (Err(Refusal::NotWorking) | Ok(_), State::Success { .. }) => succeeded += 1,
            (Ok(_), State::Failed { failure, .. }) if failure.kind == ErrorKind::Canceled => canceled += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!((stage.work.count(&name), task.attempts.len()), (1, 1));
    }
    assert!(canceled > 0 && succeeded > 0, "{canceled} canceled, {succeeded} succeeded");
}
