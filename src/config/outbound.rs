//! What holds for the calls of a webhook: where they may go, with what they are signed, whom they trust. Its revoke
//! action and its notices have what the handler has, unless they say otherwise.
//!
//! Invariant: no secret comes out of here again, in no complaint and in no printed config (tests/it/secrets.rs).

use std::fmt::{self, Display};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use toml::Value;

use super::error::{Fault, Problem};
use super::given::Given;
use super::handler_kinds::VariableName;
use super::kind::{Kind, List, Text};
use super::reader::Section;
use super::source::read_regular;
use crate::handler::webhook::{Authorities, CertificateChain, Egress, EgressRule, PrivateKey, Secret, Tls};

/// The largest file of secrets or certificates that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most secrets with which a call is signed.
const SECRETS_MAX: usize = 16;

/// The keys that a webhook has for its calls.
#[derive(Clone, Default)]
pub(super) struct Outbound {
    pub(super) egress: Egress,
    pub(super) secrets: Vec<Secret>,
    authorities: Option<Authorities>,
    identity: Option<Arc<(CertificateChain, PrivateKey)>>,
}

const SECRETS: &str = "secrets_env";
const CERTIFICATE: &str = "client_cert_file";
const KEY: &str = "client_key_file";

/// Not shown where it is wrong: somebody may have put the secret itself there.
const SECRETS_FILE: Text<FromFile<Secrets>> =
    Text::secret("the path of a file with a secret a line, such as whsec_ and 24 to 64 bytes in base64");
const SECRETS_ENV: Text<VariableName> =
    Text::secret("the name of an environment variable that holds secrets, with spaces between them");
const CA_FILE: Text<FromFile<Authorities>> =
    Text::new("the path of a PEM file with the certificates of the authorities to trust");
const CLIENT_CERT_FILE: Text<FromFile<CertificateChain>> =
    Text::new("the path of a PEM file with the client certificate and those that lead to its authority");
const CLIENT_KEY_FILE: Text<FromFile<PrivateKey>> =
    Text::new("the path of a PEM file with the private key of the client certificate");

impl Outbound {
    /// The keys in this table; what is left out is as in `inherited`.
    pub(super) fn read(section: &mut Section<'_, '_>, inherited: &Self) -> Self {
        let egress = section.get("egress", inherited.egress.clone(), &EgressRules);
        let secrets_file = section.optional("secrets_file", &SECRETS_FILE);
        let secrets_env = section.optional(SECRETS, &SECRETS_ENV);
        let ca_file = section.optional("ca_file", &CA_FILE);
        let certificate = section.optional(CERTIFICATE, &CLIENT_CERT_FILE);
        let key = section.optional(KEY, &CLIENT_KEY_FILE);

        let has_secrets = secrets_file.is_some() || secrets_env.is_some();
        let mut secrets = secrets_file.map(|file| file.content.0).unwrap_or_default();
        secrets.extend(secrets_env.and_then(|name| of_variable(section, name)).into_iter().flatten());
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Arc::new((certificate.content, key.content))),
            (Some(_), None) => lacks(section, CERTIFICATE, KEY, CLIENT_KEY_FILE.expected()),
            (None, Some(_)) => lacks(section, KEY, CERTIFICATE, CLIENT_CERT_FILE.expected()),
            (None, None) => inherited.identity.clone(),
        };
        Self {
            egress,
            secrets: if has_secrets { secrets } else { inherited.secrets.clone() },
            authorities: ca_file.map(|file| file.content).or_else(|| inherited.authorities.clone()),
            identity,
        }
    }

    /// Its TLS; a key that does not fit the certificate is reported.
    pub(super) fn tls(&self, section: &mut Section<'_, '_>) -> Tls {
        let identity = self.identity.as_deref().map(|(certificate, key)| (certificate, key));
        Tls::new(self.authorities.as_ref(), identity).unwrap_or_else(|error| {
            let (found, expected) = ("not that of `client_cert_file`".to_owned(), CLIENT_KEY_FILE.expected());
            let why = Some(error.to_string());
            section.report_at(KEY, Fault::BadValue { key: KEY.to_owned(), found, expected, why });
            Tls::default()
        })
    }
}

fn of_variable(section: &mut Section<'_, '_>, VariableName(name): VariableName) -> Option<Vec<Secret>> {
    let why = match section.variable(&name) {
        None => "the environment of the service has no such variable".to_owned(),
        Some(text) => match Secrets::of(text.as_bytes()) {
            Ok(Secrets(secrets)) => return Some(secrets),
            Err(why) => why,
        },
    };
    let found = if name.starts_with("whsec_") { "a secret".to_owned() } else { format!("{name:?}") };
    let expected = SECRETS_ENV.expected();
    section.report_at(SECRETS, Fault::BadValue { key: SECRETS.to_owned(), found, expected, why: Some(why) });
    None
}

fn lacks<T>(section: &mut Section<'_, '_>, given: &str, key: &'static str, expected: String) -> Option<T> {
    // One that is there and wrong was told.
    if !section.has(key) {
        let table = section.name().to_owned();
        section.report_at(given, Fault::Missing { key, table, expected });
    }
    None
}

/// What a file holds, and the path that names it.
pub(super) struct FromFile<T> {
    path: String,
    pub(super) content: T,
}

/// What a file may hold.
pub(super) trait Content: Sized {
    /// It, or what is wrong with the bytes, without a secret in the words.
    fn of(bytes: &[u8]) -> Result<Self, String>;
}

impl<T: Content> FromStr for FromFile<T> {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("it is empty".to_owned());
        }
        let bytes = read_regular(Path::new(path), FILE_BYTES_MAX + 1)
            .map_err(|error| format!("the file cannot be read: {error}"))?
            .ok_or("it is no regular file, so that a reload could not read it again")?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("the file is larger than {FILE_BYTES_MAX} bytes"));
        }
        Ok(Self { path: path.to_owned(), content: T::of(&bytes)? })
    }
}

impl<T> Display for FromFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Secrets with white space between them; a line that begins with `#` is a comment.
struct Secrets(Vec<Secret>);

impl Content for Secrets {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_invalid| "it holds no text".to_owned())?;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let secrets = lines.flat_map(str::split_whitespace).zip(1..).map(|(secret, number)| {
            secret
                .parse()
                .map_err(|error| format!("the secret with the number {number} is not right: {error}"))
        });
        match secrets.collect::<Result<Vec<_>, _>>()? {
            secrets if secrets.is_empty() => Err("it holds no secret".to_owned()),
            secrets if secrets.len() > SECRETS_MAX => {
                Err(format!("it holds more than {SECRETS_MAX} secrets"))
            }
            secrets => Ok(Self(secrets)),
        }
    }
}

impl Content for Authorities {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        Self::from_pem(bytes).map_err(|error| error.to_string())
    }
}

impl Content for CertificateChain {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        Self::from_pem(bytes).map_err(|error| error.to_string())
    }
}

impl Content for PrivateKey {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        Self::from_pem(bytes).map_err(|error| error.to_string())
    }
}

/// One rule, or a list of them.
struct EgressRules;

impl EgressRules {
    const WORD: Text<EgressRule> = Text::new("\"any\", \"public\", \"private\", a network or an address");
    const LIST: List<Text<EgressRule>> = List {
        expected: "\"any\", \"public\", \"private\", or a list of them, of networks and of addresses, such as \
                   [\"public\", \"10.0.0.0/8\"]",
        may_be_empty: false,
        of: Self::WORD,
    };
}

impl Kind for EgressRules {
    type Value = Egress;

    fn expected(&self) -> String {
        Self::LIST.expected()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Egress, Vec<Problem>> {
        match given.text() {
            Some(_) => Self::WORD.parse(given).map(|rule| Egress::new([rule])),
            None => Self::LIST.parse(given).map(Egress::new),
        }
    }

    fn show(&self, value: &Egress) -> Value {
        match value.rules() {
            [rule] => Self::WORD.show(rule),
            rules => Self::LIST.show(&rules.to_vec()),
        }
    }
}
