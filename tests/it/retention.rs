//! What becomes of settled tasks with their age: in the library over every kind of store, and in the real process.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::Value;
use task_recorder::recorder::{Launch, Recorder};
use task_recorder::store::{Filter, Health, Order, StateCounts, Store};
use task_recorder::task::{ErrorKind, Outcome, Refusal, Retention, Task};

use crate::stores::{
    Kind, Moves as _, claim, done, failure, id, launch, list_all, list_ids, not_started, number,
    open_to_read, output, query, settle, started, success,
};
use crate::support::client::{Answer, Client};
use crate::support::server::TestServer;
use crate::support::{until, within};

const KINDS: [Kind; 4] = [Kind::Memory, Kind::Embedded, Kind::Hot(8), Kind::Tiny(0)];
const SOON: Duration = Duration::from_millis(1);

fn everything() -> task_recorder::store::Query {
    query(Filter::default(), Order::Ascending, 100)
}

/// As many settled tasks, of which every third has failed, each with as many bytes of input and output.
async fn settled(store: &dyn Store, names: &str, count: usize, bytes: usize) -> Vec<Arc<Task>> {
    let one = |n: usize| async move {
        let claim = claim(store, &id(&format!("{names}{n}")), launch(vec![b'i'; bytes])).await;
        let outcome = if n.is_multiple_of(3) { failure(ErrorKind::Timeout) } else { success() };
        settle(store, claim, Outcome { output: Some(output(vec![b'o'; bytes])), ..outcome }).await
    };
    join_all((0..count).map(one)).await
}

/// Waits until this is so of all tasks.
async fn until_all(store: &dyn Store, what: &str, is_so: impl Fn(&Task) -> bool) {
    within(what, async {
        while !list_all(store, everything()).await.iter().all(|task| is_so(task)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_go_at_their_age_and_nothing_else_does() {
    for kind in KINDS {
        let store = kind.open();
        let tasks = settled(&*store, "old", 60, 100).await;
        store.at_rest().await;
        let (listed, counts) = (list_ids(&*store, everything()).await, store.counts());
        let age = Duration::from_secs(1);
        let retention = Retention { details: Some(age), interval: SOON, ..Retention::default() };
        let recorder = Recorder::new(store.shared());
        recorder.retain(&retention);
        until_all(&*store, "the details go", |task| {
            let now = Timestamp::now();
            let is_old = now.duration_since(task.since) >= SignedDuration::try_from(age).unwrap();
            assert!(is_old || !task.details_dropped, "{task:?} at {now}");
            task.details_dropped
        })
        .await;
        assert_eq!(list_ids(&*store, everything()).await, listed, "{kind:?}");
        assert_eq!(store.counts(), counts, "{kind:?}");
        for before in &tasks {
            let now = store.get(&before.id).await.unwrap().unwrap();
            assert_eq!((now.state_name(), now.run), (before.state_name(), 1));
            assert_eq!((now.since, now.entered), (before.since, before.entered));
            assert_eq!(now.failure(), before.failure());
            assert_eq!((now.input.digest, now.input.size), (before.input.digest, 100));
            assert_eq!((now.payload_bytes(), now.attempts.len()), (0, 0));
        }
        // What settles later is dealt with too.
        settled(&*store, "new", 20, 100).await;
        until_all(&*store, "the new details go", |task| task.details_dropped).await;
        assert_eq!(store.counts().total().success, 40 + 13);
        recorder.stop(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_is_forgotten_only_where_that_is_asked_for() {
    for kind in KINDS {
        let store = kind.open();
        settled(&*store, "t", 60, 10).await;
        store.at_rest().await;
        let working = claim(&*store, &id("working"), launch("in")).await;
        let all_but_success =
            Retention { details: Some(SOON), failed: Some(SOON), interval: SOON, ..Retention::default() };
        let first = Recorder::new(store.shared());
        first.retain(&all_but_success);
        until_all(&*store, "failures are forgotten and details go", |task| {
            task.is_working() || task.failure().is_none() && task.details_dropped
        })
        .await;
        let counts = StateCounts { working: 1, success: 40, failed: 0 };
        assert_eq!(store.counts().total(), counts, "{kind:?}");
        assert_eq!(not_started(store.claim(&id("t1"), launch("in")).await.unwrap()).reason, Refusal::Success);
        assert_eq!(store.get(&id("t0")).await.unwrap(), None);

        let second = Recorder::new(store.shared());
        second.retain(&Retention { success: Some(SOON), interval: SOON, ..Retention::default() });
        until_all(&*store, "successes are forgotten", Task::is_working).await;
        assert_eq!(store.counts().total(), StateCounts { working: 1, success: 0, failed: 0 }, "{kind:?}");
        let again = started(store.claim(&id("t1"), launch("in")).await.unwrap());
        assert_eq!(again.task().run, 2);
        assert_eq!(again.task().revoked, 1, "a receiver does not take its call for the first one's");
        drop((working, again));
        first.stop(Duration::ZERO).await;
        second.stop(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_no_old_task() {
    let store = Kind::Hot(100).open();
    settled(&*store, "t", 5_000, 10).await;
    let recorder = Recorder::new(store.shared());
    let interval = Duration::from_hours(1);
    recorder.retain(&Retention { details: Some(SOON), interval, ..Retention::default() });
    within("the first is dropped", async {
        while !store.get(&id("t0")).await.unwrap().unwrap().details_dropped {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within("the stop", recorder.stop(Duration::from_hours(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn launches_go_on_meanwhile() {
    let store = Kind::Hot(100).open();
    settled(&*store, "t", 3_000, 100).await;
    let recorder = Recorder::new(store.shared());
    let retention = Retention { details: Some(SOON), interval: SOON, ..Retention::default() };
    recorder.retain(&retention);
    for n in 0..200 {
        let launch = recorder.launch_and_wait(id(&format!("l{n}")), async { Ok::<_, String>("done") });
        assert!(matches!(launch.await.unwrap(), Some(Launch::Started(_))));
    }
    until_all(&*store, "all details go", |task| task.details_dropped).await;
    assert_eq!(store.counts().total(), StateCounts { working: 0, success: 2_200, failed: 1_000 });
    recorder.stop(Duration::ZERO).await;
}

/// Takes five seconds, because that is how long a commit waits for another tool's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_is_dropped_later() {
    let store = Kind::Embedded.open();
    settled(&*store, "t", 3, 10).await;
    let tool = Connection::open(store.path().join("journal.db")).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let recorder = Recorder::new(store.shared());
    recorder.retain(&Retention { details: Some(SOON), interval: SOON, ..Retention::default() });
    let mut health = recorder.health();
    let is_unavailable = |health: &Health| matches!(health, Health::Unavailable(_));
    within("the store says so", health.wait_for(is_unavailable)).await.unwrap();
    assert!(list_all(&*store, everything()).await.iter().all(|task| !task.details_dropped));
    tool.execute_batch("ROLLBACK").unwrap();
    until_all(&*store, "the details go", |task| task.details_dropped).await;
    recorder.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_details_leave_the_files_and_their_pages_are_used_again() {
    const HOT: usize = 20;
    let store = Kind::Hot(HOT).open();
    let tasks = settled(&*store, "old", 100, 8 << 10).await;
    store.at_rest().await;
    let archive = open_to_read(&store.path().join("archive.db"));
    let journal = open_to_read(&store.path().join("journal.db"));
    let in_archive = "SELECT count(*) FROM tasks WHERE (length(input) > 0 OR length(output) > 0 \
                      OR detail LIKE '%attempts%')";
    let in_journal = "SELECT count(*) FROM journal WHERE length(payload) > 0 OR changes LIKE '%attempts%'";
    assert!(number(&archive, in_archive) >= 100 - HOT - HOT / 8);
    assert!(number(&journal, in_journal) > 0);
    let pages = number(&archive, "PRAGMA page_count");

    // A single one, after which nothing happens that could push it out of memory.
    let oldest = list_all(&*store, everything()).await.swap_remove(0);
    done(store.drop_details(&oldest).await.unwrap());
    let of_oldest = format!("{in_archive} AND id = '{}'", oldest.id);
    until("its row has let go of the bytes", || number(&archive, &of_oldest) == 0).await;

    let others = tasks.iter().filter(|task| task.id != oldest.id);
    for dropped in join_all(others.map(|task| store.drop_details(task))).await {
        done(dropped.unwrap());
    }
    until("the archive has let go of the bytes", || number(&archive, in_archive) == 0).await;
    until("the journal has let go of the bytes", || number(&journal, in_journal) == 0).await;
    let (free, least) = (number(&archive, "PRAGMA freelist_count"), 70 * 4);
    assert!(free >= least, "{free} of {pages} pages are free");

    settled(&*store, "new", 60 + HOT, 8 << 10).await;
    store.at_rest().await;
    assert!(number(&archive, in_archive) >= 50, "new ones are archived");
    let grown = number(&archive, "PRAGMA page_count") - pages;
    assert!(grown < 20, "the file has grown by {grown} pages to {pages}");
}

const CONFIG: &str = r#"
    [store]
    hot_tasks = 5
    [handlers.echo]
    type = "command"
    command = ["cat"]
    default = true
    [handlers.fail]
    type = "command"
    command = ["sh", "-c", "cat; exit 3"]
    [retention]
    interval = "100ms"
"#;

async fn record(client: &Client, task: &str) -> Value {
    client.get(&format!("/tasks/{task}")).await.json()
}

/// Waits until the record is so.
async fn until_record(client: &Client, task: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let record = record(client, task).await;
            if is_so(&record) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the record", found).await
}

fn is_dropped(record: &Value) -> bool {
    record["details_dropped"] == true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_details_a_task_is_what_it_was() {
    let mut server = TestServer::start(&format!("{CONFIG}details = \"1s\"\n"));
    let mut client = server.client();
    let names: Vec<_> =
        (0..20).map(|n| format!("{}-{n}", if n % 4 == 0 { "fail" } else { "echo" })).collect();
    let launches = names.iter().map(|name| {
        let handler = name.split('-').next().unwrap();
        let path = format!("/tasks/{name}?handler={handler}&wait=30");
        let client = client.clone();
        async move {
            let headers = [("content-type", "text/plain")];
            assert_eq!(client.send(Method::POST, &path, &headers, "the input").await.status, 200);
        }
    });
    join_all(launches).await;
    let lists = ["/tasks", "/tasks?order=desc", "/tasks?state=failed", "/tasks?state=success&limit=3"];
    let look = async |client: &Client| {
        let stats = client.get("/stats").await.json()["tasks"].clone();
        let pages = lists.map(|path| client.get(path));
        let pages: Vec<_> = join_all(pages).await.iter().map(Answer::json).collect();
        (stats, pages)
    };
    let before = look(&client).await;
    assert_eq!(before.0, serde_json::json!({"working": 0, "success": 15, "failed": 5}));

    // In the middle of it, the process goes.
    until_record(&client, "echo-1", is_dropped).await;
    server.kill();
    server.restart();
    client = server.client();
    for name in &names {
        let record = until_record(&client, name, is_dropped).await;
        assert_eq!((&record["run"], &record["attempts"]), (&1.into(), &Value::Array(Vec::new())), "{record}");
        assert_eq!(
            (&record["input"]["size"], &record["input"]["media_type"]),
            (&9.into(), &"text/plain".into())
        );
        assert_eq!(record["input"]["sha256"].as_str().unwrap().len(), 64);
        assert!(record.get("result").is_none(), "{record}");
        let is_failed = name.starts_with("fail");
        assert_eq!(record["error"]["kind"] == "exit_code", is_failed, "{record}");
        let result = client.get(&format!("/tasks/{name}/result")).await;
        result.problem(410, "details-dropped");
        assert_eq!(result.json()["state"], if is_failed { "failed" } else { "success" });
    }
    assert_eq!(look(&client).await, before);

    assert_eq!(client.post("/tasks/echo-1", "the input").await.json()["reason"], "success");
    let sentence = client.post("/tasks/fail-0/retry", "").await.problem(409, "input-dropped");
    assert!(sentence.contains("launch fail-0 again with its input"), "{sentence}");
    let again = client.post("/tasks/fail-0?handler=fail&wait=30", "the input").await.json();
    assert_eq!(
        (&again["state"], &again["run"], &again["launched"]),
        (&"failed".into(), &2.into(), &true.into())
    );
    assert!(!server.log().contains("CAN RUN AGAIN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_not_found_and_its_id_is_free() {
    let mut server = TestServer::start(&format!("{CONFIG}failed = \"1s\"\n"));
    let launch = async |client: &Client, task: &str| {
        let handler = task.split('-').next().unwrap();
        client.post(&format!("/tasks/{task}?handler={handler}&wait=30"), "x").await.json()
    };
    let client = server.client();
    launch(&client, "echo-1").await;
    launch(&client, "fail-1").await;
    until_record(&client, "fail-1", |record| record["state"] == "not_found").await;
    assert_eq!(record(&client, "echo-1").await["state"], "success");
    assert_eq!(
        client.get("/stats").await.json()["tasks"],
        serde_json::json!({"working": 0, "success": 1, "failed": 0})
    );
    assert_eq!(launch(&client, "fail-1").await["run"], 2);

    server.terminate();
    server.wait();
    server.configure(&format!("{CONFIG}success = \"1s\"\n"));
    server.restart();
    assert!(server.log().contains("CAN RUN AGAIN"), "{}", server.log());
    let client = server.client();
    until_record(&client, "echo-1", |record| record["state"] == "not_found").await;
    let again = launch(&client, "echo-1").await;
    assert_eq!((&again["run"], &again["launched"]), (&2.into(), &true.into()));
}
