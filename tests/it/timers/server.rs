//! The timers of the server, in this process, over real sockets, while time is held.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use task_recorder::access::Tokens;
use task_recorder::api::{Api, Bodies, Interface, Live, routes};
use task_recorder::handler::Handlers;
use task_recorder::metrics::Requests;
use task_recorder::recorder::Recorder;
use task_recorder::server::{ServerOptions, serve};
use task_recorder::store::MemoryStore;
use task_recorder::task::Rate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::clock::Clock;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server of which every limit is 30 s. It ends with the set.
async fn server(background: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let live = Live { handlers: Handlers::default(), tokens: Tokens::new([]) };
    let interface = Interface::new(Api {
        recorder: Recorder::new(Arc::new(MemoryStore::new())),
        live: Arc::new(ArcSwap::from_pointee(live)),
        wait_max: PATIENCE,
        bodies: Bodies::new(PATIENCE, 1 << 20),
        hosts: None,
        auth_failures: Rate { starts: 10, per: Duration::from_mins(1) },
        reload: Arc::new(|| std::future::pending().boxed()),
        requests: Arc::new(Requests::new(routes().into_iter().map(|route| (route.method, route.path)))),
    });
    let options = ServerOptions {
        connections_max: 10,
        header_timeout: PATIENCE,
        write_timeout: PATIENCE,
        head_bytes_max: 8_192,
    };
    background.spawn(serve(listener, interface, options, CancellationToken::new()));
    address
}

/// What comes up to this text.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        read.push(char::from(stream.read_u8().await.unwrap()));
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_head_may_take_as_long_as_the_header_timeout_and_no_tick_longer() {
    let (mut clock, mut background) = (Clock::hold(), JoinSet::new());
    let mut stream = TcpStream::connect(server(&mut background).await).await.unwrap();
    // It counts from the end of the request before.
    for begun in ["", "GET /livez HTTP/1.1\r\nhost: local"] {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let answer = clock.now("an answer", read_to(&mut stream, "\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();

        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = pin!(stream.read_to_end(&mut rest));
        if begun.is_empty() {
            clock.pass(PATIENCE.saturating_sub(Duration::from_millis(1)), closed).await;
        } else {
            drop(clock.until(PATIENCE, closed, "the end of the connection").await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_as_long_as_the_body_timeout_and_no_tick_longer() {
    let (mut clock, mut background) = (Clock::hold(), JoinSet::new());
    let mut stream = TcpStream::connect(server(&mut background).await).await.unwrap();
    let head =
        "POST /lookup HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let told = clock.now("it to wait for the body", read_to(&mut stream, "\r\n\r\n")).await;
    assert!(told.starts_with("HTTP/1.1 100"), "{told}");
    stream.write_all(b"{").await.unwrap();
    let answer = pin!(read_to(&mut stream, "\r\n\r\n"));
    let answer = clock.until(PATIENCE, answer, "an answer").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}
