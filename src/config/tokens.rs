//! `[tokens.NAME]`: who may do what; and the keys of `[server]` about those who have no token.

use jiff::Timestamp;
use toml::Value;

use super::error::{Fault, Hint, Place, Problem};
use super::given::{Given, Raw};
use super::kind::{Kind, List, Text, all};
use super::reader::Section;
use crate::access::{Scope, SecretHash, Token, Tokens};
use crate::handler::Handler;
use crate::task::{HandlerName, Reach, TASK_ID_BYTES_MAX, TaskId};

const SCOPES: List<Text<Scope>> = List {
    expected: "a list of scopes, such as [\"read\", \"launch\"]",
    may_be_empty: false,
    of: Text::new("\"read\", \"launch\", \"operate\" or \"admin\""),
};
const HANDLERS: List<Text<HandlerName>> = List {
    expected: "a list of names of handlers, such as [\"charge\"]",
    may_be_empty: false,
    of: Text::new("the name of a handler"),
};
const PREFIXES: List<Text<Prefix>> = List {
    expected: "a list of beginnings of ids, such as [\"order-\"]",
    may_be_empty: false,
    of: Text::new("the beginning of an id"),
};

/// Every token of the table; what is wrong is reported to the reader.
pub(super) fn read(mut tokens: Section<'_, '_>, configured: &[Handler]) -> Tokens {
    let (mut all, mut seen) = (Vec::new(), Vec::new());
    tokens.for_each_table(|name, mut section| {
        // Handlers and tokens have names of the same form.
        if let Err(why) = name.parse::<HandlerName>() {
            section.report(Fault::TokenName { name: name.to_owned(), why });
        }
        all.extend(token(name, section, configured, &mut seen));
    });
    Tokens::new(all)
}

/// `seen` has the hashes of earlier tokens, with their names and where they stand.
fn token<'a>(
    name: &'a str,
    mut section: Section<'_, 'a>,
    configured: &[Handler],
    seen: &mut Vec<(SecretHash, &'a str, Place)>,
) -> Option<Token> {
    let hashes = section.required("hash", &Hashes);
    let is_own = |hash: &SecretHash| hashes.iter().flatten().any(|own| own == hash);
    if let Some((_, first, place)) = seen.iter().find(|(hash, ..)| is_own(hash)) {
        let (first, first_place, second) = ((*first).to_owned(), place.clone(), name.to_owned());
        section.report_at("hash", Fault::SameSecret { first, first_place, second });
    }
    let place = section.place_of("hash");
    seen.extend(hashes.iter().flatten().map(|hash| (hash.clone(), name, place.clone())));
    let scopes = section.required("scopes", &SCOPES);
    let handlers = section.optional("handlers", &HANDLERS);
    let is_unknown = |name: &&HandlerName| !configured.iter().any(|handler| handler.name == **name);
    if let Some(unknown) = handlers.iter().flatten().find(is_unknown) {
        let known = configured.iter().map(|handler| handler.name.to_string()).collect();
        let hint = Hint::of(unknown.as_str(), known);
        section.report_at("handlers", Fault::NoHandler { name: unknown.to_string(), hint });
    }
    let prefixes = section.optional("prefixes", &PREFIXES);
    let expires = section.optional("expires", &Moment);
    section.finish(|key| super::belongs_elsewhere(&format!("tokens.{name}"), key));
    let reach = Reach {
        handlers: handlers.map(|names| names.into_iter().collect()),
        prefixes: prefixes.map(|prefixes| prefixes.into_iter().map(|prefix| prefix.0).collect()),
    };
    let scopes = scopes?.into_iter().collect();
    Some(Token { name: name.to_owned(), hashes: hashes?, scopes, reach, expires })
}

/// One hash, or several.
struct Hashes;

impl Kind for Hashes {
    type Value = Vec<SecretHash>;

    fn expected(&self) -> String {
        "\"sha256:\" and 64 hexadecimal digits, as `task-recorder token new` prints it, or a list of those"
            .to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Self::Value, Vec<Problem>> {
        let one = |given: &Given<'_>| match given.text().map(str::parse) {
            Some(Ok(hash)) => Ok(hash),
            Some(Err(why)) => Err(given.wrong_secret(self.expected(), Some(String::from(why)))),
            None => Err(given.wrong_secret(self.expected(), None)),
        };
        match given.items() {
            Some(items) if items.is_empty() => Err(given.wrong_secret(self.expected(), None)),
            Some(items) => all(items.iter().map(one)),
            None => one(given).map(|hash| vec![hash]),
        }
    }

    fn show(&self, _: &Self::Value) -> Value {
        Value::String(crate::handler::MASK.to_owned())
    }
}

/// The beginning of an id, as a token may be limited to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty; leave `prefixes` out for all ids".to_owned());
        }
        // With one more character, so that "." may begin an id.
        match format!("{text}x").parse::<TaskId>() {
            Err(why) if text.len() != TASK_ID_BYTES_MAX => Err(why.to_string()),
            Ok(_) | Err(_) => Ok(Self(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment, as a time of TOML or as a text.
struct Moment;

impl Kind for Moment {
    type Value = Timestamp;

    fn expected(&self) -> String {
        "a time with its offset, such as 2027-01-31T00:00:00Z".to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Timestamp, Vec<Problem>> {
        let time = match given.raw {
            Raw::File(_, value) => value.get_ref().as_datetime().map(ToString::to_string),
            Raw::Variable(..) | Raw::Flag(..) => None,
        };
        let time = time.or_else(|| given.text().map(str::to_owned));
        time.and_then(|time| time.parse().ok()).ok_or_else(|| given.wrong(self.expected()))
    }

    fn show(&self, value: &Timestamp) -> Value {
        Value::String(value.to_string())
    }
}

/// Names of hosts, in a variable with commas between them.
pub(super) struct HostNames;

impl HostNames {
    fn one(name: &str) -> Option<String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_ip6 = || name.strip_prefix('[').is_some_and(|rest| rest.ends_with(']'));
        let is_name = !name.is_empty() && name.len() <= 253 && (name.bytes().all(is_allowed) || is_ip6());
        is_name.then(|| name.to_ascii_lowercase())
    }
}

impl Kind for HostNames {
    type Value = Vec<String>;

    fn expected(&self) -> String {
        "a list of names of hosts without a port, such as [\"recorder.internal\"]".to_owned()
    }

    fn parse(&self, given: &Given<'_>) -> Result<Vec<String>, Vec<Problem>> {
        let wrong = || given.wrong(self.expected());
        if let Raw::Variable(_, text) | Raw::Flag(_, text) = given.raw {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            return names.map(|name| Self::one(name).ok_or_else(wrong)).collect();
        }
        let items = given.items().ok_or_else(wrong)?;
        let one = |item: &Given<'_>| {
            let name = item.text().and_then(Self::one);
            name.ok_or_else(|| item.wrong("the name of a host without a port"))
        };
        all(items.iter().map(one))
    }

    fn show(&self, value: &Vec<String>) -> Value {
        Value::Array(value.iter().map(|name| Value::String(name.clone())).collect())
    }
}
