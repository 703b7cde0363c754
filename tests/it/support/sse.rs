//! A reader of server-sent events.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::within;

/// Small, so that a reader that does not read is felt by the server soon.
const RECEIVE_BUFFER: u32 = 4 << 10;

/// An open stream of events; dropping it ends it.
pub(crate) struct Events {
    body: Incoming,
    pending: VecDeque<Told>,
    buffer: String,
    /// As a browser keeps it.
    pub(crate) last_id: Option<u64>,
    _connection: JoinSet<()>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Events {
    /// Opens the stream, and waits until it says where it begins.
    pub(crate) async fn open(base: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let (response, connection) = ask(base, path, headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let (body, buffer) = (response.into_body(), String::new());
        let mut events =
            Self { body, pending: VecDeque::new(), buffer, last_id: None, _connection: connection };
        while events.last_id.is_none() {
            assert!(events.read().await, "the stream ended at once");
        }
        events
    }

    /// The next event; none where the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        within("an event", async {
            while self.pending.is_empty() {
                if !self.read().await {
                    return None;
                }
            }
            self.pending.pop_front()
        })
        .await
    }

    /// So many events.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Told> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("another event"));
        }
        events
    }

    /// Every event until the stream ends.
    pub(crate) async fn rest(&mut self) -> Vec<Told> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Takes in a piece. Returns whether there was one.
    async fn read(&mut self) -> bool {
        let Some(Ok(frame)) = self.body.frame().await else { return false };
        let Ok(data) = frame.into_data() else { return true };
        self.buffer.push_str(std::str::from_utf8(&data).expect("text"));
        while let Some((block, rest)) = self.buffer.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.dispatch(&block);
            self.buffer = rest;
        }
        true
    }

    fn dispatch(&mut self, block: &str) {
        let (mut name, mut data) = (None, None);
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("", _)) => {}
                Some(("id", id)) => self.last_id = Some(id.parse().expect("a number")),
                Some(("event", text)) => name = Some(text.to_owned()),
                Some(("data", text)) => data = Some(serde_json::from_str(text).expect("JSON")),
                _ => panic!("an unknown line: {line:?}"),
            }
        }
        if let Some(data) = data {
            let (id, name) = (self.last_id.expect("an id"), name.expect("a name"));
            self.pending.push_back(Told { id, name, data });
        }
    }
}

async fn ask(base: &str, path: &str, headers: &[(&str, &str)]) -> (Response<Incoming>, JoinSet<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    let address = base.trim_start_matches("http://").parse().unwrap();
    let connected = TokioIo::new(socket.connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(connected).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // How it ends is the matter of the test.
        let _ = connection.await;
    });
    let mut request = Request::get(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    (within("an answer", sender.send_request(request)).await.unwrap(), tasks)
}
