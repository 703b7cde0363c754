//! Random walks over a few ids: each store against a model that was written from the table in the design, not from the
//! code.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use task_recorder::store::{Claim, Claimed, Filter, Moved, Order, StateCounts};
use task_recorder::task::{Change, Digest, ErrorKind, Refusal, Start, StateName, Task};

use crate::stores::{
    Kind, Moves as _, RETRY, TestStore, attempt, failure, handler, id, in_states, launch_with, list_all,
    query, success,
};

const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const HANDLERS: [&str; 2] = ["h", "k"];

/// A step of a walk. `task` is an index into [`IDS`].
#[derive(Debug, Clone)]
enum Step {
    Launch {
        task: usize,
        handler: usize,
        input: u8,
    },
    Retry {
        task: usize,
    },
    /// Settles with one of the claims of the id that are still around, the present one or a late one.
    Settle {
        task: usize,
        claim: prop::sample::Index,
        is_success: bool,
    },
    /// Takes another claim of everything that works.
    ClaimAgain,
    Revoke {
        task: usize,
    },
    Forget {
        task: usize,
    },
    /// With the place at which it entered its state, or with another one.
    DropDetails {
        task: usize,
        is_late: bool,
    },
    Expire {
        task: usize,
        is_late: bool,
    },
    List {
        states: Vec<StateName>,
        handler: Option<usize>,
        is_ascending: bool,
        limit: usize,
    },
    /// Closes and opens it, where that keeps anything.
    Reopen,
    /// Waits until the archive has what it takes.
    Rest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let task = || 0..IDS.len();
    let states = prop::sample::subsequence(StateName::VISIBLE.to_vec(), 0..=3);
    let list = (states, prop::option::of(0..HANDLERS.len()), any::<bool>(), 1..8_usize).prop_map(
        |(states, handler, is_ascending, limit)| Step::List { states, handler, is_ascending, limit },
    );
    let step = prop_oneof![
        10 => (task(), 0..8_usize, any::<u8>())
            .prop_map(|(task, handler, input)| Step::Launch { task, handler: handler / 7, input }),
        4 => task().prop_map(|task| Step::Retry { task }),
        12 => (task(), any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(task, claim, is_success)| Step::Settle { task, claim, is_success }),
        1 => Just(Step::ClaimAgain),
        3 => task().prop_map(|task| Step::Revoke { task }),
        3 => task().prop_map(|task| Step::Forget { task }),
        4 => (task(), 0..8_usize).prop_map(|(task, late)| Step::DropDetails { task, is_late: late == 7 }),
        2 => (task(), 0..4_usize).prop_map(|(task, late)| Step::Expire { task, is_late: late == 3 }),
        4 => list,
        1 => Just(Step::Reopen),
        1 => Just(Step::Rest),
    ];
    prop::collection::vec(step, 1..60)
}

/// What has to be so of one id.
#[derive(Debug, Clone, Default)]
struct Expected {
    /// None where it is not found.
    state: Option<StateName>,
    handler: usize,
    input: u8,
    run: u32,
    revision: u64,
    revoked: u32,
    /// When it came into its state, in changes of the walk.
    changed: u64,
    is_dropped: bool,
}

#[derive(Debug, Default)]
struct Model {
    tasks: [Expected; 6],
    changes: u64,
}

impl Model {
    fn moved(&mut self, task: usize, state: Option<StateName>) -> &mut Expected {
        self.changes += 1;
        let expected = &mut self.tasks[task];
        expected.state = state;
        expected.revision += 1;
        expected.changed = self.changes;
        expected.is_dropped = false;
        expected
    }

    fn launch(&mut self, task: usize, handler: usize, input: u8) -> Option<Refusal> {
        let now = &self.tasks[task];
        match now.state {
            Some(_) if now.handler != handler => return Some(Refusal::HandlerMismatch),
            Some(StateName::Working) => return Some(Refusal::Working),
            Some(StateName::Success) => return Some(Refusal::Success),
            _ => {}
        }
        let now = self.moved(task, Some(StateName::Working));
        now.run += 1;
        now.handler = handler;
        now.input = input;
        None
    }

    fn retry(&mut self, task: usize) -> Option<Refusal> {
        match self.tasks[task].state {
            None => Some(Refusal::NotFound),
            Some(StateName::Failed)
                if self.tasks[task].is_dropped && !input_of(self.tasks[task].input).is_empty() =>
            {
                Some(Refusal::InputDropped)
            }
            Some(StateName::Failed) => {
                self.moved(task, Some(StateName::Working)).run += 1;
                None
            }
            Some(_) => Some(Refusal::NotFailed),
        }
    }

    fn settle(&mut self, task: usize, run: u32, is_success: bool) -> Option<Refusal> {
        let now = &self.tasks[task];
        if now.state != Some(StateName::Working) || now.run != run {
            return Some(Refusal::Stale);
        }
        self.moved(task, Some(if is_success { StateName::Success } else { StateName::Failed }));
        None
    }

    fn revoke(&mut self, task: usize) -> Option<Refusal> {
        match self.tasks[task].state {
            None => Some(Refusal::NotFound),
            Some(StateName::Success) => {
                self.moved(task, None).revoked += 1;
                None
            }
            Some(_) => Some(Refusal::NotSuccess),
        }
    }

    fn forget(&mut self, task: usize) -> Option<Refusal> {
        match self.tasks[task].state {
            None => Some(Refusal::NotFound),
            Some(StateName::Failed) => {
                self.moved(task, None);
                None
            }
            Some(_) => Some(Refusal::NotFailed),
        }
    }

    fn drop_details(&mut self, task: usize, is_late: bool) -> Option<Refusal> {
        let now = &mut self.tasks[task];
        match now.state {
            None => Some(Refusal::NotFound),
            Some(_) if is_late => Some(Refusal::Stale),
            Some(StateName::Working) => Some(Refusal::Working),
            Some(_) if now.is_dropped => Some(Refusal::DetailsDropped),
            Some(_) => {
                now.is_dropped = true;
                now.revision += 1;
                None
            }
        }
    }

    fn expire(&mut self, task: usize, is_late: bool) -> Option<Refusal> {
        match self.tasks[task].state {
            None => Some(Refusal::NotFound),
            Some(_) if is_late => Some(Refusal::Stale),
            Some(StateName::Working) => Some(Refusal::Working),
            Some(state) => {
                self.moved(task, None).revoked += u32::from(state == StateName::Success);
                None
            }
        }
    }

    fn list(&self, states: &[StateName], handler: Option<usize>) -> Vec<&'static str> {
        let mut tasks: Vec<_> = (0..IDS.len())
            .filter(|task| {
                let now = &self.tasks[*task];
                now.state.is_some_and(|state| states.is_empty() || states.contains(&state))
                    && handler.is_none_or(|handler| now.handler == handler)
            })
            .collect();
        tasks.sort_by_key(|task| self.tasks[*task].changed);
        tasks.into_iter().map(|task| IDS[task]).collect()
    }

    fn counts(&self) -> StateCounts {
        let count = |state| self.tasks.iter().filter(|task| task.state == Some(state)).count() as u64;
        StateCounts {
            working: count(StateName::Working),
            success: count(StateName::Success),
            failed: count(StateName::Failed),
        }
    }
}

/// A store on its walk, with every claim that it has given.
struct Walk {
    store: TestStore,
    model: Model,
    claims: HashMap<usize, Vec<Claim>>,
}

fn input_of(number: u8) -> Vec<u8> {
    // Every second one is empty: its rows stand for themselves.
    if number.is_multiple_of(2) { Vec::new() } else { vec![number] }
}

impl Walk {
    async fn step(mut self, step: &Step) -> Self {
        match step {
            Step::Launch { task, handler, input } => {
                let start = launch_with(HANDLERS[*handler], input_of(*input));
                let expected = self.model.launch(*task, *handler, *input);
                self.claim(*task, start, expected).await;
            }
            Step::Retry { task } => {
                let expected = self.model.retry(*task);
                self.claim(*task, RETRY, expected).await;
            }
            Step::Settle { task, claim, is_success } => self.settle(*task, claim, *is_success).await,
            Step::ClaimAgain => self.claim_again().await,
            Step::Revoke { task } => {
                let expected = self.model.revoke(*task);
                let moved = self.store.revoke(&id(IDS[*task])).await.unwrap();
                assert_eq!(refusal(&moved), expected);
            }
            Step::Forget { task } => {
                let expected = self.model.forget(*task);
                let moved = self.store.forget(&id(IDS[*task])).await.unwrap();
                assert_eq!(refusal(&moved), expected);
            }
            Step::DropDetails { task, is_late } => {
                let entered = self.place_of(*task).await + u64::from(*is_late);
                let expected = self.model.drop_details(*task, *is_late);
                let moved = self.store.change(&id(IDS[*task]), Change::DropDetails { entered }).await;
                assert_eq!(refusal(&moved.unwrap()), expected);
            }
            Step::Expire { task, is_late } => {
                let entered = self.place_of(*task).await + u64::from(*is_late);
                let expected = self.model.expire(*task, *is_late);
                let moved = self.store.change(&id(IDS[*task]), Change::Expire { entered }).await;
                assert_eq!(refusal(&moved.unwrap()), expected);
            }
            Step::List { states, handler, is_ascending, limit } => {
                self.list(states, *handler, *is_ascending, *limit).await;
            }
            Step::Reopen if self.store.is_durable() => {
                self.store = self.store.reopen().await;
                self.claim_again().await;
            }
            Step::Reopen => {}
            Step::Rest => self.store.at_rest().await,
        }
        self
    }

    /// Where the id entered the state that it is in.
    async fn place_of(&self, task: usize) -> u64 {
        self.store.get(&id(IDS[task])).await.unwrap().map_or(0, |task| task.entered)
    }

    async fn claim(&mut self, task: usize, start: Start, expected: Option<Refusal>) {
        match self.store.claim(&id(IDS[task]), start).await.unwrap() {
            Claimed::Started(claim) => {
                assert_eq!(expected, None);
                self.assert_is(task, claim.task());
                self.claims.entry(task).or_default().push(claim);
            }
            Claimed::Refused(refused) => {
                assert_eq!(Some(refused.reason), expected);
                match &refused.task {
                    Some(now) => self.assert_is(task, now),
                    None => assert_eq!(self.model.tasks[task].state, None),
                }
            }
        }
    }

    async fn settle(&mut self, task: usize, claim: &prop::sample::Index, is_success: bool) {
        let claims = self.claims.entry(task).or_default();
        if claims.is_empty() {
            return;
        }
        let claim = claims.swap_remove(claim.index(claims.len()));
        let run = claim.task().run;
        let outcome = if is_success { success() } else { failure(ErrorKind::Error) };
        let expected = self.model.settle(task, run, is_success);
        let moved = self.store.settle(claim, attempt(run, &outcome), None).await.unwrap();
        assert_eq!(refusal(&moved), expected);
    }

    async fn claim_again(&mut self) {
        let claims = self.store.recover().await.unwrap().claims;
        assert_eq!(claims.len() as u64, self.model.counts().working);
        for claim in claims {
            let task = IDS.iter().position(|name| *name == claim.task().id.as_str()).unwrap();
            self.assert_is(task, claim.task());
            self.claims.entry(task).or_default().push(claim);
        }
    }

    async fn list(&self, states: &[StateName], handler_of: Option<usize>, is_ascending: bool, limit: usize) {
        let mut expected = self.model.list(states, handler_of);
        let order = if is_ascending { Order::Ascending } else { Order::Descending };
        if !is_ascending {
            expected.reverse();
        }
        let handler = handler_of.map(|handler_of| handler(HANDLERS[handler_of]));
        let filter = Filter { handler, ..in_states(states) };
        let listed = list_all(&*self.store, query(filter, order, limit)).await;
        assert_eq!(listed.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), expected);
    }

    /// Whether everything is as the model says.
    async fn look(&self) {
        assert_eq!(self.store.counts().total(), self.model.counts());
        for (task, expected) in self.model.tasks.iter().enumerate() {
            match self.store.get(&id(IDS[task])).await.unwrap() {
                Some(now) => self.assert_is(task, &now),
                None => assert_eq!(expected.state, None, "{}", IDS[task]),
            }
        }
    }

    fn assert_is(&self, task: usize, now: &Task) {
        let expected = &self.model.tasks[task];
        assert_eq!(Some(now.state_name()), expected.state, "{now:?}");
        assert_eq!(now.handler.as_str(), HANDLERS[expected.handler], "{now:?}");
        assert_eq!(
            (now.run, now.revision, now.revoked),
            (expected.run, expected.revision, expected.revoked),
            "{now:?}"
        );
        let input = input_of(expected.input);
        assert_eq!((now.input.size, now.input.digest), (input.len() as u64, Digest::of(&input)), "{now:?}");
        assert_eq!(now.input.bytes, if expected.is_dropped { Vec::new() } else { input }, "{now:?}");
        assert_eq!(now.details_dropped, expected.is_dropped, "{now:?}");
    }
}

fn refusal(moved: &Moved) -> Option<Refusal> {
    match moved {
        Moved::Done(_) => None,
        Moved::Refused(refused) => Some(refused.reason),
    }
}

fn walk(kind: Kind, walks: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: walks, failure_persistence: None, ..Config::default() };
    let walked = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let mut walk = Walk { store: kind.open(), model: Model::default(), claims: HashMap::new() };
            for step in &steps {
                walk = walk.step(step).await;
                walk.look().await;
            }
        });
        Ok(())
    });
    if let Err(error) = walked {
        panic!("{error}");
    }
}

#[test]
fn the_store_in_memory_does_what_the_model_does() {
    walk(Kind::Memory, 300);
}

#[test]
fn the_embedded_store_does_what_the_model_does() {
    walk(Kind::Embedded, 60);
}

#[test]
fn the_embedded_store_that_archives_at_once_does_what_the_model_does() {
    walk(Kind::Tiny(0), 60);
}

#[test]
fn the_embedded_store_that_archives_soon_does_what_the_model_does() {
    walk(Kind::Tiny(2), 60);
}
