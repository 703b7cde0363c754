//! Notices: of the recorder, and from the real binary to a real receiver.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use task_recorder::recorder::{LaneSpec, Launch, NoticeSpec, Recorder, Work};
use task_recorder::store::{Filter, Order, Store};
use task_recorder::task::{
    Change, ErrorKind, Failure, Input, OnCrash, Outcome, Policy, Refusal, Request, Retry, StateName, Task,
};

use crate::stores::{
    Kind, Moves as _, RETRY, attempt, claim, done, failure, handler, id, launch, list_all, query, refused,
    run, started, success,
};
use crate::support::receiver::{Answer, Behaviour, Call, Receiver};
use crate::support::server::TestServer;
use crate::support::{until, within};

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Embedded, Kind::Tiny(1)];

/// Runs an id and settles it with a notice.
async fn run_with_notice(store: &dyn Store, name: &str, outcome: Outcome) -> Arc<Task> {
    let claim = claim(store, &id(name), launch("in")).await.with_notice(true);
    let attempt = attempt(claim.task().run, &outcome);
    done(store.settle(claim, attempt, outcome.output).await.unwrap())
}

#[tokio::test]
async fn a_notice_is_due_from_the_outcome_on_and_ends_without_a_change_that_callers_see() {
    for kind in KINDS {
        let store = kind.open();
        let task = run_with_notice(&*store, "a", success()).await;
        assert!(task.notice_due);
        let seq = store.events().seq();
        let ended = done(store.change(&task.id, Change::EndNotice { run: 1 }).await.unwrap());
        assert_eq!(*ended, Task { notice_due: false, ..(*task).clone() }, "{kind:?}");
        let again = store.change(&task.id, Change::EndNotice { run: 1 }).await.unwrap();
        assert_eq!(refused(again).reason, Refusal::Stale, "{kind:?}");
        assert!(store.events().after(seq, 9).events.is_empty(), "{kind:?}: it is no event");
        assert!(!run(&*store, &id("b"), success()).await.notice_due, "{kind:?}");
    }
}

#[tokio::test]
async fn only_the_latest_outcome_has_a_notice() {
    for kind in KINDS {
        let store = kind.open();
        run_with_notice(&*store, "a", failure(ErrorKind::Error)).await;
        let claim = started(store.claim(&id("a"), RETRY).await.unwrap());
        assert!(!claim.task().notice_due, "{kind:?}");
        let late = store.change(&id("a"), Change::EndNotice { run: 1 }).await.unwrap();
        assert_eq!(refused(late).reason, Refusal::Stale, "{kind:?}");

        run_with_notice(&*store, "b", success()).await;
        let gone = done(store.revoke(&id("b")).await.unwrap());
        assert!(!gone.notice_due, "{kind:?}");
        run_with_notice(&*store, "c", failure(ErrorKind::Error)).await;
        let gone = done(store.forget(&id("c")).await.unwrap());
        assert!(!gone.notice_due, "{kind:?}");

        run_with_notice(&*store, "d", success()).await;
        let revoking = done(store.change(&id("d"), Change::BeginRevoke).await.unwrap());
        let result = Err(Failure::new(ErrorKind::Refused, "nobody is there"));
        let change = Change::EndRevoke { revision: revoking.revision, result };
        let stands = done(store.change(&id("d"), change).await.unwrap());
        assert!(stands.notice_due, "{kind:?}: the success stands");
        let due = store.recover().await.unwrap().notices;
        assert_eq!(due.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["d"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_notice_that_is_due_outlives_the_process_however_little_stays_in_memory() {
    for kind in [Kind::Embedded, Kind::Tiny(1)] {
        let store = kind.open();
        for number in 0..20 {
            let outcome = if number % 2 == 0 { success() } else { failure(ErrorKind::Error) };
            run_with_notice(&*store, &format!("due-{number}"), outcome).await;
            run(&*store, &id(&format!("other-{number}")), success()).await;
        }
        let listed = list_all(&*store, query(Filter::default(), Order::Ascending, 7)).await;
        assert_eq!(listed.len(), 40, "{kind:?}: they are listed");
        assert!(listed.windows(2).all(|pair| pair[0].entered < pair[1].entered), "{kind:?}: in order");
        let store = store.reopen().await;
        let due = store.recover().await.unwrap().notices;
        let names: Vec<_> = due.iter().map(|task| task.id.to_string()).collect();
        assert_eq!(names, (0..20).map(|number| format!("due-{number}")).collect::<Vec<_>>(), "{kind:?}");
        for task in due {
            store.change(&task.id, Change::EndNotice { run: 1 }).await.unwrap();
        }
        run(&*store, &id("last"), success()).await;
        store.reopen_and_count(41).await;
    }
}

impl crate::stores::TestStore {
    async fn reopen_and_count(self, tasks: u64) {
        let store = self.reopen().await;
        assert!(store.recover().await.unwrap().notices.is_empty());
        let total = store.counts().total();
        assert_eq!(total.success + total.failed, tasks);
        assert!(!store.get(&id("due-0")).await.unwrap().unwrap().notice_due);
    }
}

/// Somebody who is told of outcomes.
#[derive(Default)]
struct Bell {
    told: Mutex<Vec<(String, u32, StateName)>>,
    /// How many attempts fail first.
    failures: AtomicUsize,
    /// Fails for this run.
    deaf_to: AtomicU32,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Bell {
    fn work(self: &Arc<Self>) -> Work {
        let bell = Arc::clone(self);
        Arc::new(move |task, attempt, _| {
            let bell = Arc::clone(&bell);
            async move {
                bell.most.fetch_max(bell.now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                bell.now.fetch_sub(1, SeqCst);
                let is_failure =
                    bell.failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
                let is_failure = is_failure || task.run == bell.deaf_to.load(SeqCst);
                assert!(!(is_failure && attempt == 2), "a panic is a failure as any other");
                if is_failure {
                    return Outcome::failed(Failure::status(404, "who is there?"));
                }
                bell.told.lock().unwrap().push((task.id.to_string(), task.run, task.state_name()));
                Outcome::success()
            }
            .boxed()
        })
    }

    fn told(&self) -> Vec<(String, u32, StateName)> {
        self.told.lock().unwrap().clone()
    }
}

/// A lane whose runs succeed if their input says so.
fn lane(notices: NoticeSpec, policy: Policy) -> LaneSpec {
    let work: Work = Arc::new(|task, _, _| {
        async move { if task.input.bytes == "good" { success() } else { failure(ErrorKind::Error) } }.boxed()
    });
    LaneSpec { handler: handler("h"), policy, work, undo: None, notices }
}

fn quick(bell: &Arc<Bell>) -> NoticeSpec {
    let ms = Duration::from_millis;
    NoticeSpec {
        on_success: Some(bell.work()),
        on_failure: Some(bell.work()),
        retry: Retry { initial: ms(20), max_interval: ms(100), ..Retry::default() },
        ..NoticeSpec::default()
    }
}

async fn launch_in(recorder: &Recorder, name: &str, input: &'static str) {
    let request = Request::new(handler("h"), Input::new(None, input.into()));
    let launched = recorder.launch_in_lane(id(name), request).await.unwrap();
    assert!(matches!(launched, Launch::Started(_)), "{launched:?}");
    within("its end", recorder.wait(&id(name), Duration::from_secs(30))).await.unwrap();
}

/// Waits until so many notices were told or given up, and none is left.
async fn ended(recorder: &Recorder, wanted: u64) {
    until("every notice is told", || {
        let figures = recorder.figures();
        figures.notices_due == 0 && figures.notices_told + figures.notices_given_up >= wanted
    })
    .await;
}

#[tokio::test]
async fn a_notice_that_fails_is_tried_again_until_it_is_told() {
    let (store, bell) = (Kind::Memory.open(), Arc::new(Bell::default()));
    let recorder = Recorder::with_lanes(store.shared(), [lane(quick(&bell), Policy::default())]);
    bell.failures.store(4, SeqCst);
    launch_in(&recorder, "a", "good").await;
    assert!(recorder.status(&id("a")).await.unwrap().unwrap().notice_due);
    ended(&recorder, 1).await;
    assert_eq!(bell.told(), [("a".to_owned(), 1, StateName::Success)]);
    assert!(!recorder.status(&id("a")).await.unwrap().unwrap().notice_due);
    let figures = recorder.figures();
    assert_eq!((figures.notices_told, figures.notices_given_up, figures.panics), (1, 0, 0));
}

#[tokio::test]
async fn a_relaunch_drops_the_notice_of_the_run_before() {
    let (store, bell) = (Kind::Memory.open(), Arc::new(Bell::default()));
    let recorder = Recorder::with_lanes(store.shared(), [lane(quick(&bell), Policy::default())]);
    bell.deaf_to.store(1, SeqCst);
    launch_in(&recorder, "a", "bad").await;
    launch_in(&recorder, "a", "good").await;
    ended(&recorder, 1).await;
    assert_eq!(bell.told(), [("a".to_owned(), 2, StateName::Success)]);
}

#[tokio::test]
async fn a_notice_is_given_up_in_the_end() {
    let (store, bell) = (Kind::Memory.open(), Arc::new(Bell::default()));
    let notices = NoticeSpec { give_up_after: Duration::from_millis(50), ..quick(&bell) };
    let recorder = Recorder::with_lanes(store.shared(), [lane(notices, Policy::default())]);
    bell.failures.store(usize::MAX, SeqCst);
    launch_in(&recorder, "a", "bad").await;
    ended(&recorder, 1).await;
    let figures = recorder.figures();
    assert_eq!((figures.notices_told, figures.notices_given_up), (0, 1));
    assert!(!recorder.status(&id("a")).await.unwrap().unwrap().notice_due);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_are_under_way_at_once_however_many_are_due() {
    for kind in [Kind::Memory, Kind::Tiny(8)] {
        let (store, bell) = (kind.open(), Arc::new(Bell::default()));
        let notices = NoticeSpec { concurrency: 4, ..quick(&bell) };
        let recorder = Recorder::with_lanes(store.shared(), [lane(notices, Policy::default())]);
        for number in 0..300 {
            launch_in(&recorder, &format!("t-{number}"), if number % 3 == 0 { "bad" } else { "good" }).await;
        }
        ended(&recorder, 300).await;
        let mut told = bell.told();
        told.sort();
        told.dedup();
        assert_eq!((told.len(), bell.told().len()), (300, 300), "{kind:?}");
        assert!((2..=4).contains(&bell.most.load(SeqCst)), "{:?}", bell.most);
        recorder.stop(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_cancel_of_what_waits_is_an_outcome_too() {
    let (store, bell) = (Kind::Memory.open(), Arc::new(Bell::default()));
    let recorder = Recorder::with_lanes(store.shared(), [lane(quick(&bell), Policy::default())]);
    assert!(recorder.pause(&handler("h"), true).await.unwrap());
    let request = Request::new(handler("h"), Input::empty());
    recorder.launch_in_lane(id("a"), request).await.unwrap();
    done(recorder.cancel(&id("a")).await.unwrap());
    ended(&recorder, 1).await;
    assert_eq!(bell.told(), [("a".to_owned(), 1, StateName::Failed)]);
    let unknown = recorder.cancel(&id("b")).await.unwrap();
    assert_eq!(refused(unknown).reason, Refusal::NotFound);
}

#[tokio::test]
async fn a_start_tells_what_is_left_and_ends_what_nobody_wants_to_know() {
    let (store, bell) = (Kind::Memory.open(), Arc::new(Bell::default()));
    run_with_notice(&*store, "good", success()).await;
    run_with_notice(&*store, "bad", failure(ErrorKind::Error)).await;
    drop(claim(&*store, &id("cut"), launch("good")).await);
    let notices = NoticeSpec { on_success: None, ..quick(&bell) };
    let recorder = Recorder::with_lanes(store.shared(), [lane(notices, Policy::default())]);
    recorder.recover().await.unwrap();
    assert!(!recorder.status(&id("good")).await.unwrap().unwrap().notice_due);
    ended(&recorder, 2).await;
    let mut told = bell.told();
    told.sort();
    assert_eq!(told, [("bad".to_owned(), 1, StateName::Failed), ("cut".to_owned(), 1, StateName::Failed)]);
}

#[tokio::test]
async fn what_a_start_launches_again_is_told_once_it_has_ended() {
    let (store, bell) = (Kind::Memory.open(), Arc::new(Bell::default()));
    drop(claim(&*store, &id("cut"), launch("good")).await);
    let policy = Policy { on_crash: OnCrash::Retry, ..Policy::default() };
    let recorder = Recorder::with_lanes(store.shared(), [lane(quick(&bell), policy)]);
    recorder.recover().await.unwrap();
    within("its end", recorder.wait(&id("cut"), Duration::from_secs(30))).await.unwrap();
    ended(&recorder, 1).await;
    assert_eq!(bell.told(), [("cut".to_owned(), 2, StateName::Success)]);
}

/// A handler whose outcomes are told, one whose failures are, and one without.
fn config(receiver: &Receiver, told: &Receiver) -> String {
    let (hook, told) = (receiver.url("/{id}"), told.url("/told/{id}?run={run}"));
    format!(
        r#"
        [handlers.hook]
        type = "webhook"
        url = "{hook}"
        default = true
        [handlers.hook.retry]
        attempts = 1
        [handlers.hook.on_success]
        url = "{told}"
        headers = {{ x-shop = "north" }}
        [handlers.hook.on_failure]
        url = "{told}&failed"
        method = "PUT"
        success = [204]
        [handlers.half]
        type = "webhook"
        url = "{hook}"
        [handlers.half.on_failure]
        url = "{told}"
        [handlers.quiet]
        type = "webhook"
        url = "{hook}"
        "#
    )
}

async fn start() -> (Receiver, Receiver, TestServer) {
    let (receiver, told) = (Receiver::start().await, Receiver::start().await);
    let server = TestServer::start(&config(&receiver, &told));
    (receiver, told, server)
}

fn body(call: &Call) -> serde_json::Value {
    serde_json::from_slice(&call.body).unwrap()
}

/// Waits until so many notices were told since the start, and none is left.
async fn all_told(server: &TestServer, wanted: u64) {
    let client = server.client();
    within("every notice is told", async {
        loop {
            let notices = client.get("/stats").await.json()["notices"].clone();
            let told = notices["told"].as_u64().unwrap();
            if notices["due"] == 0 && told >= wanted {
                return assert!(told == wanted || wanted == 0, "{notices}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_outcome_is_told_once_with_the_whole_record() {
    let (receiver, told, server) = start().await;
    let client = server.client();
    receiver.on("bad", [Behaviour::Answer(Answer::of(404))]);
    told.on("bad", [Behaviour::Answer(Answer::of(204))]);
    client.post("/tasks/good?wait=30", "apples").await;
    told.wait_for(1).await;
    client.post("/tasks/bad?wait=30", "").await;
    all_told(&server, 2).await;
    let calls = told.calls();
    assert_eq!(calls.len(), 2);

    let (good, bad) = (&calls[0], &calls[1]);
    assert_eq!((good.method.as_str(), good.target.as_str()), ("POST", "/told/good?run=1"));
    assert_eq!((bad.method.as_str(), bad.target.as_str()), ("PUT", "/told/bad?run=1&failed"));
    for (call, name, event) in [(good, "good", "success"), (bad, "bad", "failed")] {
        assert_eq!(call.headers["content-type"], "application/json");
        assert_eq!(call.headers["task-id"], name);
        assert_eq!(call.headers["task-run"], "1");
        assert_eq!(call.headers["task-event"], event);
        assert!(!call.headers.contains_key("task-attempt"));
        let mut record = client.get(&format!("/tasks/{name}")).await.json();
        record["event"] = event.into();
        assert_eq!(body(call), record);
    }
    assert_eq!(good.headers["x-shop"], "north");
    assert_eq!(body(bad)["error"]["kind"], "status");
    let handlers = client.get("/handlers").await.json();
    let hook = &handlers["handlers"].as_array().unwrap()[1];
    assert!(hook["on_success"].as_str().unwrap().ends_with("/told/{id}?run={run}"), "{handlers}");
}

#[tokio::test]
async fn nobody_is_told_who_did_not_ask() {
    let (receiver, told, server) = start().await;
    let client = server.client();
    receiver.on("bad", [Behaviour::Answer(Answer::of(404))]);
    receiver.on("bad-quiet", [Behaviour::Answer(Answer::of(404))]);
    for path in ["/tasks/good?handler=half", "/tasks/quiet?handler=quiet", "/tasks/bad-quiet?handler=quiet"] {
        client.post(&format!("{path}&wait=30"), "").await;
    }
    all_told(&server, 0).await;
    client.post("/tasks/bad?handler=half&wait=30", "").await;
    all_told(&server, 1).await;
    assert_eq!(told.calls().len(), 1);
    assert_eq!(told.count("bad"), 1);
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_again() {
    let (_receiver, told, server) = start().await;
    told.on(
        "good",
        [Behaviour::Answer(Answer::of(500)), Behaviour::HangUp, Behaviour::Answer(Answer::of(200))],
    );
    server.client().post("/tasks/good?wait=30", "").await;
    all_told(&server, 1).await;
    assert_eq!(told.count("good"), 3);
}

#[tokio::test]
async fn a_notice_that_was_not_delivered_is_delivered_after_kill_9() {
    let (_receiver, told, mut server) = start().await;
    told.by_default(Behaviour::NeverAnswer);
    server.client().post("/tasks/good?wait=30", "").await;
    told.wait_for(1).await;
    server.kill();
    told.by_default(Behaviour::Answer(Answer::of(200)));
    server.restart();
    all_told(&server, 1).await;
    let calls = told.calls();
    assert_eq!((calls.len(), body(&calls[0])), (2, body(&calls[1])));
    // Now it is recorded that it was.
    server.kill();
    server.restart();
    all_told(&server, 0).await;
    assert_eq!(told.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_told_although_the_service_is_killed_under_load() {
    let (receiver, told) = (Receiver::start().await, Receiver::start().await);
    let text = format!("{}\n[store]\nhot_tasks = 50\n", config(&receiver, &told)).replace("[204]", "[200]");
    let mut server = TestServer::start(&text);
    for round in 0..3 {
        let mut clients = tokio::task::JoinSet::new();
        for client_number in 0..8 {
            let client = server.client();
            clients.spawn(async move {
                for number in 0.. {
                    let path = format!("/tasks/t-{round}-{client_number}-{number}");
                    let launched = client.try_send(hyper::Method::POST, &path, &[], "").await;
                    if launched.is_err() {
                        return;
                    }
                }
            });
        }
        told.wait_for(told.calls().len() + 300).await;
        server.kill();
        clients.join_all().await;
        server.restart();
    }
    all_told(&server, 0).await;
    let accept = [("accept", "application/x-ndjson")];
    let everything = server.client().send(hyper::Method::GET, "/tasks", &accept, "").await;
    let mut notices = BTreeMap::<String, Vec<String>>::new();
    for call in told.calls() {
        let text = |name: &str| call.headers[name].to_str().unwrap().to_owned();
        notices.entry(text("task-id")).or_default().push(text("task-event"));
    }
    let mut count = 0;
    for line in everything.text().lines() {
        let task: serde_json::Value = serde_json::from_str(line).unwrap();
        let told = notices.get(task["id"].as_str().unwrap()).cloned().unwrap_or_default();
        assert!(!told.is_empty() && told.iter().all(|event| task["state"] == **event), "{task} {told:?}");
        count += 1;
    }
    // Of the 300 calls of a round a few are of tasks that were told of before the kill as well.
    assert!(count >= 800, "{count}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_notices_and_the_next_start_goes_on() {
    let (_receiver, told, mut server) = start().await;
    told.by_default(Behaviour::NeverAnswer);
    server.client().post("/tasks/good?wait=30", "").await;
    told.wait_for(1).await;
    let begun = std::time::Instant::now();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "the grace period is 20 s, the timeout of a notice 30 s"
    );
    told.by_default(Behaviour::Answer(Answer::of(200)));
    server.restart();
    all_told(&server, 1).await;
}

#[tokio::test]
async fn runs_go_on_while_nobody_takes_notices() {
    let (_receiver, told, server) = start().await;
    told.by_default(Behaviour::NeverAnswer);
    let client = server.client();
    for number in 0..200 {
        let task = client.post(&format!("/tasks/t-{number}?wait=30"), "").await.json();
        assert_eq!(task["state"], "success");
    }
    told.wait_for(64).await;
    let notices = client.get("/stats").await.json()["notices"].clone();
    assert_eq!((&notices["due"], &notices["told"]), (&200.into(), &0.into()));
    assert_eq!(told.calls().len(), 64, "so many are under way at once");
    assert!(matches!(told.connections(), 1..=64));
}
