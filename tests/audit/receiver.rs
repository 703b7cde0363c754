//! A receiver of webhooks that behaves as receivers do, or worse, and logs every call. What it does is drawn by chance.
//!
//! HTTP/1.1 by hand, so that it can hang, reset and flood.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::history::{History, Id, Time};

/// Longer than the timeout of every handler.
const HANGING: Duration = Duration::from_secs(3);
static FLOOD: [u8; 64 << 10] = [b'x'; 64 << 10];

#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

/// One call as it came, and what was made of it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) id: Id,
    pub(crate) run: u64,
    pub(crate) attempt: u64,
    /// `webhook-id`: the same until a success is revoked.
    pub(crate) key: String,
    pub(crate) began: Time,
    pub(crate) effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Run,
    Revoke,
    Notice,
}

/// What the receiver did, whether or not anybody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It did it, and says so with 200.
    Done,
    /// It may have done it, and says 500, or nothing that could be understood.
    Unclear,
    /// It did nothing, and says so.
    Refused,
}

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    /// Answers 200 at once.
    Calm,
    /// Mostly works.
    Usual,
    /// Hangs, resets and floods.
    Wild,
}

/// When something is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A call has come, and has no answer yet.
    Called,
    /// A call was answered.
    Answered,
}

type Deed = Box<dyn FnOnce() + Send>;

struct Shared {
    history: Arc<History>,
    calls: Mutex<Vec<Call>>,
    mood: AtomicU8,
    trap: Mutex<Option<(Moment, u32, Deed)>>,
    answered: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Receiver {
    pub(crate) async fn start(history: Arc<History>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            history,
            calls: Mutex::default(),
            mood: AtomicU8::new(Mood::Usual as u8),
            trap: Mutex::default(),
            answered: AtomicU64::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// Does this once, at that moment of a call, so many calls from now (0: the next one).
    pub(crate) fn trap(&self, moment: Moment, after: u32, deed: impl FnOnce() + Send + 'static) {
        *self.shared.trap() = Some((moment, after, Box::new(deed)));
    }

    pub(crate) fn disarm(&self) {
        *self.shared.trap() = None;
    }

    /// Every call so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls().clone()
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trap(&self) -> MutexGuard<'_, Option<(Moment, u32, Deed)>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, now: Moment) {
        let mut trap = self.trap();
        match trap.as_mut() {
            Some((moment, 0, _)) if *moment == now => {
                let deed = trap.take();
                drop(trap);
                if let Some((_, _, deed)) = deed {
                    deed();
                }
            }
            Some((moment, after, _)) if *moment == now => *after -= 1,
            _ => {}
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // That the caller is gone is its own matter.
                    let _ = serve(stream, &shared).await;
                });
            }
            Some(_) = connections.join_next() => (),
        }
    }
}

/// What a call gets.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Status(u16, Duration),
    HangUp,
    Reset,
    Hang,
    Flood,
}

impl Behaviour {
    fn draw(mood: u8) -> Self {
        const NOW: Duration = Duration::ZERO;
        let soon = Duration::from_millis(fastrand::u64(0..10));
        if mood == Mood::Calm as u8 {
            return Self::Status(200, NOW);
        }
        if mood == Mood::Wild as u8 && fastrand::bool() {
            return [Self::Hang, Self::Reset, Self::Flood, Self::HangUp][fastrand::usize(..4)];
        }
        match fastrand::u32(..100) {
            0..60 => Self::Status(200, soon),
            60..70 => Self::Status(200, Duration::from_millis(fastrand::u64(20..200))),
            70..82 => Self::Status(503, NOW),
            82..90 => Self::Status(500, soon),
            90..95 => Self::Status(409, NOW),
            _ => Self::HangUp,
        }
    }

    fn effect(self) -> Effect {
        match self {
            // A flood is one behind a 200.
            Self::Status(200, _) | Self::Flood => Effect::Done,
            Self::Status(500, _) | Self::HangUp | Self::Reset | Self::Hang => Effect::Unclear,
            Self::Status(..) => Effect::Refused,
        }
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(mut call) = read_call(&mut stream, shared).await? {
        let behaviour = Behaviour::draw(shared.mood.load(Ordering::Relaxed));
        call.effect = behaviour.effect();
        shared.calls().push(call);
        shared.pass(Moment::Called);
        match behaviour {
            Behaviour::Status(status, pause) => {
                tokio::time::sleep(pause).await;
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok");
                stream.get_mut().write_all(answer.as_bytes()).await?;
                shared.answered.fetch_add(1, Ordering::Relaxed);
                shared.pass(Moment::Answered);
            }
            Behaviour::HangUp => return Ok(()),
            Behaviour::Reset => return stream.into_inner().set_zero_linger(),
            Behaviour::Hang => {
                let mut rest = [0; 1];
                let _ = tokio::time::timeout(HANGING, stream.read(&mut rest)).await;
                return Ok(());
            }
            Behaviour::Flood => {
                stream.get_mut().write_all(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                loop {
                    let head = format!("{:x}\r\n", FLOOD.len());
                    stream.get_mut().write_all(head.as_bytes()).await?;
                    stream.get_mut().write_all(&FLOOD).await?;
                    stream.get_mut().write_all(b"\r\n").await?;
                }
            }
        }
    }
    Ok(())
}

/// None where the caller has closed the connection.
async fn read_call(stream: &mut BufReader<TcpStream>, shared: &Shared) -> io::Result<Option<Call>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let kind = match line.split(['/', '?']).nth(1) {
        Some("run") => Kind::Run,
        Some("revoke") => Kind::Revoke,
        Some("notice") => Kind::Notice,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let mut call = Call {
        kind,
        id: Id::from(""),
        run: 0,
        attempt: 0,
        key: String::new(),
        began: shared.history.now(),
        effect: Effect::Refused,
    };
    let mut body_bytes = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "task-id" => call.id = Id::from(value),
            "task-run" => call.run = value.parse().unwrap_or_default(),
            "task-attempt" => call.attempt = value.parse().unwrap_or_default(),
            "webhook-id" => value.clone_into(&mut call.key),
            "content-length" => body_bytes = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    let mut body = vec![0; body_bytes];
    stream.read_exact(&mut body).await?;
    Ok(Some(call))
}
