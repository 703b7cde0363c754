//! Bulk operations of the library: full queues, failing revokes, cancels, limits, and a stop in the middle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use task_recorder::recorder::{
    Bulk, BulkAction, BulkError, BulkState, LaneSpec, Launch, NoticeSpec, Recorder, Work,
};
use task_recorder::store::{Claimed, EmbeddedOptions, EmbeddedStore, Filter, MemoryStore, Store, StoreError};
use task_recorder::task::{
    Attempt, Change, ErrorKind, Failure, HandlerName, Input, Outcome, Policy, Request, StateName, TaskId,
};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::stores::{attempt, claim, settle};
use crate::support::meddled::{Asked, Meddler, meddled};
use crate::support::within;

/// A handler whose work and undoing do what the test says, and which counts how often.
#[derive(Clone, Default)]
struct Script {
    works: Arc<AtomicBool>,
    undo_hangs: Arc<AtomicBool>,
    undone: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Script {
    fn recorder(&self, store: Arc<dyn Store>, policy: Policy) -> Recorder {
        let (script, undoing) = (self.clone(), self.clone());
        let work: Work = Arc::new(move |_, _, _| {
            let works = script.works.load(Ordering::Relaxed);
            async move { if works { Outcome::success() } else { failed("it does not work") } }.boxed()
        });
        let undo: Work = Arc::new(move |task, _, ending| {
            *undoing.undone.lock().unwrap().entry(task.id.to_string()).or_default() += 1;
            let hangs = undoing.undo_hangs.load(Ordering::Relaxed);
            async move {
                if hangs {
                    ending.cancelled().await;
                    return failed("cut off");
                }
                if task.id.as_str().ends_with('7') { failed("sevens stay") } else { Outcome::success() }
            }
            .boxed()
        });
        let notices = NoticeSpec::default();
        Recorder::with_lanes(
            store,
            [LaneSpec { handler: handler(), policy, work, undo: Some(undo), notices }],
        )
    }
}

fn failed(message: &str) -> Outcome {
    Outcome::failed(Failure::new(ErrorKind::ExitCode, message))
}

fn handler() -> HandlerName {
    "h".parse().unwrap()
}

fn ids(count: usize) -> impl Iterator<Item = TaskId> {
    (0..count).map(|number| format!("t-{number:03}").parse().unwrap())
}

async fn launched(recorder: &Recorder, count: usize) {
    for id in ids(count) {
        let launch = recorder.launch_in_lane(id, Request::new(handler(), Input::empty())).await.unwrap();
        assert!(matches!(launch, Launch::Started(_)));
        recorder.settled(launch, None).await.unwrap();
    }
}

async fn begin(recorder: &Recorder, action: BulkAction) -> Bulk {
    recorder.begin_bulk(action, Filter::default(), u64::MAX).await.unwrap()
}

async fn ended(recorder: &Recorder, number: u64) -> Bulk {
    within("the operation to end", async {
        loop {
            let bulk = recorder.bulk(number).unwrap();
            if bulk.ended.is_some() {
                return bulk;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn counts(bulk: &Bulk) -> [u64; 4] {
    [bulk.matched, bulk.done, bulk.skipped, bulk.failed]
}

#[tokio::test]
async fn a_retry_waits_where_the_queue_is_full() {
    let script = Script::default();
    let policy = Policy { concurrency: 1, queue_max: 3, ..Policy::default() };
    let recorder = script.recorder(Arc::new(MemoryStore::new()), policy);
    launched(&recorder, 300).await;
    script.works.store(true, Ordering::Relaxed);
    let bulk = ended(&recorder, begin(&recorder, BulkAction::Retry).await.number).await;
    assert_eq!((bulk.state, counts(&bulk)), (BulkState::Done, [300, 300, 0, 0]));
    for id in ids(300) {
        let task = recorder.wait(&id, Duration::MAX).await.unwrap().unwrap();
        assert_eq!((task.run, task.failure()), (2, None));
    }
}

#[tokio::test]
async fn everything_that_matches_is_counted_however_many_there_are() {
    let script = Script::default();
    let recorder = script.recorder(Arc::new(MemoryStore::new()), Policy::default());
    launched(&recorder, 1_003).await;
    let failed = recorder.newest(&[StateName::Failed]).await.unwrap();
    assert_eq!(recorder.newest(&[StateName::Success]).await, Ok(None));
    script.works.store(true, Ordering::Relaxed);
    let after = Request::new(handler(), Input::empty());
    let after = recorder.launch_in_lane("after".parse().unwrap(), after).await.unwrap();
    recorder.settled(after, None).await.unwrap();
    assert_eq!(recorder.newest(&[StateName::Failed]).await.unwrap(), failed);
    assert!(recorder.newest(&[]).await.unwrap() > failed);

    for (max, matched) in [(u64::MAX, 1_003), (1_001, 1_001), (1_000, 1_000), (999, 999), (0, 0)] {
        let counted = recorder.match_bulk(BulkAction::Forget, Filter::default(), max).await;
        assert_eq!(counted, Ok(matched), "at most {max}");
    }
    let bulk = recorder.begin_bulk(BulkAction::Forget, Filter::default(), 1_002).await.unwrap();
    let bulk = ended(&recorder, bulk.number).await;
    assert_eq!((bulk.state, counts(&bulk)), (BulkState::Done, [1_002, 1_002, 0, 0]));
    assert_eq!(recorder.counts().total().failed, 1);
}

/// What it has in hand may be launched or forgotten by others before its turn comes.
#[tokio::test]
async fn what_has_moved_on_since_the_operation_began_is_skipped() {
    let script = Script::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let policy = Policy { queue_max: 4, ..Policy::default() };
    let recorder = script.recorder(Arc::clone(&store), policy);
    launched(&recorder, 20).await;
    assert!(recorder.pause(&handler(), true).await.unwrap());
    let number = begin(&recorder, BulkAction::Retry).await.number;
    within("the queue to fill", async {
        while recorder.lane_counts(&handler()).unwrap().queued < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut waiting = Vec::new();
    for id in ids(20) {
        if recorder.status(&id).await.unwrap().unwrap().failure().is_some() {
            waiting.push(id);
        }
    }
    assert_eq!(waiting.len(), 16);
    let [succeeded, forgotten] = [waiting[3].clone(), waiting[12].clone()];
    let request = Request::new(handler(), Input::empty());
    let Claimed::Started(claim) = store.claim(&succeeded, request.into()).await.unwrap() else { panic!() };
    let now = Timestamp::now();
    let attempt =
        Attempt { run: 2, attempt: 1, started: now, ended: now, code: None, failure: None, answer: None };
    store.settle(claim, attempt, None).await.unwrap();
    recorder.forget(&forgotten).await.unwrap();

    script.works.store(true, Ordering::Relaxed);
    assert!(recorder.pause(&handler(), false).await.unwrap());
    let bulk = ended(&recorder, number).await;
    assert_eq!((bulk.state, counts(&bulk)), (BulkState::Done, [20, 18, 2, 0]));
    assert_eq!(recorder.status(&succeeded).await.unwrap().unwrap().run, 2);
    assert!(recorder.status(&forgotten).await.unwrap().is_none());
}

#[tokio::test]
async fn a_canceled_operation_takes_nothing_more_in_hand_also_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let open = || Arc::new(EmbeddedStore::open(folder.path(), &EmbeddedOptions::default()).unwrap());
    let script = Script::default();
    let policy = Policy { queue_max: 4, ..Policy::default() };
    let recorder = script.recorder(open(), policy.clone());
    launched(&recorder, 20).await;
    assert!(recorder.pause(&handler(), true).await.unwrap());
    let number = begin(&recorder, BulkAction::Retry).await.number;
    within("the queue to fill", async {
        while recorder.lane_counts(&handler()).unwrap().queued < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let canceled = recorder.cancel_bulk(number).await.unwrap().unwrap();
    assert_eq!(canceled.state, BulkState::Canceled);
    let over = ended(&recorder, number).await;
    assert_eq!(counts(&over), [20, 4, 0, 0]);
    assert_eq!(recorder.cancel_bulk(number).await.unwrap().unwrap(), over);
    assert_eq!(recorder.cancel_bulk(number + 1).await.unwrap(), None);
    assert_eq!((recorder.counts().total().failed, recorder.counts().total().working), (16, 4));

    recorder.stop(Duration::ZERO).await;
    drop(recorder);
    let recorder = script.recorder(open(), policy);
    assert_eq!(recorder.recover().await.unwrap().resumed, 4);
    assert_eq!(recorder.bulks(), [over]);
    assert_eq!(recorder.lane_counts(&handler()).unwrap().queued, 4);
    assert_eq!(begin(&recorder, BulkAction::Forget).await.number, number + 1);
    assert_eq!(counts(&ended(&recorder, number + 1).await), [16, 16, 0, 0]);
}

#[tokio::test]
async fn a_revoke_that_fails_is_told_and_the_others_are_done() {
    let script = Script::default();
    script.works.store(true, Ordering::Relaxed);
    let recorder = script.recorder(Arc::new(MemoryStore::new()), Policy::default());
    launched(&recorder, 100).await;
    let bulk = ended(&recorder, begin(&recorder, BulkAction::Revoke).await.number).await;
    assert_eq!((bulk.state, counts(&bulk)), (BulkState::Done, [100, 90, 0, 10]));
    assert!(bulk.failures.iter().all(|one| one.id.as_str().ends_with('7') && one.reason == "sevens stay"));
    assert_eq!(recorder.counts().total().success, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_a_stop_cut_off_is_not_begun_again_and_the_rest_is_done_after_it() {
    let folder = TempDir::new().unwrap();
    let open = || Arc::new(EmbeddedStore::open(folder.path(), &EmbeddedOptions::default()).unwrap());
    let script = Script::default();
    script.works.store(true, Ordering::Relaxed);
    script.undo_hangs.store(true, Ordering::Relaxed);
    let recorder = script.recorder(open(), Policy::default());
    launched(&recorder, 300).await;
    let number = begin(&recorder, BulkAction::Revoke).await.number;
    within("some to be under way", async {
        while script.undone.lock().unwrap().len() < 64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    recorder.stop(Duration::ZERO).await;
    drop(recorder);

    script.undo_hangs.store(false, Ordering::Relaxed);
    let recorder = script.recorder(open(), Policy::default());
    recorder.recover().await.unwrap();
    let bulk = ended(&recorder, number).await;
    let sevens_later = ids(300).skip(64).filter(|id| id.as_str().ends_with('7')).count() as u64;
    assert_eq!(counts(&bulk), [300, 236 - sevens_later, 0, 64 + sevens_later]);
    let undone = script.undone.lock().unwrap();
    assert!(undone.len() == 300 && undone.values().all(|times| *times == 1), "{undone:?}");
}

#[tokio::test]
async fn so_many_operations_run_at_once_and_so_many_are_remembered() {
    let script = Script::default();
    let store = Arc::new(MemoryStore::new());
    let policy = Policy { queue_max: 1, ..Policy::default() };
    let recorder = script.recorder(Arc::clone(&store) as Arc<dyn Store>, policy);
    for _ in 0..105 {
        // Nothing matches, so each ends at once.
        let number = begin(&recorder, BulkAction::Retry).await.number;
        ended(&recorder, number).await;
    }
    within("the oldest to be forgotten", async {
        while recorder.bulks().len() > 100 || store.notes("bulk/").await.unwrap().len() > 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((recorder.bulks()[0].number, recorder.bulk(5), recorder.bulks().len()), (6, None, 100));

    launched(&recorder, 40).await;
    assert!(recorder.pause(&handler(), true).await.unwrap());
    let mut running = Vec::new();
    for _ in 0..16 {
        running.push(begin(&recorder, BulkAction::Retry).await.number);
    }
    let refused = recorder.begin_bulk(BulkAction::Retry, Filter::default(), 1).await;
    assert_eq!(refused, Err(BulkError::TooMany));
    assert_eq!(recorder.match_bulk(BulkAction::Retry, Filter::default(), 5).await, Ok(5));
    for number in running {
        recorder.cancel_bulk(number).await.unwrap();
        ended(&recorder, number).await;
    }
    assert_eq!(recorder.counts().total().working, 1);
    recorder.stop(Duration::ZERO).await;
    let late = recorder.begin_bulk(BulkAction::Retry, Filter::default(), 1).await;
    assert_eq!(late, Err(BulkError::Draining));
}

/// Holds the next change once it is told to, until it is let go.
#[derive(Default)]
struct Holding {
    is_armed: AtomicBool,
    arrived: Notify,
    go: Notify,
}

#[async_trait]
impl Meddler for Holding {
    async fn before(&self, asked: Asked<'_>) -> Result<(), StoreError> {
        if matches!(asked, Asked::Change(_)) && self.is_armed.swap(false, Ordering::SeqCst) {
            self.arrived.notify_one();
            self.go.notified().await;
        }
        Ok(())
    }
}

/// Between the look at it and the change it may end and be launched anew: then it never matched.
#[tokio::test]
async fn what_moves_on_at_the_last_moment_is_left_as_it_is() {
    let task = ids(1).next().unwrap();
    let mut touched = Vec::new();
    for action in [BulkAction::Retry, BulkAction::Cancel, BulkAction::Forget, BulkAction::Revoke] {
        let (script, holding) = (Script::default(), Arc::new(Holding::default()));
        let store = meddled(&holding);
        let recorder = script.recorder(Arc::clone(&store), Policy::default());
        let run = || async {
            let request = Request::new(handler(), Input::empty());
            let claim = claim(&*store, &task, request.into()).await;
            match action {
                BulkAction::Cancel => return,
                BulkAction::Retry | BulkAction::Forget => settle(&*store, claim, failed("it fails")).await,
                BulkAction::Revoke => settle(&*store, claim, Outcome::success()).await,
            };
        };
        run().await;
        holding.is_armed.store(true, Ordering::SeqCst);
        let number = begin(&recorder, action).await.number;
        within("the change", holding.arrived.notified()).await;
        match action {
            BulkAction::Cancel => {
                let settle = Change::Settle {
                    run: 1,
                    attempt: attempt(1, &failed("it ends")),
                    output: None,
                    is_notice_due: false,
                };
                store.change(&task, settle).await.unwrap();
            }
            BulkAction::Retry | BulkAction::Forget => {
                drop(store.change(&task, Change::Forget).await.unwrap());
            }
            BulkAction::Revoke => drop(store.change(&task, Change::Revoke).await.unwrap()),
        }
        run().await;
        let anew = recorder.status(&task).await.unwrap();
        assert_eq!(anew.as_ref().unwrap().run, 2);
        holding.go.notify_one();
        let bulk = ended(&recorder, number).await;
        let is_undone = !script.undone.lock().unwrap().is_empty();
        if recorder.status(&task).await.unwrap() != anew || is_undone || counts(&bulk) != [1, 0, 1, 0] {
            touched.push((action, counts(&bulk)));
        }
    }
    assert_eq!(touched, []);
}
