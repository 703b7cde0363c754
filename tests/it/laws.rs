//! The promises, one test each, named as the sentence that it proves, over every kind of store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt as _;
use task_recorder::recorder::{LaneSpec, Launch, LaunchError, NoticeSpec, Recorder, RecoveryReport, Work};
use task_recorder::store::{Filter, Moved, Order, Page, StateCounts, Store, StoreError, Unsettled};
use task_recorder::task::{
    Change, ErrorKind, Input, Outcome, Policy, Refusal, Request, State, StateName, Task, TaskId, Undo,
};
use tokio::sync::{Barrier, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::stores::{
    Kind, RETRY, TestStore, assert_counts_agree, attempt, done, failure, handler, id, in_states, launch,
    launch_with, query, settle, success, without_bytes,
};
use crate::support::meddled::{Asked, Meddler, meddled};
use crate::support::{until, within};

/// Makes a test of each law for each store. Only a macro can make functions.
macro_rules! every_store {
    ($($law:ident,)*) => {
        every_store!(@ memory, Kind::Memory; $($law)*);
        every_store!(@ embedded, Kind::Embedded; $($law)*);
        every_store!(@ embedded_that_archives_at_once, Kind::Hot(0); $($law)*);
    };
    (@ $name:ident, $kind:expr; $($law:ident)*) => {
        mod $name {
            use crate::stores::Kind;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $law() {
                    let store = $kind.open();
                    let recorder = task_recorder::recorder::Recorder::new(store.shared());
                    super::$law(store, recorder).await;
                }
            )*
        }
    };
}

every_store! {
    of_many_launches_of_one_id_exactly_one_starts,
    after_a_success_no_launch_starts_until_it_is_revoked,
    of_many_retries_exactly_one_starts_and_only_of_a_failed_task,
    a_refused_launch_changes_nothing,
    everything_settles,
    a_hang_up_of_the_caller_cuts_nothing,
    a_crash_leaves_no_task_working,
    status_never_goes_back,
    a_late_worker_changes_nothing_and_is_counted,
    a_list_and_the_status_agree,
    whoever_waits_hears_of_the_end,
    whoever_waits_hears_of_the_end_of_a_later_run_too,
    whoever_waits_is_not_told_of_a_record_that_is_gone,
    stopping_waits_for_runs_then_records_the_rest_and_closes_the_store,
    a_launch_that_started_while_stopping_is_settled,
}

/// What a future of these tests returns.
type Done = Result<(), String>;

fn is_started(launch: &Launch) -> bool {
    matches!(launch, Launch::Started(_))
}

fn refusal(launch: &Launch) -> Option<Refusal> {
    match launch {
        Launch::Started(_) => None,
        Launch::Refused(refused) => Some(refused.reason),
    }
}

async fn found(recorder: &Recorder, task: &TaskId) -> Arc<Task> {
    recorder.status(task).await.unwrap().unwrap()
}

/// The record once it is not working any more.
async fn settled(recorder: &Recorder, task: &TaskId) -> Arc<Task> {
    let patience = Duration::from_hours(1);
    let task = within("the run is settled", recorder.wait(task, patience)).await.unwrap().unwrap();
    assert!(!task.is_working());
    task
}

fn kind_of(task: &Task) -> Option<(ErrorKind, bool)> {
    task.failure().map(|failure| (failure.kind, failure.in_doubt))
}

async fn of_many_launches_of_one_id_exactly_one_starts(store: TestStore, recorder: Recorder) {
    let ids: Vec<_> = (0..50).map(|n| id(&format!("order-{n}"))).collect();
    let ran: Arc<Vec<_>> = Arc::new(ids.iter().map(|_| AtomicUsize::new(0)).collect());
    let barrier = Arc::new(Barrier::new(64));
    let mut launchers = JoinSet::new();
    for _ in 0..64 {
        let (recorder, ids, ran, barrier) =
            (recorder.clone(), ids.clone(), Arc::clone(&ran), Arc::clone(&barrier));
        launchers.spawn(async move {
            let mut started = Vec::new();
            for (n, id) in ids.into_iter().enumerate() {
                barrier.wait().await;
                let ran = Arc::clone(&ran);
                let work = async move {
                    ran[n].fetch_add(1, SeqCst);
                    Done::Ok(())
                };
                let launch = recorder.launch(id.clone(), work).await.unwrap();
                match refusal(&launch) {
                    None => started.push(id),
                    Some(reason) => assert!(matches!(reason, Refusal::Working | Refusal::Success)),
                }
            }
            started
        });
    }
    let mut started: Vec<_> = launchers.join_all().await.into_iter().flatten().collect();
    started.sort();
    let mut ids_in_order = ids.clone();
    ids_in_order.sort();
    assert_eq!(started, ids_in_order, "each id was launched by one caller");
    for (id, ran) in ids.iter().zip(&*ran) {
        let task = settled(&recorder, id).await;
        assert_eq!((ran.load(SeqCst), task.run, task.revision), (1, 1, 2));
    }
    assert_eq!(assert_counts_agree(&*store).await.success, 50);
}

async fn after_a_success_no_launch_starts_until_it_is_revoked(store: TestStore, recorder: Recorder) {
    let (task, ran) = (id("order"), Arc::new(AtomicUsize::new(0)));
    let work = || {
        let ran = Arc::clone(&ran);
        async move {
            ran.fetch_add(1, SeqCst);
            Done::Ok(())
        }
    };
    for turn in 1..=3 {
        assert!(is_started(&recorder.launch_and_wait(task.clone(), work()).await.unwrap().unwrap()));
        store.at_rest().await;
        let succeeded = found(&recorder, &task).await;
        for _ in 0..20 {
            let launch = recorder.launch(task.clone(), work()).await.unwrap();
            assert_eq!(refusal(&launch), Some(Refusal::Success));
            let retry = recorder.retry(task.clone(), work()).await.unwrap();
            assert_eq!(refusal(&retry), Some(Refusal::NotFailed));
            assert!(matches!(recorder.forget(&task).await.unwrap(), Moved::Refused(_)));
        }
        assert_eq!((found(&recorder, &task).await, ran.load(SeqCst)), (succeeded, turn));
        done(recorder.revoke(&task).await.unwrap());
        assert_eq!(recorder.status(&task).await.unwrap(), None);
    }
}

async fn of_many_retries_exactly_one_starts_and_only_of_a_failed_task(_store: TestStore, recorder: Recorder) {
    let task = id("order");
    let fails = || async { Err::<(), _>("no") };
    let retry = recorder.retry(task.clone(), fails()).await.unwrap();
    assert_eq!(refusal(&retry), Some(Refusal::NotFound));
    recorder.launch_and_wait(task.clone(), fails()).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let mut retries = JoinSet::new();
    for _ in 0..64 {
        let (recorder, task, gate) = (recorder.clone(), task.clone(), Arc::clone(&gate));
        let work = async move { gate.acquire().await.map(drop).map_err(|error| error.to_string()) };
        retries.spawn(async move { refusal(&recorder.retry(task, work).await.unwrap()) });
    }
    let refusals = retries.join_all().await;
    assert_eq!(refusals.iter().filter(|refusal| refusal.is_none()).count(), 1);
    assert_eq!(refusals.iter().filter(|refusal| **refusal == Some(Refusal::NotFailed)).count(), 63);
    gate.add_permits(1);
    assert_eq!(settled(&recorder, &task).await.run, 2);
    // Now it has succeeded.
    let retry = recorder.retry(task.clone(), fails()).await.unwrap();
    assert_eq!(refusal(&retry), Some(Refusal::NotFailed));
    assert_eq!(found(&recorder, &task).await.run, 2);
}

async fn a_refused_launch_changes_nothing(store: TestStore, recorder: Recorder) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let waits = async move { waits.acquire().await.map(drop).map_err(|error| error.to_string()) };
    recorder.launch(id("working"), waits).await.unwrap();
    recorder.launch_and_wait(id("success"), async { Ok::<_, String>("what it returned") }).await.unwrap();
    recorder.launch_and_wait(id("failed"), async { Err::<(), _>("no") }).await.unwrap();
    store.at_rest().await;
    let records = async || {
        let mut records = Vec::new();
        for name in ["working", "success", "failed"] {
            let task = found(&recorder, &id(name)).await;
            records.push((serde_json::to_vec(&*task).unwrap(), task));
        }
        (
            records,
            recorder.counts(),
            recorder.list(&query(Filter::default(), Order::Ascending, 9)).await.unwrap(),
        )
    };
    let before = records().await;
    let never = |_| async { panic!("a refused launch runs nothing") };
    let ours = task_recorder::task::HandlerName::in_process();
    for (name, start, reason) in [
        ("working", launch_with(ours.as_str(), "other"), Refusal::Working),
        ("working", launch("other"), Refusal::HandlerMismatch),
        ("working", RETRY, Refusal::NotFailed),
        ("success", launch_with(ours.as_str(), "other"), Refusal::Success),
        ("success", launch("other"), Refusal::HandlerMismatch),
        ("success", RETRY, Refusal::NotFailed),
        ("failed", launch("other"), Refusal::HandlerMismatch),
        ("unknown", RETRY, Refusal::NotFound),
    ] {
        let launch = recorder.start(id(name), start, never).await.unwrap();
        assert_eq!(refusal(&launch), Some(reason), "{name}");
    }
    assert_eq!(records().await, before);
    assert_eq!(recorder.status(&id("unknown")).await.unwrap(), None);
    gate.add_permits(1);
    settled(&recorder, &id("working")).await;
    assert_eq!(recorder.figures().panics, 0);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

async fn everything_settles(_store: TestStore, recorder: Recorder) {
    let panic = Some((ErrorKind::Panic, true));
    let work = |task: Arc<Task>| async move {
        match task.id.as_str() {
            "ok" => {}
            "panics-later" => {
                tokio::task::yield_now().await;
                panic!("no");
            }
            "panics-with-a-value" => std::panic::panic_any(42),
            "panics-when-dropped" => drop(Bomb),
            other => panic!("no {other}"),
        }
        Outcome::success()
    };
    for (name, expected) in [
        ("ok", None),
        ("panics-later", panic),
        ("panics-with-a-value", panic),
        ("panics-when-dropped", panic),
    ] {
        assert!(is_started(&recorder.start(id(name), launch(""), work).await.unwrap()));
        assert_eq!(kind_of(&*settled(&recorder, &id(name)).await), expected, "{name}");
    }

    let panics_at_once = |_| -> std::future::Ready<Outcome> { panic!("no") };
    recorder.start(id("panics-at-once"), launch(""), panics_at_once).await.unwrap();
    assert_eq!(kind_of(&*settled(&recorder, &id("panics-at-once")).await), panic);
    assert_eq!(recorder.figures().panics, 4);

    recorder.launch(id("fails"), async { Err::<(), _>("the reason") }).await.unwrap();
    let failed = settled(&recorder, &id("fails")).await;
    assert_eq!(kind_of(&failed), Some((ErrorKind::Error, false)));
    assert_eq!(failed.failure().unwrap().message, "the reason");

    // Succeeded, but what it returned cannot be kept.
    let no_json = async { Ok::<_, String>(BTreeMap::from([((1, 2), 3)])) };
    recorder.launch(id("no-json"), no_json).await.unwrap();
    assert_eq!(kind_of(&*settled(&recorder, &id("no-json")).await), Some((ErrorKind::Error, true)));

    recorder.launch(id("returns"), async { Ok::<_, String>(vec![1, 2]) }).await.unwrap();
    let output = settled(&recorder, &id("returns")).await.output().cloned().unwrap();
    assert_eq!((output.media_type.as_deref(), &output.bytes[..]), (Some("application/json"), &b"[1,2]"[..]));

    // All of them may be launched again, except those that succeeded.
    for name in ["panics-later", "panics-with-a-value", "panics-when-dropped", "panics-at-once"] {
        let again = recorder.start(id(name), launch(""), async |_| success()).await.unwrap();
        assert!(is_started(&again), "{name}");
        assert_eq!(settled(&recorder, &id(name)).await.state, State::Success { output: None, undo: None });
    }

    // What hangs ends with the recorder, also if it does not end well.
    for (name, bomb) in [("hangs", None), ("hangs-and-panics-when-dropped", Some(Bomb))] {
        let hangs = async move {
            let _bomb = bomb;
            std::future::pending::<Done>().await
        };
        recorder.launch(id(name), hangs).await.unwrap();
    }
    within("it stops", recorder.stop(Duration::ZERO)).await;
    assert_eq!(kind_of(&*found(&recorder, &id("hangs")).await), Some((ErrorKind::Shutdown, true)));
    let bomb = found(&recorder, &id("hangs-and-panics-when-dropped")).await;
    assert_eq!(kind_of(&bomb), panic);
    assert_eq!(recorder.counts().total().working, 0);
}

async fn a_hang_up_of_the_caller_cuts_nothing(_store: TestStore, recorder: Recorder) {
    let gate = Arc::new(Semaphore::new(0));
    let work = || {
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.map(drop).map_err(|error| error.to_string()) }
    };
    // Dropped while it waits for the first word, or just after that.
    let hung_up: Vec<_> = (0..20).map(|n| id(&format!("hung-up-{n}"))).collect();
    for task in &hung_up {
        let mut call = Box::pin(recorder.launch(task.clone(), work()));
        drop(call.as_mut().now_or_never());
        drop(call);
    }
    let mut call = JoinSet::new();
    let (running, runs) = oneshot::channel();
    let (caller, work_of_it) = (recorder.clone(), work());
    call.spawn(async move {
        let work = async move {
            let _ = running.send(());
            work_of_it.await
        };
        drop(caller.launch_and_wait(id("aborted"), work).await);
    });
    within("it runs", runs).await.unwrap();
    call.shutdown().await;
    // One that was never polled has launched nothing.
    drop(recorder.launch(id("never"), work()));

    gate.add_permits(21);
    for task in hung_up.iter().chain([&id("aborted")]) {
        until_known(&recorder, task).await;
        assert_eq!(settled(&recorder, task).await.state, State::Success { output: None, undo: None });
    }
    assert_eq!(recorder.status(&id("never")).await.unwrap(), None);
}

/// A launch whose caller has gone tells nobody when it is claimed.
async fn until_known(recorder: &Recorder, task: &TaskId) {
    let known = async {
        while recorder.status(task).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    within("the launch is claimed", known).await;
}

async fn a_crash_leaves_no_task_working(store: TestStore, recorder: Recorder) {
    recorder.launch_and_wait(id("settled"), async { Done::Ok(()) }).await.unwrap();
    for n in 0..30 {
        let _ = store.claim(&id(&format!("t{n}")), launch("in")).await.unwrap();
    }
    let store = if store.is_durable() { store.reopen().await } else { store };
    let recorder = Recorder::new(store.shared());
    assert_eq!(recorder.recover().await.unwrap().interrupted, 30);
    for n in 0..30 {
        let task = found(&recorder, &id(&format!("t{n}"))).await;
        assert_eq!((kind_of(&task), task.run), (Some((ErrorKind::Interrupted, true)), 1));
        assert_eq!(task.attempts.len(), 1);
    }
    let counts = assert_counts_agree(&*store).await;
    assert_eq!(counts, StateCounts { working: 0, success: 1, failed: 30 });
    assert_eq!(recorder.recover().await.unwrap(), RecoveryReport::default());
    // They may be launched again.
    let again = launch("");
    assert!(is_started(&recorder.start(id("t7"), again, async |_| success()).await.unwrap()));
    assert_eq!(settled(&recorder, &id("t7")).await.run, 2);
}

/// Launches and fails other ids as long as it is wanted, so that the store has to do.
fn load(recorder: &Recorder, is_over: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for worker in 0..4 {
        let (recorder, is_over) = (recorder.clone(), Arc::clone(is_over));
        load.spawn(async move {
            for n in 0_u64.. {
                if is_over.load(SeqCst) {
                    break;
                }
                let task = id(&format!("load-{worker}-{}", n % 20));
                recorder.launch_and_wait(task, async { Err::<(), _>("no") }).await.unwrap();
            }
        });
    }
    load
}

async fn status_never_goes_back(_store: TestStore, recorder: Recorder) {
    let task = id("watched");
    recorder.launch_and_wait(task.clone(), async { Err::<(), _>("no") }).await.unwrap();
    let (seen, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let load = load(&recorder, &is_over);
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (recorder, task, seen, is_over) =
            (recorder.clone(), task.clone(), Arc::clone(&seen), Arc::clone(&is_over));
        readers.spawn(async move {
            while !is_over.load(SeqCst) {
                // What anybody has seen until now is the least that is seen from now on.
                let least = seen.load(SeqCst);
                let revision = found(&recorder, &task).await.revision;
                assert!(revision >= least, "revision {revision} after {least}");
                seen.fetch_max(revision, SeqCst);
                tokio::task::yield_now().await;
            }
        });
    }
    for n in 2..=150 {
        let launch = recorder.launch(task.clone(), async { Err::<(), _>("no") }).await.unwrap();
        let Launch::Started(started) = launch else { panic!("{launch:?}") };
        assert!(seen.fetch_max(started.revision, SeqCst) <= started.revision + 1);
        let settled = settled(&recorder, &task).await;
        assert_eq!((settled.run, settled.revision), (n, u64::from(n) * 2));
        seen.fetch_max(settled.revision, SeqCst);
    }
    is_over.store(true, SeqCst);
    readers.join_all().await;
    load.join_all().await;
}

async fn a_late_worker_changes_nothing_and_is_counted(store: TestStore, recorder: Recorder) {
    let task = id("order");
    let (finish, finished) = oneshot::channel::<()>();
    recorder.launch(task.clone(), async { finished.await.map_err(|error| error.to_string()) }).await.unwrap();
    // Somebody else settles the run: a second claim of it, as after a crash.
    let claim = store.recover().await.unwrap().claims.pop().unwrap();
    settle(&*store, claim, failure(ErrorKind::Interrupted)).await;
    let (finish_second, finished_second) = oneshot::channel::<()>();
    let second = async { finished_second.await.map_err(|error| error.to_string()) };
    assert!(is_started(&recorder.launch(task.clone(), second).await.unwrap()));
    let before = found(&recorder, &task).await;
    assert_eq!((before.run, recorder.figures().stale), (2, 0));

    finish.send(()).unwrap();
    until("the late outcome is counted", || recorder.figures().stale == 1).await;
    assert_eq!(found(&recorder, &task).await, before);
    finish_second.send(()).unwrap();
    assert_eq!(settled(&recorder, &task).await.run, 2);
    assert_eq!(recorder.figures().stale, 1);
}

async fn a_list_and_the_status_agree(store: TestStore, recorder: Recorder) {
    let is_over = Arc::new(AtomicBool::new(false));
    let load = load(&recorder, &is_over);
    for turn in 0..40 {
        let order = if turn % 2 == 0 { Order::Ascending } else { Order::Descending };
        let states: &[_] = if turn % 4 < 2 { &[] } else { &[StateName::Failed] };
        let mut query = query(in_states(states), order, 30);
        loop {
            let Page { tasks, next } = recorder.list(&query).await.unwrap();
            let places: Vec<_> = tasks.iter().map(|task| task.entered).collect();
            assert!(places.is_sorted_by(|a, b| order.is_before(*a, *b)), "{places:?}");
            let ids: BTreeSet<_> = tasks.iter().map(|task| &task.id).collect();
            assert_eq!(ids.len(), tasks.len(), "a page shows one moment, and no id has two states then");
            for listed in &tasks {
                let now = found(&recorder, &listed.id).await;
                assert!(now.revision >= listed.revision, "the list is ahead of the status");
                if now.revision == listed.revision {
                    assert_eq!(without_bytes(&now), without_bytes(listed));
                }
            }
            match next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    is_over.store(true, SeqCst);
    load.join_all().await;
    assert_eq!(assert_counts_agree(&*store).await.working, 0);
    store.at_rest().await;
    assert_counts_agree(&*store).await;
}

async fn whoever_waits_hears_of_the_end(_store: TestStore, recorder: Recorder) {
    let for_ever = Duration::MAX;
    assert_eq!(recorder.wait(&id("unknown"), for_ever).await.unwrap(), None);
    let gate = Arc::new(Semaphore::new(0));
    let work = || {
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.map(|_| "out").map_err(|error| error.to_string()) }
    };
    let task = id("order");
    assert!(is_started(&recorder.launch(task.clone(), work()).await.unwrap()));
    // Patience that is over gives what is so now.
    assert!(recorder.wait(&task, Duration::ZERO).await.unwrap().unwrap().is_working());
    let mut waiters = JoinSet::new();
    for n in 0..20 {
        let (recorder, task, work) = (recorder.clone(), task.clone(), work());
        waiters.spawn(async move {
            if n % 2 == 0 {
                return recorder.wait(&task, for_ever).await.unwrap().unwrap();
            }
            match recorder.launch_and_wait(task, work).await.unwrap().unwrap() {
                Launch::Refused(refused) => refused.task.unwrap(),
                started @ Launch::Started(_) => panic!("{started:?}"),
            }
        });
    }
    gate.add_permits(1);
    let heard = within("all hear of it", waiters.join_all()).await;
    let now = found(&recorder, &task).await;
    assert_eq!(now.output().unwrap().bytes, "\"out\"");
    assert!(heard.iter().all(|task| *task == now));
    gate.add_permits(1);
    let launch = recorder.launch_and_wait(id("other"), work()).await.unwrap().unwrap();
    assert!(matches!(&launch, Launch::Started(task) if !task.is_working()), "{launch:?}");
}

/// Its end and its leave may both come between the launch and the first look of who waits.
async fn whoever_waits_is_not_told_of_a_record_that_is_gone(_store: TestStore, recorder: Recorder) {
    let gate = Arc::new(Semaphore::new(0));
    for (name, result) in [("forgotten", Err("no")), ("revoked", Ok(()))] {
        let work = || {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.map_err(|_closed| "closed")?.forget();
                result
            }
        };
        let started = recorder.launch(id(name), work()).await.unwrap();
        let refused = recorder.launch(id(name), work()).await.unwrap();
        assert!(is_started(&started) && refusal(&refused) == Some(Refusal::Working));
        gate.add_permits(1);
        settled(&recorder, &id(name)).await;
        done(match result {
            Ok(()) => recorder.revoke(&id(name)).await.unwrap(),
            Err(_) => recorder.forget(&id(name)).await.unwrap(),
        });
        assert_eq!(recorder.status(&id(name)).await.unwrap(), None);
        for launch in [started, refused] {
            let told = recorder.settled(launch, None).await.unwrap();
            assert!(told.is_none(), "{name}: {told:?}");
        }
    }
}

/// Whoever waited for the first run goes away late, when somebody waits for the second one already.
async fn whoever_waits_hears_of_the_end_of_a_later_run_too(_store: TestStore, recorder: Recorder) {
    let task = id("order");
    let launch = async || {
        let (finish, finished) = oneshot::channel::<()>();
        let work = async { finished.await.map_err(|_closed| "no") };
        assert!(is_started(&recorder.launch(task.clone(), work).await.unwrap()));
        finish
    };
    let ends = async |run| {
        let ended = async {
            while found(&recorder, &task).await.is_working() {
                tokio::task::yield_now().await;
            }
        };
        within("the run ends", ended).await;
        assert_eq!(found(&recorder, &task).await.run, run);
    };
    for (run, is_dropped) in [(1, true), (3, false)] {
        let finish = launch().await;
        let mut first = Box::pin(recorder.wait(&task, Duration::MAX));
        assert!(first.as_mut().now_or_never().is_none());
        drop(finish);
        ends(run).await;

        let finish = launch().await;
        let mut second = Box::pin(recorder.wait(&task, Duration::MAX));
        assert!(second.as_mut().now_or_never().is_none());
        if is_dropped {
            drop(first);
        } else {
            assert!(first.as_mut().now_or_never().is_none(), "it waits for the second run now");
        }
        drop(finish);
        let heard = within("whoever waits hears of it", second).await.unwrap().unwrap();
        assert_eq!((heard.run, heard.is_working()), (run + 1, false));
    }
}

async fn stopping_waits_for_runs_then_records_the_rest_and_closes_the_store(
    store: TestStore,
    recorder: Recorder,
) {
    let (finish, finished) = oneshot::channel::<()>();
    recorder.launch(id("ends"), async { finished.await.map_err(|error| error.to_string()) }).await.unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let hangs = async move {
        let _flag = OnDrop(flag);
        std::future::pending::<Done>().await
    };
    recorder.launch(id("hangs"), hangs).await.unwrap();
    assert!(!recorder.is_draining());

    let mut stopping = JoinSet::new();
    let stopped = recorder.clone();
    stopping.spawn(async move { stopped.stop(Duration::from_millis(300)).await });
    until("it drains", || recorder.is_draining()).await;
    let launch = recorder.launch(id("late"), async { Done::Ok(()) }).await;
    assert_eq!(launch.unwrap_err(), LaunchError::Draining);
    assert_eq!(recorder.retry(id("late"), async { Done::Ok(()) }).await.unwrap_err(), LaunchError::Draining);
    // What runs goes on within the grace period, and what it comes to is recorded.
    finish.send(()).unwrap();
    assert_eq!(settled(&recorder, &id("ends")).await.state, State::Success { output: None, undo: None });
    within("it stops", stopping.join_all()).await;

    assert_eq!(kind_of(&*found(&recorder, &id("hangs")).await), Some((ErrorKind::Shutdown, true)));
    assert!(dropped.load(SeqCst), "the future that hung is gone");
    assert_eq!(recorder.revoke(&id("ends")).await.unwrap_err(), StoreError::Closed);
    assert_eq!(store.claim(&id("late"), launch_with("h", "")).await.unwrap_err(), StoreError::Closed);
    if store.is_durable() {
        let store = store.reopen().await;
        assert_eq!(store.recover().await.unwrap().claims.len(), 0);
        assert_counts_agree(&*store).await;
    }
}

/// Says that it was dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

async fn a_launch_that_started_while_stopping_is_settled(store: TestStore, _recorder: Recorder) {
    for _ in 0..40 {
        let store = store.another();
        let recorder = Recorder::new(store.shared());
        let mut launchers = JoinSet::new();
        let barrier = Arc::new(Barrier::new(5));
        for launcher in 0..4 {
            let (recorder, barrier) = (recorder.clone(), Arc::clone(&barrier));
            launchers.spawn(async move {
                barrier.wait().await;
                for n in 0.. {
                    let task = id(&format!("t{launcher}-{n}"));
                    match recorder.launch(task, async { Done::Ok(()) }).await {
                        Ok(launch) => assert!(is_started(&launch)),
                        Err(error) => return error,
                    }
                }
                panic!("it never stopped");
            });
        }
        barrier.wait().await;
        until("some are launched", || recorder.counts().total().success > 20).await;
        within("it stops", recorder.stop(Duration::from_secs(10))).await;
        assert_eq!(launchers.join_all().await, vec![LaunchError::Draining; 4]);
        assert_eq!(recorder.counts().total().working, 0, "it stopped before the outcomes were recorded");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_patience_or_with_the_run() {
    let store = Kind::Memory.open();
    let recorder = Recorder::new(store.shared());
    let begun = tokio::time::Instant::now();
    let work = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        Done::Ok(())
    };
    let task = id("order");
    recorder.launch(task.clone(), work).await.unwrap();
    let now = recorder.wait(&task, Duration::from_secs(40)).await.unwrap().unwrap();
    assert!(now.is_working());
    assert_eq!(begun.elapsed().as_secs(), 40);
    let launch = recorder.launch(task.clone(), async { Done::Ok(()) }).await.unwrap();
    let launch = recorder.settled(launch, Some(Duration::from_secs(20))).await.unwrap();
    let Some(Launch::Refused(refused)) = launch else {
        panic!("it is working");
    };
    assert!(refused.task.unwrap().is_working());
    assert_eq!(begun.elapsed().as_secs(), 60);
    let now = recorder.wait(&task, Duration::from_mins(10)).await.unwrap().unwrap();
    assert!(!now.is_working());
    assert_eq!(begun.elapsed().as_secs(), 100);
}

/// Lets settles fail as long as it is told so, and claims take a permit each.
struct Failing {
    fails_with: std::sync::Mutex<Option<StoreError>>,
    settles: AtomicUsize,
    claims: Semaphore,
}

#[async_trait::async_trait]
impl Meddler for Failing {
    async fn before(&self, asked: Asked<'_>) -> Result<(), StoreError> {
        match asked {
            Asked::Change(Change::Claim(_)) => self.claims.acquire().await.unwrap().forget(),
            Asked::Change(Change::Settle { .. }) => {
                self.settles.fetch_add(1, SeqCst);
                let error = self.fails_with.lock().unwrap().clone();
                error.map_or(Ok(()), Err)?;
            }
            Asked::Change(_) | Asked::Get | Asked::List | Asked::Notes => {}
        }
        Ok(())
    }
}

/// What fails so, and the store that it does that to.
fn failing(fails_with: Option<StoreError>, claims: usize) -> (Arc<Failing>, Arc<dyn Store>) {
    let fails_with = std::sync::Mutex::new(fails_with);
    let failing =
        Arc::new(Failing { fails_with, settles: AtomicUsize::new(0), claims: Semaphore::new(claims) });
    let store = meddled(&failing);
    (failing, store)
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_written_is_kept_and_written_later() {
    let (failing, store) = failing(Some(StoreError::Unavailable("no space left".to_owned())), 10);
    let recorder = Recorder::new(store);
    recorder.launch(id("order"), async { Ok::<_, String>("out") }).await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(found(&recorder, &id("order")).await.is_working());
    assert_eq!(recorder.figures().unsettled, 1);
    let tries = failing.settles.load(SeqCst);
    assert!((1_700..2_000).contains(&tries), "{tries} tries in an hour, with pauses of up to two seconds");
    *failing.fails_with.lock().unwrap() = None;
    let task = settled(&recorder, &id("order")).await;
    assert_eq!(task.output().unwrap().bytes, "\"out\"");
    tokio::task::yield_now().await;
    assert_eq!(recorder.figures().unsettled, 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_although_outcomes_cannot_be_written() {
    for error in [StoreError::Unavailable("no space left".to_owned()), StoreError::Dead("fsync".to_owned())] {
        let (_, store) = failing(Some(error), 10);
        let recorder = Recorder::new(Arc::clone(&store));
        recorder.launch(id("order"), async { Done::Ok(()) }).await.unwrap();
        recorder.launch(id("hangs"), std::future::pending::<Done>()).await.unwrap();
        recorder.stop(Duration::from_secs(10)).await;
        assert_eq!(recorder.counts().total().working, 2, "what the next start records as interrupted");
        assert_eq!(store.claim(&id("late"), launch("")).await.unwrap_err(), StoreError::Closed);
    }
}

#[tokio::test]
async fn a_settle_gives_everything_back_that_was_not_written() {
    let (failing, store) = failing(Some(StoreError::Busy), 10);
    let claim = crate::stores::claim(&*store, &id("order"), launch("in")).await;
    let unsettled = store.settle(claim, attempt(1, &success()), None).await.unwrap_err();
    *failing.fails_with.lock().unwrap() = None;
    let Unsettled { claim, attempt, output, error } = *unsettled;
    assert_eq!(error, StoreError::Busy);
    assert!(matches!(store.settle(claim, attempt, output).await.unwrap(), Moved::Done(_)));
}

/// A lane named `h` whose attempts and revokes do what these do.
fn lane(policy: Policy, work: Work, undo: Work) -> LaneSpec {
    LaneSpec { handler: handler("h"), policy, work, undo: Some(undo), notices: NoticeSpec::default() }
}

fn request() -> Request {
    Request::new(handler("h"), Input::empty())
}

#[tokio::test]
async fn a_revoke_whose_action_panics_leaves_the_success() {
    let ok: Work = Arc::new(|_, _, _| async { success() }.boxed());
    let panics_at_once: Work = Arc::new(|_, _, _| panic!("no"));
    let panics_later: Work = Arc::new(|_, _, _| async { panic!("no") }.boxed());
    for undo in [panics_at_once, panics_later] {
        let store = Kind::Memory.open();
        let recorder = Recorder::with_lanes(store.shared(), [lane(Policy::default(), Arc::clone(&ok), undo)]);
        assert!(is_started(&recorder.launch_in_lane(id("order"), request()).await.unwrap()));
        settled(&recorder, &id("order")).await;
        assert!(done(recorder.revoke(&id("order")).await.unwrap()).is_revoking());
        let now = settled(&recorder, &id("order")).await;
        assert!(
            matches!(&now.state, State::Success { undo: Some(Undo::Failed(failure)), .. }
                if failure.kind == ErrorKind::Panic),
            "{now:?}"
        );
    }
}

/// The claim is written only when the grace period is over.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_begins_while_stopping_is_told_to_end_too() {
    let waits_for_its_end: Work = Arc::new(|_, _, ending| {
        async move {
            ending.cancelled().await;
            failure(ErrorKind::Canceled)
        }
        .boxed()
    });
    let (failing, store) = failing(None, 0);
    let lane = lane(Policy::default(), Arc::clone(&waits_for_its_end), waits_for_its_end);
    let recorder = Recorder::with_lanes(store, [lane]);
    let mut calls = JoinSet::new();
    let caller = recorder.clone();
    calls.spawn(async move { caller.launch_in_lane(id("order"), request()).await.unwrap() });
    let stopping = recorder.clone();
    let mut stops = JoinSet::new();
    stops.spawn(async move { stopping.stop(Duration::from_secs(1)).await });
    // The grace period is over after a second, and what outcomes are given after four.
    tokio::time::sleep(Duration::from_secs(2)).await;
    failing.claims.add_permits(1);
    within("it stops", stops.join_all()).await;
    assert!(is_started(&calls.join_next().await.unwrap().unwrap()));
    assert_eq!(kind_of(&*found(&recorder, &id("order")).await), Some((ErrorKind::Shutdown, true)));
}

#[tokio::test(start_paused = true)]
async fn a_recovery_waits_for_a_store_that_is_busy_and_for_no_other() {
    let (failing, store) = failing(Some(StoreError::Busy), 1);
    let order = id("order");
    // Nobody settles it any more.
    drop(store.claim(&order, launch("in")).await.unwrap());
    let recorder = Recorder::new(store);
    {
        let mut recovering = std::pin::pin!(recorder.recover());
        let a_while = Duration::from_secs(2);
        assert!(tokio::time::timeout(a_while, &mut recovering).await.is_err(), "it is busy");
        let no_space = StoreError::Unavailable("no space left".to_owned());
        *failing.fails_with.lock().unwrap() = Some(no_space.clone());
        assert_eq!(within("the error", recovering).await.unwrap_err(), no_space);
    }
    *failing.fails_with.lock().unwrap() = None;
    assert_eq!(recorder.recover().await.unwrap().interrupted, 1);
    let failure = found(&recorder, &order).await.failure().cloned().unwrap();
    assert_eq!((failure.kind, failure.in_doubt), (ErrorKind::Interrupted, true));
}
