//! Load: ids that are launched over many connections at once, each connection one after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::Connection;
use super::figures::{Longest, Times};

/// One launch of so many is watched until it has settled, where a watcher is free.
const WATCHED: u64 = 64;
const WATCHERS: usize = 4;

/// Where ids are launched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What follows the id in the path of a launch.
    pub(crate) launch: &'static str,
    /// What follows it in the path of its status; none where nobody watches what becomes of it.
    pub(crate) status: Option<&'static str>,
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
    /// Connections that ended before the ids did.
    pub(crate) broken: u64,
    /// The longest times without any answer.
    pub(crate) gaps: Longest,
}

/// The times without any answer.
#[derive(Debug, Default)]
struct Gaps {
    longest: Longest,
    /// When the last answer came, counted from the beginning.
    last: Duration,
}

impl Target {
    /// The service, with its default handler.
    pub(crate) fn service(address: SocketAddr) -> Self {
        Self { address, launch: "", status: Some("/status?wait=30s") }
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
        let (settled, mut settles) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            target: self.target,
            watchers: Arc::clone(&self.watchers),
            ids: Arc::clone(ids),
            began: Instant::now(),
            gaps: Mutex::default(),
        });
        let mut launchers = JoinSet::new();
        for connection in self.connections.drain(..) {
            launchers.spawn(launch(Arc::clone(&shared), connection, settled.clone()));
        }
        drop(settled);
        let mut all = Launched::default();
        while let Some(done) = launchers.join_next().await {
            let (connection, answers, refused) = done.unwrap();
            all.answers.append(answers);
            all.refused += refused;
            match connection {
                Some(connection) => self.connections.push(connection),
                None => all.broken += 1,
            }
        }
        all.elapsed = shared.began.elapsed();
        while let Some(time) = settles.recv().await {
            all.settles.add(time);
        }
        all.gaps = locked(&shared.gaps).longest.clone();
        all
    }
}

/// What the connections of one run have in common.
struct Shared {
    target: Target,
    watchers: Arc<Mutex<Vec<Connection>>>,
    ids: Arc<Ids>,
    began: Instant,
    gaps: Mutex<Gaps>,
}

/// Gives its connection back, unless it has ended.
async fn launch(
    shared: Arc<Shared>,
    mut connection: Connection,
    settled: mpsc::UnboundedSender<Duration>,
) -> (Option<Connection>, Times, u64) {
    let (mut answers, mut refused) = (Times::default(), 0);
    while let Some(number) = shared.ids.take() {
        let id = super::id(number);
        let sent = Instant::now();
        let Ok((status, _)) = connection.try_launch(&format!("/tasks/{id}{}", shared.target.launch)).await
        else {
            return (None, answers, refused);
        };
        answers.add(sent.elapsed());
        locked(&shared.gaps).answered(shared.began.elapsed());
        if status != StatusCode::ACCEPTED {
            refused += 1;
        } else if let Some(asked) = shared.target.status.filter(|_| number % WATCHED == 0)
            && let Some(watcher) = locked(&shared.watchers).pop()
        {
            let path = format!("/tasks/{id}{asked}");
            let watching = watch(path, sent, watcher, Arc::clone(&shared.watchers), settled.clone());
            tokio::runtime::Handle::current().spawn(watching);
        }
    }
    (Some(connection), answers, refused)
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
        let Ok((_, body)) = watcher.try_get(&path).await else { return };
        if !body.windows(7).any(|word| word == b"working") {
            break;
        }
    }
    let _ = settled.send(sent.elapsed());
    locked(&watchers).push(watcher);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Gaps {
    fn answered(&mut self, now: Duration) {
        self.longest.add(now.saturating_sub(self.last), now);
        self.last = self.last.max(now);
    }
}
