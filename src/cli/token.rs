//! `task-recorder token new`: a new secret, and the lines that let it in.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::access::{Scope, SecretHash, new_secret};
use crate::config::Prefix;
use crate::task::HandlerName;

/// What can be done about tokens.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TokenVerb {
    /// Prints a new secret, once, and the lines for the config file
    New(NewToken),
}

/// The token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NewToken {
    /// What to call it in the config
    #[arg(long)]
    pub name: HandlerName,
    /// What it is good for: read, launch, operate, admin; with commas between them
    #[arg(long, value_delimiter = ',', required = true)]
    pub scopes: Vec<Scope>,
    /// Only for tasks of these handlers, with commas between them
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub handlers: Vec<HandlerName>,
    /// Only for tasks whose ids begin with one of these; may be repeated
    #[arg(long = "prefix")]
    pub prefixes: Vec<Prefix>,
    /// From when on it is not valid any more, such as 2027-01-31T00:00:00Z
    #[arg(long)]
    pub expires: Option<Timestamp>,
}

/// Prints a new token.
///
/// # Errors
/// Those of the writer, and where the system has no randomness.
pub fn print_new(wanted: &NewToken, out: &mut impl Write) -> io::Result<()> {
    let secret = new_secret().map_err(io::Error::other)?;
    let hash = SecretHash::of(secret.as_bytes()).to_config();
    let list = |words: Vec<&str>| toml::Value::Array(words.into_iter().map(toml::Value::from).collect());
    writeln!(
        out,
        "The secret, which is not shown again; clients send it as Authorization: Bearer SECRET:\n"
    )?;
    writeln!(out, "{secret}\n")?;
    writeln!(out, "The lines for the config file, which do not hold it:\n")?;
    writeln!(out, "[tokens.{}]\nhash = \"{hash}\"", wanted.name)?;
    writeln!(out, "scopes = {}", list(wanted.scopes.iter().map(|scope| scope.as_str()).collect()))?;
    if !wanted.handlers.is_empty() {
        writeln!(out, "handlers = {}", list(wanted.handlers.iter().map(HandlerName::as_str).collect()))?;
    }
    if !wanted.prefixes.is_empty() {
        writeln!(out, "prefixes = {}", list(wanted.prefixes.iter().map(Prefix::as_str).collect()))?;
    }
    if let Some(expires) = wanted.expires {
        writeln!(out, "expires = {expires}")?;
    }
    out.flush()
}
