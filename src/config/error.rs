//! What can be wrong with a config, and where.
//!
//! Decide on [`Fault`] and [`Place`]; the texts are for people.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Everything that is wrong with a config, in the order of the file, then environment and flags; never empty.
#[derive(Debug)]
pub struct ConfigError {
    /// One for each thing to put right.
    pub problems: Vec<Problem>,
}

/// One thing to put right.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub fault: Fault,
}

/// A mistake that is not ours to refuse: what it is, and what becomes of it.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; {so}")]
pub struct Warning {
    /// What it is.
    pub problem: Problem,
    /// What the service does about it.
    pub so: &'static str,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a config file.
    File {
        /// The file as the user named it.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, counted in characters.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
    /// In a flag of the command line, with its dashes.
    Flag(&'static str),
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The config file is not there.
    #[error("the config file `{}` does not exist; without one the built-in config is used", path.display())]
    NoFile {
        /// As the user named it.
        path: PathBuf,
    },
    /// The config file is a folder.
    #[error("`{}` is a folder; name a TOML file", path.display())]
    IsFolder {
        /// As the user named it.
        path: PathBuf,
    },
    /// The config file cannot be read for another reason.
    #[error("the config file `{}` cannot be read: {cause}", path.display())]
    Unreadable {
        /// As the user named it.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The config file is a pipe, or something else that cannot be read again.
    #[error(
        "the config file `{}` is no regular file (a pipe, a device), so that it cannot be read again; start the service \
         with a regular file",
        path.display()
    )]
    NotRegular {
        /// As the user named it.
        path: PathBuf,
    },
    /// A reload of a file that says nothing.
    #[error(
        "the config file `{file}` is empty, or has only comments, as while it is being written; a reload takes that for \
         no config: where no handlers are wanted, say [handlers]"
    )]
    Empty {
        /// As the user named it.
        file: String,
    },
    /// A reload that has come to no end.
    #[error("the config was not read again: {why}")]
    NotRead {
        /// What it has met.
        why: String,
    },
    /// The config file is longer than any config.
    #[error("the config file `{}` is larger than {max} bytes; is it the right file?", path.display())]
    TooLarge {
        /// As the user named it.
        path: PathBuf,
        /// The largest that is read, in bytes.
        max: u64,
    },
    /// A byte that is no UTF-8, in a file or a variable.
    #[error("this is not UTF-8; save it as UTF-8 text")]
    NotUtf8,
    /// The file is no TOML here.
    #[error("this is not valid TOML: {message}")]
    Syntax {
        /// What the parser said.
        message: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` {}; {hint}", within(table))]
    UnknownKey {
        /// As it was written.
        key: String,
        /// The table it stands in; empty for the top of the file.
        table: String,
        /// What was meant, perhaps.
        hint: Hint,
    },
    /// A key that only the other type of handler has.
    #[error(
        "`{key}` is a key of {other} handlers, and [{table}] is of type {this}; remove it or change `type`"
    )]
    OtherType {
        /// As it was written.
        key: String,
        /// The handler's table.
        table: String,
        /// The type it has.
        this: &'static str,
        /// The type that knows the key.
        other: &'static str,
    },
    /// A key that the handler has and its revoke action has not.
    #[error("`{key}` is a key of the handler, not of its revoke action; it belongs in [{home}]")]
    NotInRevoke {
        /// As it was written.
        key: String,
        /// The table it belongs in.
        home: String,
    },
    /// A variable with our prefix that means nothing.
    #[error("unknown variable; {hint}")]
    UnknownVariable {
        /// What was meant, perhaps.
        hint: Hint,
    },
    /// Two variables for one key.
    #[error("this and {other} say different things and mean the same key; set one of them")]
    SetTwice {
        /// The other variable.
        other: String,
    },
    /// A key that has no default.
    #[error("[{table}] has no `{key}`; give {expected}")]
    Missing {
        /// The key.
        key: &'static str,
        /// The table it belongs in.
        table: String,
        /// What it takes.
        expected: String,
    },
    /// A value of the wrong type, out of its range, or of the wrong form.
    #[error("`{key}` is {found}; give {expected}{}", reason(why.as_deref()))]
    BadValue {
        /// The key, with an index or a name for a value inside a list or a table.
        key: String,
        /// What was given; only its type where it may be a secret.
        found: String,
        /// What would be right.
        expected: String,
        /// What exactly is wrong, where the rest does not say it.
        why: Option<String>,
    },
    /// A header that cannot be configured.
    #[error("`{key}` {why}")]
    Header {
        /// The key and the header's name as they were written.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A handler name that is not allowed.
    #[error("`{name}` is no name for a handler: {why}")]
    HandlerName {
        /// As it was written.
        name: String,
        /// Which rule it breaks.
        why: crate::task::InvalidName,
    },
    /// A token name that is not allowed.
    #[error("`{name}` is no name for a token: {why}")]
    TokenName {
        /// As it was written.
        name: String,
        /// Which rule it breaks.
        why: crate::task::InvalidName,
    },
    /// A token is limited to a handler that is not there.
    #[error("no handler is called `{name}`; {hint}")]
    NoHandler {
        /// As it was written.
        name: String,
        /// What was meant, perhaps.
        hint: Hint,
    },
    /// Other machines could do everything.
    #[error(
        "the service would listen on {listen}, where others than this machine reach it, and has no tokens; add a token \
         (`task-recorder token new --name NAME --scopes read,launch` prints one), or say server.allow_anonymous = true \
         (TASK_RECORDER_SERVER_ALLOW_ANONYMOUS=true) where everybody who reaches it may do everything"
    )]
    OpenToAll {
        /// The address.
        listen: std::net::SocketAddr,
    },
    /// A reload would let everybody in.
    #[error(
        "this would take away the last token, and let everybody in who reaches the service; leave a token here, or \
         restart the service without one (with server.allow_anonymous = true where others than this machine reach it)"
    )]
    LastToken,
    /// Two tokens would be opened by one secret.
    #[error(
        "[tokens.{second}] has a secret of [tokens.{first}], at {first_place}; give each token secrets of its own \
         (`task-recorder token new` prints one)"
    )]
    SameSecret {
        /// The token that comes first.
        first: String,
        /// Where it has its secrets.
        first_place: Place,
        /// The token that comes later, where the problem is reported.
        second: String,
    },
    /// More than one handler is the default.
    #[error("`{second}` is marked default, and so is `{first}` at {first_place}; mark one of them")]
    TwoDefaults {
        /// The handler that comes first.
        first: String,
        /// Where it says so.
        first_place: Place,
        /// The handler that comes later, where the problem is reported.
        second: String,
    },
}

/// Help for a name that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// One that looks much like it.
    Nearest(String),
    /// It is known, in this table.
    BelongsIn(String),
    /// All that are known.
    Known(Vec<String>),
}

impl ConfigError {
    pub(crate) fn one(place: Place, fault: Fault) -> Self {
        Self { problems: vec![Problem { place, fault }] }
    }
}

impl Hint {
    /// The nearest of the known names, or all of them where none is near.
    pub(super) fn of(name: &str, known: Vec<String>) -> Self {
        const NEAR: f64 = 0.55;
        let score = |other: &str| strsim::normalized_damerau_levenshtein(name, other);
        let nearest = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
        match nearest {
            Some(nearest) if score(nearest) >= NEAR => Self::Nearest(nearest.clone()),
            _ => Self::Known(known),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nearest(name) => write!(f, "did you mean `{name}`?"),
            Self::BelongsIn(table) => write!(f, "it belongs in [{table}]"),
            Self::Known(names) if names.is_empty() => f.write_str("there are none"),
            Self::Known(names) => write!(f, "known are {}", names.join(", ")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One line a problem.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

fn within(table: &str) -> String {
    if table.is_empty() { "at the top of the file".to_owned() } else { format!("in [{table}]") }
}

fn reason(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}
