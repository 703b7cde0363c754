//! A client that costs little: one kept connection, one request at a time, all in the caller's own task.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// What a launch is given.
pub(crate) const INPUT: &str = r#"{"amount":5,"currency":"EUR"}"#;

/// One connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

/// The connection has ended.
#[derive(Debug)]
pub(crate) struct Broken;

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: Box::pin(driver) }
    }

    /// A bench stops where a connection breaks.
    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, Bytes) {
        self.try_get(path).await.unwrap()
    }

    /// The JSON of an answer with 200.
    pub(crate) async fn json(&mut self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) async fn try_get(&mut self, path: &str) -> Result<(StatusCode, Bytes), Broken> {
        self.send(request(Method::GET, path, Bytes::new())).await
    }

    /// A POST without a body.
    pub(crate) async fn post(&mut self, path: &str) -> (StatusCode, Bytes) {
        self.send(request(Method::POST, path, Bytes::new())).await.unwrap()
    }

    /// A POST with the input of a launch.
    pub(crate) async fn try_launch(&mut self, path: &str) -> Result<(StatusCode, Bytes), Broken> {
        self.send(request(Method::POST, path, Bytes::from_static(INPUT.as_bytes()))).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Broken> {
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        tokio::select! {
            biased;
            answer = exchange => answer.or(Err(Broken)),
            _ended = &mut self.driver => Err(Broken),
        }
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .unwrap()
}
