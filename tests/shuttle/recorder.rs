//! The recorder over the store in memory, in many orders of events. A task that nobody wakes is a deadlock, which fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use tokio_util::sync::CancellationToken;

use super::waiters::Waiters;
use super::*;
use crate::store::{Filter, MemoryStore, Order};
use crate::sync::world::check;
use crate::task::{ErrorKind, Failure, Input, Outcome, Policy, Retry, StateName};

/// Time that is never up.
const EVER: Duration = Duration::MAX;

/// What happens in the handlers of a model.
#[derive(Default)]
struct Calls {
    running: AtomicUsize,
    peak: AtomicUsize,
    begun: AtomicUsize,
    /// Of which ids.
    ids: StdMutex<Vec<String>>,
}

struct Running<'a>(&'a Calls);

impl Calls {
    fn begin(&self, id: &TaskId) -> Running<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(running, Ordering::Relaxed);
        self.ids.lock().unwrap().push(id.to_string());
        Running(self)
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn count(&self, id: &str) -> usize {
        self.ids.lock().unwrap().iter().filter(|one| *one == id).count()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A handler that takes a moment, ends early where it is told to, and comes to this.
fn work(calls: &Arc<Calls>, outcome: impl Fn(u32) -> Outcome + Send + Sync + 'static) -> Work {
    let (calls, outcome) = (Arc::clone(calls), Arc::new(outcome));
    Arc::new(move |task, attempt, ending: CancellationToken| {
        let (calls, outcome) = (Arc::clone(&calls), Arc::clone(&outcome));
        async move {
            let _running = calls.begin(&task.id);
            tokio::select! {
                biased;
                () = yield_now() => outcome(attempt),
                () = ending.cancelled() => Outcome::failed(Failure::new(ErrorKind::Canceled, "told to end")),
            }
        }
        .boxed()
    })
}

fn failed() -> Outcome {
    Outcome::failed(Failure::new(ErrorKind::Refused, "nobody is there"))
}

fn always_well(_attempt: u32) -> Outcome {
    Outcome::success()
}

fn lane(work: Work, policy: Policy) -> LaneSpec {
    LaneSpec { handler: name(), policy, work, undo: None, notices: NoticeSpec::default() }
}

fn recorder(spec: LaneSpec) -> Recorder {
    Recorder::with_lanes(Arc::new(MemoryStore::new()), [spec])
}

fn name() -> HandlerName {
    "h".parse().unwrap()
}

fn id(id: &str) -> TaskId {
    id.parse().unwrap()
}

fn at_most(concurrency: usize) -> Policy {
    Policy { concurrency, ..Policy::default() }
}

/// Does something in a task of its own.
fn beside<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    recorder: &Recorder,
    work: impl FnOnce(Recorder) -> F,
) -> JoinHandle<T> {
    spawn(work(recorder.clone()))
}

/// Launches an id in the lane.
fn launched(recorder: &Recorder, name: &str) -> JoinHandle<Result<Launch, LaunchError>> {
    let id = id(name);
    beside(recorder, move |recorder| async move {
        recorder.launch_in_lane(id, Request::new(self::name(), Input::empty())).await
    })
}

/// Launches an id in the lane, and waits for as long as it takes until it is at rest.
fn launched_and_settled(recorder: &Recorder, name: &str) -> JoinHandle<Launch> {
    let id = id(name);
    beside(recorder, move |recorder| async move {
        let launch = recorder.launch_in_lane(id, Request::new(self::name(), Input::empty())).await;
        recorder.settled(launch.unwrap(), None).await.unwrap().unwrap()
    })
}

fn is_started(launch: &Launch) -> bool {
    matches!(launch, Launch::Started(_))
}

/// A place is given back behind the outcome, or behind the refusal.
async fn places_are_free(recorder: &Recorder) {
    while recorder.lane_counts(&name()).is_some_and(|counts| counts.running + counts.queued > 0) {
        yield_now().await;
    }
}

/// Nothing is left of what was launched: no place in a lane, nobody who waits, nothing that could be told to end.
async fn at_rest(recorder: &Recorder) {
    places_are_free(recorder).await;
    let inner = &recorder.inner;
    assert_eq!(recorder.lane_counts(&name()).map_or(0, |counts| counts.backing_off), 0);
    assert_eq!(inner.waiters.count(), 0, "nobody waits any more");
    assert_eq!(inner.endings.count(), 0, "nothing is told to end any more");
    assert_eq!(inner.tally.unsettled.load(Ordering::Relaxed), 0);
    assert_eq!(inner.tally.in_flight.load(Ordering::Relaxed), 0);
    assert_eq!(inner.tally.stale.load(Ordering::Relaxed), 0);
    assert_eq!(recorder.counts().total().working, 0);
    recorder.stop(EVER).await;
}

#[test]
fn of_many_launches_at_once_one_starts() {
    check("of many launches at once one starts", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, always_well), at_most(2)));
            let launches: Vec<_> = (0..3).map(|_| launched_and_settled(&recorder, "a")).collect();
            let launches: Vec<_> = join_all(launches).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(launches.iter().filter(|launch| is_started(launch)).count(), 1);
            for launch in launches {
                let (Launch::Started(task) | Launch::Refused(Refused { task: Some(task), .. })) = launch
                else {
                    panic!("{launch:?}");
                };
                assert_eq!(task.state_name(), StateName::Success, "whoever waited saw the end");
            }
            assert_eq!(calls.begun(), 1);
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn of_a_failed_id_each_run_ends_before_the_next_begins() {
    check("of a failed id each run ends before the next begins", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, |_| failed()), at_most(4)));
            let mut launches: Vec<_> = (0..3).map(|_| launched_and_settled(&recorder, "a")).collect();
            launches.push(beside(&recorder, |recorder| async move {
                let retried = recorder.retry_in_lane(id("a"), None).await.unwrap();
                recorder.settled(retried, None).await.unwrap().unwrap()
            }));
            let started =
                join_all(launches).await.into_iter().filter(|one| is_started(one.as_ref().unwrap()));
            let started = started.count();
            let task = recorder.status(&id("a")).await.unwrap().unwrap();
            assert_eq!((task.run as usize, calls.begun()), (started, started));
            assert_eq!(calls.peak(), 1, "an id that works is never launched twice");
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_cancel_and_a_settle_have_one_winner() {
    check("a cancel and a settle have one winner", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, always_well), at_most(1)));
            let launch = launched_and_settled(&recorder, "a");
            let cancels =
                [0, 1].map(|_| beside(&recorder, |recorder| async move { recorder.cancel(&id("a")).await }));
            let waiter = beside(&recorder, |recorder| async move { recorder.wait(&id("a"), EVER).await });
            let Ok(Launch::Started(seen)) = launch.await else { panic!("nobody else launches it") };
            let cancels = join_all(cancels).await;
            let done = cancels.iter().filter(|one| matches!(one, Ok(Ok(Moved::Done(_))))).count();
            waiter.await.unwrap().unwrap();

            let task = recorder.status(&id("a")).await.unwrap().unwrap();
            assert_eq!(seen.revision, task.revision, "whoever waited saw the last word");
            match task.failure() {
                Some(failure) => assert!(done > 0 && failure.kind == ErrorKind::Canceled, "{failure:?}"),
                None => assert_eq!(task.state_name(), StateName::Success),
            }
            assert_eq!(task.run, 1);
            assert!(task.attempts.len() <= 1 && calls.begun() <= 1);
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_canceled_one_that_waits_leaves_no_place_behind() {
    check("a canceled one that waits leaves no place behind", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let policy = Policy { queue_max: 1, ..at_most(1) };
            let recorder = recorder(lane(work(&calls, always_well), policy));
            let launches = ["a", "b"].map(|name| launched_and_settled(&recorder, name));
            let canceled =
                beside(&recorder, |recorder| async move { recorder.cancel(&id("b")).await.unwrap() });
            join_all(launches).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            let b = recorder.status(&id("b")).await.unwrap().unwrap();
            assert!(
                matches!(canceled.await.unwrap(), Moved::Done(_)) || b.state_name() == StateName::Success
            );
            if b.attempts.is_empty() && b.failure().is_some() {
                assert_eq!(calls.count("b"), 0, "what was canceled while it waited has not run");
            }

            // Both places are there again: one runs, one waits.
            places_are_free(&recorder).await;
            let rest = ["c", "d"].map(|name| launched_and_settled(&recorder, name));
            join_all(rest).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            assert_eq!(calls.peak(), 1);
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn never_more_run_than_are_allowed_and_all_have_their_turn() {
    check("never more run than are allowed and all have their turn", 2, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let retry = Retry { attempts: 2, ..Retry::default() };
            let policy = Policy { retry, ..at_most(2) };
            let outcome = |attempt| if attempt == 1 { failed() } else { Outcome::success() };
            let recorder = recorder(lane(work(&calls, outcome), policy));
            let launches: Vec<_> =
                ["a", "b", "c", "d"].iter().map(|name| launched_and_settled(&recorder, name)).collect();
            for launch in join_all(launches).await {
                let Launch::Started(task) = launch.unwrap() else { panic!("there is room for all") };
                assert_eq!((task.state_name(), task.attempts.len()), (StateName::Success, 2));
            }
            assert!(calls.peak() <= 2, "{} at once", calls.peak());
            assert_eq!(calls.begun(), 8);
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_full_queue_refuses_and_loses_no_place() {
    check("a full queue refuses and loses no place", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let policy = Policy { queue_max: 1, ..at_most(1) };
            let recorder = recorder(lane(work(&calls, always_well), policy));
            // Two of them for one id: the place of the one that is refused is free again.
            let launches = ["a", "a", "b", "c"].map(|name| launched(&recorder, name));
            let mut started = 0;
            for launch in join_all(launches).await {
                match launch.unwrap() {
                    Ok(launch) => started += usize::from(is_started(&launch)),
                    Err(error) => assert_eq!(error, LaunchError::QueueFull),
                }
            }
            for name in ["a", "b", "c"] {
                recorder.wait(&id(name), EVER).await.unwrap();
            }
            places_are_free(&recorder).await;
            assert_eq!((calls.begun(), calls.peak()), (started, 1));
            let rest = ["d", "e"].map(|name| launched_and_settled(&recorder, name));
            join_all(rest).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_revoke_lets_one_launch_in_and_no_other() {
    for has_action in [false, true] {
        let title =
            if has_action { "a revoke by an action against launches" } else { "a revoke against launches" };
        check(title, 1, move || {
            block_on(async move {
                let (calls, undone) = (Arc::new(Calls::default()), Arc::new(Calls::default()));
                let mut spec = lane(work(&calls, always_well), at_most(4));
                spec.undo = has_action.then(|| work(&undone, always_well));
                let recorder = recorder(spec);
                launched_and_settled(&recorder, "a").await.unwrap();

                let launches = [0, 1].map(|_| launched(&recorder, "a"));
                let revokes = [0, 1]
                    .map(|_| beside(&recorder, |recorder| async move { recorder.revoke(&id("a")).await }));
                let launches = join_all(launches).await;
                let started =
                    launches.iter().filter(|one| is_started(one.as_ref().unwrap().as_ref().unwrap())).count();
                let revokes = join_all(revokes).await;
                let revoked = revokes.iter().filter(|one| matches!(one, Ok(Ok(Moved::Done(_))))).count();
                let task = recorder.wait(&id("a"), EVER).await.unwrap();
                assert!(revoked >= 1 && revoked <= 1 + started, "{revoked} revoked, {started} launched");
                assert!(started <= revoked, "{revoked} revoked, {started} launched");
                assert_eq!(calls.begun(), 1 + started);
                assert_eq!(undone.begun(), if has_action { revoked } else { 0 });
                assert_eq!(task.is_some(), started == revoked, "after each revoke one launch, or none");
                at_rest(&recorder).await;
            });
        });
    }
}

#[test]
fn whoever_waits_is_woken() {
    check("whoever waits is woken", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, |_| failed()), at_most(1)));
            let launch = launched(&recorder, "a");
            let waiters = [0, 1].map(|_| {
                beside(&recorder, |recorder| async move { recorder.wait(&id("a"), EVER).await.unwrap() })
            });
            let forget =
                beside(&recorder, |recorder| async move { recorder.forget(&id("a")).await.unwrap() });
            assert!(is_started(&launch.await.unwrap().unwrap()));
            for seen in join_all(waiters).await {
                assert!(seen.unwrap().is_none_or(|task| !task.is_working()));
            }
            forget.await.unwrap();
            // One who goes away, because the time is up, leaves nothing behind.
            recorder.wait(&id("a"), Duration::from_secs(1)).await.unwrap();
            recorder.wait(&id("a"), EVER).await.unwrap();
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn waiters_come_and_go_while_others_are_told() {
    check("waiters come and go while others are told", 1, || {
        block_on(async {
            let waiters = Arc::new(Waiters::default());
            let is_settled = Arc::new(crate::sync::AtomicBool::new(false));
            let waiting = [true, true, false].map(|is_patient| {
                let (waiters, is_settled) = (Arc::clone(&waiters), Arc::clone(&is_settled));
                spawn(async move {
                    let waiter = waiters.enter(&id("a"));
                    if !is_settled.load(Ordering::SeqCst) && is_patient {
                        waiter.notified().await;
                        assert!(is_settled.load(Ordering::SeqCst), "nobody is told before");
                    }
                })
            });
            let settling = {
                let (waiters, is_settled) = (Arc::clone(&waiters), Arc::clone(&is_settled));
                spawn(async move {
                    is_settled.store(true, Ordering::SeqCst);
                    waiters.notify(&id("a"));
                })
            };
            join_all(waiting).await.into_iter().for_each(Result::unwrap);
            settling.await.unwrap();
            assert_eq!(waiters.count(), 0, "an id is held only while somebody waits");
        });
    });
}

#[test]
fn a_pause_holds_starts_and_a_resume_lets_all_go_on() {
    check("a pause holds starts and a resume lets all go on", 2, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, always_well), at_most(1)));
            let launches = ["a", "b"].map(|name| launched_and_settled(&recorder, name));
            let pausing = beside(&recorder, |recorder| async move {
                assert_eq!(recorder.pause(&name(), true).await, Ok(true));
                assert_eq!(recorder.pause(&name(), false).await, Ok(true));
            });
            join_all(launches).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            pausing.await.unwrap();
            assert_eq!((calls.begun(), calls.peak()), (2, 1));
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_handler_that_goes_leaves_nobody_waiting() {
    check("a handler that goes leaves nobody waiting", 2, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let retry = Retry { attempts: 2, ..Retry::default() };
            let policy = Policy { retry, ..at_most(1) };
            let spec = lane(
                work(&calls, |attempt| if attempt == 1 { failed() } else { Outcome::success() }),
                policy,
            );
            let recorder = recorder(spec.clone());
            let launches = ["a", "b"].map(|name| {
                let id = id(name);
                beside(&recorder, move |recorder| async move {
                    match recorder.launch_in_lane(id, Request::new(self::name(), Input::empty())).await {
                        Ok(launch) => drop(recorder.settled(launch, None).await.unwrap()),
                        Err(error) => assert_eq!(error, LaunchError::UnknownHandler),
                    }
                })
            });
            // While nothing starts, nothing else would have a look at those who wait.
            let pause = beside(&recorder, |recorder| async move { recorder.pause(&name(), true).await });
            let reload = beside(&recorder, |recorder| async move { recorder.reload(Vec::new()).await });
            join_all(launches).await.into_iter().for_each(Result::unwrap);
            reload.await.unwrap().unwrap();
            pause.await.unwrap().unwrap();
            recorder.reload(vec![spec]).await.unwrap();
            recorder.pause(&name(), false).await.unwrap();
            launched_and_settled(&recorder, "c").await.unwrap();
            assert_eq!(calls.peak(), 1);
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_stop_ends_or_refuses_each_launch() {
    check("a stop ends or refuses each launch", 1, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, always_well), at_most(4)));
            let launches = ["a", "b"].map(|name| launched(&recorder, name));
            let stop = beside(&recorder, |recorder| async move { recorder.stop(EVER).await });
            let launches = join_all(launches).await;
            stop.await.unwrap();
            for (launch, name) in launches.into_iter().zip(["a", "b"]) {
                let task = recorder.status(&id(name)).await.unwrap();
                match launch.unwrap() {
                    Ok(Launch::Started(_)) => assert_eq!(task.unwrap().state_name(), StateName::Success),
                    Ok(refused @ Launch::Refused(_)) => panic!("{refused:?}"),
                    Err(error) => assert_eq!((error, task.is_none()), (LaunchError::Draining, true)),
                }
            }
            assert_eq!(calls.running.load(Ordering::Relaxed), 0);
        });
    });
}

#[test]
fn a_stop_whose_grace_is_over_settles_what_runs() {
    check("a stop whose grace is over settles what runs", 1, || {
        block_on(async {
            let deaf: Work = Arc::new(|_, _, ending: CancellationToken| {
                async move {
                    ending.cancelled().await;
                    Outcome::failed(Failure::new(ErrorKind::Canceled, "told to end"))
                }
                .boxed()
            });
            let recorder = recorder(lane(deaf, at_most(1)));
            let launch = launched(&recorder, "a");
            let stop = beside(&recorder, |recorder| async move {
                // The pauses in between are never up: each run has to end because it was told to.
                recorder.inner.draining.cancel();
                recorder.inner.runs.close();
                recorder.inner.aborting.cancel();
                recorder.inner.endings.end_all();
                recorder.inner.runs.wait().await;
            });
            let launch = launch.await.unwrap();
            stop.await.unwrap();
            let task = recorder.status(&id("a")).await.unwrap();
            match launch {
                Ok(Launch::Started(_)) => {
                    assert_eq!(task.unwrap().failure().unwrap().kind, ErrorKind::Shutdown)
                }
                Ok(refused @ Launch::Refused(_)) => panic!("{refused:?}"),
                Err(error) => assert_eq!((error, task.is_none()), (LaunchError::Draining, true)),
            }
            assert_eq!(recorder.inner.endings.count(), 0);
        });
    });
}

#[test]
fn each_outcome_is_told() {
    check("each outcome is told", 2, || {
        block_on(async {
            let (calls, told) = (Arc::new(Calls::default()), Arc::new(Calls::default()));
            let mut spec = lane(work(&calls, always_well), at_most(2));
            spec.notices.on_success =
                Some(work(&told, |attempt| if attempt == 1 { failed() } else { Outcome::success() }));
            spec.notices.concurrency = 1;
            let recorder = recorder(spec);
            let launches = ["a", "b"].map(|name| launched_and_settled(&recorder, name));
            join_all(launches).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            let lane = recorder.inner.lane(&name()).unwrap();
            // A notice is enqueued behind the outcome.
            let is_over = || {
                let told = recorder.inner.tally.notices_told.load(Ordering::Relaxed);
                told == 2 && lane.notices.count() == 0
            };
            while !is_over() {
                yield_now().await;
            }
            assert_eq!((told.count("a"), told.count("b"), told.peak()), (2, 2, 1));
            for name in ["a", "b"] {
                assert!(!recorder.status(&id(name)).await.unwrap().unwrap().notice_due);
            }
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_bulk_operation_counts_each_task_once() {
    check("a bulk operation counts each task once", 2, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, |_| failed()), at_most(2)));
            let launches = ["a", "b"].map(|name| launched_and_settled(&recorder, name));
            join_all(launches).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            let begun = recorder.begin_bulk(BulkAction::Forget, Filter::default(), 10).await.unwrap();
            assert_eq!(begun.matched, 2);
            let cancel = beside(&recorder, move |recorder| async move {
                recorder.cancel_bulk(begun.number).await.unwrap().unwrap()
            });
            let other = beside(&recorder, |recorder| async move { recorder.forget(&id("a")).await.unwrap() });
            let (canceled, other) = (cancel.await.unwrap(), other.await.unwrap());
            let ended = loop {
                let bulk = recorder.bulk(begun.number).unwrap();
                if bulk.ended.is_some() {
                    break bulk;
                }
                yield_now().await;
            };
            let noted = recorder.inner.store.notes("bulk/").await.unwrap();
            let noted = serde_json::from_slice::<serde_json::Value>(&noted[0].1).unwrap();
            assert_eq!(noted["bulk"], serde_json::to_value(&ended).unwrap(), "what a restart finds");
            let left = recorder.counts().total().failed;
            let by_other = u64::from(matches!(other, Moved::Done(_)));
            assert_eq!((ended.done + by_other + left, ended.failed), (2, 0), "{ended:?}");
            if ended.state == BulkState::Done {
                assert_eq!((ended.done + ended.skipped, left), (2, 0));
            } else {
                assert_eq!(canceled.state, BulkState::Canceled);
            }
            at_rest(&recorder).await;
        });
    });
}

#[test]
fn a_list_shows_each_task_once_and_events_miss_none() {
    check("a list shows each task once and events miss none", 2, || {
        block_on(async {
            let calls = Arc::new(Calls::default());
            let recorder = recorder(lane(work(&calls, |_| failed()), at_most(2)));
            let mut feed = recorder.events();
            let reader = spawn(async move {
                let (mut seq, mut seen) = (0, Vec::new());
                loop {
                    let batch = feed.after(seq, 2);
                    assert_eq!(batch.gap, None);
                    seen.extend(batch.events);
                    seq = batch.read_to;
                    if !feed.beyond(seq).await {
                        return seen;
                    }
                }
            });
            let lists = beside(&recorder, |recorder| async move {
                let query =
                    Query { filter: Filter::default(), order: Order::Ascending, after: None, limit: 10 };
                let mut least = 0;
                for _ in 0..3 {
                    let page = recorder.list(&query).await.unwrap();
                    let mut ids: Vec<_> = page.tasks.iter().map(|task| task.id.to_string()).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    assert_eq!(ids.len(), page.tasks.len(), "each once");
                    assert!(ids.len() >= least, "what was there is there");
                    least = ids.len();
                    for task in &page.tasks {
                        let now = recorder.status(&task.id).await.unwrap().unwrap();
                        assert!(now.revision >= task.revision, "nobody sees an older one");
                    }
                }
            });
            let launches = ["a", "b"].map(|name| launched_and_settled(&recorder, name));
            join_all(launches).await.into_iter().for_each(|launch| assert!(is_started(&launch.unwrap())));
            lists.await.unwrap();
            at_rest(&recorder).await;
            let seen = reader.await.unwrap();
            assert!(seen.is_sorted_by(|a, b| a.seq < b.seq), "in order");
            for name in ["a", "b"] {
                let of_id = seen.iter().filter(|event| event.id.as_str() == name);
                let revisions: Vec<_> = of_id.map(|event| event.revision).collect();
                let last = recorder.status(&id(name)).await.unwrap().unwrap().revision;
                assert_eq!(revisions, (1..=last).collect::<Vec<_>>());
            }
        });
    });
}
