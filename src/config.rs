//! The config: one TOML file, then environment, then flags, read into the types that the service runs with.
//!
//! Invariant: a [`Config`] that exists is valid; nobody checks a range again. Everything that is wrong is found before
//! anything starts, and is said with its file and line (tests/it/config.rs).
//! Invariant: the shipped `config/task-recorder.toml`, which is compiled in, names every key and gives its default
//! (tests/it/config.rs).

mod action;
mod effective;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod given;
mod handler_kinds;
mod handlers;
mod kind;
mod listen;
mod outbound;
mod policy;
mod reader;
mod retention;
mod server;
mod source;
mod telemetry;
mod tokens;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use error::{ConfigError, Fault, Hint, Place, Problem, Warning};
pub use listen::{Listen, Origin};
pub use server::ServerConfig;
pub use source::{CLIENT_VARIABLES, Flags, VARIABLE_PREFIX};
pub use telemetry::OtlpConfig;
pub use tokens::Prefix;

use crate::access::Tokens;
use crate::handler::Handler;
use crate::store::{EVENTS_KEPT, EmbeddedOptions};
use crate::task::Retention;
use effective::Effective;
use kind::{Choice, Size, Text, Whole};
use reader::{Reader, Section};
use source::{Environment, Reading, SourceFile};

/// The shortest time that a key takes.
const SHORTEST: Duration = Duration::from_millis(1);

/// Everything that can be set.
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[retention]`
    pub retention: Retention,
    /// `[log]`
    pub log: LogConfig,
    /// `[telemetry]`; none where no spans are sent.
    pub otlp: Option<OtlpConfig>,
    /// `[handlers.NAME]`, in the order of the file; at most one of them is the default.
    pub handlers: Vec<Arc<Handler>>,
    /// `[tokens.NAME]`, in the order of the file.
    pub tokens: Tokens,
    /// What is wrong with variables that are not ours.
    pub warnings: Vec<Warning>,
    /// The file it was read from, for people.
    pub file: String,
    effective: Effective,
}

/// Where tasks are kept, and how many of them in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where.
    pub path: StorePath,
    /// Most settled tasks in memory; older ones are in the archive.
    pub hot_tasks: usize,
    /// Most bytes of their inputs and outputs in memory.
    pub hot_bytes: u64,
    /// Most changes in one commit.
    pub batch_max: usize,
    /// Most changes that wait for a commit; further ones are refused.
    pub queue_max: usize,
    /// Ids of archived tasks that are in memory until they are written to the index of the archive together.
    pub recent_ids: usize,
    /// Most events that are kept for who was away for a moment.
    pub events_kept: usize,
}

/// Where tasks are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePath {
    /// In memory: forgotten at exit.
    Memory,
    /// In files in this folder; a relative path begins at the working directory.
    Folder(PathBuf),
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// In which form.
    pub format: LogFormat,
    /// From which level on; `RUST_LOG` wins over it.
    pub level: LevelFilter,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text where stdout is a terminal, JSON where it is not.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl StoreConfig {
    /// The limits of a store on disk.
    #[must_use]
    pub fn embedded(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            hot_tasks: self.hot_tasks,
            hot_bytes: usize::try_from(self.hot_bytes).unwrap_or(usize::MAX),
            batch_max: self.batch_max,
            queue_max: self.queue_max,
            recent_ids: self.recent_ids,
            events_kept: self.events_kept,
        }
    }
}

impl Config {
    /// Reads the config file that the flags or the environment name, or the built-in one, and applies environment and
    /// flags. `environment` is all variables; those without our prefix are passed over.
    ///
    /// # Errors
    /// Everything that is wrong with it. If there is no valid TOML to read, that alone.
    pub fn load(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        Self::load_for(Reading::First, flags, environment)
    }

    /// The same for a service that runs: the file has to be a regular one, and to say something. A pipe is empty the
    /// second time, and so is a file that is just being written; neither takes every handler and token away.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_again(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        Self::load_for(Reading::Again, flags, environment)
    }

    fn load_for(
        reading: Reading,
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let (environment, mut problems) = Environment::pick(environment);
        let file = match SourceFile::find(flags, &environment, reading) {
            Ok(file) if reading == Reading::Again && file.is_empty() => {
                return Err(ConfigError::one(file.place(0), Fault::Empty { file: file.name }));
            }
            Ok(file) if problems.is_empty() => file,
            Ok(_) => return Err(ConfigError { problems }),
            Err(error) => {
                problems.extend(error.problems);
                return Err(ConfigError { problems });
            }
        };
        Self::read(&file, &environment, flags)
    }

    fn read(file: &SourceFile, environment: &Environment, flags: &Flags) -> Result<Self, ConfigError> {
        let document = file.parse()?;
        let mut reader = Reader::new(file, environment, flags);
        let mut root = reader.root(document.get_ref());
        let Tables { server, store, retention, log, otlp, handlers, tokens } = read_tables(&mut root);
        root.finish(|key| belongs_elsewhere("", key));
        let warnings = reader.take_warnings();
        let effective = reader.finish()?;
        Ok(Self {
            server,
            store,
            retention,
            log,
            otlp,
            handlers: handlers.into_iter().map(Arc::new).collect(),
            tokens,
            warnings,
            file: file.name.clone(),
            effective,
        })
    }

    /// Refuses a service that other machines reach and that asks nobody for a token, unless the config says so.
    ///
    /// # Errors
    /// What is wrong, and both ways out.
    pub fn is_guarded(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        if server.is_local() || server.allow_anonymous || !self.tokens.is_empty() {
            return Ok(());
        }
        let place = self.effective.place_of("server", "listen").cloned();
        let fault = Fault::OpenToAll { listen: server.listen };
        Err(ConfigError::one(place.unwrap_or_else(|| self.beginning()), fault))
    }

    /// Refuses to take the last token from a service that was started as `server` says and has these tokens now,
    /// wherever it listens: who has tokens does not mean to let everybody in, unless it was started with
    /// `allow_anonymous`.
    ///
    /// # Errors
    /// What is wrong, and both ways out.
    pub fn keeps_a_token(&self, server: &ServerConfig, now: &Tokens) -> Result<(), ConfigError> {
        if now.is_empty() || server.allow_anonymous || !self.tokens.is_empty() {
            return Ok(());
        }
        Err(ConfigError::one(self.beginning(), Fault::LastToken))
    }

    /// Its first character.
    #[must_use]
    pub fn beginning(&self) -> Place {
        Place::File { file: self.file.clone(), line: 1, column: 1 }
    }

    /// The keys outside of handlers and tokens that another config has otherwise, as `table.key`.
    #[must_use]
    pub fn fixed_keys_unlike(&self, other: &Self) -> Vec<String> {
        let is_fixed = |table: &str| !table.starts_with("handlers.") && !table.starts_with("tokens.");
        self.effective.differences(&other.effective, is_fixed)
    }

    /// The config as a TOML file that reads as the same config; the values of headers and the hashes of tokens are
    /// masked.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.effective.to_string()
    }
}

/// The masked TOML, so that no log shows a secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config {{ {} }}", self.effective)
    }
}

impl StoreConfig {
    fn read(mut section: Section<'_, '_>) -> Self {
        let folder = StorePath::Folder(PathBuf::from("data"));
        let config = Self {
            path: section.get("path", folder, &Text::new("the path of a folder, or \"memory\"")),
            hot_tasks: section.get("hot_tasks", 20_000, &Whole(1..=10_000_000)),
            hot_bytes: section.get("hot_bytes", 128 << 20, &Size(1 << 20..=1 << 40)),
            batch_max: section.get("batch_max", 1024, &Whole(1..=65_536)),
            queue_max: section.get("queue_max", 65_536, &Whole(1..=10_000_000)),
            recent_ids: section.get("recent_ids", 65_536, &Whole(1..=10_000_000)),
            events_kept: section.get("events_kept", EVENTS_KEPT, &Whole(1..=10_000_000)),
        };
        section.finish(|key| belongs_elsewhere("store", key));
        config
    }
}

impl LogConfig {
    fn read(mut section: Section<'_, '_>) -> Self {
        const FORMATS: [(&str, LogFormat); 3] =
            [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        const LEVELS: [(&str, LevelFilter); 6] = [
            ("off", LevelFilter::OFF),
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ];
        let config = Self {
            format: section.get("format", LogFormat::Auto, &Choice(&FORMATS)),
            level: section.get("level", LevelFilter::INFO, &Choice(&LEVELS)),
        };
        section.finish(|key| belongs_elsewhere("log", key));
        config
    }
}

/// What the tables of a file say.
struct Tables {
    server: ServerConfig,
    store: StoreConfig,
    retention: Retention,
    log: LogConfig,
    otlp: Option<OtlpConfig>,
    handlers: Vec<Handler>,
    tokens: Tokens,
}

fn read_tables(root: &mut Section<'_, '_>) -> Tables {
    let server = ServerConfig::read(root.section("server", true));
    let store = StoreConfig::read(root.section("store", true));
    let retention = retention::read(root.section("retention", true));
    let log = LogConfig::read(root.section("log", true));
    let otlp = telemetry::read(root.section("telemetry", true));
    let handlers = handlers::read(root.section("handlers", false));
    let tokens = tokens::read(root.section("tokens", false), &handlers);
    Tables { server, store, retention, log, otlp, handlers, tokens }
}

/// Every key that a config file can have, each with its table. The tables of handlers are called after their types,
/// `handlers.webhook` and `handlers.command`; inside of them are `.retry`, `.revoke`,
/// `.on_success` and `.on_failure`. The table of a token is `tokens.ci`.
#[must_use]
pub fn known_keys() -> BTreeSet<(String, &'static str)> {
    let handler = |kind| {
        let within = ["revoke", "on_success", "on_failure"].map(|part| format!("[handlers.{kind}.{part}]\n"));
        format!("[handlers.{kind}]\ntype = \"{kind}\"\n{}", within.concat())
    };
    let file =
        SourceFile { name: String::new(), text: handler("webhook") + &handler("command") + "[tokens.ci]\n" };
    let (environment, flags) = (Environment::default(), Flags::default());
    let Ok(document) = file.parse() else { return BTreeSet::new() };
    // What is missing in this file is reported to a reader that is thrown away; what it asked for is the answer.
    let mut reader = Reader::new(&file, &environment, &flags);
    let mut root = reader.root(document.get_ref());
    drop(read_tables(&mut root));
    reader.asked.into_iter().filter(|(table, _)| !table.is_empty()).collect()
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A key that is known in another table than the one where it stands.
fn belongs_elsewhere(table: &str, key: &str) -> Option<Fault> {
    let known = known_keys();
    let (home, _) = known.iter().find(|(home, name)| *name == key && !home.contains('.'))?;
    let hint = Hint::BelongsIn(home.clone());
    Some(Fault::UnknownKey { key: key.to_owned(), table: table.to_owned(), hint })
}

impl FromStr for StorePath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("it is empty"),
            "memory" => Ok(Self::Memory),
            text if text.contains('\0') => Err("it has a character that no path can have"),
            text => Ok(Self::Folder(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}
