//! Clients that mean harm, or behave as if they did: each is sent away in time and with the right answer, while a normal
//! client is served throughout, and what they took comes back.

mod crowd;
mod framing;
mod slow;

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::client::Client;
use crate::support::receiver::Receiver;
use crate::support::server::TestServer;
use crate::support::within;

/// The longest that a normal client may wait, on a machine that has other things to do.
const LATENCY_MAX: Duration = Duration::from_secs(20);
/// How much longer a connection may stay than its limit says, on such a machine.
const SLACK: Duration = Duration::from_secs(30);
/// How much more memory may be kept afterwards: an allocator gives back what it likes.
const KEPT_BYTES: f64 = 96.0 * MEBIBYTE;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// How long what was taken may take to come back.
const PATIENCE: Duration = Duration::from_secs(90);

/// A service under attack.
struct Besieged {
    server: TestServer,
    receiver: Receiver,
    client: Client,
    before: Footprint,
    witness: Witness,
    begun: Instant,
}

/// What the service holds.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    open_files: f64,
    memory: f64,
}

/// A normal client, which launches one task after the other, each on the connection that it has and on a new one.
struct Witness {
    stop: CancellationToken,
    task: JoinSet<Vec<Duration>>,
}

impl Besieged {
    /// With these lines in `[server]`, and a handler that calls a receiver which answers at once.
    async fn start(limits: &str) -> Self {
        let receiver = Receiver::start().await;
        let config = format!(
            "[server]\n{limits}\n[handlers.hook]\ntype = \"webhook\"\nurl = \"{}\"\ndefault = true\nconcurrency = 8\n\
             [handlers.later]\ntype = \"command\"\ncommand = [\"cat\"]\n",
            receiver.url("/hook/{id}")
        );
        let server = TestServer::start(&config);
        let client = server.client();
        // So that what is made once is there.
        let first = client.post("/tasks/first?wait=30", "").await;
        assert_eq!(first.json()["state"], "success", "{}", first.text());
        let before = Footprint::of(&client).await;
        let witness = Witness::start(&server);
        Self { server, receiver, client, before, witness, begun: Instant::now() }
    }

    fn address(&self) -> String {
        address(&self.server)
    }

    /// Ends it: the normal client was served all the time, and the service has what it had.
    async fn over(self, what: &str) {
        let latencies = self.witness.stop().await;
        let (median, most) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
        let held = Footprint::of(&self.client).await;
        // Files of the normal client, of this one, and to the receiver come and go.
        let is_back = |now: &Footprint| {
            now.open_files <= self.before.open_files + 10.0 && now.memory <= self.before.memory + KEPT_BYTES
        };
        let (mut after, waited) = (held, Instant::now());
        while !is_back(&after) {
            assert!(waited.elapsed() < PATIENCE, "{:?} -> {held:?} -> {after:?}", self.before);
            tokio::time::sleep(Duration::from_millis(100)).await;
            after = Footprint::of(&self.client).await;
        }
        eprintln!(
            "{what}: {:.1?}; {} normal tasks, median {median:.1?}, longest {most:.1?}; files {} -> {} -> {}, \
             memory {:.0} -> {:.0} -> {:.0} MiB",
            self.begun.elapsed(),
            latencies.len(),
            self.before.open_files,
            held.open_files,
            after.open_files,
            self.before.memory / MEBIBYTE,
            held.memory / MEBIBYTE,
            after.memory / MEBIBYTE,
        );
        assert!(most < LATENCY_MAX, "a normal client waited {most:?}");
    }
}

impl Footprint {
    async fn of(client: &Client) -> Self {
        let text = client.get("/metrics").await;
        let figure = |name: &str| {
            let line = text.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}")).parse().unwrap()
        };
        Self { open_files: figure("process_open_fds"), memory: figure("process_resident_memory_bytes") }
    }
}

impl Witness {
    fn start(server: &TestServer) -> Self {
        let (client, address) = (server.client(), address(server));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut latencies = Vec::new();
            // Some follow an attack that was short.
            while !stopped.is_cancelled() || latencies.len() < 10 {
                let number = latencies.len();
                let sent = Instant::now();
                let answer = client.post(&format!("/tasks/normal-{number}?wait=30"), "input").await;
                assert_eq!(answer.json()["state"], "success", "{}", answer.text());
                let status = format!(
                    "GET /tasks/normal-{number}/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                );
                let answer = said(&address, status.as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("success"), "{answer:?}");
                latencies.push(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            latencies.sort();
            latencies
        });
        Self { stop, task }
    }

    /// How long it waited each time, sorted.
    async fn stop(self) -> Vec<Duration> {
        self.stop.cancel();
        within("the normal client", self.task.join_all()).await.remove(0)
    }
}

fn address(server: &TestServer) -> String {
    server.base().trim_start_matches("http://").to_owned()
}

/// A connection on which nothing is sent yet.
async fn connected(address: &str) -> TcpStream {
    let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A connection whose client takes in little, so that the service feels soon that it does not read.
async fn narrow(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    within("a connection", socket.connect(address.parse().unwrap())).await.unwrap()
}

/// Everything that comes until the service ends the connection, also where it breaks off.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = within("the service to end the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends this, and returns all that is answered until the service ends the connection.
async fn said(address: &str, bytes: &[u8]) -> String {
    let mut stream = connected(address).await;
    // One that is sent away early does not take it all.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// Checks that the whole answer is this problem, which ends the connection. Returns its sentence.
fn problem(answer: &str, status: u16, code: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    let head = head.to_lowercase();
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{answer:?}");
    assert!(head.contains("\r\nconnection: close"), "{answer:?}");
    assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{answer:?}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!(body["type"], format!("/problems/{code}"), "{body}");
    assert_eq!(body["status"], status);
    body["detail"].as_str().unwrap().to_owned()
}

/// As many open files as the system allows.
fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}
