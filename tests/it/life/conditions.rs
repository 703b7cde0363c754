//! Safe launches: every condition of a request in every state of its id.

use task_recorder::recorder::LaunchError;
use task_recorder::task::{ATTEMPTS_KEPT, Digest, HandlerName, Input, Match, Policy, Refusal, Request};

use super::{Play, Stage, held, one_at_once, refusal, refused_by_nobody, request, tried};
use crate::stores::{handler, id};

/// The states in which an id can be, in the order of the table.
const STATES: [&str; 8] =
    ["unknown", "queued", "running", "success", "revoking", "failed", "revoked", "forgotten"];

fn key(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn with_input(text: &'static str) -> Input {
    Input::new(None, text.into())
}

/// A stage with an id in each state, each launched with the key `first`.
async fn every_state() -> Stage {
    let stage = Stage::new(one_at_once());
    let first = async |name: &str| {
        let request = Request { key: Some(key("first")), ..request("h") };
        assert_eq!(refusal(stage.recorder.launch_in_lane(id(name), request).await), None);
    };
    stage.undo.on("revoking", [Play::Deaf]);
    for name in ["failed", "forgotten"] {
        stage.work.on(name, [refused_by_nobody()]);
    }
    for name in ["success", "revoking", "failed", "revoked", "forgotten"] {
        first(name).await;
        stage.settled(name).await;
    }
    for name in ["revoking", "revoked"] {
        stage.recorder.revoke(&id(name)).await.unwrap();
    }
    assert_eq!(stage.at_rest("revoked").await, None);
    stage.recorder.forget(&id("forgotten")).await.unwrap();
    let (_permits, play) = held();
    stage.work.on("running", [play]);
    first("running").await;
    first("queued").await;
    stage
}

#[tokio::test(start_paused = true)]
async fn each_condition_holds_in_each_state_as_the_table_says() {
    use Refusal::{HandlerMismatch, InputMismatch, Precondition, Revoking, SameRequest, Success, Working};
    let plain = || request("h");
    let any = Some(Match::Any);
    let wrong = Some(Match::Revisions(vec![77, 78]));
    // Without a condition: the table of the launch.
    let states = [None, Some(Working), Some(Working), Some(Success), Some(Revoking), None, None, None];
    let known = |refusal| states_with(states, |is_known, state| if is_known { Some(refusal) } else { state });
    let only_known = states_with(states, |is_known, state| if is_known { state } else { Some(Precondition) });
    let table = [
        ("no condition", plain(), states),
        ("another handler", request("plain"), known(HandlerMismatch)),
        ("the same key", Request { key: Some(key("first")), ..plain() }, known(SameRequest)),
        ("another key", Request { key: Some(key("second")), ..plain() }, states),
        ("if it is known", Request { if_match: any.clone(), ..plain() }, only_known),
        (
            "if it has another revision",
            Request { if_match: wrong.clone(), ..plain() },
            [Some(Precondition); 8],
        ),
        ("if it is unknown", Request { if_unknown: true, ..plain() }, known(Precondition)),
        ("with the same input", Request { if_same_input: true, ..plain() }, states),
        (
            "with another input",
            Request { if_same_input: true, input: with_input("another"), ..plain() },
            known(InputMismatch),
        ),
        // Whoever repeats a request that has launched it is told so, whatever has become of it meanwhile.
        (
            "the same request, once for an unknown id",
            Request { key: Some(key("first")), if_unknown: true, ..plain() },
            known(SameRequest),
        ),
        (
            "the same request, once for another revision",
            Request { key: Some(key("first")), if_match: wrong, ..plain() },
            states_with(
                [Some(Precondition); 8],
                |is_known, state| if is_known { Some(SameRequest) } else { state },
            ),
        ),
        (
            "the same key with another input",
            Request { key: Some(key("first")), if_same_input: true, input: with_input("another"), ..plain() },
            known(InputMismatch),
        ),
    ];
    for (what, request, expected) in table {
        // A stage for each: what is launched is not as it was.
        let stage = every_state().await;
        for (state, expected) in STATES.into_iter().zip(expected) {
            let before = stage.status(state).await;
            let launch = stage.recorder.launch_in_lane(id(state), request.clone()).await;
            assert_eq!(refusal(launch), expected, "{what}, {state}");
            let after = stage.status(state).await;
            assert_eq!(after == before, expected.is_some(), "{what}, {state}: {after:?}");
        }
    }
}

/// `unknown`, `revoked` and `forgotten` are not known.
fn states_with(
    states: [Option<Refusal>; 8],
    change: impl Fn(bool, Option<Refusal>) -> Option<Refusal>,
) -> [Option<Refusal>; 8] {
    std::array::from_fn(|n| change(!matches!(STATES[n], "unknown" | "revoked" | "forgotten"), states[n]))
}

#[tokio::test(start_paused = true)]
async fn a_launch_for_the_revision_that_was_seen_starts_once() {
    let stage = Stage::new(tried(1));
    stage.work.by_default(refused_by_nobody());
    let seen = stage.run("order").await.revision;
    let request = || Request { if_match: Some(Match::Revisions(vec![1, seen])), ..request("h") };
    assert_eq!(refusal(stage.recorder.launch_in_lane(id("order"), request()).await), None);
    let task = stage.settled("order").await;
    assert!(task.failure().is_some() && task.revision > seen);
    let again = stage.recorder.launch_in_lane(id("order"), request()).await;
    assert_eq!(refusal(again), Some(Refusal::Precondition));
    assert_eq!(stage.work.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_the_last_20_runs_are_known() {
    let stage = Stage::new(tried(1));
    stage.work.by_default(refused_by_nobody());
    let launch = async |n: usize| {
        let request = Request { key: Some(key(&format!("key-{n}"))), ..request("h") };
        let refusal = refusal(stage.recorder.launch_in_lane(id("order"), request).await);
        stage.settled("order").await;
        refusal
    };
    for n in 0..=ATTEMPTS_KEPT {
        assert_eq!(launch(n).await, None);
        // Neither a retry nor a launch without a key drops one.
        assert_eq!(refusal(stage.recorder.retry_in_lane(id("order"), None).await), None);
        stage.settled("order").await;
        stage.run("order").await;
    }
    for n in 1..=ATTEMPTS_KEPT {
        assert_eq!(launch(n).await, Some(Refusal::SameRequest), "key {n}");
    }
    assert_eq!(launch(0).await, None, "the oldest one is forgotten");
    assert_eq!(launch(1).await, None, "and so is the next, by the key of that launch");
}

#[tokio::test(start_paused = true)]
async fn a_handler_can_insist_on_the_same_input() {
    let stage = Stage::new(Policy { match_input: true, ..Policy::default() });
    stage.work.by_default(refused_by_nobody());
    stage.run("order").await;
    let with = |input| Request::new(handler("h"), with_input(input));
    let launch = async |input| stage.recorder.launch_in_lane(id("order"), with(input)).await;
    assert_eq!(refusal(launch("another").await), Some(Refusal::InputMismatch));
    assert_eq!(refusal(launch("the input").await), None);
    stage.settled("order").await;
    stage.recorder.forget(&id("order")).await.unwrap();
    assert_eq!(refusal(launch("another").await), None);

    let nobody = HandlerName::in_process();
    let unknown = Request::new(nobody, Input::empty());
    let unknown = stage.recorder.launch_in_lane(id("order"), unknown).await;
    assert_eq!(unknown.unwrap_err(), LaunchError::UnknownHandler);
}
