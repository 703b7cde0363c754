//! The command line: what can be asked of the program, and the answers that need no running service.

pub mod data;
pub mod healthcheck;
pub mod token;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::token::TokenVerb;
use crate::client::args::Ask;
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
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Runs the service (the default)
    Serve,
    /// Says whether the config is good, without starting anything
    CheckConfig,
    /// Prints the config that holds, as TOML; the values of headers and the hashes of tokens are masked
    PrintConfig,
    /// Asks the running service on the configured address whether it is ready
    Healthcheck,
    /// A question to a running service.
    #[command(flatten)]
    Ask(Box<Ask>),
    /// Copies the store, also of a running service, into a folder that is new or empty
    Backup {
        /// The folder of the copy
        target: PathBuf,
    },
    /// Prints every record of the store, also of a running service, as a line of JSON
    Export,
    /// Records the lines of an export in the store; the service has to be stopped
    Import {
        /// The file with the lines; - is standard input
        file: PathBuf,
    },
    /// Prints the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Prints the manual page
    Man,
    /// Makes a token for the config
    Token {
        /// What to do.
        #[command(subcommand)]
        verb: TokenVerb,
    },
}

/// Prints the completions of a shell.
///
/// # Errors
/// Those of the writer.
pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    // Its generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "task-recorder", &mut text);
    out.write_all(&text)?;
    out.flush()
}

/// Prints the manual page.
///
/// # Errors
/// Those of the writer.
pub fn man(out: &mut impl Write) -> io::Result<()> {
    clap_mangen::Man::new(Cli::command()).render(out)?;
    out.flush()
}

/// Says that a config is good, which handlers it has, and what to look at all the same.
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
    }?;
    config.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

/// Prints the config that holds.
///
/// # Errors
/// Those of the writer.
pub fn print_config(config: &Config, out: &mut impl Write) -> io::Result<()> {
    out.write_all(config.to_toml().as_bytes())?;
    out.flush()
}
