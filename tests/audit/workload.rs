//! Many clients that launch, retry, cancel, revoke, forget, wait, read and list at random, and note what they are told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::history::{Answer, Ask, History, Id, Listed, Name, Operation, Time, Walk};
use crate::support::client::{Answer as Response, Client};

/// Ids that are asked about at the same time.
const BUSY_IDS: usize = 24;
/// How often an id is asked about before another one takes its place: histories have to stay short enough for the oracle.
const ASKED_MAX: u32 = 26;
/// One request in so many is about an id of the past.
const PAST: u32 = 25;
pub(crate) const HANDLERS: [&str; 3] = ["hook", "plain", "told"];

/// How long a client waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1_500);
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
}

impl Ids {
    fn draw(&mut self) -> Id {
        if !self.past.is_empty() && fastrand::u32(..PAST) == 0 {
            return Arc::clone(&self.past[fastrand::usize(..self.past.len())]);
        }
        while self.busy.len() < BUSY_IDS {
            self.busy.push_back((Id::from(format!("t-{}", self.made)), 0));
            self.made += 1;
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
}

/// A task keeps the handler that it began with.
pub(crate) fn handler(id: &str) -> &'static str {
    let number: usize = id.trim_start_matches("t-").parse().unwrap_or_default();
    HANDLERS[number % HANDLERS.len()]
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
        });
        let mut running = JoinSet::new();
        for _ in 0..clients {
            running.spawn(Arc::clone(&shared).run());
        }
        running.spawn(Arc::clone(&shared).walk());
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

    /// Requests so far, and those of them that nobody knows the outcome of.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.unknown.load(Ordering::Relaxed))
    }

    pub(crate) async fn stop(self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.service.send_modify(|_| {});
        self.clients.join_all().await;
    }
}

/// Asks, and notes what came of it. Returns the answer, if there was one.
pub(crate) async fn ask(
    history: &History,
    client: &Client,
    ask: Ask,
    id: &Id,
    patience: Duration,
) -> Option<Response> {
    let task = format!("/tasks/{id}");
    let (method, path) = match ask {
        Ask::Launch => (Method::POST, format!("{task}?handler={}", handler(id))),
        Ask::LaunchAndWait => (Method::PUT, format!("{task}?handler={}&wait=1s", handler(id))),
        Ask::Retry => (Method::POST, format!("{task}/retry")),
        Ask::Cancel => (Method::POST, format!("{task}/cancel")),
        Ask::Revoke => (Method::POST, format!("{task}/revoke")),
        Ask::Forget => (Method::DELETE, task),
        Ask::Read => {
            let ways = ["/status", "", "/status?wait=50ms"];
            (Method::GET, format!("{task}{}", ways[fastrand::usize(..ways.len())]))
        }
    };
    let began = history.now();
    let sent = timeout(patience, client.try_send(method, &path, &[], "input")).await;
    let ended = history.now();
    let mut noted = history.noted();
    // Nobody has taken the connection, so nobody has the request.
    if matches!(&sent, Ok(Err(error)) if error.contains("ConnectionRefused")) {
        return None;
    }
    let response = sent.ok().and_then(Result::ok);
    let answer = match response.as_ref().map(|response| Answer::parse(ask, response)) {
        Some(Ok(answer)) => answer,
        Some(Err(odd)) => {
            noted.oddities.push(format!("{id}: {odd}"));
            Answer::Unknown
        }
        None => Answer::Unknown,
    };
    let ended = if answer == Answer::Unknown { Time::MAX } else { ended };
    noted.operations.push(Operation { id: Arc::clone(id), ask, began, ended, answer });
    response
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut service = self.service.subscribe();
        while !self.is_over.load(Ordering::Relaxed) {
            let base = service.borrow_and_update().clone();
            let Some(base) = base else {
                let _ = service.changed().await;
                continue;
            };
            let client = Client::new(base);
            while !self.is_over.load(Ordering::Relaxed) && !service.has_changed().unwrap_or(true) {
                let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).draw();
                let wanted = match fastrand::u32(..100) {
                    0..32 => Ask::Launch,
                    32..38 => Ask::LaunchAndWait,
                    38..47 => Ask::Retry,
                    47..55 => Ask::Cancel,
                    55..63 => Ask::Revoke,
                    63..69 => Ask::Forget,
                    _ => Ask::Read,
                };
                let is_answered = ask(&self.history, &client, wanted, &id, PATIENCE).await.is_some();
                self.requests.fetch_add(1, Ordering::Relaxed);
                if !is_answered {
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

    /// Walks through lists, page by page.
    async fn walk(self: Arc<Self>) {
        let mut service = self.service.subscribe();
        while !self.is_over.load(Ordering::Relaxed) {
            let base = service.borrow_and_update().clone();
            let Some(base) = base else {
                let _ = service.changed().await;
                continue;
            };
            let client = Client::new(base);
            while !self.is_over.load(Ordering::Relaxed) && !service.has_changed().unwrap_or(true) {
                let name = [Name::Success, Name::Failed, Name::Working][fastrand::usize(..3)];
                let began = self.history.now();
                let walked = pages(&client, name, fastrand::bool(), fastrand::usize(3..60)).await;
                let ended = self.history.now();
                if let Some((pages, listed)) = walked {
                    self.history.noted().walks.push(Walk { name, began, ended, pages, listed });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Every page of a list; none where the service went away meanwhile.
async fn pages(
    client: &Client,
    name: Name,
    is_newest_first: bool,
    limit: usize,
) -> Option<(usize, Vec<Listed>)> {
    let order = if is_newest_first { "desc" } else { "asc" };
    let first = format!("/tasks?state={}&order={order}&limit={limit}", name.as_str());
    let (mut path, mut listed, mut pages) = (first.clone(), Vec::new(), 0);
    loop {
        let page = timeout(PATIENCE, client.try_send(Method::GET, &path, &[], "")).await.ok()?.ok()?;
        if page.status != 200 {
            return None;
        }
        let page: Value = serde_json::from_slice(&page.body).ok()?;
        pages += 1;
        listed.extend(
            page["tasks"].as_array()?.iter().map(|line| Listed::parse(line).expect("a line of a list")),
        );
        // In this order new ones come at the end, and clients never stop: what was there at the beginning is long past.
        match page["next"].as_str() {
            Some(cursor) if pages < 2_000 => path = format!("{first}&cursor={cursor}"),
            Some(_) => return None,
            None => return Some((pages, listed)),
        }
    }
}
