//! Records that are made straight in a store, by the calls that a recorder makes.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use task_recorder::store::{Claim, Claimed, Store};
use task_recorder::task::{Attempt, Failure, Input, Request, TaskId};
use tokio::task::JoinSet;

use super::load::Ids;

/// What the id with a number is launched with, and what its run comes to.
pub(crate) type Script = fn(u64) -> (Input, Option<Failure>);

pub(crate) fn id(number: u64) -> TaskId {
    super::id(number).parse().unwrap()
}

#[expect(clippy::panic, reason = "a bench stops when it cannot go on")]
pub(crate) async fn claim(store: &dyn Store, number: u64, input: Input) -> Claim {
    let request = Request::new("charge".parse().unwrap(), input);
    match store.claim(&id(number), request.into()).await.unwrap() {
        Claimed::Started(claim) => claim,
        Claimed::Refused(_) => panic!("{} was not new", id(number)),
    }
}

pub(crate) async fn claim_and_settle(store: &dyn Store, number: u64, script: Script) {
    let (input, failure) = script(number);
    let claim = claim(store, number, input).await;
    let now = Timestamp::now();
    let attempt = Attempt { run: 1, attempt: 1, started: now, ended: now, code: None, failure, answer: None };
    store.settle(claim, attempt, None).await.unwrap();
}

/// So many clients, of which each claims and settles one id after the other.
pub(crate) async fn claim_and_settle_all(
    store: &Arc<dyn Store>,
    numbers: Range<u64>,
    clients: usize,
    script: Script,
) {
    let ids = Ids::new(numbers);
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (store, ids) = (Arc::clone(store), Arc::clone(&ids));
        all.spawn(async move {
            while let Some(number) = ids.take() {
                claim_and_settle(&*store, number, script).await;
            }
        });
    }
    all.join_all().await;
}

/// All files below a folder.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let data = entry.metadata().unwrap();
            if data.is_dir() { bytes_in(&entry.path()) } else { data.len() }
        })
        .sum()
}
