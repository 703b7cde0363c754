//! What becomes of each phase when the process ends without a word, or in order, and starts again.

use std::time::Duration;

use task_recorder::recorder::{Recorder, RecoveryReport};
use task_recorder::store::{Moved, StateCounts};
use task_recorder::task::{ErrorKind, Failure, OnCrash, Outcome, Phase, Policy, Retry, State, Undo};

use super::{Play, Stage, answered, attempts_of, failed_as, refused_by_nobody, request};
use crate::stores::{Kind, TestStore, assert_counts_agree, id};
use crate::support::within;

const INTERRUPTED: Option<(ErrorKind, bool)> = Some((ErrorKind::Interrupted, true));
const NOT_BEGUN: Option<(ErrorKind, bool)> = Some((ErrorKind::Interrupted, false));

fn policy() -> Policy {
    let initial = Duration::from_millis(300);
    Policy {
        retry: Retry { attempts: 3, initial, jitter: 0.0, ..Retry::default() },
        concurrency: 1,
        ..Policy::default()
    }
}

/// A task in each phase: `runs` holds the one place of `h`, and `q0` to `q4` wait behind it. What is under way is so
/// until it hears of the end, or for ever.
async fn every_phase(store: &TestStore, policy: Policy, under_way: &Play) -> Stage {
    let stage = Stage::over(store.shared(), policy);
    stage.run("good").await;
    stage.undo.by_default(under_way.clone());
    stage.run("revokes").await;
    assert!(matches!(stage.recorder.revoke(&id("revokes")).await.unwrap(), Moved::Done(_)));

    stage.work.on("backs-off", [refused_by_nobody()]);
    stage.start("backs-off").await;
    stage.backing_off("backs-off").await;
    stage.work.on("cancels", [under_way.clone()]);
    stage.recorder.launch_in_lane(id("cancels"), request("plain")).await.unwrap();
    assert!(matches!(stage.recorder.cancel(&id("cancels")).await.unwrap(), Moved::Done(_)));
    stage.work.on("runs", [under_way.clone()]);
    stage.start("runs").await;
    for name in QUEUED {
        assert_eq!(stage.start(name).await.phase(), Some(Phase::Queued));
    }
    stage
}

const QUEUED: [&str; 5] = ["q0", "q1", "q2", "q3", "q4"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_only_what_was_under_way_is_in_doubt_and_the_rest_goes_on() {
    for kind in [Kind::Embedded, Kind::Hot(1)] {
        let store = kind.open();
        let _crashed = every_phase(&store, policy(), &Play::Deaf).await;
        let store = store.reopen().await;
        let stage = Stage::over(store.shared(), policy());
        let report = stage.recorder.recover().await.unwrap();
        assert_eq!(report, RecoveryReport { interrupted: 2, launched_again: 0, resumed: 6 });

        let runs = stage.found("runs").await;
        assert_eq!((failed_as(&runs), attempts_of(&runs)), (INTERRUPTED, vec![(1, 1)]));
        let canceled = stage.found("cancels").await;
        assert_eq!(failed_as(&canceled), Some((ErrorKind::Canceled, true)));
        let revokes = stage.found("revokes").await;
        let State::Success { undo: Some(Undo::Failed(failure)), .. } = &revokes.state else {
            panic!("{revokes:?}")
        };
        assert_eq!((failure.kind, failure.in_doubt), (ErrorKind::Interrupted, true));
        for name in ["backs-off", "q0", "q1", "q2", "q3", "q4"] {
            let task = within("it goes on", stage.settled(name)).await;
            assert!(matches!(task.state, State::Success { .. }), "{task:?}");
            assert_eq!(task.run, 1);
            let numbers: &[_] = if name == "backs-off" { &[(1, 1), (1, 2)] } else { &[(1, 1)] };
            assert_eq!(attempts_of(&task), numbers, "{name}");
            assert_eq!(stage.work.count(name), 1);
        }
        let order: Vec<_> = stage.work.order().into_iter().filter(|name| name.starts_with('q')).collect();
        assert_eq!(order, QUEUED, "in the order of their launches");
        assert_eq!(stage.work.peak(), 1);
        assert_eq!(stage.work.count("runs") + stage.work.count("cancels") + stage.work.count("good"), 0);
        let call = stage.work.calls().into_iter().find(|call| call.id == "backs-off").unwrap();
        assert_eq!((call.run, call.attempt, &call.input[..]), (1, 2, &b"the input"[..]));
        let counts = assert_counts_agree(&*store).await;
        assert_eq!(counts, StateCounts { working: 0, success: 8, failed: 2 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_cut_off_is_launched_again_where_the_handler_says_so() {
    let policy = Policy { on_crash: OnCrash::Retry, ..policy() };
    let store = Kind::Embedded.open();
    let crashed = Stage::over(store.shared(), Policy { concurrency: 20, ..policy.clone() });
    let names: Vec<_> = (0..8).map(|n| format!("runs-{n}")).collect();
    crashed.work.by_default(Play::Deaf);
    for name in &names {
        crashed.start(name).await;
    }
    crashed.work.wait_for(8).await;
    crashed.start("cancels").await;
    assert!(matches!(crashed.recorder.cancel(&id("cancels")).await.unwrap(), Moved::Done(_)));

    // No queue has to have a place for what was accepted before.
    let store = store.reopen().await;
    let stage = Stage::over(store.shared(), Policy { queue_max: 0, ..policy });
    let report = stage.recorder.recover().await.unwrap();
    assert_eq!(report, RecoveryReport { interrupted: 9, launched_again: 8, resumed: 0 });
    for name in &names {
        let task = within("it runs again", stage.settled(name)).await;
        assert!(matches!(task.state, State::Success { .. }), "{task:?}");
        assert_eq!(attempts_of(&task), [(1, 1), (2, 1)]);
        assert_eq!(task.attempts[0].failure.as_ref().unwrap().kind, ErrorKind::Interrupted);
        assert_eq!(stage.work.count(name), 1);
    }
    assert!(stage.work.calls().iter().all(|call| call.run == 2 && call.input == "the input"));
    assert_eq!(stage.work.peak(), 1, "limits hold for them too");
    assert_eq!(failed_as(&*stage.found("cancels").await), Some((ErrorKind::Canceled, true)));
    assert_eq!(stage.work.count("cancels"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_handler_that_is_gone_are_failed() {
    let store = Kind::Embedded.open();
    let _crashed = every_phase(&store, policy(), &Play::Deaf).await;
    let store = store.reopen().await;
    let recorder = Recorder::new(store.shared());
    let report = recorder.recover().await.unwrap();
    assert_eq!(report, RecoveryReport { interrupted: 8, launched_again: 0, resumed: 0 });
    for name in ["backs-off", "q0", "q4"] {
        let task = recorder.status(&id(name)).await.unwrap().unwrap();
        assert_eq!(failed_as(&task), NOT_BEGUN, "{name}");
    }
    assert_eq!(failed_as(&recorder.status(&id("runs")).await.unwrap().unwrap()), INTERRUPTED);
    assert_eq!(recorder.counts().total().working, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_may_have_done_stays_in_doubt_over_a_crash() {
    let initial = Duration::from_mins(5);
    let policy =
        Policy { retry: Retry { attempts: 3, initial, in_doubt: true, ..Retry::default() }, ..policy() };
    let store = Kind::Embedded.open();
    let crashed = Stage::over(store.shared(), policy.clone());
    crashed.work.by_default(Play::End(answered(500)));
    for name in ["canceled", "gone"] {
        crashed.start(name).await;
        crashed.backing_off(name).await;
    }
    let store = store.reopen().await;
    let stage = Stage::over(store.shared(), policy);
    assert_eq!(stage.recorder.recover().await.unwrap().resumed, 2);
    assert!(matches!(stage.recorder.cancel(&id("canceled")).await.unwrap(), Moved::Done(_)));
    assert_eq!(failed_as(&*stage.found("canceled").await), Some((ErrorKind::Canceled, true)));

    let store = store.reopen().await;
    let recorder = Recorder::new(store.shared());
    assert_eq!(recorder.recover().await.unwrap().interrupted, 1);
    assert_eq!(failed_as(&recorder.status(&id("gone")).await.unwrap().unwrap()), INTERRUPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_after_crash_changes_nothing_of_what_waits() {
    let policy = Policy { on_crash: OnCrash::Retry, ..policy() };
    let mut store = Kind::Embedded.open();
    let mut stage = Stage::over(store.shared(), policy.clone());
    stage.work.on("runs", [Play::Deaf]);
    stage.start("runs").await;
    for name in QUEUED {
        stage.start(name).await;
    }
    for crash in 0..5 {
        store = store.reopen().await;
        stage = Stage::over(store.shared(), policy.clone());
        if crash == 0 {
            // So that nothing begins, and what was cut off waits as the others do. The next ones find it paused.
            stage.pause(true).await;
        }
        let report = stage.recorder.recover().await.unwrap();
        let once = usize::from(crash == 0);
        assert_eq!(report, RecoveryReport { interrupted: once, launched_again: once, resumed: 6 - once });
    }
    stage.pause(false).await;
    for name in QUEUED.into_iter().chain(["runs"]) {
        let task = within("it goes on", stage.settled(name)).await;
        assert!(matches!(task.state, State::Success { .. }), "{task:?}");
        assert_eq!(task.run, if name == "runs" { 2 } else { 1 });
    }
    assert_eq!(stage.work.order(), ["q0", "q1", "q2", "q3", "q4", "runs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_leaves_what_waits_to_the_next_start() {
    let store = Kind::Embedded.open();
    let canceled = Outcome::failed(Failure::new(ErrorKind::Canceled, "it was told to end"));
    let stage = every_phase(&store, policy(), &Play::TakesItsTime(Duration::from_millis(50), canceled)).await;
    stage.work.on("ends", [Play::UntilTold(Outcome::success())]);
    stage.recorder.launch_in_lane(id("ends"), request("plain")).await.unwrap();
    within("it stops", stage.recorder.stop(Duration::from_millis(100))).await;
    let store = store.reopen().await;
    let stage = Stage::over(store.shared(), policy());
    let report = stage.recorder.recover().await.unwrap();
    assert_eq!(report, RecoveryReport { interrupted: 0, launched_again: 0, resumed: 6 });
    assert!(matches!(stage.found("ends").await.state, State::Success { .. }));
    assert_eq!(failed_as(&*stage.found("runs").await), Some((ErrorKind::Shutdown, true)));
    assert_eq!(failed_as(&*stage.found("cancels").await), Some((ErrorKind::Canceled, true)));
    let State::Success { undo: Some(Undo::Failed(failure)), .. } = &stage.found("revokes").await.state else {
        panic!("it has not failed")
    };
    assert_eq!(failure.kind, ErrorKind::Shutdown);
    for name in QUEUED.into_iter().chain(["backs-off"]) {
        let task = within("it goes on", stage.settled(name)).await;
        assert_eq!((task.run, task.failure()), (1, None), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_hear_of_the_end_is_left_to_the_next_start() {
    let store = Kind::Memory.open();
    let stage = Stage::over(store.shared(), Policy::default());
    stage.undo.by_default(Play::Deaf);
    stage.run("revokes").await;
    assert!(matches!(stage.recorder.revoke(&id("revokes")).await.unwrap(), Moved::Done(_)));
    stage.work.by_default(Play::Deaf);
    for name in ["runs", "cancels"] {
        stage.start(name).await;
    }
    assert!(matches!(stage.recorder.cancel(&id("cancels")).await.unwrap(), Moved::Done(_)));
    let begun = tokio::time::Instant::now();
    stage.recorder.stop(Duration::from_secs(20)).await;
    assert!(begun.elapsed() <= Duration::from_secs(29), "within 30 s of a container: {:?}", begun.elapsed());
    assert_eq!(stage.recorder.counts().total().working, 2);
    assert!(stage.found("revokes").await.is_revoking());
}
