//! Which connection a call goes over: one that was used before, or a new one.

use std::time::Duration;

use task_recorder::handler::webhook::WebhookSettings;
use task_recorder::handler::{Action, Handler, Webhook};
use task_recorder::task::{ErrorKind, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::webhook::settings;
use super::{assert_failed, handler, output};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::{task, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// More than the buffers of a connection take while nobody reads.
const LARGE: usize = 64 << 20;

/// A receiver with one connection at a time, which does nothing by itself.
struct Peer {
    listener: TcpListener,
    stream: Option<TcpStream>,
}

#[derive(Debug, PartialEq, Eq)]
enum Over {
    New,
    Same,
}

impl Peer {
    async fn start() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), stream: None }
    }

    fn settings(&self) -> WebhookSettings {
        settings(&format!("http://{}/", self.listener.local_addr().unwrap()))
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream.as_mut().unwrap()
    }

    /// Reads a request up to this end. A new connection takes the place of the one before.
    async fn request(&mut self, end: &str) -> Over {
        let (mut over, mut read) = (Over::Same, Vec::new());
        while !read.ends_with(end.as_bytes()) {
            let reading = async {
                match &mut self.stream {
                    Some(stream) => stream.read_buf(&mut read).await.unwrap_or(0),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = self.listener.accept() => {
                    (self.stream, over) = (Some(accepted.unwrap().0), Over::New);
                }
                bytes = reading => if bytes == 0 { self.stream = None },
            }
        }
        assert_eq!(read.windows(5).filter(|part| part == b"POST ").count(), 1, "one request");
        over
    }

    /// One call, answered with this. Over what it came.
    async fn exchange(&mut self, handler: &Handler, answer: &str) -> (Outcome, Over) {
        let (task, ending) = (task("t", None, "in"), CancellationToken::new());
        let answering = async {
            let over = self.request("\r\n\r\nin").await;
            self.stream().write_all(answer.as_bytes()).await.unwrap();
            over
        };
        within("the call", async { tokio::join!(handler.run(&task, 1, &ending), answering) }).await
    }

    /// Waits until the caller has closed the connection.
    async fn closed(&mut self) {
        let read = within("the end of the connection", self.stream().read(&mut [0])).await;
        assert_eq!(read.unwrap_or(0), 0);
    }
}

fn webhook(settings: WebhookSettings) -> Handler {
    handler(Action::Webhook(Webhook::new(settings)))
}

/// Returns when this runtime has been told of everything that has happened on the loopback before.
async fn heard() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
    let (read, written) = tokio::join!(async { near.read_u8().await }, async {
        // Not before the other one waits.
        tokio::task::yield_now().await;
        far.write_u8(1).await
    });
    assert!(written.is_ok() && read.is_ok());
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn as_many_connections_as_calls_at_once() {
    let (receiver, gate) = (Receiver::start().await, Gate::new());
    receiver.by_default(Behaviour::AnswerAfter(gate.clone(), Answer::of(200)));
    let handler = webhook(settings(&receiver.url("/")));
    let (task, ending) = (task("t", None, "in"), CancellationToken::new());
    let call = || async { assert_eq!(handler.run(&task, 1, &ending).await.result, Ok(())) };
    within("two at once", async {
        tokio::join!(call(), call(), async {
            receiver.wait_for(2).await;
            gate.open();
        })
    })
    .await;
    for _ in 0..4 {
        call().await;
    }
    assert_eq!(receiver.connections(), 2);
    let over: Vec<_> = receiver.calls().iter().skip(2).map(|call| call.connection).collect();
    assert!(over.iter().all(|connection| *connection == over[0]), "always the one used last: {over:?}");
}

#[tokio::test]
async fn after_each_answer_the_connection_is_used_again_or_not() {
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(2000));
    let followed = format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    for (answer, kept, next) in [
        (OK, Some("ok"), Over::Same),
        ("HTTP/1.1 204 No Content\r\n\r\n", Some(""), Over::Same),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Some("ok"), Over::Same),
        (
            &format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nx: y\r\n\r\n{OK}"),
            Some("ok"),
            Over::Same,
        ),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", Some("ok"), Over::Same),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Some("ok"), Over::New),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", Some("ok"), Over::New),
        ("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", None, Over::New),
        (&long, Some(&"x".repeat(1000)), Over::New),
        (&followed, Some("ok"), Over::New),
    ] {
        let mut peer = Peer::start().await;
        let handler = webhook(peer.settings());
        let (outcome, _) = peer.exchange(&handler, answer).await;
        match kept {
            Some(kept) => assert_eq!((&outcome.result, output(&outcome).as_str()), (&Ok(()), kept)),
            None => assert_failed(&outcome, ErrorKind::Status, true, "answered 101"),
        }
        let (outcome, over) = peer.exchange(&handler, OK).await;
        assert_eq!((outcome.result.is_ok(), output(&outcome).as_str(), over), (true, "ok", next), "{answer}");
    }
}

#[tokio::test]
async fn an_idle_connection_that_ended_or_spoke_is_not_used() {
    for unasked in ["", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"] {
        let mut peer = Peer::start().await;
        let handler = webhook(peer.settings());
        assert_eq!(peer.exchange(&handler, OK).await.0.result, Ok(()));
        let mut old = peer.stream.take().unwrap();
        if unasked.is_empty() {
            old.shutdown().await.unwrap();
        } else {
            old.write_all(unasked.as_bytes()).await.unwrap();
        }
        heard().await;
        let (outcome, over) = peer.exchange(&handler, OK).await;
        assert_eq!((outcome.result.is_ok(), output(&outcome).as_str(), over), (true, "ok", Over::New));
        let read = within("the end of the old connection", old.read(&mut [0])).await;
        assert_eq!(read.unwrap_or(0), 0, "nothing was sent over it");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_four_seconds_also_without_another_call() {
    const ALMOST: Duration = Duration::from_millis(3900);
    let mut peer = Peer::start().await;
    let handler = webhook(peer.settings());
    assert_eq!(peer.exchange(&handler, OK).await.1, Over::New);
    // Each use begins the time anew.
    for _ in 0..3 {
        pass(ALMOST).await;
        heard().await;
        assert_eq!(peer.exchange(&handler, OK).await.1, Over::Same);
    }
    for _ in 0..2 {
        pass(Duration::from_secs(4)).await;
        peer.closed().await;
        assert_eq!(peer.exchange(&handler, OK).await.1, Over::New);
    }
    drop(handler);
    peer.closed().await;
}

/// The receiver may want the rest, and the outcome does not wait for that.
#[tokio::test]
async fn an_answer_before_the_request_was_read_counts_and_the_rest_is_sent_all_the_same() {
    for (status, is_read) in [(200, true), (413, false)] {
        let mut peer = Peer::start().await;
        let handler = webhook(WebhookSettings { timeout: Duration::from_mins(5), ..peer.settings() });
        let (large, ending) = (task("t", None, vec![b'x'; LARGE]), CancellationToken::new());
        let answering = async {
            peer.stream = Some(peer.listener.accept().await.unwrap().0);
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok");
            peer.stream().write_all(answer.as_bytes()).await.unwrap();
        };
        let calling = async { tokio::join!(handler.run(&large, 1, &ending), answering).0 };
        let outcome = within("the call", calling).await;
        assert_eq!((outcome.result.is_ok(), output(&outcome).as_str()), (status == 200, "ok"));

        if is_read {
            let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
            let mut head = None;
            while head.is_none_or(|head| read < head + LARGE) {
                let bytes = within("the rest", peer.stream().read(&mut buffer)).await.unwrap();
                assert_ne!(bytes, 0, "the whole request is sent");
                if head.is_none() {
                    let end = buffer[..bytes].windows(4).position(|part| part == b"\r\n\r\n");
                    head = Some(read + end.expect("the head comes at once") + 4);
                }
                read += bytes;
            }
            heard().await;
            assert_eq!(peer.exchange(&handler, OK).await.1, Over::Same);
        } else {
            // A receiver that never reads it is not waited for longer than for an answer.
            heard().await;
            pass(Duration::from_mins(5)).await;
            let mut read = Vec::new();
            let _ = within("the end of the connection", peer.stream().read_to_end(&mut read)).await;
            assert!(read.len() < LARGE, "{}", read.len());
        }
    }
}
