//! Who starts when: concurrency, the queue, the rate, pause and resume.

use std::sync::Arc;
use std::time::Duration;

use task_recorder::recorder::{Launch, LaunchError};
use task_recorder::task::{Digest, ErrorKind, Outcome, Phase, Policy, Rate, Refusal, Request};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{
    Play, Stage, answered, failed_as, held, one_at_once, refusal, refused_by_nobody, request, retry,
};
use crate::stores::{failure, handler, id};
use crate::support::within;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("t{n}")).collect()
}

/// When each attempt began, from the first one on.
fn begun(stage: &Stage) -> Vec<Duration> {
    let calls = stage.work.calls();
    calls.iter().map(|call| call.at - calls[0].at).collect()
}

#[tokio::test(start_paused = true)]
async fn never_more_run_at_once_than_are_allowed() {
    let stage = Stage::new(Policy { concurrency: 3, retry: retry(3), ..Policy::default() });
    let names = names(60);
    for (n, name) in names.iter().enumerate() {
        let ok = Play::After(Duration::from_millis(n as u64 * 37 % 101), Outcome::success());
        match n % 5 {
            0 => stage.work.on(name, [Play::End(answered(503)), ok]),
            1 => stage.work.on(name, [Play::Panic]),
            2 => stage.work.on(name, [Play::After(Duration::from_secs(2), failure(ErrorKind::Timeout))]),
            _ => stage.work.on(name, [ok]),
        }
        stage.start(name).await;
    }
    for (n, name) in names.iter().enumerate() {
        assert_eq!(stage.settled(name).await.failure().is_some(), matches!(n % 5, 1 | 2), "{name}");
    }
    assert_eq!(stage.work.peak(), 3);
    assert_eq!(stage.work.calls().len(), 60 + 12);
    tokio::task::yield_now().await;
    assert_eq!(stage.counts(), task_recorder::recorder::LaneCounts::default(), "every place came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_run_at_once_than_are_allowed_on_several_threads() {
    let stage = Arc::new(Stage::new(Policy { concurrency: 4, ..Policy::default() }));
    stage.work.by_default(Play::After(Duration::from_millis(1), Outcome::success()));
    let mut launchers = JoinSet::new();
    for launcher in 0..16 {
        let stage = Arc::clone(&stage);
        launchers.spawn(async move {
            for n in 0..30 {
                stage.start(&format!("t{launcher}-{n}")).await;
            }
        });
    }
    launchers.join_all().await;
    stage.work.wait_for(480).await;
    assert_eq!(stage.work.peak(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_started_in_the_order_of_launch() {
    let stage = Stage::new(one_at_once());
    let (permits, play) = held();
    stage.work.by_default(play);
    let names = names(50);
    for (n, name) in names.iter().enumerate() {
        let phase = stage.start(name).await.phase();
        assert_eq!(phase, Some(if n == 0 { Phase::Running } else { Phase::Queued }));
    }
    stage.work.wait_for(1).await;
    assert_eq!((stage.counts().running, stage.counts().queued), (1, 49));
    permits.add_permits(50);
    for name in &names {
        stage.settled(name).await;
    }
    assert_eq!(stage.work.order(), names);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_launches_and_tells_duplicates_how_they_stand() {
    let stage = Stage::new(Policy { queue_max: 2, ..one_at_once() });
    let key = Some(Digest::of(b"a key"));
    let with_key = || Request { key, ..request("h") };
    stage.work.on("bad", [Play::End(failure(ErrorKind::Timeout))]);
    stage.run("bad").await;
    stage.recorder.launch_in_lane(id("good"), with_key()).await.unwrap();
    stage.settled("good").await;

    let (permits, play) = held();
    stage.work.by_default(play);
    for name in ["a", "b", "c"] {
        stage.start(name).await;
    }
    for _ in 0..3 {
        assert_eq!(stage.launch("d").await.unwrap_err(), LaunchError::QueueFull);
        assert_eq!(stage.status("d").await, None, "nothing has changed");
        let retry = stage.recorder.retry_in_lane(id("bad"), None).await;
        assert_eq!(retry.unwrap_err(), LaunchError::QueueFull);
        for working in ["a", "b", "c"] {
            assert_eq!(refusal(stage.launch(working).await), Some(Refusal::Working));
        }
        assert_eq!(refusal(stage.launch("good").await), Some(Refusal::Success));
        let again = stage.recorder.launch_in_lane(id("good"), with_key()).await;
        assert_eq!(refusal(again), Some(Refusal::SameRequest));
        let retry = stage.recorder.retry_in_lane(id("good"), None).await;
        assert_eq!(refusal(retry), Some(Refusal::NotFailed));
        let unknown = Request { if_unknown: true, ..request("h") };
        let launch = stage.recorder.launch_in_lane(id("bad"), unknown).await;
        assert_eq!(refusal(launch), Some(Refusal::Precondition));
        // A queue is full for its own handler only.
        assert_eq!(
            refusal(stage.recorder.launch_in_lane(id("a"), request("plain")).await),
            Some(Refusal::HandlerMismatch)
        );
    }
    permits.add_permits(1);
    stage.settled("a").await;
    stage.work.wait_for(4).await;
    stage.start("d").await;
    assert_eq!(stage.launch("e").await.unwrap_err(), LaunchError::QueueFull);
    permits.add_permits(3);
    stage.settled("d").await;
    assert_eq!(stage.work.order()[2..], ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_holds_no_place_in_the_queue_once_it_is_told() {
    let stage = Stage::new(Policy { queue_max: 1, ..one_at_once() });
    stage.work.by_default(held().1);
    stage.start("a").await;
    for _ in 0..2_000 {
        assert_eq!(refusal(stage.launch("a").await), Some(Refusal::Working));
        stage.start("b").await;
        stage.recorder.cancel(&id("b")).await.unwrap();
        stage.settled("b").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_takes_exactly_as_many_as_it_says() {
    for _ in 0..100 {
        let stage = Arc::new(Stage::new(Policy { queue_max: 10, ..one_at_once() }));
        stage.pause(true).await;
        let barrier = Arc::new(Barrier::new(16));
        let mut launchers = JoinSet::new();
        for n in 0..16 {
            let (stage, barrier) = (Arc::clone(&stage), Arc::clone(&barrier));
            launchers.spawn(async move {
                barrier.wait().await;
                match stage.launch(&format!("t{n}")).await {
                    Ok(Launch::Started(_)) => true,
                    Err(LaunchError::QueueFull) => false,
                    other => panic!("{other:?}"),
                }
            });
        }
        let accepted = launchers.join_all().await.into_iter().filter(|is_accepted| *is_accepted).count();
        assert_eq!((accepted, stage.counts().queued), (10, 10));
    }
}

#[tokio::test(start_paused = true)]
async fn starts_keep_the_rate_and_are_not_saved_up() {
    let rate = Some(Rate { starts: 10, per: Duration::from_secs(1) });
    let stage = Stage::new(Policy { rate, ..Policy::default() });
    for name in names(25) {
        stage.start(&name).await;
    }
    stage.work.wait_for(25).await;
    for (n, at) in begun(&stage).into_iter().enumerate() {
        let (due, late) = (Duration::from_millis(n as u64 * 100), Duration::from_millis(10));
        assert!(at >= due && at <= due + late, "start {n} came at {at:?}");
    }
    // A quiet time gives no right to a burst.
    tokio::time::sleep(Duration::from_mins(1)).await;
    let before = begun(&stage).len();
    for n in 0..5 {
        stage.start(&format!("later-{n}")).await;
    }
    stage.work.wait_for(before + 5).await;
    // But for the few milliseconds by which a timer may be late.
    let begun = &begun(&stage)[before..];
    assert!(begun.windows(2).all(|pair| pair[1] >= pair[0] + Duration::from_millis(90)), "{begun:?}");
}

#[tokio::test(start_paused = true)]
async fn a_high_rate_is_reached_although_timers_are_coarse() {
    let rate = Some(Rate { starts: 10_000, per: Duration::from_secs(1) });
    let stage = Stage::new(Policy { rate, ..Policy::default() });
    for name in names(2_000) {
        stage.start(&name).await;
    }
    stage.work.wait_for(2_000).await;
    let took = *begun(&stage).last().unwrap();
    let (least, most) = (Duration::from_millis(190), Duration::from_millis(260));
    assert!(took >= least && took <= most, "2,000 starts at 10,000 a second took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_count_as_starts_and_refused_launches_do_not() {
    let rate = Some(Rate { starts: 1, per: Duration::from_mins(1) });
    let stage = Stage::new(Policy { rate, retry: retry(2), ..Policy::default() });
    stage.work.on("order", [refused_by_nobody(), Play::End(Outcome::success())]);
    stage.run("order").await;
    assert!(begun(&stage)[1] >= Duration::from_mins(1), "the second attempt waited for the rate");

    tokio::time::sleep(Duration::from_mins(5)).await;
    for _ in 0..10 {
        assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Success));
    }
    let now = Instant::now();
    stage.run("another").await;
    assert!(now.elapsed() < Duration::from_secs(1), "it started after {:?}", now.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_comes_back_whatever_became_of_its_run() {
    let stage = Stage::new(one_at_once());
    stage.run("done").await;
    for turn in 0..20 {
        let name = format!("t{turn}");
        match turn % 4 {
            0 => stage.work.on(&name, [Play::Panic]),
            1 => stage.work.on(&name, [Play::End(failure(ErrorKind::Timeout))]),
            2 => assert_eq!(refusal(stage.launch("done").await), Some(Refusal::Success)),
            _ => stage.work.on(&name, [Play::UntilTold(Outcome::success())]),
        }
        let phase = stage.start(&name).await.phase();
        if turn % 4 == 3 {
            stage.recorder.cancel(&id(&name)).await.unwrap();
        }
        let task = stage.settled(&name).await;
        assert_eq!(phase, Some(Phase::Running), "{name} had to wait");
        let panicked = Some((ErrorKind::Panic, true));
        assert_eq!(failed_as(&task) == panicked, turn % 4 == 0, "{task:?}");
        stage.once(&name, |_| stage.counts().running == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_handler_accepts_and_starts_nothing_until_it_is_resumed() {
    let stage = Stage::new(Policy { retry: retry(2), ..one_at_once() });
    stage.work.on("tried", [refused_by_nobody(), Play::End(Outcome::success())]);
    stage.start("tried").await;
    stage.backing_off("tried").await;
    stage.pause(true).await;
    let names = names(5);
    for name in &names {
        assert_eq!(stage.start(name).await.phase(), Some(Phase::Queued));
    }
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(stage.work.order(), ["tried"]);
    assert!(stage.counts().is_paused);
    // Another handler does not mind.
    stage.recorder.launch_in_lane(id("plain"), request("plain")).await.unwrap();
    within("the other handler runs", stage.settled("plain")).await;
    stage.pause(false).await;
    for name in &names {
        stage.settled(name).await;
    }
    assert_eq!(stage.work.order()[2..], ["tried", "t0", "t1", "t2", "t3", "t4"]);
    assert!(!stage.counts().is_paused);
    assert!(!stage.recorder.pause(&handler("nobody"), true).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_stuck_holds_up_no_other() {
    let stage = Stage::new(one_at_once());
    stage.work.by_default(Play::UntilTold(Outcome::success()));
    for name in names(100) {
        stage.start(&name).await;
    }
    for n in 0..100 {
        let name = format!("plain-{n}");
        stage.work.on(&name, [Play::End(Outcome::success())]);
        stage.recorder.launch_in_lane(id(&name), request("plain")).await.unwrap();
        stage.settled(&name).await;
    }
    assert_eq!(stage.counts().queued, 99);
}
