//! `task-recorder healthcheck`: asks the service on this machine whether it is ready.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long the whole question may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why the service does not count as ready.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The config says port 0, so nobody knows where it listens.
    #[error("the configured port is 0, which means any; name the real one with --listen")]
    AnyPort,
    /// Nobody listens there.
    #[error("cannot connect to {at}: {cause}")]
    NotListening {
        /// Where.
        at: SocketAddr,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Somebody listens, but does not speak HTTP, or hung up.
    #[error("no answer from {at}: {cause}")]
    NoAnswer {
        /// Where.
        at: SocketAddr,
        /// What went wrong.
        #[source]
        cause: hyper::Error,
    },
    /// The answer took too long.
    #[error("no answer from {at} within {} s", TIMEOUT.as_secs())]
    TooSlow {
        /// Where.
        at: SocketAddr,
    },
    /// It says itself that it is not ready.
    #[error("{at} answers {status}: {body}")]
    NotReady {
        /// Where.
        at: SocketAddr,
        /// The status of its answer.
        status: StatusCode,
        /// The body of its answer, on one line.
        body: String,
    },
}

/// Asks `/readyz` over loopback, where the service listens on every address, or on the address it listens on. Answers
/// where it asked.
///
/// # Errors
/// Why the service does not count as ready; after 5 seconds at the latest.
pub async fn healthcheck(listen: SocketAddr) -> Result<SocketAddr, Unhealthy> {
    let at = reachable(listen);
    if at.port() == 0 {
        return Err(Unhealthy::AnyPort);
    }
    let answer = tokio::time::timeout(TIMEOUT, ask(at)).await;
    answer.unwrap_or(Err(Unhealthy::TooSlow { at })).map(|()| at)
}

/// The unspecified address is for listening only; it is reached over loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(at: SocketAddr) -> Result<(), Unhealthy> {
    let no_answer = |cause| Unhealthy::NoAnswer { at, cause };
    let stream = TcpStream::connect(at).await.map_err(|cause| Unhealthy::NotListening { at, cause })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    let exchange = async {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = hyper::Uri::from_static("/readyz");
        if let Ok(host) = at.to_string().parse() {
            request.headers_mut().insert(HOST, host);
        }
        let answer = sender.send_request(request).await.map_err(no_answer)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        // An answer that breaks off or goes on for ever has said enough with its status.
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let words: Vec<String> =
            String::from_utf8_lossy(&bytes).split_whitespace().map(str::to_owned).collect();
        Err(Unhealthy::NotReady { at, status, body: words.join(" ") })
    };
    // What ends a connection is told to the exchange too, so only that one answers.
    let drive = async {
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = drive => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn addresses_that_mean_all_are_asked_over_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
