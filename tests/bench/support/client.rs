//! A client that costs little: one kept connection, one request at a time, all in the caller's own task.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What a launch is given.
const INPUT: &str = r#"{"amount":5,"currency":"EUR"}"#;

/// One connection. A bench stops where it breaks.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: Box::pin(driver) }
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, Bytes) {
        self.send(request(Method::GET, path, Bytes::new())).await
    }

    /// A POST without a body.
    pub(crate) async fn post(&mut self, path: &str) -> (StatusCode, Bytes) {
        self.send(request(Method::POST, path, Bytes::new())).await
    }

    /// A POST with the input of a launch.
    pub(crate) async fn launch(&mut self, path: &str) -> (StatusCode, Bytes) {
        self.send(request(Method::POST, path, Bytes::from_static(INPUT.as_bytes()))).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
        let exchange = async {
            self.sender.ready().await.unwrap();
            let response = self.sender.send_request(request).await.unwrap();
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            ended = &mut self.driver => panic!("the connection ended: {ended:?}"),
        }
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "bench")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .unwrap()
}
