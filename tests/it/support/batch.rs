//! Batches: sent and answered whole, or line by line.

use std::fmt::Write as _;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::Client;
use super::server::TestServer;
use super::within;

/// The header of a batch.
pub(crate) const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];
/// Small, so that a client that does not read is felt by the server soon.
const RECEIVE_BUFFER: u32 = 64 << 10;

/// A line for each number.
pub(crate) fn lines<T: std::fmt::Display>(
    numbers: impl IntoIterator<Item = usize>,
    line: impl Fn(usize) -> T,
) -> String {
    numbers.into_iter().fold(String::new(), |mut lines, number| {
        let _ = writeln!(lines, "{}", line(number));
        lines
    })
}

/// Sends a whole batch and reads the whole answer.
pub(crate) async fn batch(client: &Client, path: &str, lines: impl Into<Bytes>) -> Vec<Value> {
    let answer = client.send(Method::POST, path, &NDJSON, lines).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A batch whose lines are sent and whose answers are read one by one, at any pace.
pub(crate) struct Stream {
    pub(crate) lines: mpsc::Sender<Bytes>,
    pub(crate) answers: Answers,
    pub(crate) connection: JoinSet<()>,
}

/// The answers, line by line.
pub(crate) struct Answers {
    body: Option<Incoming>,
    response: JoinSet<Response<Incoming>>,
    buffer: Vec<u8>,
}

impl Stream {
    pub(crate) async fn open(server: &TestServer, path: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let address = server.base().trim_start_matches("http://").parse().unwrap();
        let connected = TokioIo::new(socket.connect(address).await.unwrap());
        let (mut sender, connection) = http1::handshake(connected).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // How it ends is the matter of the test.
            let _ = connection.await;
        });
        let (lines, received) = mpsc::channel::<Bytes>(1);
        let body = StreamBody::new(stream::unfold(received, |mut received| async move {
            let line = received.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(line)), received))
        }));
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/ndjson; charset=utf-8")
            .body(BoxBody::new(body))
            .unwrap();
        let mut response = JoinSet::new();
        response.spawn(async move { sender.send_request(request).await.unwrap() });
        let answers = Answers { body: None, response, buffer: Vec::new() };
        Self { lines, answers, connection: tasks }
    }

    pub(crate) async fn send(&self, lines: impl Into<Bytes>) {
        within("a line to be taken", self.lines.send(lines.into())).await.unwrap();
    }
}

impl Answers {
    /// The next line; none behind the last one.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        within("an answer", async {
            loop {
                if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<_> = self.buffer.drain(..=end).collect();
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                if let Some(response) = self.response.join_next().await {
                    let response = response.unwrap();
                    assert_eq!(response.status(), 200);
                    self.body = Some(response.into_body());
                }
                let frame = self.body.as_mut().unwrap().frame().await?.unwrap();
                self.buffer.extend_from_slice(&frame.into_data().unwrap());
            }
        })
        .await
    }

    /// How many lines there are until the end; each is looked at.
    pub(crate) async fn count(&mut self, mut look: impl FnMut(&Value)) -> usize {
        let mut count = 0;
        while let Some(line) = self.next().await {
            look(&line);
            count += 1;
        }
        count
    }
}
