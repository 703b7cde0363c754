//! Revoke with an action of the handler, and without one; forget.

use std::sync::Arc;
use std::time::Duration;

use task_recorder::store::{Moved, Refused};
use task_recorder::task::{ErrorKind, Outcome, Policy, Refusal, Retry, State, Task, Undo};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{Play, Stage, answered, held, refusal, refused_by_nobody, request, retry, tried};
use crate::stores::{failure, id};
use crate::support::within;

async fn revoke(stage: &Stage, name: &str) -> Result<Arc<Task>, Refusal> {
    answer(stage.recorder.revoke(&id(name)).await.unwrap())
}

async fn forget(stage: &Stage, name: &str) -> Result<Arc<Task>, Refusal> {
    answer(stage.recorder.forget(&id(name)).await.unwrap())
}

fn answer(moved: Moved) -> Result<Arc<Task>, Refusal> {
    match moved {
        Moved::Done(task) => Ok(task),
        Moved::Refused(Refused { reason, .. }) => Err(reason),
    }
}

/// Why the success could not be undone.
fn revoke_error(task: &Task) -> (ErrorKind, bool) {
    match &task.state {
        State::Success { undo: Some(Undo::Failed(failure)), .. } => (failure.kind, failure.in_doubt),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_is_undone_by_the_action_and_not_found_afterwards() {
    let stage = Stage::new(tried(1));
    let (permits, play) = held();
    stage.undo.on("order", [play]);
    stage.run("order").await;
    assert!(revoke(&stage, "order").await.unwrap().is_revoking());
    stage.undo.wait_for(1).await;

    // Meanwhile it is a success that nobody can do anything with.
    assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Revoking));
    assert_eq!(refusal(stage.recorder.retry_in_lane(id("order"), None).await), Some(Refusal::NotFailed));
    assert_eq!(revoke(&stage, "order").await, Err(Refusal::Revoking));
    assert_eq!(forget(&stage, "order").await, Err(Refusal::NotFailed));
    let cancel = answer(stage.recorder.cancel(&id("order")).await.unwrap());
    assert_eq!(cancel, Err(Refusal::NotWorking));
    assert!(stage.found("order").await.is_revoking());
    assert_eq!(stage.work.count("order"), 1);

    permits.add_permits(1);
    assert_eq!(stage.at_rest("order").await, None);
    assert_eq!(revoke(&stage, "order").await, Err(Refusal::NotFound));
    let call = &stage.undo.calls()[0];
    assert_eq!((call.run, call.attempt, &call.input[..]), (1, 1, &b"the input"[..]));
    let again = stage.run("order").await;
    assert_eq!((again.run, again.revoked, again.attempts.len()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn where_the_action_fails_the_success_stands_and_may_be_revoked_again() {
    let stage = Stage::new(tried(3));
    stage.run("order").await;
    for (play, calls, expected) in [
        (Play::End(answered(500)), 1, (ErrorKind::Status, true)),
        (Play::End(answered(404)), 1, (ErrorKind::Status, false)),
        (Play::Panic, 1, (ErrorKind::Panic, true)),
        (refused_by_nobody(), 3, (ErrorKind::Refused, false)),
    ] {
        let before = stage.undo.count("order");
        stage.undo.on("order", [play]);
        revoke(&stage, "order").await.unwrap();
        let task = stage.settled("order").await;
        assert_eq!((revoke_error(&task), stage.undo.count("order") - before), (expected, calls));
        assert_eq!((task.run, task.revoked), (1, 0));
        assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Success));
    }
    stage.undo.on("order", [Play::End(answered(503)), Play::End(Outcome::success())]);
    revoke(&stage, "order").await.unwrap();
    assert_eq!(stage.at_rest("order").await, None, "the action is tried as the policy says");
    assert_eq!(stage.work.count("order"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_to_undo_may_have_done_leaves_the_revoke_in_doubt() {
    let stage = Stage::new(Policy { retry: Retry { in_doubt: true, ..retry(3) }, ..Policy::default() });
    stage.run("order").await;
    // Each revoke is in doubt about its own attempts only.
    for (plays, calls, in_doubt) in [(&[500, 503, 404][..], 3, true), (&[503, 404], 2, false)] {
        let before = stage.undo.count("order");
        stage.undo.on("order", plays.iter().map(|code| Play::End(answered(*code))));
        revoke(&stage, "order").await.unwrap();
        let task = stage.settled("order").await;
        assert_eq!(revoke_error(&task), (ErrorKind::Status, in_doubt));
        assert_eq!(stage.undo.count("order") - before, calls);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_action_a_success_is_gone_at_once() {
    let stage = Stage::new(Policy::default());
    stage.recorder.launch_in_lane(id("order"), request("plain")).await.unwrap();
    stage.settled("order").await;
    let absent = revoke(&stage, "order").await.unwrap();
    assert!(!absent.is_revoking());
    assert_eq!(stage.status("order").await, None);
    // Nor is it bound to its handler any more.
    assert_eq!(stage.run("order").await.run, 2);
    assert_eq!(stage.undo.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_a_success_is_revoked_and_only_a_failure_is_forgotten() {
    let stage = Stage::new(tried(1));
    let (permits, play) = held();
    stage.work.on("works", [play]);
    stage.work.on("bad", [refused_by_nobody()]);
    stage.start("works").await;
    stage.run("bad").await;
    stage.run("good").await;
    for (name, revoked, forgotten) in [
        ("works", Some(Refusal::NotSuccess), Some(Refusal::NotFailed)),
        ("unknown", Some(Refusal::NotFound), Some(Refusal::NotFound)),
        ("bad", Some(Refusal::NotSuccess), None),
        ("good", None, Some(Refusal::NotFailed)),
    ] {
        let before = stage.status(name).await;
        for (answer, expected) in [
            (if revoked.is_some() { Some(revoke(&stage, name).await) } else { None }, revoked),
            (if forgotten.is_some() { Some(forget(&stage, name).await) } else { None }, forgotten),
        ] {
            assert_eq!(answer.and_then(Result::err), expected, "{name}");
        }
        assert_eq!(stage.status(name).await, before);
    }
    forget(&stage, "bad").await.unwrap();
    assert_eq!(stage.status("bad").await, None);
    assert_eq!(forget(&stage, "bad").await, Err(Refusal::NotFound));
    assert_eq!(refusal(stage.recorder.retry_in_lane(id("bad"), None).await), Some(Refusal::NotFound));
    stage.work.on("bad", [Play::End(Outcome::success())]);
    let again = stage.run("bad").await;
    assert_eq!(
        (again.run, again.attempts.len()),
        (2, 1),
        "the number of the run goes on, its attempts are gone"
    );
    permits.add_permits(1);
    stage.settled("works").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_revokes_at_once_exactly_one_is_done_and_launches_wait_for_its_end() {
    let stage = Arc::new(Stage::new(tried(1)));
    for turn in 0..40 {
        let name = format!("t{turn}");
        let (permits, play) = held();
        let is_failing = turn % 4 == 3;
        stage.undo.on(&name, [if is_failing { Play::End(failure(ErrorKind::Timeout)) } else { play }]);
        stage.run(&name).await;
        let barrier = Arc::new(Barrier::new(128));
        let mut callers = JoinSet::new();
        for caller in 0..128 {
            let (stage, name, barrier) = (Arc::clone(&stage), name.clone(), Arc::clone(&barrier));
            callers.spawn(async move {
                barrier.wait().await;
                if caller % 2 == 0 {
                    let refusal = refusal(stage.launch(&name).await);
                    assert!(matches!(refusal, Some(Refusal::Success | Refusal::Revoking)), "{refusal:?}");
                    return 0;
                }
                match revoke(&stage, &name).await {
                    Ok(_) => 1,
                    Err(Refusal::Revoking) => 0,
                    Err(other) => panic!("{other:?}"),
                }
            });
        }
        let done: usize = callers.join_all().await.into_iter().sum();
        if is_failing {
            // Each that begins after the end of the one before it is a revoke of its own.
            assert!(done >= 1, "{name}");
            within("it ends", stage.settled(&name)).await;
            assert_eq!(stage.undo.count(&name), done);
            continue;
        }
        assert_eq!((done, stage.work.count(&name)), (1, 1), "{name}");
        permits.add_permits(1);
        assert_eq!(within("it ends", stage.at_rest(&name)).await, None);
        assert_eq!(stage.undo.count(&name), 1);
        assert_eq!(within("it runs", stage.run(&name)).await.run, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_that_hangs_ends_with_the_recorder_and_the_success_stands() {
    let stage = Stage::new(tried(3));
    stage.undo.by_default(Play::UntilTold(failure(ErrorKind::Canceled)));
    stage.run("order").await;
    revoke(&stage, "order").await.unwrap();
    stage.undo.wait_for(1).await;
    stage.recorder.stop(Duration::from_secs(5)).await;
    assert_eq!(revoke_error(&*stage.found("order").await), (ErrorKind::Shutdown, true));

    // One that waits for its next attempt does not hold the stop up.
    let stage = Stage::new(tried(3));
    stage.undo.by_default(refused_by_nobody());
    stage.run("order").await;
    revoke(&stage, "order").await.unwrap();
    stage.undo.wait_for(1).await;
    let begun = tokio::time::Instant::now();
    stage.recorder.stop(Duration::from_hours(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(revoke_error(&*stage.found("order").await), (ErrorKind::Refused, false));
}
