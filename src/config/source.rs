//! Where settings come from: the file, the environment, the flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use toml::Spanned;
use toml::de::DeTable;

use super::error::{ConfigError, Fault, Place, Problem};

/// What every environment variable of the service begins with.
pub const VARIABLE_PREFIX: &str = "TASK_RECORDER_";
/// The variable that names the config file, when no flag does.
pub(super) const FILE_VARIABLE: &str = "TASK_RECORDER_CONFIG";
/// The variables that the verbs which ask a service read; the config passes them over.
pub const CLIENT_VARIABLES: [&str; 2] = ["TASK_RECORDER_URL", "TASK_RECORDER_TOKEN"];
const FILE_FLAG: &str = "--config";
/// The largest config file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

const BUILT_IN: &str = include_str!("../../config/task-recorder.toml");
const BUILT_IN_NAME: &str = "built-in config";

/// Flags that set a key of the config, or name its file. Each wins over environment and file.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these lines are the help text, which would show the backticks")]
pub struct Flags {
    /// Config file (TOML); without one the built-in config is used [env: TASK_RECORDER_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on, such as 127.0.0.1:8080 [env: TASK_RECORDER_LISTEN]
    #[arg(long, global = true, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Folder of the store, or "memory" to forget everything at exit [env: TASK_RECORDER_STORE]
    #[arg(long, global = true, value_name = "PATH")]
    pub store: Option<String>,
}

/// The short names that a key has besides its long variable: table, key, variable, flag.
const SHORT_NAMES: [(&str, &str, &str, &str); 2] = [
    ("server", "listen", "TASK_RECORDER_LISTEN", "--listen"),
    ("store", "path", "TASK_RECORDER_STORE", "--store"),
];

/// The short variable of a key, if it has one.
pub(super) fn short_variable(table: &str, key: &str) -> Option<&'static str> {
    SHORT_NAMES.iter().find(|(t, k, ..)| (*t, *k) == (table, key)).map(|(.., variable, _)| *variable)
}

impl Flags {
    /// The flag for a key and its value, if it was given.
    pub(super) fn get(&self, table: &str, key: &str) -> Option<(&'static str, &str)> {
        let (.., flag) = SHORT_NAMES.iter().find(|(t, k, ..)| (*t, *k) == (table, key))?;
        let value = match *flag {
            "--listen" => self.listen.as_deref(),
            _ => self.store.as_deref(),
        };
        value.map(|value| (*flag, value))
    }
}

/// The variables of the process.
#[derive(Default)]
pub(super) struct Environment {
    /// Those with our prefix.
    variables: BTreeMap<String, String>,
    /// Those that the config may name.
    others: BTreeMap<String, String>,
}

impl Environment {
    /// Tells our variables from the others; one of ours that is no UTF-8 is a problem.
    pub(super) fn pick(all: impl IntoIterator<Item = (OsString, OsString)>) -> (Self, Vec<Problem>) {
        let (mut variables, mut others, mut problems) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (name, value) in all {
            let name = name.to_string_lossy().into_owned();
            if CLIENT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            if !name.starts_with(VARIABLE_PREFIX) {
                others.extend(value.into_string().ok().map(|value| (name, value)));
                continue;
            }
            match value.into_string() {
                Ok(value) if is_service_link(&name, &value) => {}
                Ok(value) => {
                    variables.insert(name, value);
                }
                Err(_) => problems.push(Problem { place: Place::Variable(name), fault: Fault::NotUtf8 }),
            }
        }
        (Self { variables, others }, problems)
    }

    pub(super) fn get(&self, name: &str) -> Option<(&str, &str)> {
        self.variables.get_key_value(name).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of any variable, ours or not.
    pub(super) fn any(&self, name: &str) -> Option<&str> {
        self.variables.get(name).or_else(|| self.others.get(name)).map(String::as_str)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }
}

/// Kubernetes gives every pod variables about the services beside it. Where a service is called `task-recorder`, they
/// begin with our prefix: `TASK_RECORDER_SERVICE_HOST=10.0.0.7`, `TASK_RECORDER_PORT_80_TCP=tcp://10.0.0.7:80`.
fn is_service_link(name: &str, value: &str) -> bool {
    // Keeps one `_` before the first word, so that `SERVICE_HOST` and `METRICS_SERVICE_HOST` look alike.
    let name = name.get(VARIABLE_PREFIX.len() - 1..).unwrap_or_default();
    let has_protocol = ["_TCP_", "_UDP_", "_SCTP_"].iter().any(|protocol| name.contains(protocol));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && (value.contains("://") || has_protocol))
}

/// For whom the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// For one that begins with it; it may come through a pipe.
    First,
    /// For a service that runs with it already: what has come through a pipe does not come again.
    Again,
}

/// The text of the config and what to call it.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) name: String,
    pub(super) text: String,
}

impl SourceFile {
    /// Reads the file that the flag names, else the one that the variable names, else takes the built-in config.
    pub(super) fn find(
        flags: &Flags,
        environment: &Environment,
        reading: Reading,
    ) -> Result<Self, ConfigError> {
        if let Some(path) = &flags.config {
            return Self::read(path, &Place::Flag(FILE_FLAG), reading);
        }
        match environment.get(FILE_VARIABLE) {
            Some((name, path)) => Self::read(Path::new(path), &Place::Variable(name.to_owned()), reading),
            None => Ok(Self { name: BUILT_IN_NAME.to_owned(), text: BUILT_IN.to_owned() }),
        }
    }

    fn read(path: &Path, named_by: &Place, reading: Reading) -> Result<Self, ConfigError> {
        let fail = |fault| ConfigError::one(named_by.clone(), fault);
        let path_buf = path.to_owned();
        let bytes = match reading {
            Reading::First => File::open(path).and_then(|file| at_most(file, FILE_BYTES_MAX + 1)).map(Some),
            Reading::Again => read_regular(path, FILE_BYTES_MAX + 1),
        };
        let bytes = match bytes {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(fail(Fault::NotRegular { path: path_buf })),
            Err(cause) => {
                return Err(fail(match cause.kind() {
                    ErrorKind::NotFound => Fault::NoFile { path: path_buf },
                    ErrorKind::IsADirectory => Fault::IsFolder { path: path_buf },
                    _ => Fault::Unreadable { path: path_buf, cause },
                }));
            }
        };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(fail(Fault::TooLarge { path: path_buf, max: FILE_BYTES_MAX }));
        }
        let name = path.display().to_string();
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let text =
                    String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default()).into_owned();
                Err(ConfigError::one(Self { name, text }.place(good), Fault::NotUtf8))
            }
        }
    }

    /// The whole file as TOML, or each place where it is none.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        let (table, mut errors) = DeTable::parse_recoverable(&self.text);
        // It finds some only when it has been through the whole.
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        let mut problems: Vec<Problem> = Vec::new();
        for error in errors {
            let place = self.place(error.span().map_or(0, |span| span.start));
            // One mistake makes the parser stumble again further on in its line.
            if problems.last().is_some_and(|last| line_of(&last.place) == line_of(&place)) {
                continue;
            }
            problems.push(Problem { place, fault: Fault::Syntax { message: error.message().to_owned() } });
        }
        if problems.is_empty() { Ok(table) } else { Err(ConfigError { problems }) }
    }

    /// Whether it says nothing, perhaps in comments. Where it is no TOML, it says something.
    pub(super) fn is_empty(&self) -> bool {
        self.parse().is_ok_and(|table| table.get_ref().is_empty())
    }

    /// The line and column of a byte of the text.
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            file: self.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// The bytes of a regular file, at most so many of them; none where it is something else, such as a pipe, which is not
/// waited for.
pub(super) fn read_regular(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let open =
        |flags: OFlags| OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match open(OFlags::NONBLOCK) {
        // Only a regular file can have a lease; who holds it is asked to give it back.
        Err(error) if error.kind() == ErrorKind::WouldBlock => open(OFlags::empty())?,
        opened => opened?,
    };
    let kind = file.metadata()?.file_type();
    // To read a folder is an error that says so.
    if kind.is_file() || kind.is_dir() { at_most(file, max).map(Some) } else { Ok(None) }
}

fn at_most(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn line_of(place: &Place) -> Option<usize> {
    match place {
        Place::File { line, .. } => Some(*line),
        Place::Variable(_) | Place::Flag(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::is_service_link;

    #[test]
    fn links_to_a_kubernetes_service_are_told_from_settings() {
        for (name, value) in [
            ("TASK_RECORDER_SERVICE_HOST", "10.0.0.7"),
            ("TASK_RECORDER_SERVICE_PORT", "80"),
            ("TASK_RECORDER_SERVICE_PORT_HTTP", "80"),
            ("TASK_RECORDER_PORT", "tcp://10.0.0.7:80"),
            ("TASK_RECORDER_PORT_80_TCP", "tcp://10.0.0.7:80"),
            ("TASK_RECORDER_PORT_80_TCP_PROTO", "tcp"),
            ("TASK_RECORDER_PORT_80_TCP_ADDR", "10.0.0.7"),
            ("TASK_RECORDER_METRICS_SERVICE_HOST", "10.0.0.8"),
            ("TASK_RECORDER_METRICS_PORT_80_TCP_PORT", "80"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("TASK_RECORDER_PORT", "8080"),
            ("TASK_RECORDER_LISTEN", "tcp://127.0.0.1:80"),
            ("TASK_RECORDER_SERVER_LISTEN", "127.0.0.1:80"),
            ("TASK_RECORDER_SERVICE", "x"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }
}
