//! A receiver of webhooks on the loopback that does what a test tells it to, well or badly, and remembers each call.

mod wire;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::header::HeaderMap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

/// A running receiver; dropping it ends it and every connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Path and query, as they were sent.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The number of the connection on which it came, from 1.
    pub(crate) connection: usize,
}

/// What to do with a call once it was read.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Answer.
    Answer(Answer),
    /// Answer once the gate is open.
    AnswerAfter(Gate, Answer),
    /// Answer as if the connection stayed, then end it.
    AnswerAndLeave(Answer),
    /// Keep the connection and say nothing.
    NeverAnswer,
    /// End the connection without a byte.
    HangUp,
    /// End the connection behind the head, in front of the first byte of the body.
    HangUpAfterHead(Answer),
    /// End the connection before the last byte of the body.
    HangUpInBody(Answer),
    /// Send the head and the body without its last byte, then nothing.
    StallInBody(Answer),
    /// Send a body without an end.
    Endless(u16),
    /// Send a body of that many bytes.
    Huge(u16, u64),
    /// Send these bytes, HTTP or not, then end the connection.
    Raw(Bytes),
}

/// An answer of a known length.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

/// Holds answers back until it is opened.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Recorded>,
    calls: watch::Sender<usize>,
    /// Connections that the caller ended in the middle of an answer or of the wait for one.
    cut: watch::Sender<usize>,
    /// Connections that are closed on our side.
    closed: watch::Sender<usize>,
    hangs_up_on_accept: AtomicBool,
}

#[derive(Debug)]
struct Recorded {
    calls: Vec<Call>,
    by_task: HashMap<String, usize>,
    connections: usize,
    default: Behaviour,
    /// What each task id gets, call by call; the last one stays.
    scripts: HashMap<String, VecDeque<Behaviour>>,
}

impl Receiver {
    /// A receiver on a free port that answers 200 without a body.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(Recorded {
                calls: Vec::new(),
                by_task: HashMap::new(),
                connections: 0,
                default: Behaviour::Answer(Answer::of(200)),
                scripts: HashMap::new(),
            }),
            calls: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            closed: watch::Sender::new(0),
            hangs_up_on_accept: AtomicBool::new(false),
        });
        let mut serving = JoinSet::new();
        serving.spawn(wire::accept(listener, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    /// `http://127.0.0.1:port` and this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What tasks get that have no script of their own.
    pub(crate) fn by_default(&self, behaviour: Behaviour) {
        self.state().default = behaviour;
    }

    /// What the calls for this task id get, one after the other; the last one stays.
    pub(crate) fn on(&self, task_id: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.state().scripts.insert(task_id.to_owned(), behaviours.into_iter().collect());
    }

    /// Ends every connection from now on as soon as it is made.
    pub(crate) fn hang_up_on_accept(&self) {
        self.shared.hangs_up_on_accept.store(true, Ordering::Release);
    }

    /// Every call so far, in order of arrival.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls came for this task id.
    pub(crate) fn count(&self, task_id: &str) -> usize {
        self.state().by_task.get(task_id).copied().unwrap_or(0)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.state().connections
    }

    /// Waits for this many calls in all.
    pub(crate) async fn wait_for(&self, calls: usize) {
        reached(&self.shared.calls, calls, "calls").await;
    }

    /// Waits until the caller has ended this many connections before it had the whole answer.
    pub(crate) async fn wait_for_cut(&self, connections: usize) {
        reached(&self.shared.cut, connections, "connections cut by the caller").await;
    }

    /// Waits until this many connections are closed on this side.
    pub(crate) async fn wait_for_closed(&self, connections: usize) {
        reached(&self.shared.closed, connections, "connections closed by the receiver").await;
    }

    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.shared.state()
    }
}

impl Answer {
    /// An answer without a body.
    pub(crate) fn of(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// A header more.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With this body.
    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everyone through, now and later.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        // The sender is `self`, so it is there.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the call, and says what to do with it.
    fn record(&self, call: Call) -> Behaviour {
        let mut state = self.state();
        let task_id =
            call.headers.get("task-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let behaviour = match state.scripts.get_mut(&task_id) {
            Some(script) if script.len() > 1 => script.pop_front(),
            Some(script) => script.front().cloned(),
            None => None,
        };
        let behaviour = behaviour.unwrap_or_else(|| state.default.clone());
        *state.by_task.entry(task_id).or_default() += 1;
        state.calls.push(call);
        drop(state);
        self.calls.send_modify(|calls| *calls += 1);
        behaviour
    }
}

async fn reached(count: &watch::Sender<usize>, wanted: usize, what: &str) {
    let what = format!("{wanted} {what}");
    let mut count = count.subscribe();
    within(&what, count.wait_for(|count| *count >= wanted)).await.unwrap();
}
