//! Memory of a waiting client: many that wait for results at once, `GET /tasks/{id}/status?wait=…`, each for a task of
//! its own. Beside it an idle connection, so that the waiter's own share can be told, and a waiter of the library,
//! without HTTP.
//!
//! `cargo bench --bench waiters -- [--waiters N] [--folder PATH]`
//!
//! Memory is the resident memory of the service (this process, for the library), when it does nothing, before and
//! after; what the system takes for sockets is not in it. Each client is a connection that has had one answer already.
//! In the end some of the tasks are canceled, and their clients have to get an answer: so they have waited.
//!
//! Service and bench need an open file for each client. Where the system allows fewer (`ulimit -Hn`), there are as
//! many clients as it allows; the library has all of its waiters in any case.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and stops when it cannot go on"
)]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::convert::Infallible;
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use hyper::StatusCode;
use serde_json::json;
use task_recorder::recorder::Recorder;
use task_recorder::store::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::support::client::Connection;
use self::support::figures::{self, row, shown};
use self::support::load::{Ids, Load, Target};
use self::support::process::{self, Process};
use self::support::receiver::Receiver;

/// Open files that are no clients, in either process.
const OTHER_FILES: u64 = 500;
/// The system has some 28,000 ports for each address that a client comes from, and takes longer to find a free one the
/// more of them are taken.
const CLIENTS_AN_ADDRESS: u64 = 4_000;
const CANCELED: usize = 100;
const PATIENCE: Duration = Duration::from_hours(1);

#[derive(Debug, Parser)]
struct Options {
    /// How many wait at once.
    #[arg(long, default_value_t = 100_000)]
    waiters: u64,
    /// Where the data folder is made.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Cargo passes this one by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Bytes each.
struct OverHttp {
    clients: u64,
    task: f64,
    idle: f64,
    waiting: f64,
}

fn main() {
    let options = Options::parse();
    // First, so that it finds no memory that was freed before.
    let library = support::runtime(1).block_on(in_process(options.waiters));
    let files = support::open_files(options.waiters + OTHER_FILES);
    let clients = options.waiters.min(files - OTHER_FILES);
    if clients < options.waiters {
        println!(
            "only {clients} clients over HTTP, because the system allows a process {files} open files (ulimit -Hn)"
        );
    }
    let folder = support::folder_in(&options.folder);
    let over_http = support::runtime(1).block_on(over_http(clients, folder.path()));

    let OverHttp { clients, task, idle, waiting } = over_http;
    let own = waiting - idle;
    row(&["bytes each", "count", "bytes"].map(str::to_owned));
    for (name, count, bytes) in [
        ("working task", clients, task),
        ("idle connection", clients, idle),
        ("waiting connection", clients, waiting),
        ("  of it the waiter", clients, own),
        ("waiter of the library", options.waiters, library),
    ] {
        row(&[name.to_owned(), count.to_string(), shown(bytes)]);
    }
    println!(
        "{}",
        json!({
            "bench": "waiters",
            "clients": clients,
            "task_bytes": figures::json(task),
            "idle_connection_bytes": figures::json(idle),
            "waiting_connection_bytes": figures::json(waiting),
            "waiter_bytes": figures::json(own),
            "library_waiters": options.waiters,
            "library_waiter_bytes": figures::json(library),
        })
    );
}

async fn over_http(clients: u64, folder: &Path) -> OverHttp {
    let receiver = Receiver::start();
    // One is under way and never answered, the others wait for their turn.
    let handler = support::handler(
        "hold",
        &receiver,
        "default = true\nconcurrency = 1\nqueue = 10000000\ntimeout = \"24h\"",
    );
    let limits = "connections_max = 1000000\nheader_timeout = \"1h\"\nwait_max = \"24h\"";
    let process = Process::service(folder, &format!("[server]\n{limits}\n{handler}"));
    let memory = async || {
        process.is_quiet().await;
        process.rss_bytes()
    };

    let empty = memory().await;
    let target = Target { status: None, ..Target::service(process.address) };
    let launched = Load::open(target, 64).await.run(&Ids::new(0..clients)).await;
    assert_eq!((launched.refused, launched.broken), (0, 0), "every id was launched");
    let with_tasks = memory().await;

    let mut connections = Vec::new();
    for number in 0..clients {
        connections.push(connect(process.address, number).await);
    }
    let with_idle = memory().await;

    for (connection, number) in connections.iter_mut().zip(0..) {
        let path = format!("/tasks/{}/status?wait={}h", support::id(number), PATIENCE.as_secs() / 3600);
        connection.write_all(request(&path).as_bytes()).await.unwrap();
    }
    let with_waiters = memory().await;
    check(&mut connections, process.address).await;

    let each = |after, before| (figures::real(after) - figures::real(before)) / figures::real(clients);
    OverHttp {
        clients,
        task: each(with_tasks, empty),
        idle: each(with_idle, with_tasks),
        waiting: each(with_waiters, with_tasks),
    }
}

/// A connection with one answer behind it. The bench has as little of it as can be: a socket.
async fn connect(address: SocketAddr, number: u64) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let last = u8::try_from(2 + number / CLIENTS_AN_ADDRESS).unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)).unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    connection.write_all(request("/livez").as_bytes()).await.unwrap();
    let answer = answer(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    connection
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// Short, and so in one piece.
async fn answer(connection: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    let length = connection.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Cancels some of the tasks, and reads what those who waited for them are told. The others are told nothing.
async fn check(connections: &mut [TcpStream], address: SocketAddr) {
    let mut canceling = Connection::open(address).await;
    let step = connections.len().div_ceil(CANCELED);
    for number in (0..connections.len()).step_by(step) {
        let (status, _) = canceling.post(&format!("/tasks/{}/cancel", support::id(number as u64))).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        let answer = timeout(Duration::from_secs(30), answer(&mut connections[number])).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"failed\""), "{answer}");
    }
    for (number, connection) in connections.iter().enumerate().filter(|(number, _)| number % step != 0) {
        assert!(connection.try_read(&mut [0]).is_err(), "number {number} was told something");
    }
}

/// Bytes of a task of tokio that awaits `Recorder::wait`.
async fn in_process(waiters: u64) -> f64 {
    let recorder = Recorder::new(Arc::new(MemoryStore::new()));
    for number in 0..waiters {
        let work = pending::<Result<(), Infallible>>();
        recorder.launch(support::id(number).parse().unwrap(), work).await.unwrap();
    }
    let own = std::process::id();
    let before = process::rss_bytes(own);
    let begun = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for number in 0..waiters {
        let (recorder, begun) = (recorder.clone(), Arc::clone(&begun));
        all.spawn(async move {
            let id = support::id(number).parse().unwrap();
            begun.fetch_add(1, Ordering::Relaxed);
            let task = recorder.wait(&id, PATIENCE).await.unwrap().unwrap();
            assert!(!task.is_working(), "it has waited until the task had settled");
        });
    }
    // There is one thread: when this one runs, each of the begun ones waits.
    while begun.load(Ordering::Relaxed) < waiters {
        tokio::task::yield_now().await;
    }
    let after = process::rss_bytes(own);
    drop(all);
    (figures::real(after) - figures::real(before)) / figures::real(waiters)
}
