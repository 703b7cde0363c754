//! The work of [`Retention`]: what has been settled for long enough loses its details, or is forgotten.
//!
//! Each rule walks the settled tasks in the order in which they settled, up to the first that is too young, and goes on
//! from there the next time: what it has seen once is not read again, until a restart.
//!
//! Invariant: everything settled at or before a rule's `done_to` is dealt with (tests/it/retention.rs). For a task
//! enters a state only at a place behind all others, so one that was working has a later place when it settles; a drop
//! of details keeps the place, and nothing gives them back there; and a settled task that is not at rest, because it is
//! being revoked or its outcome is still to be told, and that may come to rest at its old place, holds `done_to` in
//! front of it. So does one that has settled in the future, before the clock was set back: else nothing behind it would
//! have its turn until then. Every change is fenced by the place, so that one that comes too late does nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::Recorder;
use crate::pauses::Pauses;
use crate::store::{Filter, Moved, Order, Query, Store, StoreError};
use crate::sync::time::{Instant, sleep};
use crate::task::{Change, Refusal, Retention, StateName, Task};

/// How many tasks are looked at before it rests, and how many of them are changed at once: a small part of what the
/// store takes in a commit, so that launches never wait behind many of these changes.
const PAGE: usize = 500;
const AT_ONCE: usize = 32;
/// The shortest rest after a page; it rests for as long as the page took.
const REST_MIN: Duration = Duration::from_millis(10);
/// How long it pauses after an error, at first and at most.
const PAUSES: Pauses = Pauses::new(Duration::from_secs(1), Duration::from_mins(1));

impl Recorder {
    /// Keeps settled tasks only as long as this says, in the background, until [`Recorder::stop`] is called. To be
    /// called once, within a runtime of tokio.
    pub fn retain(&self, retention: &Retention) {
        if retention.is_off() {
            return;
        }
        let (inner, interval) = (Arc::clone(&self.inner), retention.interval);
        let rules = rules(retention);
        self.inner.runs.spawn(async move {
            // What is cut off in the middle is either written or not, and the next start looks at all again.
            inner.draining.run_until_cancelled(retain(&*inner.store, rules, interval)).await;
        });
    }
}

/// One of the ages, and what is done at it.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    states: &'static [StateName],
    age: Duration,
    deed: Deed,
    /// None at first.
    done_to: Option<u64>,
    /// Whether it was told in the log that tasks have settled in the future.
    is_ahead_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Expire,
    DropDetails,
}

/// What is forgotten goes first: it has no details to drop.
fn rules(retention: &Retention) -> Vec<Rule> {
    use StateName::{Failed, Success};
    let all: [(_, &'static [StateName], _, _); 3] = [
        ("success", &[Success], retention.success, Deed::Expire),
        ("failed", &[Failed], retention.failed, Deed::Expire),
        ("details", &[Success, Failed], retention.details, Deed::DropDetails),
    ];
    let rule = |(name, states, age, deed)| {
        Some(Rule { name, states, age: age?, deed, done_to: None, is_ahead_told: false })
    };
    all.into_iter().filter_map(rule).collect()
}

/// Ends when the store takes no writes any more.
async fn retain(store: &dyn Store, mut rules: Vec<Rule>, interval: Duration) {
    let mut pauses = PAUSES;
    loop {
        match apply_all(store, &mut rules).await {
            Ok(()) => {
                pauses = PAUSES;
                sleep(interval).await;
            }
            Err(StoreError::Closed | StoreError::Dead(_)) => return,
            Err(error) => {
                let pause = pauses.take();
                tracing::warn!(%error, ?pause, "what is too old stays for now");
                sleep(pause).await;
            }
        }
    }
}

async fn apply_all(store: &dyn Store, rules: &mut [Rule]) -> Result<(), StoreError> {
    for rule in rules {
        rule.apply(store).await?;
    }
    Ok(())
}

impl Rule {
    /// Deals with every task that is old enough now.
    async fn apply(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let age = SignedDuration::try_from(self.age).unwrap_or(SignedDuration::MAX);
        // Nothing is older than the oldest time that can be written.
        let cutoff = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
        let filter = Filter { states: self.states.to_vec(), ..Filter::default() };
        let mut query = Query { filter, order: Order::Ascending, after: self.done_to, limit: PAGE };
        let (mut held, mut first_ahead, mut changed) = (None, None, 0);
        loop {
            let begun = Instant::now();
            let page = store.list(&query).await?;
            // As it is now: what settles while this goes on is not in the future.
            let now = Timestamp::now();
            let found = page.tasks.len();
            // The times go up with the places. Where a clock went back, what is behind waits a little longer: for as long
            // as the rule's age at most, because what has settled in the future is passed by.
            let is_in_turn = |task: &Arc<Task>| task.since <= cutoff || task.since > now;
            let seen: Vec<_> = page.tasks.into_iter().take_while(is_in_turn).collect();
            let is_end = seen.len() < found || page.next.is_none();
            let last = seen.last().map(|task| task.entered);
            query.after = if is_end { last.or(query.after) } else { page.next };

            let (ahead, due): (Vec<_>, Vec<_>) = seen.into_iter().partition(|task| task.since > now);
            let done = self.change_all(store, due).await?;
            changed += done.changed;
            held = [held, done.held, ahead.first().map(|task| task.entered)].into_iter().flatten().min();
            first_ahead = first_ahead.or(ahead.into_iter().next());
            self.done_to = query.after.map(|place| held.map_or(place, |held| place.min(held - 1)));
            if is_end {
                break;
            }
            sleep(begun.elapsed().max(REST_MIN)).await;
        }
        if changed > 0 {
            tracing::info!(rule = self.name, tasks = changed, "dropped what is too old");
        }
        self.tell_ahead(first_ahead.as_deref());
        Ok(())
    }

    /// Once, until there is none any more.
    fn tell_ahead(&mut self, task: Option<&Task>) {
        if let Some(task) = task.filter(|_| !self.is_ahead_told) {
            let (id, since) = (&task.id, task.since);
            tracing::warn!(rule = self.name, task.id = %id, %since, "a task has settled in the future, and stays until its age is reached; was the clock set back?");
        }
        self.is_ahead_told = task.is_some();
    }

    async fn change_all(&self, store: &dyn Store, due: Vec<Arc<Task>>) -> Result<Done, StoreError> {
        let deed = self.deed;
        let is_left = |task: &Arc<Task>| deed == Deed::Expire || !task.details_dropped;
        let (at_rest, held): (Vec<_>, Vec<_>) =
            due.into_iter().filter(is_left).partition(|task| task.is_at_rest());
        let mut done = Done { changed: 0, held: held.first().map(|task| task.entered) };
        let mut moves = stream::iter(at_rest)
            .map(|task| async move { (task.entered, store.change(&task.id, deed.at(task.entered)).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((place, moved)) = moves.next().await {
            match moved? {
                Moved::Done(_) => done.changed += 1,
                Moved::Refused(refused) if is_passing(refused.reason) => {
                    done.held = done.held.into_iter().chain([place]).min();
                }
                // It has left the state meanwhile.
                Moved::Refused(_) => {}
            }
        }
        Ok(done)
    }
}

/// Whether it will come to rest where it is.
fn is_passing(reason: Refusal) -> bool {
    matches!(reason, Refusal::Revoking | Refusal::NoticeDue)
}

impl Deed {
    fn at(self, entered: u64) -> Change {
        match self {
            Self::Expire => Change::Expire { entered },
            Self::DropDetails => Change::DropDetails { entered },
        }
    }
}

/// What became of a page.
#[derive(Debug)]
struct Done {
    changed: u64,
    /// The first place of a task that cannot be dealt with yet.
    held: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::samples::{self, claimed, done};
    use crate::store::{Claim, MemoryStore};
    use crate::task::{ErrorKind, Failure, TaskId};

    async fn settled(store: &dyn Store, name: &str) -> Arc<Task> {
        settle(store, claimed(store, &name.parse().unwrap()).await).await
    }

    async fn settle(store: &dyn Store, claim: Claim) -> Arc<Task> {
        samples::settled(store, claim, None).await
    }

    async fn is_dropped(store: &dyn Store, task: &Task) -> bool {
        store.get(&task.id).await.unwrap().unwrap().details_dropped
    }

    fn drop_details(age: Duration) -> Rule {
        rules(&Retention { details: Some(age), ..Retention::default() }).remove(0)
    }

    #[tokio::test]
    async fn it_goes_on_where_it_ended_and_holds_in_front_of_a_revoke() {
        let store = MemoryStore::new();
        let (a, b, c) = (settled(&store, "a").await, settled(&store, "b").await, settled(&store, "c").await);
        let mut rule = drop_details(Duration::ZERO);
        let revoking = done(store.change(&b.id, Change::BeginRevoke).await.unwrap());
        rule.apply(&store).await.unwrap();
        assert!(is_dropped(&store, &a).await && is_dropped(&store, &c).await);
        assert!(!is_dropped(&store, &b).await);
        assert_eq!(rule.done_to, Some(b.entered - 1));

        let failure = Failure::new(ErrorKind::Timeout, "no answer");
        let end = Change::EndRevoke { revision: revoking.revision, result: Err(failure) };
        done(store.change(&b.id, end).await.unwrap());
        rule.apply(&store).await.unwrap();
        assert!(is_dropped(&store, &b).await);
        assert_eq!(rule.done_to, Some(c.entered));

        let d = settled(&store, "d").await;
        rule.apply(&store).await.unwrap();
        assert!(is_dropped(&store, &d).await);
        assert_eq!(rule.done_to, Some(d.entered));
    }

    #[tokio::test]
    async fn it_holds_in_front_of_an_outcome_that_is_still_to_be_told() {
        let store = MemoryStore::new();
        let id: TaskId = "a".parse().unwrap();
        let claim = claimed(&store, &id).await.with_notice(true);
        let task = settle(&store, claim).await;
        let later = settled(&store, "b").await;
        let mut rule = drop_details(Duration::ZERO);
        rule.apply(&store).await.unwrap();
        assert!(!is_dropped(&store, &task).await && is_dropped(&store, &later).await);
        assert_eq!(rule.done_to, Some(task.entered - 1));
        done(store.change(&id, Change::EndNotice { run: 1 }).await.unwrap());
        rule.apply(&store).await.unwrap();
        assert!(is_dropped(&store, &task).await);
        assert_eq!(rule.done_to, Some(later.entered));
    }

    #[tokio::test]
    async fn what_changes_after_it_was_listed_is_held_only_if_it_stays_where_it_is() {
        let store = MemoryStore::new();
        let (a, b, c) = (settled(&store, "a").await, settled(&store, "b").await, settled(&store, "c").await);
        let rule = drop_details(Duration::ZERO);
        let listed = vec![Arc::clone(&a), Arc::clone(&b), Arc::clone(&c)];
        done(store.change(&a.id, Change::Revoke).await.unwrap());
        done(store.change(&b.id, Change::BeginRevoke).await.unwrap());
        let become_of = rule.change_all(&store, listed).await.unwrap();
        assert_eq!((become_of.changed, become_of.held), (1, Some(b.entered)));
        assert!(is_dropped(&store, &c).await && !is_dropped(&store, &b).await);
    }

    #[tokio::test]
    async fn what_is_too_young_is_not_passed_by() {
        let store = MemoryStore::new();
        let task = settled(&store, "a").await;
        let mut rule = drop_details(Duration::from_hours(1));
        rule.apply(&store).await.unwrap();
        assert_eq!((rule.done_to, is_dropped(&store, &task).await), (None, false));
        rule.age = Duration::ZERO;
        rule.apply(&store).await.unwrap();
        assert_eq!((rule.done_to, is_dropped(&store, &task).await), (Some(task.entered), true));
    }

    /// One that has settled at this time.
    async fn settled_at(store: &dyn Store, name: &str, since: Timestamp) -> Arc<Task> {
        let like = settled(store, "like").await;
        done(store.change(&like.id, Change::Revoke).await.unwrap());
        let task = Task { since, ..(*like).clone() };
        done(store.change(&name.parse().unwrap(), Change::Import(Box::new(task))).await.unwrap())
    }

    #[tokio::test]
    async fn nothing_behind_what_is_too_young_is_passed_by() {
        let (store, now) = (MemoryStore::new(), Timestamp::now());
        let task = settled_at(&store, "a", now - Duration::from_hours(2)).await;
        for n in 0..=PAGE {
            settled_at(&store, &format!("t{n}"), now).await;
        }
        let mut rule = drop_details(Duration::from_hours(1));
        rule.apply(&store).await.unwrap();
        assert_eq!((rule.done_to, is_dropped(&store, &task).await), (Some(task.entered), true));
    }

    #[tokio::test]
    async fn it_goes_on_behind_what_has_settled_in_the_future() {
        let (store, soon) = (MemoryStore::new(), Timestamp::now() + Duration::from_hours(1));
        let before = settled(&store, "a").await;
        let mut ahead = Vec::new();
        for n in 0..=PAGE {
            ahead.push(settled_at(&store, &format!("t{n}"), soon).await);
        }
        let behind = settled(&store, "b").await;
        let mut rule = drop_details(Duration::ZERO);
        for _ in 0..2 {
            rule.apply(&store).await.unwrap();
            assert!(is_dropped(&store, &before).await && is_dropped(&store, &behind).await);
            assert!(!is_dropped(&store, &ahead[0]).await && !is_dropped(&store, &ahead[PAGE]).await);
            assert_eq!(rule.done_to, Some(ahead[0].entered - 1), "it holds in front of them");
            assert!(rule.is_ahead_told);
        }
    }

    #[tokio::test]
    async fn more_than_a_page_is_dealt_with_at_once() {
        let store = MemoryStore::new();
        for n in 0..=2 * PAGE {
            settled(&store, &format!("t{n}")).await;
        }
        let mut rule = rules(&Retention { success: Some(Duration::ZERO), ..Retention::default() }).remove(0);
        rule.apply(&store).await.unwrap();
        assert_eq!(store.counts().total().success, 0);
    }

    #[test]
    fn a_rule_that_is_off_is_none() {
        assert!(rules(&Retention::default()).is_empty());
        let failed = Retention { failed: Some(Duration::ZERO), ..Retention::default() };
        assert_eq!(rules(&failed).len(), 1);
    }
}
