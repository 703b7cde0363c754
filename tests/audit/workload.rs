//! Many clients that launch, retry, cancel, revoke, forget, wait, read and list at random, and note what they are told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::asking::ask;
use crate::bulk;
use crate::follower;
use crate::groups;
use crate::history::{Ask, History, How, Id, Name, Stream};
use crate::lists;
use crate::support::client::Client;

/// Ids that are asked about at the same time.
const BUSY_IDS: usize = 24;
/// How often an id is asked about before another one takes its place: histories have to stay short enough for the oracle.
const ASKED_MAX: u32 = 26;
/// One request in so many is about an id of the past.
const PAST: u32 = 25;
/// `Idempotency-Key`s of an id.
const KEYS: u8 = 3;
pub(crate) const HANDLERS: [&str; 4] = ["hook", "plain", "told", "shell"];

/// How long a client waits for an answer that it wants.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1_500);
/// One request in so many is let go of before its answer can come.
const HUNG_UP: u32 = 30;
/// How long it waits after it got none.
const PAUSE: Duration = Duration::from_millis(100);

/// Clients that go on until they are told to stop, and wait while there is no service.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

type Deed = Box<dyn FnOnce() + Send>;

struct Shared {
    history: Arc<History>,
    service: watch::Sender<Option<String>>,
    ids: Mutex<Ids>,
    is_over: AtomicBool,
    /// Answers to writes so far.
    acknowledged: AtomicU64,
    trap: Mutex<Option<(u64, Deed)>>,
    requests: AtomicU64,
    unknown: AtomicU64,
    hung_up: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Ids {
    made: usize,
    busy: VecDeque<(Id, u32)>,
    past: Vec<Id>,
    /// The last revision that somebody was told of.
    revisions: HashMap<Id, u64>,
}

impl Ids {
    fn draw(&mut self) -> Id {
        if !self.past.is_empty() && fastrand::u32(..PAST) == 0 {
            return Arc::clone(&self.past[fastrand::usize(..self.past.len())]);
        }
        while self.busy.len() < BUSY_IDS {
            let new = self.make();
            self.busy.push_back((new, 0));
        }
        let place = fastrand::usize(..self.busy.len());
        let (id, asked) = &mut self.busy[place];
        *asked += 1;
        let (id, is_worn) = (Arc::clone(id), *asked >= ASKED_MAX);
        if is_worn {
            self.busy.remove(place);
            self.past.push(Arc::clone(&id));
        }
        id
    }

    fn make(&mut self) -> Id {
        self.made += 1;
        Id::from(format!("t-{}", self.made - 1))
    }

    /// One that is launched once, and asked about now and then.
    fn make_past(&mut self) -> Id {
        let id = self.make();
        self.past.push(Arc::clone(&id));
        id
    }

    /// On which conditions a launch of it is asked for.
    fn conditions(&self, id: &Id) -> How {
        let how = How::default();
        match fastrand::u32(..100) {
            0..25 => How { key: Some(fastrand::u8(..KEYS)), ..how },
            25..35 => How { if_match: Some(self.revision(id)), ..how },
            35..40 => How { if_match: Some(self.revision(id)), key: Some(fastrand::u8(..KEYS)), ..how },
            40..50 => How { if_unknown: true, ..how },
            50..60 => How { is_strict: true, ..how },
            _ => how,
        }
    }

    /// The one that was told last, mostly.
    fn revision(&self, id: &Id) -> u64 {
        let known = self.revisions.get(id).copied().unwrap_or_default();
        match fastrand::u32(..8) {
            0 => known.saturating_sub(1),
            1 => known + 1,
            _ => known,
        }
    }
}

/// A task keeps the handler that it began with.
pub(crate) fn handler(id: &str) -> &'static str {
    let number: usize = id.trim_start_matches("t-").parse().unwrap_or_default();
    HANDLERS[number % HANDLERS.len()]
}

/// How long a client waits this time; now and then it hangs up before an answer can come.
pub(crate) fn patience() -> Duration {
    if fastrand::u32(..HUNG_UP) == 0 { Duration::from_micros(fastrand::u64(200..5_000)) } else { PATIENCE }
}

impl Workload {
    pub(crate) fn start(history: Arc<History>, clients: usize) -> Self {
        let shared = Arc::new(Shared {
            history,
            service: watch::Sender::new(None),
            ids: Mutex::default(),
            is_over: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            trap: Mutex::default(),
            requests: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            hung_up: AtomicU64::new(0),
        });
        let mut running = JoinSet::new();
        for _ in 0..clients {
            running.spawn(Arc::clone(&shared).run());
        }
        running.spawn(Arc::clone(&shared).walk());
        running.spawn(Arc::clone(&shared).group());
        running.spawn(Arc::clone(&shared).operate());
        running.spawn(Arc::clone(&shared).pause());
        let every = Stream::default();
        let of_handler = Stream { handler: Some("told"), ..every.clone() };
        let of_state = Stream { state: Some(Name::Failed), ..every.clone() };
        for (stream, is_restless) in
            [(every.clone(), false), (every, true), (of_handler, true), (of_state, true)]
        {
            running.spawn(Arc::clone(&shared).follow(stream, is_restless));
        }
        Self { shared, clients: running }
    }

    /// Where the service is now; nowhere while it is down.
    pub(crate) fn point_to(&self, base: Option<&str>) {
        self.shared.service.send_replace(base.map(str::to_owned));
    }

    /// Does this once, when so many more writes were answered.
    pub(crate) fn trap(&self, after: u64, deed: impl FnOnce() + Send + 'static) {
        let at = self.shared.acknowledged.load(Ordering::Relaxed) + after;
        *self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, Box::new(deed)));
    }

    pub(crate) fn disarm(&self) {
        *self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Requests so far, those of them that nobody knows the outcome of, and those of these whose client hung up.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let Shared { requests, unknown, hung_up, .. } = &*self.shared;
        (requests.load(Ordering::Relaxed), unknown.load(Ordering::Relaxed), hung_up.load(Ordering::Relaxed))
    }

    pub(crate) async fn stop(self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.service.send_modify(|_| {});
        self.clients.join_all().await;
    }
}

impl Shared {
    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the service is, once it is somewhere; none when all is over.
    async fn base(&self, service: &mut watch::Receiver<Option<String>>) -> Option<String> {
        while !self.is_over.load(Ordering::Relaxed) {
            let base = service.borrow_and_update().clone();
            if base.is_some() {
                return base;
            }
            let _ = service.changed().await;
        }
        None
    }

    /// Whether it still is where it was.
    fn is_there(&self, service: &watch::Receiver<Option<String>>) -> bool {
        !self.is_over.load(Ordering::Relaxed) && !service.has_changed().unwrap_or(true)
    }

    async fn run(self: Arc<Self>) {
        let mut service = self.service.subscribe();
        while let Some(base) = self.base(&mut service).await {
            let client = Client::new(base);
            while self.is_there(&service) {
                let id = self.ids().draw();
                let wanted = match fastrand::u32(..100) {
                    0..32 => Ask::Launch,
                    32..38 => Ask::LaunchAndWait,
                    38..47 => Ask::Retry,
                    47..55 => Ask::Cancel,
                    55..63 => Ask::Revoke,
                    63..69 => Ask::Forget,
                    _ => Ask::Read,
                };
                let how = if wanted == Ask::Launch { self.ids().conditions(&id) } else { How::default() };
                let patience = patience();
                let answer = ask(&self.history, &client, wanted, how, &id, patience).await;
                let is_answered = answer.is_some();
                if let Some(revision) =
                    answer.and_then(|answer| answer.header("etag")?.trim_matches('"').parse().ok())
                {
                    self.ids().revisions.insert(Arc::clone(&id), revision);
                }
                self.requests.fetch_add(1, Ordering::Relaxed);
                if !is_answered && patience < PATIENCE {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    self.hung_up.fetch_add(1, Ordering::Relaxed);
                } else if !is_answered {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    // It is gone, or has no time.
                    let _ = timeout(PAUSE, service.changed()).await;
                    service.mark_changed();
                } else if wanted != Ask::Read {
                    self.count_answer();
                }
            }
        }
    }

    fn count_answer(&self) {
        let now = self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let deed = if trap.as_ref().is_some_and(|(at, _)| now >= *at) { trap.take() } else { None };
        drop(trap);
        if let Some((_, deed)) = deed {
            deed();
        }
    }

    /// Does this again and again, while there is a service.
    async fn again<F: Future<Output = ()>>(
        &self,
        pause: Duration,
        mut act: impl FnMut(Client, Arc<str>) -> F,
    ) {
        let mut service = self.service.subscribe();
        while let Some(base) = self.base(&mut service).await {
            let client = Client::new(&base);
            let base = Arc::from(base);
            while self.is_there(&service) {
                act(client.clone(), Arc::clone(&base)).await;
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn walk(self: Arc<Self>) {
        let history = &self.history;
        self.again(Duration::from_millis(20), |client, _| async move { lists::read(history, &client).await })
            .await;
    }

    /// Batches and lookups, of ids that others ask about too.
    async fn group(self: Arc<Self>) {
        let shared = &self;
        self.again(Duration::from_millis(15), |client, _| async move {
            let ids: Vec<_> = (0..fastrand::usize(1..12)).map(|_| shared.ids().draw()).collect();
            if fastrand::u32(..3) > 0 {
                groups::look_up(&shared.history, &client, &ids).await;
            } else {
                let new = (0..fastrand::usize(..24)).map(|_| shared.ids().make_past()).collect::<Vec<_>>();
                let mut ids = [ids, new].concat();
                fastrand::shuffle(&mut ids);
                groups::launch(&shared.history, &client, &ids).await;
            }
        })
        .await;
    }

    /// Bulk operations on a few ids.
    async fn operate(self: Arc<Self>) {
        let shared = &self;
        self.again(Duration::from_millis(120), |client, _| async move {
            let prefix = shared.ids().draw().to_string();
            bulk::operate(&shared.history, &client, prefix).await;
        })
        .await;
    }

    async fn pause(self: Arc<Self>) {
        let history = &self.history;
        self.again(Duration::from_millis(500), |client, base| async move {
            bulk::pause(history, &client, &base).await;
        })
        .await;
    }

    /// Reads events. One that is restless hangs up now and then, and goes on where it was.
    async fn follow(self: Arc<Self>, stream: Stream, is_restless: bool) {
        let number = self.history.follow(stream);
        let mut service = self.service.subscribe();
        while let Some(base) = self.base(&mut service).await {
            let patience = Duration::from_millis(if is_restless { fastrand::u64(1..400) } else { 600_000 });
            let reading = follower::read(&self.history, number, &base, |_| false);
            tokio::select! {
                _ = timeout(patience, reading) => {}
                _ = service.changed() => service.mark_changed(),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
        }
    }
}
