//! A receiver of webhooks over TLS, and certificates made for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key.
pub(crate) struct Pems {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Which HTTP a receiver offers (ALPN).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offer {
    Both,
    Http2,
    Http1,
    Nothing,
}

/// A running receiver; dropping it ends it. It answers with the body that came.
pub(crate) struct TlsReceiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    versions: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// For a server of this name.
    pub(crate) fn issue(&self, name: &str) -> Pems {
        self.sign(name, ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// For a client.
    pub(crate) fn issue_client(&self, name: &str) -> Pems {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    /// One that was good once.
    pub(crate) fn issue_expired(&self, name: &str) -> Pems {
        self.sign(name, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn sign(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pems {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pems { certificate, key: key.serialize_pem() }
    }
}

impl TlsReceiver {
    /// With this certificate; where there are `clients`, it wants a certificate of theirs.
    pub(crate) async fn start(pems: &Pems, offer: Offer, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match clients {
            None => builder.unwrap().with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(pems.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pems.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = match offer {
            Offer::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Offer::Http2 => vec![b"h2".to_vec()],
            Offer::Http1 => vec![b"http/1.1".to_vec()],
            Offer::Nothing => Vec::new(),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&seen)));
        Self { address, seen, _serving: serving }
    }

    /// `https://localhost:port` and this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// The HTTP of each call so far.
    pub(crate) fn versions(&self) -> Vec<String> {
        self.seen.versions.lock().unwrap().clone()
    }

    /// How many connections came to a TLS session.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Acquire)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, acceptor.clone(), Arc::clone(&seen)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    // Who is not trusted ends here.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    seen.connections.fetch_add(1, Ordering::AcqRel);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            seen.versions.lock().unwrap().push(format!("{:?}", request.version()));
            let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    });
    let stream = TokioIo::new(stream);
    let _ = if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    };
}
