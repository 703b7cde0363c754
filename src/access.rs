//! Who may do what: bearer tokens, each with scopes, limits and perhaps an end.
//!
//! A secret has 256 random bits, so nobody finds it by guessing, not even from its SHA-256: a slow hash, which protects
//! passwords that people think up, would only cost time with every request.
//!
//! Invariant: a secret is kept nowhere; what is kept and compared, in constant time, is its hash.

mod failures;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

pub use failures::{ADDRESSES_MAX, Failures, TooMany};

use crate::task::Reach;

const SECRET_BYTES: usize = 32;
/// What every secret begins with, so that people and scanners know one when they see it.
const SECRET_PREFIX: &str = "tr_";
const HASH_PREFIX: &str = "sha256:";

/// What a token is good for. None includes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To read what is recorded.
    Read,
    /// To launch.
    Launch,
    /// To act on what was launched, and to pause handlers.
    Operate,
    /// To change how the service runs.
    Admin,
}

/// The SHA-256 of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

/// A token as the config has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// For people; it is no secret.
    pub name: String,
    /// Of the secrets that are valid: several while one is being replaced.
    pub hashes: Vec<SecretHash>,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// For which tasks.
    pub reach: Reach,
    /// From when on it is not valid any more.
    pub expires: Option<Timestamp>,
}

/// A token, and by which of its secrets it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// As it was then.
    pub token: Arc<Token>,
    by: SecretHash,
}

/// Every token that is configured.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    all: Vec<Arc<Token>>,
}

/// Why a secret opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// No token has it.
    Unknown,
    /// Its token has expired.
    Expired(Arc<Token>),
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Launch, Self::Operate, Self::Admin];

    /// The word in the config and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Launch => "launch",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::as_str).join(", ");
        let scope = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        scope.ok_or_else(|| format!("{text:?} is no scope; there are {known}"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// As the config has it: `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn to_config(&self) -> String {
        format!("{HASH_PREFIX}{}", hex(&self.0))
    }
}

impl FromStr for SecretHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(SECRET_PREFIX) {
            return Err(
                "this is the secret itself; the config has only its hash, and this secret is spoilt now",
            );
        }
        let digits = text.strip_prefix(HASH_PREFIX).ok_or("it does not begin with \"sha256:\"")?;
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return Err("it does not have 64 hexadecimal digits");
        }
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
            let value = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
            *byte = value.ok_or("it has a character that is no hexadecimal digit")?;
        }
        Ok(Self(hash))
    }
}

/// Not the hash: nobody needs it in a log.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(***)")
    }
}

impl Token {
    fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= Timestamp::now())
    }
}

impl Tokens {
    /// These tokens; the config makes sure that their names differ.
    #[must_use]
    pub fn new(tokens: impl IntoIterator<Item = Token>) -> Self {
        Self { all: tokens.into_iter().map(Arc::new).collect() }
    }

    /// Whether there are none, so that nobody needs one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, in the order of the config.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.all.iter()
    }

    /// The token that a secret opens.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn opened_by(&self, secret: &[u8]) -> Result<Opened, Invalid> {
        let by = SecretHash::of(secret);
        match self.found(&by) {
            Some(token) if token.is_expired() => Err(Invalid::Expired(Arc::clone(token))),
            Some(token) => Ok(Opened { token: Arc::clone(token), by }),
            None => Err(Invalid::Unknown),
        }
    }

    /// Looks at every hash, whatever it has found, so that its time tells nothing.
    fn found(&self, SecretHash(given): &SecretHash) -> Option<&Arc<Token>> {
        let mut found = None;
        for token in &self.all {
            let mut is_it = Choice::from(0);
            for SecretHash(hash) in &token.hashes {
                is_it |= hash.ct_eq(given);
            }
            if bool::from(is_it) {
                found = Some(token);
            }
        }
        found
    }

    /// Whether the secret that opened a token before still opens one that is good for as much. Another secret beside it,
    /// another name or more scopes take nothing away.
    #[must_use]
    pub fn still_open(&self, Opened { token: before, by }: &Opened) -> bool {
        self.found(by).is_some_and(|now| {
            !now.is_expired() && before.scopes.is_subset(&now.scopes) && before.reach.is_within(&now.reach)
        })
    }
}

/// A new secret, from the system's source of randomness.
///
/// # Errors
/// Where the system has none.
pub fn new_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{SECRET_PREFIX}{}", hex(&bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, secrets: &[&str], expires: Option<&str>) -> Token {
        Token {
            name: name.to_owned(),
            hashes: secrets.iter().map(|secret| SecretHash::of(secret.as_bytes())).collect(),
            scopes: BTreeSet::from([Scope::Read]),
            reach: Reach::default(),
            expires: expires.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn each_of_its_secrets_opens_a_token_and_nothing_else_does() {
        let tokens = Tokens::new([token("a", &["one", "two"], None), token("b", &["three"], None)]);
        for (secret, name) in [("one", "a"), ("two", "a"), ("three", "b")] {
            assert_eq!(tokens.opened_by(secret.as_bytes()).unwrap().token.name, name);
        }
        for secret in ["", "on", "one ", "four"] {
            assert_eq!(tokens.opened_by(secret.as_bytes()), Err(Invalid::Unknown));
        }
        let past = Tokens::new([token("a", &["one"], Some("2020-01-01T00:00:00Z"))]);
        assert!(matches!(past.opened_by(b"one"), Err(Invalid::Expired(_))));
    }

    #[test]
    fn what_was_opened_stays_open_while_its_secret_is_good_for_as_much() {
        let reach = |prefix: &str| Reach { prefixes: Some(vec![prefix.to_owned()]), ..Reach::default() };
        let own = Token { reach: reach("order-"), ..token("a", &["one", "two"], None) };
        let opened = Tokens::new([own.clone()]).opened_by(b"two").unwrap();
        let is_open = |now: Token| Tokens::new([token("b", &["x"], None), now]).still_open(&opened);
        assert!(is_open(own.clone()));
        assert!(is_open(Token { hashes: token("", &["two", "three"], None).hashes, ..own.clone() }));
        assert!(is_open(Token { name: "c".to_owned(), scopes: Scope::ALL.into(), ..own.clone() }));
        assert!(is_open(Token { reach: reach("o"), ..own.clone() }));
        assert!(is_open(Token { expires: Some("2100-01-01T00:00:00Z".parse().unwrap()), ..own.clone() }));
        assert!(!is_open(Token { hashes: token("", &["one"], None).hashes, ..own.clone() }));
        assert!(!is_open(Token { scopes: BTreeSet::from([Scope::Launch]), ..own.clone() }));
        assert!(!is_open(Token { reach: reach("order-4"), ..own.clone() }));
        assert!(!is_open(Token { expires: Some("2020-01-01T00:00:00Z".parse().unwrap()), ..own }));
        assert!(!Tokens::default().still_open(&opened));
    }

    #[test]
    fn a_hash_reads_back_and_shows_nothing_in_a_log() {
        let hash = SecretHash::of(b"one");
        assert_eq!(hash.to_config().parse(), Ok(hash.clone()));
        assert!(
            hash.to_config()
                .starts_with("sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
        );
        assert_eq!(format!("{hash:?}"), "SecretHash(***)");
        for text in ["", "sha256:", "sha256:00", "md5:00", &format!("sha256:{}", "+0".repeat(32))] {
            assert!(text.parse::<SecretHash>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_differ_and_are_long() {
        let (one, two) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), SECRET_PREFIX.len() + 64);
        assert!(one.parse::<SecretHash>().unwrap_err().contains("the secret itself"));
    }
}
