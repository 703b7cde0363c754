//! Which failures are followed by another attempt, when, and what is remembered of each.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use task_recorder::task::{
    Code, ErrorKind, Failure, Outcome, Phase, Policy, Refusal, Retry, State, StateName,
};

use super::{Play, Stage, answered, attempts_of, failed_as, refusal, refused_by_nobody, retry, tried};
use crate::stores::{failure, id};

/// How much later than asked for a timer may ring.
const LATE: Duration = Duration::from_millis(5);

/// The time between one attempt for this id and the next.
fn pauses(stage: &Stage, name: &str) -> Vec<Duration> {
    let at: Vec<_> =
        stage.work.calls().into_iter().filter(|call| call.id == name).map(|call| call.at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_by_the_factor_within_their_jitter_up_to_the_cap() {
    let seconds = Duration::from_secs;
    let retry = Retry {
        attempts: 7,
        initial: seconds(2),
        factor: 3.0,
        max_interval: seconds(60),
        ..Retry::default()
    };
    let stage = Stage::new(Policy { retry: Retry { jitter: 0.25, ..retry }, ..Policy::default() });
    stage.work.by_default(refused_by_nobody());
    let names: Vec<_> = (0..40).map(|n| format!("t{n}")).collect();
    for name in &names {
        stage.start(name).await;
    }
    let (mut first, mut last) = (BTreeSet::new(), BTreeSet::new());
    for name in &names {
        let task = stage.settled(name).await;
        assert_eq!(failed_as(&task), Some((ErrorKind::Refused, false)));
        assert_eq!(attempts_of(&task), (1..=7).map(|attempt| (1, attempt)).collect::<Vec<_>>());
        let pauses = pauses(&stage, name);
        first.insert(pauses[0]);
        last.insert(pauses[5]);
        for (pause, plain) in pauses.into_iter().zip([2, 6, 18, 54, 162, 486].map(seconds)) {
            let (shortest, longest) = (plain.min(seconds(60)).mul_f64(0.75), plain.mul_f64(1.25));
            assert!(pause >= shortest, "{pause:?} after {plain:?}");
            assert!(pause <= longest.min(seconds(60)) + LATE, "{pause:?} after {plain:?}");
        }
    }
    assert!(first.len() > 20, "the pauses of 40 tasks are spread: {first:?}");
    let (shortest, longest) = (first.first().unwrap(), first.last().unwrap());
    assert!(*shortest < Duration::from_millis(1_800) && *longest > Duration::from_millis(2_200), "{first:?}");
    assert!(last.len() > 20, "those at the cap too: {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_a_pause_gets_it_up_to_the_cap() {
    let stage = Stage::new(tried(2));
    for (asked, pause) in [(None, 1), (Some(0), 1), (Some(7), 7), (Some(10), 10), (Some(86_400), 10)] {
        let name = format!("asked-{asked:?}").replace(['(', ')'], "_");
        let retry_after = asked.map(Duration::from_secs);
        stage.work.on(&name, [Play::End(Outcome { retry_after, ..answered(429) })]);
        let task = stage.run(&name).await;
        assert_eq!((failed_as(&task), task.attempts.len()), (Some((ErrorKind::Status, false)), 2));
        let pauses = pauses(&stage, &name);
        let pause = Duration::from_secs(pause);
        assert!(pauses[0] >= pause && pauses[0] <= pause + LATE, "{asked:?}: {pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_certainly_had_no_effect_is_tried_again_unless_doubt_is_allowed() {
    let timeout = ErrorKind::Timeout;
    let before_sending = |kind| Outcome::failed(Failure::without_effect(kind, "nothing was sent"));
    let (always, with_doubt, never) = ((3, 3), (1, 3), (1, 1));
    let table = [
        ("refused", failure(ErrorKind::Refused), always),
        ("dns", failure(ErrorKind::Dns), always),
        ("tls", failure(ErrorKind::Tls), always),
        ("spawn", failure(ErrorKind::Spawn), always),
        ("503", answered(503), always),
        ("429", answered(429), always),
        ("timeout-connecting", before_sending(timeout), always),
        ("timeout", failure(timeout), with_doubt),
        ("lost-connecting", before_sending(ErrorKind::ConnectionLost), always),
        ("lost", failure(ErrorKind::ConnectionLost), with_doubt),
        ("500", answered(500), with_doubt),
        ("502", answered(502), with_doubt),
        ("504", answered(504), with_doubt),
        ("202", answered(202), with_doubt),
        ("600", answered(600), with_doubt),
        ("body", failure(ErrorKind::Body), with_doubt),
        ("signal", failure(ErrorKind::Signal), with_doubt),
        ("exit", Outcome { code: Some(Code::ExitCode(1)), ..failure(ErrorKind::ExitCode) }, with_doubt),
        ("error", failure(ErrorKind::Error), with_doubt),
        ("egress", failure(ErrorKind::Egress), never),
        ("302", answered(302), never),
        ("404", answered(404), never),
        ("410", answered(410), never),
        ("canceled", failure(ErrorKind::Canceled), never),
        ("interrupted", failure(ErrorKind::Interrupted), never),
        ("shutdown", failure(ErrorKind::Shutdown), never),
    ];
    for in_doubt in [false, true] {
        let policy = Policy { retry: Retry { in_doubt, ..retry(3) }, ..Policy::default() };
        let stage = Stage::new(policy);
        for (name, outcome, attempts) in &table {
            let expected = if in_doubt { attempts.1 } else { attempts.0 };
            stage.work.on(name, [Play::End(outcome.clone())]);
            let task = stage.run(name).await;
            assert_eq!(
                (stage.work.count(name), task.attempts.len()),
                (expected, expected),
                "{name} {in_doubt}"
            );
            assert_eq!(task.failure(), outcome.result.as_ref().err(), "{name}");
        }
        stage.work.on("panic", [Play::Panic]);
        let task = stage.run("panic").await;
        assert_eq!(failed_as(&task), Some((ErrorKind::Panic, true)));
        assert_eq!(task.attempts.len(), if in_doubt { 3 } else { 1 });
        // Every kind has its place in the table.
        let seen: BTreeSet<_> = table
            .iter()
            .filter_map(|(_, outcome, _)| Some(outcome.result.as_ref().err()?.kind.as_str()))
            .collect();
        let all: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(all.difference(&seen).collect::<Vec<_>>(), [&"panic"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_until_an_attempt_succeeds() {
    let stage = Stage::new(tried(5));
    let plays = [Play::End(answered(503)), refused_by_nobody(), Play::End(Outcome::success())];
    stage.work.on("order", plays);
    let before = Timestamp::now();
    stage.start("order").await;

    let waiting = stage.backing_off("order").await;
    assert_eq!((waiting.state_name(), waiting.attempt(), waiting.run), (StateName::Working, Some(2), 1));
    let Some(Phase::BackingOff { next_attempt_at }) = waiting.phase() else { unreachable!() };
    let pause = next_attempt_at.duration_since(before);
    assert!(pause >= SignedDuration::from_secs(1) && pause < SignedDuration::from_secs(20), "{pause}");
    assert_eq!(stage.counts().backing_off, 1);
    assert_eq!(stage.counts().running, 0, "who backs off takes no place");
    assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Working));

    let task = stage.settled("order").await;
    assert!(matches!(task.state, State::Success { .. }));
    assert_eq!(attempts_of(&task), [(1, 1), (1, 2), (1, 3)]);
    let outcomes: Vec<_> =
        task.attempts.iter().map(|one| one.failure.as_ref().map(|failure| failure.kind)).collect();
    assert_eq!(outcomes, [Some(ErrorKind::Status), Some(ErrorKind::Refused), None]);
    assert_eq!(task.attempts[0].code, Some(Code::HttpStatus(503)));
    assert!(task.attempts.iter().all(|attempt| attempt.started <= attempt.ended));
    let numbers: Vec<_> = stage.work.calls().iter().map(|call| (call.run, call.attempt)).collect();
    assert_eq!(numbers, [(1, 1), (1, 2), (1, 3)], "what the handler is told");
    assert_eq!(refusal(stage.launch("order").await), Some(Refusal::Success));
}

#[tokio::test(start_paused = true)]
async fn the_last_20_attempts_of_all_runs_are_remembered() {
    let stage = Stage::new(tried(12));
    stage.work.by_default(refused_by_nobody());
    assert_eq!(attempts_of(&*stage.run("order").await).len(), 12);
    assert_eq!(refusal(stage.recorder.retry_in_lane(id("order"), None).await), None);
    let task = stage.settled("order").await;
    let expected: Vec<_> = (5..=12).map(|n| (1, n)).chain((1..=12).map(|n| (2, n))).collect();
    assert_eq!(attempts_of(&task), expected);
    assert!(stage.work.calls().iter().all(|call| call.input == "the input"), "a retry has the stored input");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_handler_that_is_gone_fails_in_doubt_only_if_an_attempt_was() {
    let policy = Policy { retry: Retry { in_doubt: true, ..retry(3) }, ..Policy::default() };
    let stage = Stage::new(policy);
    let ids = [("doubt", 500, true), ("certain", 503, false)];
    for (name, code, _) in ids {
        stage.work.on(name, [Play::End(answered(code))]);
        stage.start(name).await;
        stage.backing_off(name).await;
    }
    stage.recorder.reload(Vec::new()).await.unwrap();
    for (name, _, in_doubt) in ids {
        assert_eq!(
            failed_as(&*stage.settled(name).await),
            Some((ErrorKind::Interrupted, in_doubt)),
            "{name}"
        );
    }
}
