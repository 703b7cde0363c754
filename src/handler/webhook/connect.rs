//! From a URL to a connection: names, TCP, TLS. What goes wrong here is told apart by type, since it decides whether a
//! call is certain to have had no effect.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::egress::Egress;
use super::lookup::{self, Lookup, Lookups};
use super::tls::Tls;

/// Why there is no connection. Nothing was sent in any case.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NotConnected {
    /// The name has no address.
    #[error("{0}")]
    Name(String),
    /// Every address of the host is one that may not be connected to; this is the first of them.
    #[error("egress does not allow {0}")]
    Egress(IpAddr),
    /// No address of the host accepts a connection.
    #[error("{0}")]
    Refused(String),
    /// No TLS session.
    #[error("{0}")]
    Tls(String),
    /// Not in time.
    #[error("not within {0:?}")]
    TooSlow(Duration),
}

/// Makes connections, with or without TLS, and says by type what went wrong.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Tcp>,
    /// The pool goes on connecting in the background where a call got a free connection meanwhile; this bounds it.
    /// Longer than any call waits, whose own deadline decides.
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(tcp: Tcp, tls: &Tls, timeout: Duration) -> Self {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Self { https, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let limit = self.timeout;
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(Ok(stream)) => Ok(stream),
                // What is not ours comes from the layer above TCP.
                Ok(Err(error)) => Err(match error.downcast::<NotConnected>() {
                    Ok(ours) => *ours,
                    Err(error) => NotConnected::Tls(error.to_string()),
                }),
                Err(_elapsed) => Err(NotConnected::TooSlow(limit)),
            }
        })
    }
}

/// Makes TCP connections, to addresses that are allowed only.
#[derive(Debug, Clone)]
pub(super) struct Tcp {
    http: HttpConnector<Resolver>,
    egress: Arc<Egress>,
    timeout: Duration,
}

impl Tcp {
    /// `timeout` is shared by the addresses of a name, so that one that says nothing leaves time for the others.
    pub(super) fn new(egress: &Egress, timeout: Duration) -> Self {
        Self::with_lookup(Arc::new(lookup::by_system), egress, timeout)
    }

    fn with_lookup(lookup: Lookup, egress: &Egress, timeout: Duration) -> Self {
        let egress = Arc::new(egress.clone());
        let resolver = Resolver { lookups: Arc::new(Lookups::new(lookup)), egress: Arc::clone(&egress) };
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout));
        Self { http, egress, timeout }
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // An address in the URL is connected to without a question to the resolver.
        if let Some(address) = literal(&uri).filter(|address| !self.egress.allows(*address)) {
            return Box::pin(async move { Err(NotConnected::Egress(address)) });
        }
        let (connecting, timeout) = (self.http.call(uri), self.timeout);
        Box::pin(async move {
            connecting.await.map_err(|error| match find::<NoAddress>(&error) {
                Some(NoAddress::NotFound(why)) => NotConnected::Name(why.clone()),
                Some(NoAddress::NotAllowed(address)) => NotConnected::Egress(*address),
                None => match find::<io::Error>(&error) {
                    // The timer's own error; that of the system has a code.
                    Some(cause)
                        if cause.kind() == io::ErrorKind::TimedOut && cause.raw_os_error().is_none() =>
                    {
                        NotConnected::TooSlow(timeout)
                    }
                    cause => NotConnected::Refused(cause.map_or_else(|| error.to_string(), plainly)),
                },
            })
        })
    }
}

/// The address that stands in a URL in place of a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).parse().ok()
}

/// Finds the addresses of a name that are allowed. What it gives is connected to: nobody looks the name up again.
#[derive(Debug, Clone)]
struct Resolver {
    lookups: Arc<Lookups>,
    egress: Arc<Egress>,
}

#[derive(Debug, thiserror::Error)]
enum NoAddress {
    #[error("{0}")]
    NotFound(String),
    #[error("egress does not allow {0}")]
    NotAllowed(IpAddr),
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { lookups, egress } = self.clone();
        Box::pin(async move {
            let found = lookups.addresses(name.as_str()).await.map_err(NoAddress::NotFound)?;
            let (allowed, others): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|address| egress.allows(*address));
            match others.first() {
                Some(address) if allowed.is_empty() => Err(NoAddress::NotAllowed(*address)),
                None if allowed.is_empty() => Err(NoAddress::NotFound("the name has no address".to_owned())),
                // The connector puts the port in.
                _ => {
                    Ok(allowed.into_iter().map(|address| (address, 0).into()).collect::<Vec<_>>().into_iter())
                }
            }
        })
    }
}

/// The first error of this type in a chain of causes.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn plainly(error: &io::Error) -> String {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        kind @ (AddrNotAvailable | ConnectionRefused | ConnectionReset | HostUnreachable
        | NetworkUnreachable | TimedOut) => kind.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::egress::EgressRule;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Listens on one port at each of these addresses of the loopback.
    fn listen<const N: usize>(last: [u8; N]) -> (u16, [TcpListener; N]) {
        loop {
            let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last[0]), 0)).unwrap();
            let port = first.local_addr().unwrap().port();
            drop(first);
            let bound = last.map(|last| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)));
            if bound.iter().all(Result::is_ok) {
                return (port, bound.map(Result::unwrap));
            }
        }
    }

    /// Which addresses a name leads to at each lookup; how often it was asked.
    fn stub(answers: Vec<Vec<[u8; 4]>>) -> (Lookup, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let lookup = move |name: &str| {
            assert_eq!(name, "shop.example");
            let answer = answers[count.fetch_add(1, Ordering::SeqCst)].clone();
            Ok(answer.into_iter().map(IpAddr::from).collect())
        };
        (Arc::new(lookup), asked)
    }

    async fn call(lookup: Lookup, egress: &str, port: u16) -> Result<TokioIo<TcpStream>, NotConnected> {
        let egress = Egress::new([egress.parse::<EgressRule>().unwrap()]);
        let uri = format!("http://shop.example:{port}/").parse::<Uri>().unwrap();
        let connecting = Tcp::with_lookup(lookup, &egress, PATIENCE).call(uri);
        tokio::time::timeout(PATIENCE, connecting).await.unwrap()
    }

    /// Takes one connection and says where it came to.
    async fn taken(listener: TcpListener) -> IpAddr {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        stream.local_addr().unwrap().ip()
    }

    fn nobody_came(listener: &TcpListener) -> bool {
        listener.set_nonblocking(true).unwrap();
        listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A name that leads elsewhere at the second lookup does not: there is none.
    #[tokio::test]
    async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
        let (port, [allowed, forbidden]) = listen([2, 3]);
        let (lookup, asked) = stub(vec![vec![[127, 0, 0, 2]], vec![[127, 0, 0, 3]]]);
        let calling = call(lookup, "127.0.0.2", port);
        let (connected, address) = tokio::join!(calling, taken(allowed));
        assert!(connected.is_ok());
        assert_eq!(address, IpAddr::from([127, 0, 0, 2]));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(nobody_came(&forbidden));
    }

    #[tokio::test]
    async fn of_several_addresses_only_those_that_are_allowed_are_tried() {
        let (port, [allowed, forbidden]) = listen([2, 3]);
        let (lookup, _) = stub(vec![vec![[127, 0, 0, 3], [127, 0, 0, 2], [127, 0, 0, 3]]]);
        let (connected, address) = tokio::join!(call(lookup, "127.0.0.2", port), taken(allowed));
        assert!(connected.is_ok());
        assert_eq!(address, IpAddr::from([127, 0, 0, 2]));
        assert!(nobody_came(&forbidden));
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_leaves_time_for_the_next() {
        let (port, [silent, good]) = listen([2, 3]);
        drop(silent);
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.set_reuseaddr(true).unwrap();
        silent.bind((Ipv4Addr::new(127, 0, 0, 2), port).into()).unwrap();
        let silent = silent.listen(0).unwrap();
        // It has room for one that is not accepted, and answers no other.
        let full = TcpStream::connect(silent.local_addr().unwrap()).await.unwrap();

        let connect = async |addresses: Vec<[u8; 4]>, limit: Duration| {
            let (lookup, egress) = (stub(vec![addresses]).0, Egress::new(["any".parse().unwrap()]));
            let uri = format!("http://shop.example:{port}/").parse::<Uri>().unwrap();
            tokio::time::timeout(PATIENCE, Tcp::with_lookup(lookup, &egress, limit).call(uri)).await.unwrap()
        };
        let both = connect(vec![[127, 0, 0, 2], [127, 0, 0, 3]], Duration::from_secs(2));
        let (connected, address) = tokio::join!(both, taken(good));
        assert!(connected.is_ok());
        assert_eq!(address, IpAddr::from([127, 0, 0, 3]));
        let limit = Duration::from_millis(200);
        let alone = connect(vec![[127, 0, 0, 2]], limit).await.unwrap_err();
        assert!(matches!(alone, NotConnected::TooSlow(after) if after == limit), "{alone:?}");
        drop(full);
    }

    #[tokio::test]
    async fn where_no_address_is_allowed_nothing_is_connected_to() {
        let (port, [forbidden]) = listen([3]);
        let answers = vec![vec![[127, 0, 0, 3]], vec![], vec![[169, 254, 169, 254], [127, 0, 0, 3]]];
        let (lookup, asked) = stub(answers);
        for (egress, expected) in
            [("public", Some([127, 0, 0, 3])), ("any", None), ("8.8.8.0/24", Some([169, 254, 169, 254]))]
        {
            let error = call(Arc::clone(&lookup), egress, port).await.unwrap_err();
            match (error, expected) {
                (NotConnected::Egress(address), Some(expected)) => {
                    assert_eq!(address, IpAddr::from(expected));
                }
                (NotConnected::Name(_), None) => {}
                (other, _) => panic!("{egress}: {other:?}"),
            }
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        assert!(nobody_came(&forbidden));
    }
}
