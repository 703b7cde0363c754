//! Events: of a store, and over HTTP from the real binary.

use std::collections::BTreeMap;
use std::sync::Arc;

use task_recorder::store::{
    EmbeddedOptions, Event, Feed, Filter, Gap, MemoryStore, Moved, Order, Store, StoreError,
};
use task_recorder::task::{Change, ErrorKind, Failure, StateName};
use tokio::task::JoinSet;

use crate::http::config;
use crate::stores::{
    Kind, Moves as _, claim, done, failure, id, launch, list_all, number, open_embedded, open_to_read, query,
    run, settle, success,
};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::sse::{Events, Told};
use crate::support::{until, within};

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Embedded, Kind::Tiny(8)];

/// Everything behind this number, in small pieces.
fn all_after(feed: &Feed, mut seq: u64) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let batch = feed.after(seq, 3);
        assert_eq!(batch.gap, None);
        if batch.events.is_empty() {
            return events;
        }
        seq = batch.read_to;
        events.extend(batch.events);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_an_event_in_the_order_of_the_changes() {
    for kind in KINDS {
        let store = kind.open();
        let mut feed = store.events();
        let mut workers = JoinSet::new();
        for worker in 0..8 {
            let store = store.shared();
            workers.spawn(async move {
                for round in 0..20 {
                    let task = id(&format!("t-{worker}-{}", round % 5));
                    let outcome = if round < 15 { failure(ErrorKind::Error) } else { success() };
                    run(&*store, &task, outcome).await;
                }
            });
        }
        // Read while they are written.
        let (mut events, mut seq) = (Vec::new(), 0);
        while events.len() < 8 * 20 * 2 {
            assert!(within("an event", feed.beyond(seq)).await);
            let batch = feed.after(seq, 7);
            assert_eq!(batch.gap, None, "{kind:?}");
            seq = batch.read_to;
            events.extend(batch.events);
        }
        workers.join_all().await;
        assert!(feed.after(seq, 7).events.is_empty(), "{kind:?}: more events than changes");

        assert!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "{kind:?}: out of order");
        let mut by_task = BTreeMap::<_, Vec<&Event>>::new();
        for event in &events {
            by_task.entry(event.id.clone()).or_default().push(event);
        }
        for task in list_all(&*store, query(Filter::default(), Order::Ascending, 100)).await {
            let of_task = &by_task[&task.id];
            let revisions: Vec<_> = of_task.iter().map(|event| event.revision).collect();
            assert_eq!(revisions, (1..=task.revision).collect::<Vec<_>>(), "{kind:?}");
            let last = of_task.last().unwrap();
            assert_eq!((last.state, last.run, last.since), (StateName::Success, task.run, task.since));
            assert_eq!(last.seq, task.entered, "{kind:?}: a list and the events count alike");
        }
    }
}

#[tokio::test]
async fn who_has_seen_an_event_finds_a_record_that_is_as_new() {
    let store = Kind::Embedded.open();
    let mut feed = store.events();
    let mut workers = JoinSet::new();
    for worker in 0..4 {
        let store = store.shared();
        workers.spawn(async move {
            for round in 0..50 {
                run(&*store, &id(&format!("t-{worker}-{round}")), success()).await;
            }
        });
    }
    let (mut seen, mut seq) = (0, 0);
    while seen < 4 * 50 * 2 {
        assert!(within("an event", feed.beyond(seq)).await);
        let batch = feed.after(seq, 100);
        seq = batch.read_to;
        for event in batch.events {
            let task = store.get(&event.id).await.unwrap().expect("a record");
            assert!(task.revision >= event.revision, "{event:?} {task:?}");
            seen += 1;
        }
    }
    workers.join_all().await;
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_told_as_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { events_kept: 3, ..EmbeddedOptions::default() };
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(MemoryStore::with_events_kept(3)), Arc::new(open_embedded(folder.path(), &options))];
    for store in stores {
        for name in ["a", "b", "c"] {
            run(&*store, &id(name), success()).await;
        }
        let feed = store.events();
        assert_eq!(feed.seq(), 6);
        let seqs = |batch: &task_recorder::store::Batch| -> Vec<u64> {
            batch.events.iter().map(|event| event.seq).collect()
        };
        let batch = feed.after(0, 2);
        assert_eq!((batch.gap, seqs(&batch), batch.read_to), (Some(Gap { from: 1, to: 3 }), vec![4, 5], 5));
        let batch = feed.after(2, 9);
        assert_eq!(
            (batch.gap, seqs(&batch), batch.read_to),
            (Some(Gap { from: 3, to: 3 }), vec![4, 5, 6], 6)
        );
        let batch = feed.after(3, 9);
        assert_eq!((batch.gap, seqs(&batch)), (None, vec![4, 5, 6]));
        let batch = feed.after(6, 9);
        assert_eq!((batch.gap, seqs(&batch), batch.read_to), (None, vec![], 6));
        // A number that this store has never reached.
        let batch = feed.after(7, 9);
        assert_eq!((batch.gap, seqs(&batch)), (Some(Gap { from: 0, to: 3 }), vec![4, 5, 6]));
        // A change that is no event is read over.
        let last = store.get(&id("c")).await.unwrap().unwrap();
        done(store.drop_details(&last).await.unwrap());
        for (after, max, seqs_expected, read_to) in
            [(3, 9, vec![4, 5, 6], 7), (3, 2, vec![4, 5], 5), (6, 9, vec![], 7)]
        {
            let batch = feed.after(after, max);
            assert_eq!((batch.gap, seqs(&batch), batch.read_to), (None, seqs_expected, read_to));
        }
        let mut feed = feed;
        store.close().await;
        assert!(!within("the end", feed.beyond(7)).await);
        assert!(feed.beyond(5).await, "what was before the end can be read");
    }
}

#[tokio::test]
async fn a_refusal_and_a_failed_write_are_no_events() {
    for kind in KINDS {
        let store = kind.open();
        run(&*store, &id("a"), success()).await;
        drop(store.claim(&id("a"), launch("")).await.unwrap());
        assert!(matches!(
            store.change(&id("a"), Change::Cancel { is_notice_due: false }).await.unwrap(),
            Moved::Refused(_)
        ));
        let feed = store.events();
        assert_eq!(feed.seq(), 2, "{kind:?}");
        store.close().await;
        assert_eq!(store.claim(&id("b"), launch("")).await.unwrap_err(), StoreError::Closed);
        assert_eq!(feed.after(0, 9).events.len(), 2, "{kind:?}");
    }
}

#[tokio::test]
async fn events_say_what_a_task_is_doing_and_why_it_failed() {
    let store = Kind::Memory.open();
    run(&*store, &id("a"), failure(ErrorKind::Timeout)).await;
    store.forget(&id("a")).await.unwrap();
    run(&*store, &id("b"), success()).await;
    let revoking = done(store.change(&id("b"), Change::BeginRevoke).await.unwrap());
    let result = Err(Failure::new(ErrorKind::Refused, "nobody is there"));
    let change = Change::EndRevoke { revision: revoking.revision, result };
    store.change(&id("b"), change).await.unwrap();
    let events = all_after(&store.events(), 0);
    let told: Vec<_> = events.iter().map(|event| (event.state, event.is_revoking, event.failure)).collect();
    assert_eq!(
        told,
        [
            (StateName::Working, false, None),
            (StateName::Failed, false, Some((ErrorKind::Timeout, true))),
            (StateName::Absent, false, None),
            (StateName::Working, false, None),
            (StateName::Success, false, None),
            (StateName::Success, true, None),
            (StateName::Success, false, Some((ErrorKind::Refused, false))),
        ]
    );
}

#[tokio::test]
async fn numbers_go_on_after_a_restart_and_what_was_before_is_a_gap() {
    for kind in [Kind::Embedded, Kind::Tiny(1)] {
        let store = kind.open();
        for name in ["a", "b", "c"] {
            run(&*store, &id(name), success()).await;
        }
        store.at_rest().await;
        let store = store.reopen().await;
        let feed = store.events();
        assert_eq!(feed.seq(), 6, "{kind:?}");
        assert_eq!(feed.after(6, 9).gap, None, "{kind:?}: who had everything has missed nothing");
        assert_eq!(feed.after(4, 9).gap, Some(Gap { from: 5, to: 6 }), "{kind:?}");
        let claim = claim(&*store, &id("d"), launch("")).await;
        settle(&*store, claim, success()).await;
        let seqs: Vec<_> = all_after(&feed, 6).iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [7, 8], "{kind:?}");
    }
}

#[tokio::test]
async fn no_number_is_used_twice_although_the_last_row_is_not_needed_any_more() {
    let store = Kind::Tiny(1).open();
    run(&*store, &id("a"), success()).await;
    let revoking = done(store.change(&id("a"), Change::BeginRevoke).await.unwrap());
    run(&*store, &id("b"), success()).await;
    // The last change of all is one of the oldest task, which goes to the archive at once.
    let result = Err(Failure::new(ErrorKind::Refused, "nobody is there"));
    let change = Change::EndRevoke { revision: revoking.revision, result };
    store.change(&id("a"), change).await.unwrap();
    let seq = store.events().seq();
    let journal = open_to_read(&store.path().join("journal.db"));
    let rows = "SELECT count(*) FROM changes WHERE id = 'a'";
    until("the archive has taken it", || number(&journal, rows) <= 1).await;
    drop(journal);
    let store = store.reopen().await;
    assert_eq!(store.events().seq(), seq);
    run(&*store, &id("d"), success()).await;
    assert_eq!(store.events().seq(), seq + 2);
    let store = store.reopen().await;
    assert_eq!(store.events().seq(), seq + 2);
    assert!(store.get(&id("a")).await.unwrap().is_some_and(|task| task.revision == 4));
}

fn names(events: &[Told]) -> Vec<(&str, &str)> {
    events
        .iter()
        .map(|told| {
            let phase = told.data["phase"].as_str().unwrap_or_default();
            (told.name.as_str(), phase)
        })
        .collect()
}

fn of(told: &Told) -> &str {
    told.data["id"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_reader_is_told_of_every_transition_from_now_on() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    client.post("/tasks/before?wait=30", "").await;
    let mut events = Events::open(server.base(), "/events", &[]).await;
    let begun = events.last_id.unwrap();

    receiver.on("good", [Behaviour::Answer(Answer::of(200))]);
    receiver.on("bad", [Behaviour::Answer(Answer::of(500))]);
    for task in ["good", "bad"] {
        client.post(&format!("/tasks/{task}?wait=30"), "").await;
    }
    let told = events.take(4).await;
    assert_eq!(
        names(&told),
        [("working", "running"), ("success", ""), ("working", "running"), ("failed", "")]
    );
    assert!(told[0].id > begun && told.windows(2).all(|pair| pair[0].id < pair[1].id));
    let good = client.get("/tasks/good").await.json();
    for field in ["id", "state", "handler", "run", "revision", "since"] {
        assert_eq!(told[1].data[field], good[field], "{field}");
    }
    assert!(told[1].data.get("error").is_none() && told[1].data.get("attempt").is_none());
    assert_eq!(told[2].data["attempt"], 1);
    assert_eq!((&told[3].data["error"]["kind"], &told[3].data["in_doubt"]), (&"status".into(), &true.into()));

    client.post("/tasks/good/revoke", "").await;
    let told = events.take(1).await;
    assert_eq!((told[0].name.as_str(), of(&told[0])), ("not_found", "good"));
    assert_eq!(told[0].data["state"], "not_found");
}

#[tokio::test]
async fn filters_narrow_what_is_told() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    let open = async |query: &str| Events::open(server.base(), &format!("/events?{query}"), &[]).await;
    let mut echo = open("handler=echo").await;
    let mut ended = open("state=succeeded&state=error").await;
    let mut two = open("id=t-1&id=t-3&state=success").await;
    let mut gone = open("state=not_found").await;
    receiver.on("t-2", [Behaviour::Answer(Answer::of(404))]);
    for task in ["t-1", "t-2", "t-3"] {
        client.post(&format!("/tasks/{task}?wait=30"), "").await;
    }
    client.post("/tasks/t-4?wait=30&handler=echo", "").await;
    client.post("/tasks/t-4/revoke", "").await;

    let told = echo.take(3).await;
    assert!(told.iter().all(|told| of(told) == "t-4"), "{told:?}");
    let told = ended.take(4).await;
    let pairs: Vec<_> = told.iter().map(|told| (of(told), told.name.as_str())).collect();
    assert_eq!(pairs, [("t-1", "success"), ("t-2", "failed"), ("t-3", "success"), ("t-4", "success")]);
    assert_eq!(two.take(2).await.iter().map(of).collect::<Vec<_>>(), ["t-1", "t-3"]);
    assert_eq!(gone.take(1).await.iter().map(of).collect::<Vec<_>>(), ["t-4"]);

    for (query, what) in [
        ("state=nonsense", "state"),
        ("id=a%20b", "id"),
        ("after=x", "after"),
        ("handler=", "handler"),
        ("stat=failed", "stat"),
    ] {
        let detail = client.get(&format!("/events?{query}")).await.problem(400, "invalid-parameter");
        assert!(detail.contains(what), "{detail}");
    }
    for (path, place) in [("/events", "yesterday"), ("/events?after=x", "1")] {
        let headers = [("last-event-id", place)];
        let answer = client.send(hyper::Method::GET, path, &headers, "").await;
        answer.problem(400, "invalid-parameter");
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_goes_on_where_it_was() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    let mut events = Events::open(server.base(), "/events", &[]).await;
    let begin = events.last_id.unwrap().to_string();
    for number in 0..10 {
        client.post(&format!("/tasks/t-{number}?wait=30"), "").await;
    }
    let whole = events.take(20).await;
    let at = whole[6].id.to_string();
    // The header is newer than the address that a browser uses again.
    for (path, headers) in [
        (format!("/events?after={at}"), vec![]),
        ("/events".to_owned(), vec![("last-event-id", at.as_str())]),
        (format!("/events?after={begin}"), vec![("last-event-id", at.as_str())]),
    ] {
        let mut again = Events::open(server.base(), &path, &headers).await;
        assert_eq!(again.take(13).await, whole[7..], "{path}");
    }
}

#[tokio::test]
async fn a_gap_is_told_before_what_is_kept() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&format!("{}\n[store]\nevents_kept = 5\n", config(&receiver)));
    let client = server.client();
    for number in 0..10 {
        client.post(&format!("/tasks/t-{number}?wait=30"), "").await;
    }
    let mut events = Events::open(server.base(), "/events?after=3", &[]).await;
    let told = events.take(6).await;
    assert_eq!((told[0].name.as_str(), told[0].id), ("gap", 15));
    assert_eq!(told[0].data, serde_json::json!({ "from": 4, "to": 15 }));
    assert_eq!(told[1..].iter().map(|told| told.id).collect::<Vec<_>>(), [16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn a_restart_keeps_the_numbers_and_tells_what_was_missed() {
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&config(&receiver));
    let mut events = Events::open(server.base(), "/events", &[]).await;
    server.client().post("/tasks/a?wait=30", "").await;
    let seen = events.take(2).await;
    receiver.by_default(Behaviour::NeverAnswer);
    server.client().post("/tasks/b", "").await;
    let seen_all = events.take(1).await;
    server.kill();
    assert!(events.rest().await.is_empty());
    server.restart();

    let after = |told: &Told| format!("/events?after={}", told.id);
    // Who had everything is told what the start has found.
    let mut events = Events::open(server.base(), &after(&seen_all[0]), &[]).await;
    let told = events.take(1).await;
    assert_eq!((told[0].name.as_str(), of(&told[0])), ("failed", "b"));
    assert_eq!(told[0].data["error"]["kind"], "interrupted");
    assert!(told[0].id > seen_all[0].id);
    // Who had not is told what is missing first.
    let mut late = Events::open(server.base(), &after(&seen[1]), &[]).await;
    let told_late = late.take(2).await;
    assert_eq!(told_late[0].name, "gap");
    assert_eq!(told_late[0].data["from"], seen[1].id + 1);
    assert_eq!(told_late[0].data["to"], seen_all[0].id);
    assert_eq!(told_late[1], told[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_are_each_told_what_they_want() {
    const READERS: usize = 300;
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let mut readers = JoinSet::new();
    let opened = Arc::new(tokio::sync::Barrier::new(READERS + 1));
    for number in 0..READERS {
        let (base, opened) = (server.base().to_owned(), Arc::clone(&opened));
        readers.spawn(async move {
            let path = format!("/events?id=t-{number}&id=t-all");
            let mut events = Events::open(&base, &path, &[]).await;
            opened.wait().await;
            let told = events.take(4).await;
            let ids: Vec<_> = told.iter().map(of).collect();
            let own = format!("t-{number}");
            assert_eq!(ids, [own.as_str(), own.as_str(), "t-all", "t-all"]);
        });
    }
    within("all have begun", opened.wait()).await;
    let mut launches = JoinSet::new();
    for number in 0..READERS {
        let client = server.client();
        launches.spawn(async move { client.post(&format!("/tasks/t-{number}?wait=30"), "").await });
    }
    launches.join_all().await;
    server.client().post("/tasks/t-all?wait=30", "").await;
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed() {
    const KEPT: usize = 50;
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&format!("{}\n[store]\nevents_kept = {KEPT}\n", config(&receiver)));
    let client = server.client();
    let mut slow = Events::open(server.base(), "/events", &[]).await;
    assert_eq!(client.post("/handlers/hook/pause", "").await.status, 200);
    // Long ids, and two changes each: more than any socket takes.
    let mut launches = JoinSet::new();
    for worker in 0..8 {
        let client = client.clone();
        launches.spawn(async move {
            for number in 0..1_500 {
                let path = format!("/tasks/{worker}-{number}-{}", "x".repeat(240));
                assert_eq!(client.post(&path, "").await.status, 202);
                assert_eq!(client.post(&format!("{path}/cancel"), "").await.status, 202);
            }
        });
    }
    launches.join_all().await;
    server.terminate();
    let told = slow.rest().await;
    assert_eq!(server.wait().code(), Some(0));
    let gaps: Vec<_> = told.iter().filter(|told| told.name == "gap").collect();
    assert!(!gaps.is_empty() && told.len() < 24_000, "{} events, no gap", told.len());
    // Nothing is missing that was not told.
    let mut next = 1;
    for told in &told {
        let first = if told.name == "gap" { told.data["from"].as_u64().unwrap() } else { told.id };
        assert_eq!(first, next);
        next = told.id + 1;
    }
    assert_eq!(next, 24_001);
}

#[tokio::test]
async fn a_stop_tells_how_the_runs_ended_and_then_ends_the_stream() {
    let receiver = Receiver::start().await;
    let mut server = TestServer::start(&config(&receiver));
    let client = server.client();
    let gate = Gate::new();
    receiver.on("a", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    let mut events = Events::open(server.base(), "/events", &[]).await;
    client.post("/tasks/a", "").await;
    receiver.wait_for(1).await;
    server.terminate();
    until_draining(&client).await;
    gate.open();
    let told = events.rest().await;
    assert_eq!(names(&told), [("working", "running"), ("success", "")]);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.log().contains("cut off"), "{}", server.log());
}

async fn until_draining(client: &crate::support::client::Client) {
    within("the service drains", async {
        while client.get("/readyz").await.status == 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
