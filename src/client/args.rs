//! What the verbs take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::exit::EXIT_CODES;
use crate::task::TaskId;

/// A verb that asks a running service.
#[derive(Debug, Clone, Subcommand)]
pub enum Ask {
    /// Launches a task, or says how it stands; with --batch many of them
    Launch(LaunchArgs),
    /// Says how tasks stand
    Status(IdsArgs),
    /// Lists the tasks that match, oldest change first
    List(ListArgs),
    /// Waits for the end of tasks
    Wait(WaitArgs),
    /// Launches failed tasks again with their stored input
    Retry(ActArgs),
    /// Stops working tasks
    Cancel(ActArgs),
    /// Undoes successes
    Revoke(ActArgs),
    /// Forgets failed tasks
    Forget(IdsArgs),
    /// Does one action to every task that matches
    Bulk(BulkArgs),
    /// Follows the changes of tasks as they happen
    Watch(WatchArgs),
}

impl Ask {
    /// Where the service is, and how to answer.
    pub(super) fn service(&self) -> &ServiceArgs {
        match self {
            Self::Launch(args) => &args.service,
            Self::Status(args) | Self::Forget(args) => &args.service,
            Self::List(args) => &args.service,
            Self::Wait(args) => &args.service,
            Self::Retry(args) | Self::Cancel(args) | Self::Revoke(args) => &args.service,
            Self::Bulk(args) => &args.service,
            Self::Watch(args) => &args.service,
        }
    }
}

/// Where the service is, and how to answer. The token is in the environment or in a file, never on the command line,
/// which every user of the machine can read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service", after_help = EXIT_CODES)]
#[expect(clippy::doc_markdown, reason = "these lines are the help text, which would show the backticks")]
pub struct ServiceArgs {
    /// Where the service is
    #[arg(long, value_name = "URL", env = "TASK_RECORDER_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// File with the bearer token; without it TASK_RECORDER_TOKEN holds the token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the certificates (PEM) of those who may vouch for an https service, instead of the public ones
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How long an answer may take besides what is waited for
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub answer_within: Duration,
    /// How to answer; a table where standard output is a terminal, else JSON, an object a line
    #[arg(long, value_name = "FORM")]
    pub output: Option<OutputForm>,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people
    Table,
    /// The answers of the service, an object a line
    Json,
    /// The bare ids, one a line
    Ids,
}

/// `launch`.
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// The id, which names the work
    #[arg(required_unless_present = "batch")]
    pub id: Option<TaskId>,
    /// Launches every line of this file (- is standard input): {"id","handler"?,"input"?}
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["id", "input", "content_type", "wait", "idempotency_key"]
    )]
    pub batch: Option<PathBuf>,
    /// The handler; without it the default one
    #[arg(long)]
    pub handler: Option<String>,
    /// The input: a file, - for standard input, or @ and the text itself
    #[arg(long, value_name = "FILE|-|@TEXT")]
    pub input: Option<String>,
    /// The media type of the input
    #[arg(long, value_name = "TYPE", requires = "input")]
    pub content_type: Option<String>,
    /// Waits so long for the end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Names the request: the same key launches no second run of the id
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Verbs that take ids alone.
#[derive(Debug, Clone, Args)]
pub struct IdsArgs {
    /// The ids
    #[arg(required = true)]
    pub ids: Vec<TaskId>,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Verbs that can wait for what they begin.
#[derive(Debug, Clone, Args)]
pub struct ActArgs {
    /// The ids
    #[arg(required = true)]
    pub ids: Vec<TaskId>,
    /// Waits so long for the end of each
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// `wait`.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// The ids
    #[arg(required = true)]
    pub ids: Vec<TaskId>,
    /// How long at most for all of them; without it for ever
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Which tasks are meant; each narrows it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which tasks")]
pub struct FilterArgs {
    /// In this state: working, success or failed; may be given several times for a list
    #[arg(long)]
    pub state: Vec<String>,
    /// Of this handler
    #[arg(long)]
    pub handler: Option<String>,
    /// With an id that begins so
    #[arg(long)]
    pub prefix: Option<String>,
    /// Failed for this reason, such as refused or timeout
    #[arg(long, value_name = "KIND")]
    pub error_kind: Option<String>,
    /// Failed, and in doubt or not
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub in_doubt: Option<bool>,
    /// In its state since this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// In its state since before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// `list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Which tasks
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Newest change first
    #[arg(long)]
    pub newest_first: bool,
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u64>,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// `bulk`.
#[derive(Debug, Clone, Args)]
pub struct BulkArgs {
    /// What is done to each task
    pub action: BulkAction,
    /// The number of the operation to follow
    #[arg(required_if_eq("action", "follow"))]
    pub op: Option<u64>,
    /// Which tasks
    #[command(flatten)]
    pub filter: FilterArgs,
    /// At most so many, the oldest ones
    #[arg(long, value_name = "NUMBER")]
    pub max: Option<u64>,
    /// Only counts what matches
    #[arg(long)]
    pub dry_run: bool,
    /// Does not wait for the end; `bulk follow` does that later
    #[arg(long, conflicts_with = "dry_run")]
    pub detach: bool,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// What `bulk` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BulkAction {
    /// Launches failed tasks again
    Retry,
    /// Stops working tasks
    Cancel,
    /// Undoes successes
    Revoke,
    /// Forgets failed tasks
    Forget,
    /// Follows an operation that was begun before
    Follow,
}

/// `watch`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Changes to this state alone; may be given several times
    #[arg(long)]
    pub state: Vec<String>,
    /// Tasks of this handler alone
    #[arg(long)]
    pub handler: Option<String>,
    /// This task alone; may be given several times
    #[arg(long)]
    pub id: Vec<TaskId>,
    /// Goes on behind this number instead of with what happens from now
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,
    /// Where the service is, and how to answer
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// A time such as `30s`, `5m` or `30`, which are seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let spelled = || text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    seconds.or_else(spelled).ok_or_else(|| "it is no time such as 30s or 5m".to_owned())
}
