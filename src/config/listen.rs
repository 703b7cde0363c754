//! Where a service with this config listens, for who asks it: one key, whatever the rest of the config is like.
//!
//! A service goes on with the config that it was started with, whatever becomes of the file. So what is wrong there says
//! nothing of the service.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;

use toml::Spanned;
use toml::de::DeTable;

use super::Flags;
use super::error::{ConfigError, Place};
use super::reader::Reader;
use super::server::{ADDRESS, LISTEN};
use super::source::{Environment, Reading, SourceFile};

/// An address, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is given there.
    Given(Place),
    /// It is given nowhere.
    Default,
    /// What would give it cannot be read: where, and what is wrong.
    Instead(String),
}

impl Listen {
    /// Reads flags and environment, and the config file where they are silent.
    ///
    /// # Errors
    /// What is wrong with flag or variable.
    pub fn find(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        // One of another key that is no UTF-8 does not matter here.
        let (environment, _) = Environment::pick(environment);
        let nothing = SourceFile { name: String::new(), text: String::new() };
        if let Some(given) = read(&nothing, &DeTable::new(), &environment, flags)? {
            return Ok(given);
        }
        let default = |origin| Self { address: LISTEN, origin };
        let file = match SourceFile::find(flags, &environment, Reading::Again) {
            Ok(file) => file,
            Err(error) => return Ok(default(Origin::Instead(error.to_string()))),
        };
        // What can be read of a file that is no TOML somewhere.
        let (table, _) = DeTable::parse_recoverable(&file.text);
        Ok(match read(&file, Spanned::get_ref(&table), &environment, flags) {
            Ok(Some(given)) => given,
            Err(error) => default(Origin::Instead(error.to_string())),
            Ok(None) => default(match file.parse() {
                Ok(_) => Origin::Default,
                Err(error) => Origin::Instead(error.to_string()),
            }),
        })
    }
}

/// The address, if it is given; what is wrong with it alone.
fn read(
    file: &SourceFile,
    table: &DeTable<'_>,
    environment: &Environment,
    flags: &Flags,
) -> Result<Option<Listen>, ConfigError> {
    let mut reader = Reader::new(file, environment, flags);
    let mut root = reader.root(table);
    let address = root.section("server", true).optional("listen", &ADDRESS);
    let place = reader.finish_early()?.place_of("server", "listen").cloned();
    Ok(address.zip(place).map(|(address, place)| Listen { address, origin: Origin::Given(place) }))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(place) => write!(f, "the address comes from {place}"),
            Self::Default => f.write_str("the address is the default"),
            Self::Instead(why) => write!(f, "it is the default, because {why}"),
        }
    }
}
