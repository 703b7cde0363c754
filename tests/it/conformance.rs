//! What every store has to do, whatever it is made of: one list of checks, run against each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use task_recorder::store::{Claim, Claimed, Filter, Health, Order, Query, StateCounts, Store, StoreError};
use task_recorder::task::{
    ATTEMPTS_KEPT, Change, Digest, ErrorKind, Failure, Input, Outcome, Refusal, Request, State, StateName,
    Task, TaskId, Undo,
};
use tokio::sync::Barrier;

use crate::stores::{
    Kind, Moves as _, RETRY, TestStore, assert_counts_agree, attempt, claim, done, failure, handler, id,
    in_states, launch, launch_with, list_all, list_ids, not_started, output, query, reason, refused, run,
    settle, started, success, without_bytes,
};

/// Makes a test of each check for each store. Only a macro can make functions.
macro_rules! every_store {
    ($($check:ident,)*) => {
        every_store!(@ memory, Kind::Memory; $($check)*);
        every_store!(@ embedded, Kind::Embedded; $($check)*);
        every_store!(@ embedded_that_archives_at_once, Kind::Tiny(0); $($check)*);
        every_store!(@ embedded_that_archives_soon, Kind::Tiny(4); $($check)*);
    };
    (@ $name:ident, $kind:expr; $($check:ident)*) => {
        mod $name {
            use crate::stores::Kind;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    super::$check($kind.open()).await;
                }
            )*
        }
    };
}

every_store! {
    every_move_is_made_or_refused_as_the_table_says,
    a_refusal_shows_the_record_that_stands_in_the_way,
    a_record_is_read_back_as_it_was_written,
    numbers_go_on_counting_over_revoke_and_forget,
    details_are_dropped_in_place_and_the_rest_stays,
    a_failed_task_without_its_input_is_launched_again_with_one,
    what_is_not_at_rest_keeps_everything,
    an_expired_record_is_not_found_and_its_numbers_go_on,
    a_task_keeps_its_last_attempts,
    exactly_one_of_many_claims_starts,
    exactly_one_of_many_settles_of_one_run_counts,
    exactly_one_of_many_revokes_is_done,
    bytes_survive,
    a_retry_has_the_input_of_the_launch,
    every_filter_narrows_a_list,
    a_list_is_in_order_and_every_limit_gives_the_same_tasks,
    a_cursor_may_be_any_number,
    a_list_of_several_states_is_in_order,
    a_relaunched_task_is_listed_once_at_its_new_place,
    many_relaunched_tasks_hide_none_behind_them,
    paging_over_a_changing_store_misses_no_task_that_stayed,
    list_status_and_counts_agree,
    runs_that_nobody_works_on_are_found,
    a_closed_store_writes_nothing,
}

const STATES: [&str; 6] = ["unknown", "working", "success", "failed", "revoked", "forgotten"];

/// Brings an unknown id into a state; gives the claim of one that is working.
async fn bring(store: &dyn Store, task: &TaskId, state: &str) -> Option<Claim> {
    match state {
        "unknown" => {}
        "working" => return Some(claim(store, task, launch("in")).await),
        "success" => drop(run(store, task, success()).await),
        "failed" => drop(run(store, task, failure(ErrorKind::Error)).await),
        "dropped" => {
            let failed = run(store, task, failure(ErrorKind::Error)).await;
            done(store.drop_details(&failed).await.unwrap());
        }
        "revoked" => {
            run(store, task, success()).await;
            done(store.revoke(task).await.unwrap());
        }
        "forgotten" => {
            run(store, task, failure(ErrorKind::Error)).await;
            done(store.forget(task).await.unwrap());
        }
        other => panic!("no state {other}"),
    }
    None
}

/// Asks for a move by its name. `Ok` holds the record as it is now.
async fn ask(
    store: &dyn Store,
    task: &TaskId,
    change: &str,
) -> Result<Arc<Task>, task_recorder::store::Refused> {
    let claimed = |claimed: Claimed| match claimed {
        Claimed::Started(claim) => Ok(Arc::clone(claim.task())),
        Claimed::Refused(refused) => Err(refused),
    };
    let moved = |moved| match moved {
        task_recorder::store::Moved::Done(task) => Ok(task),
        task_recorder::store::Moved::Refused(refused) => Err(refused),
    };
    match change {
        "launch" => claimed(store.claim(task, launch("new")).await.unwrap()),
        "launch by another handler" => claimed(store.claim(task, launch_with("k", "new")).await.unwrap()),
        "retry" => claimed(store.claim(task, RETRY).await.unwrap()),
        "revoke" => moved(store.revoke(task).await.unwrap()),
        "forget" => moved(store.forget(task).await.unwrap()),
        "drop details" | "expire" => {
            let entered = store.get(task).await.unwrap().map_or(1, |task| task.entered);
            let is_drop = change == "drop details";
            let change = if is_drop { Change::DropDetails { entered } } else { Change::Expire { entered } };
            moved(store.change(task, change).await.unwrap())
        }
        other => panic!("no change {other}"),
    }
}

async fn every_move_is_made_or_refused_as_the_table_says(store: TestStore) {
    use Refusal::{
        DetailsDropped, HandlerMismatch, InputDropped, NotFailed, NotFound, NotSuccess, Success, Working,
    };
    let unknown = Some(NotFound);
    let mismatch = Some(HandlerMismatch);
    let free = [None, None, unknown, unknown, unknown, unknown, unknown];
    let table = [
        ("unknown", free),
        (
            "working",
            [
                Some(Working),
                mismatch,
                Some(NotFailed),
                Some(NotSuccess),
                Some(NotFailed),
                Some(Working),
                Some(Working),
            ],
        ),
        ("success", [Some(Success), mismatch, Some(NotFailed), None, Some(NotFailed), None, None]),
        ("failed", [None, mismatch, None, Some(NotSuccess), None, None, None]),
        ("dropped", [None, mismatch, Some(InputDropped), Some(NotSuccess), None, Some(DetailsDropped), None]),
        ("revoked", free),
        ("forgotten", free),
    ];
    let changes =
        ["launch", "launch by another handler", "retry", "revoke", "forget", "drop details", "expire"];
    let mut cases = Vec::new();
    for (state, refusals) in table {
        for (change, refusal) in changes.into_iter().zip(refusals) {
            let task = id(&format!("{state}-{}", change.replace(' ', "-")));
            let claim = bring(&*store, &task, state).await;
            cases.push((task, state, change, refusal, claim));
        }
    }
    store.at_rest().await;
    for (task, state, change, refusal, _claim) in &cases {
        let case = format!("{change} of {state}");
        let before = store.get(task).await.unwrap();
        let answer = ask(&*store, task, change).await;
        let after = store.get(task).await.unwrap();
        assert_eq!(reason(&answer), *refusal, "{case}");
        match answer {
            Err(_) => assert_eq!(after, before, "{case}: a refusal changes nothing"),
            Ok(now) if now.state == State::Absent => assert_eq!(after, None, "{case}"),
            Ok(now) if *change == "drop details" => {
                assert_eq!(now.state_name().as_str(), *state, "{case}");
                assert_eq!(after.as_deref(), Some(&*now), "{case}");
            }
            Ok(now) => {
                assert!(now.is_working(), "{case}");
                assert_eq!(after.as_deref(), Some(&*now), "{case}");
                let input = if *change == "retry" { "in" } else { "new" };
                assert_eq!(now.input.bytes, input, "{case}");
            }
        }
    }
}

async fn a_refusal_shows_the_record_that_stands_in_the_way(store: TestStore) {
    for state in STATES {
        bring(&*store, &id(state), state).await;
    }
    store.at_rest().await;
    for state in STATES {
        let task = id(state);
        let now = store.get(&task).await.unwrap();
        assert_eq!(now.is_some(), ["working", "success", "failed"].contains(&state), "{state}");
        for change in ["retry", "revoke", "forget", "launch by another handler"] {
            let is_refused = now.is_some() == (change == "launch by another handler");
            if is_refused {
                assert_eq!(ask(&*store, &task, change).await.unwrap_err().task, now, "{change} of {state}");
            }
        }
    }
}

async fn a_record_is_read_back_as_it_was_written(store: TestStore) {
    let failed = Outcome {
        retry_after: None,
        code: Some(task_recorder::task::Code::HttpStatus(500)),
        output: Some(output("out")),
        result: Err(Failure::status(500, "the receiver said \"no\"\n")),
    };
    let succeeded = Outcome { output: Some(output("out")), ..success() };
    let input = Input::new(Some("text/plain".to_owned()), "in".into());
    let keyed = Request {
        key: Some(Digest::of(b"the key of a request")),
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok(),
        ..Request::new(handler("h"), input)
    };
    let keyed = claim(&*store, &id("keyed"), keyed.into()).await;
    assert!(keyed.task().keys.len() == 1 && keyed.task().trace.is_some());
    let settled = [
        settle(&*store, keyed, success()).await,
        run(&*store, &id("failed"), failed).await,
        run(&*store, &id("succeeded"), succeeded).await,
        run(&*store, &id("without-output"), success()).await,
    ];
    let working = claim(&*store, &id("working"), launch("in")).await;
    let read_settled = async || {
        for task in &settled {
            assert_eq!(store.get(&task.id).await.unwrap().as_ref(), Some(task));
        }
        assert_eq!(store.get(&id("working")).await.unwrap().as_ref(), Some(working.task()));
    };
    read_settled().await;
    store.at_rest().await;
    read_settled().await;
    let listed = list_all(&*store, query(Filter::default(), Order::Ascending, 10)).await;
    let listed: Vec<_> = listed.iter().map(|task| without_bytes(task)).collect();
    let written: Vec<_> = settled.iter().chain([working.task()]).map(|task| without_bytes(task)).collect();
    assert_eq!(listed, written);
}

async fn numbers_go_on_counting_over_revoke_and_forget(store: TestStore) {
    let task = id("counted");
    let numbers = |task: &Task| (task.run, task.revision, task.revoked);
    let run_again = async |outcome| {
        store.at_rest().await;
        run(&*store, &task, outcome).await
    };
    assert_eq!(numbers(&*run_again(failure(ErrorKind::Error)).await), (1, 2, 0));
    assert_eq!(numbers(&*run_again(success()).await), (2, 4, 0));
    store.at_rest().await;
    assert_eq!(numbers(&done(store.revoke(&task).await.unwrap())), (2, 5, 1));
    assert_eq!(numbers(&*run_again(failure(ErrorKind::Error)).await), (3, 7, 1));
    store.at_rest().await;
    assert_eq!(numbers(&done(store.forget(&task).await.unwrap())), (3, 8, 1));
    let forgotten = run_again(success()).await;
    assert_eq!(numbers(&forgotten), (4, 10, 1));
    assert_eq!(forgotten.attempts.len(), 1, "attempts are forgotten, numbers are not");
    assert_eq!(numbers(&done(store.revoke(&task).await.unwrap())), (4, 11, 2));
}

/// The record without its details, one revision on.
fn without_details(task: &Task) -> Task {
    let mut dropped = without_bytes(task);
    if let State::Success { output, .. } | State::Failed { output, .. } = &mut dropped.state {
        *output = None;
    }
    Task { revision: task.revision + 1, attempts: Vec::new(), details_dropped: true, ..dropped }
}

async fn details_are_dropped_in_place_and_the_rest_stays(mut store: TestStore) {
    let with_output = |outcome: Outcome| Outcome { output: Some(output("out")), ..outcome };
    let mut tasks = Vec::new();
    for n in 0..6 {
        let outcome = if n % 2 == 0 { success() } else { failure(ErrorKind::Timeout) };
        tasks.push(run(&*store, &id(&format!("t{n}")), with_output(outcome)).await);
    }
    store.at_rest().await;
    let counts = store.counts();
    let feed = store.events();
    let seen = feed.after(0, 100).read_to;
    let late = Change::DropDetails { entered: tasks[1].entered - 1 };
    assert_eq!(refused(store.change(&tasks[1].id, late).await.unwrap()).reason, Refusal::Stale);
    // All but the last two, so that some keep their places among others.
    let mut expected: Vec<_> = tasks.iter().map(|task| without_bytes(task)).collect();
    for (task, expected) in tasks.iter().zip(&mut expected).take(4) {
        let dropped = done(store.drop_details(task).await.unwrap());
        *expected = without_details(task);
        assert_eq!(*dropped, *expected);
        let again = refused(store.drop_details(task).await.unwrap());
        assert_eq!((again.reason, again.task), (Refusal::DetailsDropped, Some(dropped)));
    }
    assert_eq!(feed.after(seen, 100).events, [], "it is no transition");
    for is_reopened in [false, true] {
        if is_reopened && store.is_durable() {
            store = store.reopen().await;
        }
        for is_at_rest in [false, true] {
            if is_at_rest {
                store.at_rest().await;
            }
            for task in expected.iter().take(4) {
                assert_eq!(store.get(&task.id).await.unwrap().as_deref(), Some(task));
            }
            for order in [Order::Ascending, Order::Descending] {
                let mut listed: Vec<_> = list_all(&*store, query(Filter::default(), order, 2))
                    .await
                    .iter()
                    .map(|task| without_bytes(task))
                    .collect();
                if order == Order::Descending {
                    listed.reverse();
                }
                assert_eq!(listed, expected);
            }
            assert_eq!(store.counts(), counts);
        }
    }
    let answer = store.claim(&tasks[0].id, launch("in")).await.unwrap();
    assert_eq!(not_started(answer).reason, Refusal::Success);
}

async fn a_failed_task_without_its_input_is_launched_again_with_one(store: TestStore) {
    let (task, without_input) = (id("a"), id("b"));
    let failed = run(&*store, &task, failure(ErrorKind::Error)).await;
    let nothing = claim(&*store, &without_input, launch("")).await;
    let nothing = settle(&*store, nothing, failure(ErrorKind::Error)).await;
    for failed in [&failed, &nothing] {
        done(store.drop_details(failed).await.unwrap());
    }
    store.at_rest().await;
    assert_eq!(not_started(store.claim(&task, RETRY).await.unwrap()).reason, Refusal::InputDropped);
    assert_eq!(started(store.claim(&without_input, RETRY).await.unwrap()).task().run, 2);

    let same_input = |input: &'static str| Request {
        if_same_input: true,
        ..Request::new(handler("h"), Input::new(None, Bytes::from(input)))
    };
    let answer = store.claim(&task, same_input("another").into()).await.unwrap();
    assert_eq!(not_started(answer).reason, Refusal::InputMismatch);
    let claim = started(store.claim(&task, same_input("in").into()).await.unwrap());
    let now = claim.task();
    assert_eq!((now.run, &now.input.bytes[..], now.details_dropped), (2, &b"in"[..], false));
    assert_eq!(settle(&*store, claim, failure(ErrorKind::Error)).await.attempts.len(), 1);
    store.at_rest().await;
    assert_eq!(started(store.claim(&task, RETRY).await.unwrap()).task().input.bytes, "in");
}

async fn what_is_not_at_rest_keeps_everything(store: TestStore) {
    let task = run(&*store, &id("revoking"), success()).await;
    store.at_rest().await;
    let revoking = done(store.change(&task.id, Change::BeginRevoke).await.unwrap());
    for change in [Change::DropDetails { entered: task.entered }, Change::Expire { entered: task.entered }] {
        let answer = refused(store.change(&task.id, change).await.unwrap());
        assert_eq!((answer.reason, answer.task.as_ref()), (Refusal::Revoking, Some(&revoking)));
    }
    let why = Failure::new(ErrorKind::Timeout, "no answer");
    let end = Change::EndRevoke { revision: revoking.revision, result: Err(why.clone()) };
    let stands = done(store.change(&task.id, end).await.unwrap());
    store.at_rest().await;
    let dropped = done(store.drop_details(&stands).await.unwrap());
    assert_eq!(*dropped, without_details(&stands));
    let undo = Some(Undo::Failed(why));
    assert_eq!(dropped.state, State::Success { output: None, undo });
    // A revoke needs none of the details.
    done(store.revoke(&task.id).await.unwrap());
    assert_eq!(store.get(&task.id).await.unwrap(), None);

    // Somebody is still to be told of the outcome.
    let claim = claim(&*store, &id("told"), launch("in")).await.with_notice(true);
    let settled = settle(&*store, claim, failure(ErrorKind::Error)).await;
    for change in
        [Change::DropDetails { entered: settled.entered }, Change::Expire { entered: settled.entered }]
    {
        let answer = refused(store.change(&settled.id, change).await.unwrap());
        assert_eq!((answer.reason, answer.task.as_ref()), (Refusal::NoticeDue, Some(&settled)));
    }
    let told = done(store.change(&settled.id, Change::EndNotice { run: 1 }).await.unwrap());
    store.at_rest().await;
    assert_eq!(*done(store.drop_details(&told).await.unwrap()), without_details(&told));
}

async fn an_expired_record_is_not_found_and_its_numbers_go_on(store: TestStore) {
    for (name, outcome) in [("a", success()), ("b", failure(ErrorKind::Error))] {
        let task = run(&*store, &id(name), outcome.clone()).await;
        store.at_rest().await;
        let late = Change::Expire { entered: task.entered + 1 };
        assert_eq!(refused(store.change(&task.id, late).await.unwrap()).reason, Refusal::Stale);
        let expire = Change::Expire { entered: task.entered };
        let expired = done(store.change(&task.id, expire.clone()).await.unwrap());
        assert_eq!((&expired.state, expired.run, expired.revision), (&State::Absent, 1, 3));
        assert_eq!(store.get(&task.id).await.unwrap(), None);
        assert_eq!(refused(store.change(&task.id, expire).await.unwrap()).reason, Refusal::NotFound);
        assert_eq!(list_ids(&*store, query(Filter::default(), Order::Ascending, 9)).await, [""; 0]);
        assert_eq!(store.counts().total(), StateCounts::default());
        store.at_rest().await;
        let again = run(&*store, &task.id, success()).await;
        // What comes after a success that is forgotten is another effect.
        assert_eq!((again.run, again.revision, again.revoked), (2, 5, u32::from(name == "a")));
        done(store.revoke(&task.id).await.unwrap());
    }
}

async fn a_task_keeps_its_last_attempts(store: TestStore) {
    let task = id("tried");
    let runs = u32::try_from(ATTEMPTS_KEPT).unwrap() + 5;
    for _ in 0..runs {
        run(&*store, &task, failure(ErrorKind::Error)).await;
    }
    store.at_rest().await;
    let attempts = store.get(&task).await.unwrap().unwrap().attempts.clone();
    assert_eq!(
        attempts.iter().map(|attempt| attempt.run).collect::<Vec<_>>(),
        (6..=runs).collect::<Vec<_>>()
    );
}

/// Calls at the same moment, from as many tasks.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    callers: usize,
    call: impl Fn() -> F,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(callers));
    let calls = (0..callers).map(|_| {
        let (barrier, call) = (Arc::clone(&barrier), call());
        async move {
            barrier.wait().await;
            call.await
        }
    });
    let mut all = tokio::task::JoinSet::new();
    for call in calls {
        all.spawn(call);
    }
    all.join_all().await
}

async fn exactly_one_of_many_claims_starts(store: TestStore) {
    for state in ["unknown", "failed", "revoked", "forgotten"] {
        let task = id(state);
        bring(&*store, &task, state).await;
        store.at_rest().await;
        let answers = at_once(64, || {
            let (store, task) = (store.shared(), task.clone());
            async move { store.claim(&task, launch("in")).await.unwrap() }
        });
        let (mut claims, mut refusals) = (Vec::new(), 0);
        for answer in answers.await {
            match answer {
                Claimed::Started(claim) => claims.push(claim),
                Claimed::Refused(refused) => {
                    assert_eq!(refused.reason, Refusal::Working);
                    refusals += 1;
                }
            }
        }
        assert_eq!((claims.len(), refusals), (1, 63), "{state}");
        assert_eq!(store.get(&task).await.unwrap().as_ref(), Some(claims[0].task()));
    }
}

async fn exactly_one_of_many_settles_of_one_run_counts(store: TestStore) {
    let task = id("settled-twice");
    let first = claim(&*store, &task, launch("in")).await;
    let second = store.recover().await.unwrap().claims.pop().unwrap();
    let third = store.recover().await.unwrap().claims.pop().unwrap();
    assert_eq!(second.task(), first.task());
    let settled = settle(&*store, first, failure(ErrorKind::Error)).await;

    // Late, while the id has failed.
    let answer = store.settle(second, attempt(1, &success()), None).await.unwrap();
    assert_eq!(refused(answer).reason, Refusal::Stale);
    assert_eq!(store.get(&task).await.unwrap(), Some(settled));

    // Late, while a later run works.
    let relaunched = claim(&*store, &task, launch("in")).await;
    let answer = store.settle(third, attempt(1, &success()), None).await.unwrap();
    assert_eq!(refused(answer).reason, Refusal::Stale);
    assert_eq!(store.get(&task).await.unwrap().as_ref(), Some(relaunched.task()));

    // Late, when the id is not found any more.
    let late = store.recover().await.unwrap().claims.pop().unwrap();
    settle(&*store, relaunched, success()).await;
    done(store.revoke(&task).await.unwrap());
    store.at_rest().await;
    let refused = refused(store.settle(late, attempt(2, &success()), None).await.unwrap());
    assert_eq!((refused.reason, refused.task), (Refusal::Stale, None));
    assert_eq!(store.get(&task).await.unwrap(), None);
}

async fn exactly_one_of_many_revokes_is_done(store: TestStore) {
    let task = id("revoked-often");
    run(&*store, &task, success()).await;
    let answers = at_once(16, || {
        let (store, task) = (store.shared(), task.clone());
        async move { store.revoke(&task).await.unwrap() }
    });
    let answers = answers.await;
    let is_done = |moved: &&_| matches!(moved, task_recorder::store::Moved::Done(_));
    assert_eq!(answers.iter().filter(is_done).count(), 1);
}

async fn bytes_survive(store: TestStore) {
    let sizes = [0, 1, 64 << 10, 1 << 20];
    // Every byte there is, zero among them.
    let bytes = |size: usize| (0..size).map(|n| u8::try_from(n * 31 % 256).unwrap()).collect::<Bytes>();
    let check = async |is_settled: bool| {
        for size in sizes {
            let task = store.get(&id(&format!("bytes-{size}"))).await.unwrap().unwrap();
            assert!(task.input.bytes == bytes(size), "the input of {size} bytes");
            assert_eq!(task.input.size, size as u64);
            assert_eq!(task.input.media_type.as_deref(), Some("text/plain"));
            let output = is_settled.then(|| output(bytes(size)));
            assert!(task.output() == output.as_ref(), "the output of {size} bytes");
        }
    };
    let mut claims = Vec::new();
    for size in sizes {
        claims.push(claim(&*store, &id(&format!("bytes-{size}")), launch(bytes(size))).await);
    }
    check(false).await;
    for claim in claims {
        let size = claim.task().input.bytes.len();
        settle(&*store, claim, Outcome { output: Some(output(bytes(size))), ..success() }).await;
    }
    check(true).await;
    store.at_rest().await;
    check(true).await;
    if store.is_durable() {
        let store = store.reopen().await;
        for size in sizes {
            let task = store.get(&id(&format!("bytes-{size}"))).await.unwrap().unwrap();
            assert!(task.input.bytes == bytes(size) && task.output() == Some(&output(bytes(size))), "{size}");
        }
    }
}

async fn a_retry_has_the_input_of_the_launch(store: TestStore) {
    let task = id("retried");
    run(&*store, &task, failure(ErrorKind::Timeout)).await;
    store.at_rest().await;
    for _ in 0..3 {
        let claim = claim(&*store, &task, RETRY).await;
        assert_eq!(claim.task().input.bytes, "in");
        assert_eq!(claim.task().handler, handler("h"));
        settle(&*store, claim, failure(ErrorKind::Timeout)).await;
        store.at_rest().await;
    }
}

/// Twelve tasks of two handlers in every state, in the order of their last change.
async fn populate(store: &dyn Store) -> Vec<Arc<Task>> {
    let mut tasks = Vec::new();
    for n in 0..12 {
        let task = id(&format!("{}-{n}", if n < 6 { "early" } else { "late" }));
        let start = launch_with(if n % 2 == 0 { "even" } else { "odd" }, "in");
        let claim = claim(store, &task, start).await;
        let outcome = match n % 6 {
            0 | 1 => {
                tasks.push(Arc::clone(claim.task()));
                continue;
            }
            2 | 3 => success(),
            4 => failure(ErrorKind::Error),
            _ => failure(ErrorKind::Timeout),
        };
        tasks.push(settle(store, claim, outcome).await);
    }
    tasks
}

/// Whether a task belongs in the list.
type Matches<'a> = &'a dyn Fn(&Task) -> bool;

async fn every_filter_narrows_a_list(store: TestStore) {
    let tasks = populate(&*store).await;
    store.at_rest().await;
    let middle = tasks[7].since;
    let (is_since, is_before) = (|task: &Task| task.since >= middle, |task: &Task| task.since < middle);
    let f = Filter::default;
    let filters: [(Filter, Matches<'_>); 14] = [
        (f(), &|_| true),
        (in_states(&[StateName::Working]), &|task| task.is_working()),
        (in_states(&[StateName::Success]), &|task| matches!(task.state, State::Success { .. })),
        (in_states(&[StateName::Failed]), &|task| matches!(task.state, State::Failed { .. })),
        (Filter { handler: Some(handler("even")), ..f() }, &|task| task.handler.as_str() == "even"),
        (Filter { handler: Some(handler("none")), ..f() }, &|_| false),
        (Filter { prefix: Some("early-".to_owned()), ..f() }, &|task| task.id.as_str().starts_with("early-")),
        (Filter { prefix: Some("%".to_owned()), ..f() }, &|_| false),
        (Filter { error_kind: Some(ErrorKind::Timeout), ..f() }, &|task| {
            task.failure().is_some_and(|failure| failure.kind == ErrorKind::Timeout)
        }),
        (Filter { in_doubt: Some(true), ..f() }, &|task| task.failure().is_some_and(|f| f.in_doubt)),
        (Filter { in_doubt: Some(false), ..f() }, &|task| task.failure().is_some_and(|f| !f.in_doubt)),
        (Filter { since: Some(middle), ..f() }, &is_since),
        (Filter { until: Some(middle), ..f() }, &is_before),
        (
            Filter {
                prefix: Some("late-".to_owned()),
                handler: Some(handler("odd")),
                ..in_states(&[StateName::Failed, StateName::Working])
            },
            &|task| ["late-7", "late-11"].contains(&task.id.as_str()),
        ),
    ];
    for (filter, matches) in filters {
        let wanted = tasks.iter().filter(|task| matches(task)).map(|task| task.id.to_string());
        let mut wanted: Vec<_> = wanted.collect();
        assert_eq!(list_ids(&*store, query(filter.clone(), Order::Ascending, 3)).await, wanted, "{filter:?}");
        wanted.reverse();
        assert_eq!(
            list_ids(&*store, query(filter.clone(), Order::Descending, 3)).await,
            wanted,
            "{filter:?}"
        );
    }
}

async fn a_list_is_in_order_and_every_limit_gives_the_same_tasks(store: TestStore) {
    let mut tasks: Vec<_> = populate(&*store).await.iter().map(|task| task.id.to_string()).collect();
    store.at_rest().await;
    for order in [Order::Ascending, Order::Descending] {
        for limit in 1..=13 {
            assert_eq!(
                list_ids(&*store, query(Filter::default(), order, limit)).await,
                tasks,
                "limit {limit}"
            );
        }
        tasks.reverse();
    }
}

async fn a_cursor_may_be_any_number(store: TestStore) {
    let tasks = populate(&*store).await;
    store.at_rest().await;
    for (order, after, found) in [
        (Order::Ascending, 0, tasks.len()),
        (Order::Ascending, tasks[3].entered, tasks.len() - 4),
        (Order::Ascending, u64::MAX, 0),
        (Order::Descending, 0, 0),
        (Order::Descending, tasks[3].entered, 3),
        (Order::Descending, u64::MAX, tasks.len()),
    ] {
        let query = Query { after: Some(after), ..query(Filter::default(), order, 100) };
        let page = store.list(&query).await.unwrap();
        assert_eq!((page.tasks.len(), page.next), (found, None), "{order:?} after {after}");
    }
}

async fn a_list_of_several_states_is_in_order(store: TestStore) {
    use StateName::{Failed, Success, Working};
    let tasks = populate(&*store).await;
    store.at_rest().await;
    for states in
        [&[Working, Success][..], &[Failed, Working], &[Success, Failed], &[Failed, Success, Working]]
    {
        let wanted: Vec<_> = tasks
            .iter()
            .filter(|task| states.contains(&task.state_name()))
            .map(|task| task.id.to_string())
            .collect();
        assert_eq!(list_ids(&*store, query(in_states(states), Order::Ascending, 2)).await, wanted);
    }
}

async fn a_relaunched_task_is_listed_once_at_its_new_place(store: TestStore) {
    for name in ["a", "b", "c", "d", "e", "f"] {
        run(&*store, &id(name), failure(ErrorKind::Error)).await;
    }
    store.at_rest().await;
    let failed = || query(in_states(&[StateName::Failed]), Order::Ascending, 2);
    let everything = || query(Filter::default(), Order::Ascending, 2);
    let b = claim(&*store, &id("b"), RETRY).await;
    assert_eq!(list_ids(&*store, failed()).await, ["a", "c", "d", "e", "f"]);
    assert_eq!(list_ids(&*store, everything()).await, ["a", "c", "d", "e", "f", "b"]);
    settle(&*store, b, failure(ErrorKind::Error)).await;
    assert_eq!(list_ids(&*store, failed()).await, ["a", "c", "d", "e", "f", "b"]);
    store.at_rest().await;
    assert_eq!(list_ids(&*store, failed()).await, ["a", "c", "d", "e", "f", "b"]);
    done(store.forget(&id("d")).await.unwrap());
    assert_eq!(list_ids(&*store, failed()).await, ["a", "c", "e", "f", "b"]);
    store.at_rest().await;
    assert_eq!(list_ids(&*store, failed()).await, ["a", "c", "e", "f", "b"]);
    assert_eq!(store.get(&id("d")).await.unwrap(), None);
}

/// So many that a page finds nothing in the place where it looks first.
async fn many_relaunched_tasks_hide_none_behind_them(store: TestStore) {
    let mut names: Vec<_> = (0..40).map(|n| format!("t{n}")).collect();
    for name in &names {
        run(&*store, &id(name), failure(ErrorKind::Error)).await;
    }
    store.at_rest().await;
    let mut claims = Vec::new();
    for name in names.iter().take(7).chain(&names[29..36]) {
        claims.push(claim(&*store, &id(name), RETRY).await);
    }
    let relaunched: Vec<_> = names.splice(29..36, []).collect();
    let relaunched: Vec<_> = names.splice(..7, []).chain(relaunched).collect();
    let everything: Vec<_> = names.iter().chain(&relaunched).cloned().collect();
    for limit in 1..10 {
        for (filter, expected) in
            [(in_states(&[StateName::Failed]), &names), (Filter::default(), &everything)]
        {
            let mut expected = expected.clone();
            let ascending = list_ids(&*store, query(filter.clone(), Order::Ascending, limit)).await;
            assert_eq!(ascending, expected, "limit {limit}");
            expected.reverse();
            let descending = list_ids(&*store, query(filter, Order::Descending, limit)).await;
            assert_eq!(descending, expected, "limit {limit}");
        }
    }
}

async fn paging_over_a_changing_store_misses_no_task_that_stayed(store: TestStore) {
    let all = 60;
    for n in 0..all {
        run(&*store, &id(&format!("t{n}")), failure(ErrorKind::Error)).await;
    }
    for order in [Order::Ascending, Order::Descending] {
        let mut query = query(in_states(&[StateName::Failed]), order, 7);
        let mut seen = BTreeMap::<String, usize>::new();
        let mut moved = BTreeSet::new();
        for turn in 0.. {
            let page = store.list(&query).await.unwrap();
            for task in page.tasks {
                *seen.entry(task.id.to_string()).or_default() += 1;
            }
            // One behind, one ahead and one new task change between any two pages.
            for n in [turn * 5 % all, (turn * 11 + 30) % all] {
                let name = format!("t{n}");
                run(&*store, &id(&name), failure(ErrorKind::Error)).await;
                moved.insert(name);
            }
            run(&*store, &id(&format!("new-{order:?}-{turn}")), success()).await;
            if turn % 2 == 0 {
                store.at_rest().await;
            }
            query.after = page.next;
            if page.next.is_none() {
                break;
            }
            assert!(turn < 1_000, "the list ends");
        }
        for name in (0..all).map(|n| format!("t{n}")).filter(|name| !moved.contains(name)) {
            assert_eq!(seen.get(&name), Some(&1), "{name} in {order:?} order");
        }
    }
}

async fn list_status_and_counts_agree(store: TestStore) {
    let tasks = populate(&*store).await;
    run(&*store, &id("revoked"), success()).await;
    store.revoke(&id("revoked")).await.unwrap();
    let agree = async || {
        assert_counts_agree(&*store).await;
        for task in list_all(&*store, query(Filter::default(), Order::Ascending, 5)).await {
            let read = store.get(&task.id).await.unwrap().unwrap();
            assert_eq!(without_bytes(&read), without_bytes(&task));
        }
    };
    agree().await;
    store.at_rest().await;
    agree().await;
    let failed_before = claim(&*store, &tasks[4].id, RETRY).await;
    settle(&*store, failed_before, success()).await;
    let _working = claim(&*store, &tasks[5].id, RETRY).await;
    store.revoke(&tasks[2].id).await.unwrap();
    store.forget(&tasks[10].id).await.unwrap();
    agree().await;
    store.at_rest().await;
    agree().await;
    assert_eq!(store.counts().total(), StateCounts { working: 5, success: 4, failed: 1 });
}

async fn runs_that_nobody_works_on_are_found(store: TestStore) {
    let tasks = populate(&*store).await;
    store.at_rest().await;
    let mut found: Vec<_> =
        store.recover().await.unwrap().claims.iter().map(|claim| Arc::clone(claim.task())).collect();
    found.sort_by_key(|task| task.entered);
    let working: Vec<_> = tasks.into_iter().filter(|task| task.is_working()).collect();
    assert_eq!(found, working);
}

async fn a_closed_store_writes_nothing(store: TestStore) {
    for state in STATES {
        bring(&*store, &id(state), state).await;
    }
    let working = store.recover().await.unwrap().claims.pop().unwrap();
    assert_eq!(*store.health().borrow(), Health::Writable);
    store.close().await;
    store.close().await;
    for free in ["unknown", "failed", "revoked", "forgotten"] {
        assert_eq!(store.claim(&id(free), launch("in")).await.unwrap_err(), StoreError::Closed);
    }
    assert_eq!(store.claim(&id("failed"), RETRY).await.unwrap_err(), StoreError::Closed);
    assert_eq!(store.revoke(&id("success")).await.unwrap_err(), StoreError::Closed);
    assert_eq!(store.forget(&id("failed")).await.unwrap_err(), StoreError::Closed);
    // What is refused writes nothing anyhow, so that both answers are true.
    if let Ok(claimed) = store.claim(&id("working"), launch("in")).await {
        assert_eq!(not_started(claimed).reason, Refusal::Working);
    }
    let unsettled = store.settle(working, attempt(1, &success()), Some(output("out"))).await.unwrap_err();
    assert_eq!(unsettled.error, StoreError::Closed);
    assert_eq!(unsettled.claim.task().id, id("working"));
    assert_eq!((unsettled.attempt.run, unsettled.output), (1, Some(output("out"))));
}

/// More tasks than a page looks at, of which the filter takes a few.
async fn a_sparse_filter_gives_short_pages_until_the_end(store: TestStore) {
    let (all, at_once) = (20_500, 500);
    let before = Timestamp::now();
    for first in (0..all).step_by(at_once) {
        let runs = (first..first + at_once).map(|n| {
            let (task, outcome) = (id(&format!("t{n}")), success());
            let handler = if n % 9_000 == 8_999 { "rare" } else { "common" };
            let store = &store;
            async move {
                let claim = started(store.claim(&task, launch_with(handler, "")).await.unwrap());
                settle(&**store, claim, outcome).await
            }
        });
        join_all(runs).await;
    }
    store.at_rest().await;
    let rare = Filter { handler: Some(handler("rare")), since: Some(before), ..Filter::default() };
    for order in [Order::Ascending, Order::Descending] {
        let mut query = query(rare.clone(), order, 100);
        let (mut found, mut pages) = (BTreeSet::new(), 0);
        loop {
            let page = store.list(&query).await.unwrap();
            pages += 1;
            found.extend(page.tasks.iter().map(|task| task.id.to_string()));
            query.after = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["t17999", "t8999"], "{order:?}");
        assert!((2..20).contains(&pages), "{pages} pages");
    }
}

mod sparse {
    use super::{Kind, a_sparse_filter_gives_short_pages_until_the_end};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_memory() {
        a_sparse_filter_gives_short_pages_until_the_end(Kind::Memory.open()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_the_archive() {
        a_sparse_filter_gives_short_pages_until_the_end(Kind::Hot(100).open()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_both() {
        a_sparse_filter_gives_short_pages_until_the_end(Kind::Hot(12_000).open()).await;
    }
}
