//! A receiver of webhooks on the loopback that does what a test tells it to, well or badly, and remembers each call.
//!
//! It speaks HTTP/1.1 by hand, so that it can also break off at any byte. Requests have to state their length.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

const FILLER: [u8; 16 * 1024] = [b'x'; 16 * 1024];

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
        serving.spawn(accept(listener, Arc::clone(&shared)));
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

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if shared.hangs_up_on_accept.load(Ordering::Acquire) {
                    continue;
                }
                let number = {
                    let mut state = shared.state();
                    state.connections += 1;
                    state.connections
                };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // That the caller is gone is its own matter.
                    let _ = serve(stream, number, &shared).await;
                    shared.closed.send_modify(|closed| *closed += 1);
                });
            }
            Some(_) = connections.join_next() => (),
        }
    }
}

async fn serve(stream: TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(call) = read_call(&mut reader, connection).await? {
        let behaviour = shared.record(call);
        let result = tokio::select! {
            biased;
            result = answer(&mut writer, behaviour) => result,
            () = gone(&mut reader) => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        match result {
            Ok(Next::Call) => (),
            Ok(Next::Leave) => return Ok(()),
            Err(error) => {
                shared.cut.send_modify(|cut| *cut += 1);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// What comes after an answer.
enum Next {
    Call,
    Leave,
}

async fn answer(writer: &mut OwnedWriteHalf, behaviour: Behaviour) -> io::Result<Next> {
    match behaviour {
        Behaviour::Answer(answer) => return whole(writer, &answer).await,
        Behaviour::AnswerAfter(gate, answer) => {
            gate.opened().await;
            return whole(writer, &answer).await;
        }
        Behaviour::AnswerAndLeave(answer) => {
            whole(writer, &answer).await?;
        }
        Behaviour::NeverAnswer => std::future::pending().await,
        Behaviour::HangUp => (),
        Behaviour::HangUpAfterHead(answer) => writer.write_all(&answer.head()).await?,
        Behaviour::HangUpInBody(answer) => partly(writer, &answer).await?,
        Behaviour::StallInBody(answer) => {
            partly(writer, &answer).await?;
            std::future::pending::<()>().await;
        }
        Behaviour::Endless(status) => {
            writer.write_all(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).await?;
            loop {
                writer.write_all(&FILLER).await?;
            }
        }
        Behaviour::Huge(status, size) => {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {size}\r\n\r\n");
            writer.write_all(head.as_bytes()).await?;
            let filler = tokio::io::repeat(FILLER[0]).take(size);
            tokio::io::copy_buf(&mut BufReader::with_capacity(FILLER.len(), filler), writer).await?;
            return Ok(Next::Call);
        }
        Behaviour::Raw(bytes) => writer.write_all(&bytes).await?,
    }
    Ok(Next::Leave)
}

async fn whole(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<Next> {
    let mut bytes = answer.head();
    bytes.extend_from_slice(&answer.body);
    writer.write_all(&bytes).await?;
    Ok(Next::Call)
}

async fn partly(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut bytes = answer.head();
    bytes.extend_from_slice(&answer.body[..answer.body.len().saturating_sub(1)]);
    writer.write_all(&bytes).await
}

/// Ends when the caller has ended the connection.
async fn gone(reader: &mut BufReader<OwnedReadHalf>) {
    if reader.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()) {
        std::future::pending::<()>().await;
    }
}

/// The next request; none where the caller has ended the connection in front of one.
async fn read_call(reader: &mut BufReader<OwnedReadHalf>, connection: usize) -> io::Result<Option<Call>> {
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
        return Err(invalid("no request line"));
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(invalid)?;
        headers.append(name, HeaderValue::from_str(value.trim_start()).map_err(invalid)?);
    }
    let length =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok(Some(Call { method, target, headers, body: body.into(), connection }))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
