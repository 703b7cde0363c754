//! The durable store in many orders of events: its queue, its answers, and the whole of it with its threads and files.

use std::collections::VecDeque;

use futures_util::future::join_all;
use shuttle::future::{JoinHandle, block_on, spawn};

use super::answers::Answers;
use super::*;
use crate::store::{Claimed, Filter, Order, now};
use crate::sync::Handle;
use crate::sync::world::check;
use crate::task::{Attempt, HandlerName, Input, Refusal, Request as Launch, StateName};

#[test]
fn what_is_queued_is_taken_once_and_in_order() {
    check("what is queued is taken once and in order", 1, || {
        let queue = Arc::new(Queue::new(2));
        let makers = [0, 1].map(|maker| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let numbers = [1, 2, 3].into_iter();
                numbers.filter(|number| queue.push((maker, *number)).is_ok()).collect::<Vec<_>>()
            })
        });
        let taker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let (mut taken, mut all) = (VecDeque::new(), Vec::new());
                loop {
                    queue.take(8, &mut taken);
                    assert!(taken.len() <= 3, "no more than two wait, beside the end");
                    if taken.is_empty() {
                        assert!(queue.wait(None), "it is woken for something");
                    }
                    while let Some((maker, number)) = taken.pop_front() {
                        if maker == 9 {
                            queue.close();
                            return all;
                        }
                        all.push((maker, number));
                    }
                }
            })
        };
        let accepted = makers.map(|maker| maker.join().unwrap());
        queue.push_always((9, 0)).unwrap();
        let all = taker.join().unwrap();
        for (maker, accepted) in accepted.into_iter().enumerate() {
            let taken = all.iter().filter(|(one, _)| *one == maker).map(|(_, number)| *number);
            assert_eq!(taken.collect::<Vec<_>>(), accepted);
        }
        assert_eq!(queue.push((0, 4)), Err(queue::Refused::Closed));
    });
}

#[test]
fn whoever_is_queued_is_answered_once() {
    check("whoever is queued is answered once", 1, || {
        let queue = Arc::new(Queue::<Answer<Moved>>::new(8));
        let writer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut taken = VecDeque::new();
                while taken.is_empty() {
                    queue.wait(None);
                    queue.take(2, &mut taken);
                }
                let mut answers = Answers::default();
                for answer in taken {
                    answers.push(answer, Err(StoreError::Busy));
                }
                answers.tell(Some(&Handle));
                // It ends in the middle, as by a panic: those that wait still are let go.
                queue.close();
            })
        };
        block_on(async {
            let asking = [0, 1, 2].map(|_| {
                let queue = Arc::clone(&queue);
                spawn(async move {
                    let (answer, answered) = oneshot::channel();
                    match queue.push(answer) {
                        Ok(()) => answered.await.map_or(0, |decided| usize::from(decided.is_err())),
                        Err(refused) => {
                            assert_eq!(refused, queue::Refused::Closed);
                            0
                        }
                    }
                })
            });
            let answered: usize = join_all(asking).await.into_iter().map(Result::unwrap).sum();
            assert!((1..=2).contains(&answered), "{answered}");
        });
        writer.join().unwrap();
    });
}

fn id(id: &str) -> TaskId {
    id.parse().unwrap()
}

fn start() -> crate::task::Start {
    Launch::new(HandlerName::in_process(), Input::empty()).into()
}

/// Claims an id, and settles it as a success where that starts it. What both came to.
async fn run(store: Arc<EmbeddedStore>, name: &str) -> (Result<bool, StoreError>, bool) {
    let claim = match store.claim(&id(name), start()).await {
        Ok(Claimed::Started(claim)) => claim,
        Ok(Claimed::Refused(refused)) => {
            assert!(matches!(refused.reason, Refusal::Working | Refusal::Success), "{refused:?}");
            return (Ok(false), false);
        }
        Err(error) => return (Err(error), false),
    };
    let now = now();
    let attempt =
        Attempt { run: 1, attempt: 1, started: now, ended: now, code: None, failure: None, answer: None };
    let settled = store.settle(claim, attempt, None).await;
    (Ok(true), matches!(settled, Ok(Moved::Done(_))))
}

fn running(store: &Arc<EmbeddedStore>, name: &'static str) -> JoinHandle<(Result<bool, StoreError>, bool)> {
    spawn(run(Arc::clone(store), name))
}

fn folder() -> tempfile::TempDir {
    // Without a disk: what a commit is worth is tested elsewhere.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn options(hot_tasks: usize) -> EmbeddedOptions {
    EmbeddedOptions { hot_tasks, batch_max: 2, queue_max: 8, recent_ids: 2, ..EmbeddedOptions::default() }
}

#[test]
fn a_close_answers_everybody_and_what_was_answered_is_on_disk() {
    check("a close answers everybody and what was answered is on disk", 10, || {
        let folder = folder();
        let store = Arc::new(EmbeddedStore::open(folder.path(), &options(8)).unwrap());
        let runs = ["a", "a", "b"].map(|name| running(&store, name));
        let close = {
            let store = Arc::clone(&store);
            spawn(async move { store.close().await })
        };
        let came_to = block_on(async {
            let came_to: Vec<_> = join_all(runs).await.into_iter().map(Result::unwrap).collect();
            close.await.unwrap();
            came_to
        });
        drop(store);

        let store = EmbeddedStore::open(folder.path(), &options(8)).unwrap();
        for (name, came_to) in [("a", &came_to[..2]), ("b", &came_to[2..])] {
            let started = came_to.iter().filter(|(claimed, _)| *claimed == Ok(true)).count();
            let is_settled = came_to.iter().any(|(_, is_settled)| *is_settled);
            let task = block_on(store.get(&id(name))).unwrap();
            assert!(started <= 1, "of many claims one starts");
            for (claimed, _) in came_to {
                assert!(matches!(claimed, Ok(_) | Err(StoreError::Closed)), "{claimed:?}");
            }
            let state = task.as_ref().map(|task| task.state_name());
            assert!(started == 0 || state.is_some(), "{name} was claimed");
            assert!(!is_settled || state == Some(StateName::Success), "{name} was settled: {state:?}");
        }
    });
}

#[test]
fn what_moves_to_the_archive_is_never_out_of_sight() {
    check("what moves to the archive is never out of sight", 10, || {
        let folder = folder();
        // Nothing stays in memory.
        let store = Arc::new(EmbeddedStore::open(folder.path(), &options(0)).unwrap());
        let runs = ["a", "b", "a"].map(|name| running(&store, name));
        let looks = {
            let store = Arc::clone(&store);
            spawn(async move {
                let (mut revision, mut listed) = (0, 0);
                let query =
                    Query { filter: Filter::default(), order: Order::Ascending, after: None, limit: 10 };
                for _ in 0..3 {
                    let now = store.get(&id("a")).await.unwrap().map_or(0, |task| task.revision);
                    assert!(now >= revision, "nobody sees an older one: {now} after {revision}");
                    revision = now;
                    let mut page = store.list(&query).await.unwrap();
                    let count = page.tasks.len();
                    page.tasks.sort_by(|a, b| a.id.cmp(&b.id));
                    page.tasks.dedup_by(|a, b| a.id == b.id);
                    assert_eq!(page.tasks.len(), count, "each once");
                    assert!(count >= listed, "what was listed is there still");
                    listed = count;
                }
            })
        };
        block_on(async {
            let came_to: Vec<_> = join_all(runs).await.into_iter().map(Result::unwrap).collect();
            let started = came_to.iter().filter(|(claimed, _)| *claimed == Ok(true)).count();
            assert_eq!(started, 2, "{came_to:?}");
            looks.await.unwrap();
            for name in ["a", "b"] {
                assert_eq!(store.get(&id(name)).await.unwrap().unwrap().state_name(), StateName::Success);
                assert!(
                    matches!(run(Arc::clone(&store), name).await, (Ok(false), false)),
                    "it never runs again"
                );
            }
            store.close().await;
        });
    });
}
