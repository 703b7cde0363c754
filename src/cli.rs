//! The command line: what can be asked of the program, and the answers that need no running service.

pub mod healthcheck;
pub mod token;

use std::io::{self, Write};

use clap::{Parser, Subcommand};

use self::token::TokenVerb;
use crate::config::{Config, Flags};
use crate::exit::EXIT_CODES;

/// Launches configured handlers under ids that the caller chooses, at most one success per id, over HTTP.
#[derive(Debug, Parser)]
#[command(name = "task-recorder", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Flags that set a key of the config.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do; none means [`Verb::Serve`].
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What the program can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Runs the service (the default)
    Serve,
    /// Says whether the config is good, without starting anything
    CheckConfig,
    /// Prints the config that holds, as TOML; the values of headers and the hashes of tokens are masked
    PrintConfig,
    /// Asks the running service on the configured address whether it is ready
    Healthcheck,
    /// Makes a token for the config
    Token {
        /// What to do.
        #[command(subcommand)]
        verb: TokenVerb,
    },
}

/// Says that a config is good, and which handlers it has.
///
/// # Errors
/// Those of the writer.
pub fn check_config(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let names: Vec<&str> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
    let file = &config.file;
    match names.as_slice() {
        [] => writeln!(out, "ok: {file}, 0 handlers (nothing can be launched)"),
        [name] => writeln!(out, "ok: {file}, 1 handler: {name}"),
        names => writeln!(out, "ok: {file}, {} handlers: {}", names.len(), names.join(", ")),
    }
}

/// Prints the config that holds.
///
/// # Errors
/// Those of the writer.
pub fn print_config(config: &Config, out: &mut impl Write) -> io::Result<()> {
    out.write_all(config.to_toml().as_bytes())?;
    out.flush()
}
