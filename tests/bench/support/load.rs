//! Load: ids that are launched over many connections at once, each connection one after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::Connection;
use super::figures::Times;

/// One launch of so many is watched until it has settled, where a watcher is free.
const WATCHED: u64 = 64;
const WATCHERS: usize = 4;

/// Where ids are launched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What follows the id in the path of a launch.
    pub(crate) launch: &'static str,
    /// What follows it in the path of its status.
    pub(crate) status: &'static str,
}

/// Connections that are open already, so that opening them is no part of a measurement.
pub(crate) struct Load {
    target: Target,
    connections: Vec<Connection>,
    /// They ask for the status of launched ids, so that no launch waits for that.
    watchers: Arc<Mutex<Vec<Connection>>>,
}

/// Numbers of ids, each given out once.
#[derive(Debug)]
pub(crate) struct Ids {
    next: AtomicU64,
    end: AtomicU64,
}

/// What launching came to.
#[derive(Debug, Default)]
pub(crate) struct Launched {
    /// Until the last answer.
    pub(crate) elapsed: Duration,
    /// From each launch to its answer.
    pub(crate) answers: Times,
    /// From some launches to an answer that says that they have settled.
    pub(crate) settles: Times,
    /// Answers other than 202.
    pub(crate) refused: u64,
    /// The longest time without any answer, and when it ended.
    pub(crate) gap: Gap,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Gap {
    pub(crate) longest: Duration,
    /// Counted from the beginning.
    pub(crate) ended_at: Duration,
    last: Duration,
}

impl Target {
    /// The service, with its default handler.
    pub(crate) fn service(address: SocketAddr) -> Self {
        Self { address, launch: "", status: "/status?wait=30s" }
    }
}

impl Ids {
    pub(crate) fn new(numbers: std::ops::Range<u64>) -> Arc<Self> {
        Arc::new(Self { next: numbers.start.into(), end: numbers.end.into() })
    }

    pub(crate) fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end.load(Ordering::Relaxed)).then_some(number)
    }

    /// Gives out no more.
    pub(crate) fn stop(&self) {
        self.end.store(0, Ordering::Relaxed);
    }

    /// All numbers below this one have been given out.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

impl Load {
    pub(crate) async fn open(target: Target, connections: usize) -> Self {
        let (mut launchers, mut watchers) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            launchers.push(Connection::open(target.address).await);
        }
        for _ in 0..WATCHERS {
            watchers.push(Connection::open(target.address).await);
        }
        Self { target, connections: launchers, watchers: Arc::new(Mutex::new(watchers)) }
    }

    /// Launches until there are no more ids; returns after the last answer.
    pub(crate) async fn run(&mut self, ids: &Arc<Ids>) -> Launched {
        let began = Instant::now();
        let gap = Arc::new(Mutex::new(Gap::default()));
        let (settled, mut settles) = mpsc::unbounded_channel();
        let mut launchers = JoinSet::new();
        for connection in self.connections.drain(..) {
            let watching = (Arc::clone(&self.watchers), settled.clone());
            launchers.spawn(launch(
                self.target,
                connection,
                Arc::clone(ids),
                began,
                Arc::clone(&gap),
                watching,
            ));
        }
        drop(settled);
        let mut all = Launched::default();
        while let Some(done) = launchers.join_next().await {
            let (connection, answers, refused) = done.unwrap();
            self.connections.push(connection);
            all.answers.append(answers);
            all.refused += refused;
        }
        all.elapsed = began.elapsed();
        while let Some(time) = settles.recv().await {
            all.settles.add(time);
        }
        all.gap = *gap.lock().unwrap_or_else(PoisonError::into_inner);
        all
    }
}

async fn launch(
    target: Target,
    mut connection: Connection,
    ids: Arc<Ids>,
    began: Instant,
    gap: Arc<Mutex<Gap>>,
    (watchers, settled): (Arc<Mutex<Vec<Connection>>>, mpsc::UnboundedSender<Duration>),
) -> (Connection, Times, u64) {
    let (mut answers, mut refused) = (Times::default(), 0);
    while let Some(number) = ids.take() {
        let id = super::id(number);
        let sent = Instant::now();
        let (status, _) = connection.launch(&format!("/tasks/{id}{}", target.launch)).await;
        answers.add(sent.elapsed());
        gap.lock().unwrap_or_else(PoisonError::into_inner).answered(began.elapsed());
        if status != StatusCode::ACCEPTED {
            refused += 1;
        } else if number % WATCHED == 0 {
            let free = watchers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(watcher) = free {
                let path = format!("/tasks/{id}{}", target.status);
                let watching = watch(path, sent, watcher, Arc::clone(&watchers), settled.clone());
                tokio::runtime::Handle::current().spawn(watching);
            }
        }
    }
    (connection, answers, refused)
}

/// Asks until the task works no more.
async fn watch(
    path: String,
    sent: Instant,
    mut watcher: Connection,
    watchers: Arc<Mutex<Vec<Connection>>>,
    settled: mpsc::UnboundedSender<Duration>,
) {
    loop {
        let (_, body) = watcher.get(&path).await;
        if !body.windows(7).any(|word| word == b"working") {
            break;
        }
    }
    let _ = settled.send(sent.elapsed());
    watchers.lock().unwrap_or_else(PoisonError::into_inner).push(watcher);
}

impl Gap {
    fn answered(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last);
        if gap > self.longest {
            (self.longest, self.ended_at) = (gap, now);
        }
        self.last = self.last.max(now);
    }
}
