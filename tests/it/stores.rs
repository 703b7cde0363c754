//! The stores that the tests run over, and what many of them ask of one.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use task_recorder::store::{
    Claim, Claimed, EmbeddedOptions, EmbeddedStore, Filter, MemoryStore, Moved, OpenError, Order, Query,
    Refused, StateCounts, Store, StoreError,
};
use task_recorder::task::{
    Attempt, Change, ErrorKind, Failure, HandlerName, Input, Outcome, Output, Refusal, Request, Start,
    StartKind, State, StateName, Task, TaskId,
};
use tempfile::TempDir;

use crate::support::until;

/// How long something may take that has to happen; reached only where it does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which store, with which limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    /// With the default limits: nothing that a test does reaches the archive.
    Embedded,
    /// At most so many settled tasks stay in memory, and commits are small.
    Tiny(usize),
    /// As `Tiny`, with commits of the default size.
    Hot(usize),
}

/// A store that is gone when the test ends.
pub(crate) struct TestStore {
    store: Arc<dyn Store>,
    kind: Kind,
    folder: Option<TempDir>,
}

impl Kind {
    pub(crate) fn options(self) -> EmbeddedOptions {
        let default = EmbeddedOptions::default();
        match self {
            Self::Memory | Self::Embedded => default,
            // An index of many small runs.
            Self::Tiny(hot_tasks) => EmbeddedOptions { hot_tasks, batch_max: 4, recent_ids: 3, ..default },
            Self::Hot(hot_tasks) => EmbeddedOptions { hot_tasks, ..default },
        }
    }

    pub(crate) fn open(self) -> TestStore {
        if self == Self::Memory {
            return TestStore { store: Arc::new(MemoryStore::new()), kind: self, folder: None };
        }
        let folder = tempfile::tempdir().unwrap();
        let store = open_embedded(folder.path(), &self.options());
        TestStore { store: Arc::new(store), kind: self, folder: Some(folder) }
    }
}

impl Deref for TestStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl TestStore {
    pub(crate) fn shared(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Where it keeps its records. Not for the store in memory.
    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// Whether closing it and opening it again gives the same records.
    pub(crate) fn is_durable(&self) -> bool {
        self.folder.is_some()
    }

    /// A new one of the same kind.
    pub(crate) fn another(&self) -> Self {
        self.kind.open()
    }

    /// Closes it and opens it again.
    pub(crate) async fn reopen(self) -> Self {
        self.store.close().await;
        let Self { store, kind, folder } = self;
        drop(store);
        let folder = folder.unwrap();
        let store = open_embedded(folder.path(), &kind.options());
        Self { store: Arc::new(store), kind, folder: Some(folder) }
    }

    /// Waits until the archive has taken what the limits leave to it.
    pub(crate) async fn at_rest(&self) {
        let (Kind::Tiny(hot_tasks) | Kind::Hot(hot_tasks)) = self.kind else { return };
        let batch = (hot_tasks / 8).clamp(1, 2_000);
        let archive = open_to_read(&self.path().join("archive.db"));
        let journal = self.path().join("journal.db");
        archive.execute("ATTACH ? AS journal", [journal.to_str().unwrap()]).unwrap();
        let settled = "SELECT count(*) FROM
                           (SELECT id, state, revision, max(batch * 10000 + number) FROM journal.changes GROUP BY id) AS hot
                           LEFT JOIN tasks ON tasks.id = hot.id AND tasks.revision >= hot.revision
                       WHERE hot.state <> 'working' AND tasks.id IS NULL";
        until("the archive has taken the settled tasks", || number(&archive, settled) < hot_tasks + batch)
            .await;
    }
}

/// A retry that runs at once.
pub(crate) const RETRY: Start =
    Start { kind: StartKind::Retry { trace: None, if_entered: None }, is_queued: false };

/// Moves that have no method of their own.
#[async_trait]
pub(crate) trait Moves: Store {
    async fn revoke(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.change(id, Change::Revoke).await
    }

    async fn forget(&self, id: &TaskId) -> Result<Moved, StoreError> {
        self.change(id, Change::Forget).await
    }

    /// Of a task in the state in which it is here.
    async fn drop_details(&self, task: &Task) -> Result<Moved, StoreError> {
        self.change(&task.id, Change::DropDetails { entered: task.entered }).await
    }
}

impl<S: Store + ?Sized> Moves for S {}

/// Opens a folder that nobody has open. A process that another test starts at this moment holds the lock too, from
/// its fork to its exec.
pub(crate) fn open_embedded(path: &Path, options: &EmbeddedOptions) -> EmbeddedStore {
    let begun = Instant::now();
    loop {
        match EmbeddedStore::open(path, options) {
            Err(OpenError::InUse { .. }) if begun.elapsed() < PATIENCE => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Opens a file as any tool would.
pub(crate) fn open_to_read(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
}

/// The one number that the statement gives.
pub(crate) fn number(connection: &Connection, sql: &str) -> usize {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub(crate) fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

pub(crate) fn handler(text: &str) -> HandlerName {
    text.parse().unwrap()
}

/// A launch with a handler named `h`.
pub(crate) fn launch(input: impl Into<Bytes>) -> Start {
    launch_with("h", input)
}

pub(crate) fn launch_with(name: &str, input: impl Into<Bytes>) -> Start {
    let input = Input::new(Some("text/plain".to_owned()), input.into());
    Request::new(handler(name), input).into()
}

/// The last attempt of a run that came to this.
pub(crate) fn attempt(run: u32, outcome: &Outcome) -> Attempt {
    let now = Timestamp::now();
    let failure = outcome.result.clone().err();
    Attempt { run, attempt: 1, started: now, ended: now, code: outcome.code, failure, answer: None }
}

pub(crate) fn output(bytes: impl Into<Bytes>) -> Output {
    Output { media_type: Some("text/plain".to_owned()), truncated: false, bytes: bytes.into() }
}

pub(crate) fn success() -> Outcome {
    Outcome::success()
}

pub(crate) fn failure(kind: ErrorKind) -> Outcome {
    Outcome::failed(Failure::new(kind, "because"))
}

/// Claims an id that is free.
pub(crate) async fn claim(store: &dyn Store, task: &TaskId, start: Start) -> Claim {
    started(store.claim(task, start).await.unwrap())
}

pub(crate) fn started(claimed: Claimed) -> Claim {
    match claimed {
        Claimed::Started(claim) => claim,
        Claimed::Refused(refused) => panic!("refused: {refused:?}"),
    }
}

pub(crate) fn not_started(claimed: Claimed) -> Refused {
    match claimed {
        Claimed::Started(claim) => panic!("started: {claim:?}"),
        Claimed::Refused(refused) => refused,
    }
}

pub(crate) fn done(moved: Moved) -> Arc<Task> {
    match moved {
        Moved::Done(task) => task,
        Moved::Refused(refused) => panic!("refused: {refused:?}"),
    }
}

pub(crate) fn refused(moved: Moved) -> Refused {
    match moved {
        Moved::Done(task) => panic!("done: {task:?}"),
        Moved::Refused(refused) => refused,
    }
}

pub(crate) fn reason<T>(answer: &Result<T, Refused>) -> Option<Refusal> {
    answer.as_ref().err().map(|refused| refused.reason)
}

/// Settles a claim of the present run.
pub(crate) async fn settle(store: &dyn Store, claim: Claim, outcome: Outcome) -> Arc<Task> {
    let attempt = attempt(claim.task().run, &outcome);
    done(store.settle(claim, attempt, outcome.output).await.unwrap())
}

/// Launches an id and settles it.
pub(crate) async fn run(store: &dyn Store, task: &TaskId, outcome: Outcome) -> Arc<Task> {
    let claim = claim(store, task, launch("in")).await;
    settle(store, claim, outcome).await
}

pub(crate) fn query(filter: Filter, order: Order, limit: usize) -> Query {
    Query { filter, order, after: None, limit }
}

pub(crate) fn in_states(states: &[StateName]) -> Filter {
    Filter { states: states.to_vec(), ..Filter::default() }
}

/// Every page of a list, one after another.
pub(crate) async fn list_all(store: &dyn Store, mut query: Query) -> Vec<Arc<Task>> {
    let mut tasks = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        assert!(page.tasks.len() <= query.limit, "a page has at most its limit");
        tasks.extend(page.tasks);
        match page.next {
            Some(next) => {
                assert!(query.after.is_none_or(|after| query.order.is_before(after, next)), "pages go on");
                query.after = Some(next);
            }
            None => return tasks,
        }
    }
}

/// The ids of every page.
pub(crate) async fn list_ids(store: &dyn Store, query: Query) -> Vec<String> {
    list_all(store, query).await.iter().map(|task| task.id.to_string()).collect()
}

/// How many tasks each handler has in each state, as the lists say; the counts have to say the same.
pub(crate) async fn assert_counts_agree(store: &dyn Store) -> StateCounts {
    let mut counted = BTreeMap::<_, StateCounts>::new();
    for task in list_all(store, query(Filter::default(), Order::Ascending, 1_000)).await {
        let counts = counted.entry(task.handler.clone()).or_default();
        match task.state_name() {
            StateName::Working => counts.working += 1,
            StateName::Success => counts.success += 1,
            StateName::Failed => counts.failed += 1,
            StateName::Absent => panic!("an absent task is listed: {task:?}"),
        }
    }
    let counts = store.counts();
    let mut by_handler = counts.by_handler.clone();
    by_handler.retain(|_, counts| *counts != StateCounts::default());
    assert_eq!(by_handler, counted, "counts and lists");
    let working = store.list(&query(in_states(&[StateName::Working]), Order::Ascending, 1)).await.unwrap();
    assert_eq!(counts.oldest_working.as_ref(), working.tasks.first(), "the oldest working task");
    counts.total()
}

/// A record without the bytes beside it, which a list leaves out.
pub(crate) fn without_bytes(task: &Task) -> Task {
    let mut task = task.clone();
    task.input.bytes = Bytes::new();
    if let State::Success { output: Some(output), .. } | State::Failed { output: Some(output), .. } =
        &mut task.state
    {
        output.bytes = Bytes::new();
    }
    task
}
