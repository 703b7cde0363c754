//! Whom a webhook trusts, and as whom it presents itself.

use std::fmt;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The TLS of a webhook. By default it trusts the authorities that browsers trust, and presents no certificate.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

/// Authorities that are trusted instead of the usual ones.
#[derive(Clone)]
pub struct Authorities(Arc<RootCertStore>);

/// A certificate with those that lead from it to an authority, in this order.
#[derive(Clone)]
pub struct CertificateChain(Vec<CertificateDer<'static>>);

/// The private key of a certificate. It never prints.
pub struct PrivateKey(PrivateKeyDer<'static>);

/// Why a PEM file does not hold what it should. What it holds is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPem(String);

impl Tls {
    /// The usual authorities where there are none of one's own; a client certificate where there is one.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or is of a kind that is not known.
    pub fn new(
        authorities: Option<&Authorities>,
        identity: Option<(&CertificateChain, &PrivateKey)>,
    ) -> Result<Self, InvalidPem> {
        let config = builder(authorities);
        let config = match identity {
            Some((chain, key)) => config
                .with_client_auth_cert(chain.0.clone(), key.0.clone_key())
                .map_err(|error| InvalidPem(format!("the key does not fit the certificate: {error}")))?,
            None => config.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config) })
    }

    /// As a connector of hyper takes it.
    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::clone(&self.config)
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { config: Arc::new(builder(None).with_no_client_auth()) }
    }
}

fn builder(authorities: Option<&Authorities>) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    #[expect(
        clippy::expect_used,
        reason = "ring offers the default protocol versions; every webhook test needs it"
    )]
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3");
    match authorities {
        Some(own) => versions.with_root_certificates(Arc::clone(&own.0)),
        None => versions.with_webpki_roots(),
    }
}

impl Authorities {
    /// All certificates of a PEM file.
    ///
    /// # Errors
    /// It holds none, or one that is no certificate of an authority.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidPem> {
        let mut roots = RootCertStore::empty();
        for (certificate, number) in certificates(pem)?.into_iter().zip(1..) {
            roots.add(certificate).map_err(|error| {
                InvalidPem(format!("certificate {number} of the file cannot be used: {error}"))
            })?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

impl CertificateChain {
    /// All certificates of a PEM file.
    ///
    /// # Errors
    /// It holds none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidPem> {
        certificates(pem).map(Self)
    }
}

impl PrivateKey {
    /// The first key of a PEM file, which is not encrypted.
    ///
    /// # Errors
    /// It holds none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidPem> {
        use rustls::pki_types::pem::Error;
        let key = PrivateKeyDer::from_pem_slice(pem);
        key.map(Self).map_err(|error| match error {
            Error::NoItemsFound => InvalidPem(
                "the file holds no BEGIN PRIVATE KEY (nor RSA or EC PRIVATE KEY); an encrypted key cannot be read"
                    .to_owned(),
            ),
            error => not_pem(&error),
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| not_pem(&error))?;
    if certificates.is_empty() {
        return Err(InvalidPem("the file holds no BEGIN CERTIFICATE".to_owned()));
    }
    Ok(certificates)
}

/// In our words: those of the parser may quote what it read.
fn not_pem(error: &rustls::pki_types::pem::Error) -> InvalidPem {
    use rustls::pki_types::pem::Error;
    InvalidPem(match error {
        Error::MissingSectionEnd { .. } => "a BEGIN line has no END line".to_owned(),
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        Error::Base64Decode(_) => "what stands between BEGIN and END is no base64".to_owned(),
        _ => "the file is no PEM".to_owned(),
    })
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
