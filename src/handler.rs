//! Handlers: what the config says a launch does. A name leads to a webhook or a command.
//!
//! A handler is given one task and one attempt and answers with an [`Outcome`]; it knows no store and no recorder.

pub mod command;
pub mod template;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::task::{HandlerName, Outcome, Policy, Purpose, Task};

pub use command::Command;
pub use webhook::Webhook;

/// Something that a task can be launched with.
#[derive(Debug)]
pub struct Handler {
    /// The name that callers give.
    pub name: HandlerName,
    /// Whether a launch without a name means this one.
    pub is_default: bool,
    /// The largest input, in bytes; a larger one is refused before anything is recorded.
    pub input_bytes_max: usize,
    /// What it does.
    pub action: Action,
    /// What undoes a success of it; none where nothing has to be done.
    pub revoke: Option<Action>,
    /// How its runs are treated.
    pub policy: Policy,
    /// Who is told when a run has succeeded.
    pub on_success: Option<Arc<Webhook>>,
    /// Who is told when a run has failed.
    pub on_failure: Option<Arc<Webhook>>,
}

/// What stands in place of what may be a secret.
pub(crate) const MASK: &str = "***";

/// What a handler does.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are a few of them, each behind the `Arc` of its handler"
)]
pub enum Action {
    /// Calls a URL.
    Webhook(Webhook),
    /// Runs a program.
    Command(Command),
}

impl Handler {
    /// Runs one attempt to its end and says what it came to. It never fails to answer: its own time limit is part of
    /// the action. Once `ending` is canceled it ends soon: the request at once, the command's process group by TERM, then
    /// KILL. Where it is canceled already, nothing is sent or started. Dropping the future ends the request, or kills the process group.
    pub async fn run(&self, task: &Task, attempt: u32, ending: &CancellationToken) -> Outcome {
        self.action.run(task, attempt, Purpose::Launch, ending).await
    }
}

impl Handler {
    /// Undoes a success, as [`Handler::run`] makes one. Without an action there is nothing to do.
    pub async fn undo(&self, task: &Task, attempt: u32, ending: &CancellationToken) -> Outcome {
        match &self.revoke {
            Some(action) => action.run(task, attempt, Purpose::Revoke, ending).await,
            None => Outcome::success(),
        }
    }
}

impl Action {
    /// How long it may take to end once it is told to, but for what a system takes that is stuck.
    #[must_use]
    pub fn ending(&self) -> Duration {
        match self {
            Self::Webhook(_) => Duration::ZERO,
            Self::Command(command) => command.settings().kill_after,
        }
    }

    async fn run(&self, task: &Task, attempt: u32, purpose: Purpose, ending: &CancellationToken) -> Outcome {
        match self {
            Self::Webhook(webhook) => webhook.run(task, attempt, purpose, ending).await,
            Self::Command(command) => command.run(task, attempt, purpose, ending).await,
        }
    }
}

/// Every configured handler, by name.
#[derive(Debug, Default)]
pub struct Handlers {
    by_name: BTreeMap<HandlerName, Arc<Handler>>,
    default: Option<Arc<Handler>>,
}

impl Handlers {
    /// The handlers of a config; at most one of them is the default (the config makes sure).
    #[must_use]
    pub fn new(handlers: impl IntoIterator<Item = Arc<Handler>>) -> Self {
        let mut all = Self::default();
        for handler in handlers {
            if handler.is_default {
                all.default = Some(Arc::clone(&handler));
            }
            all.by_name.insert(handler.name.clone(), handler);
        }
        all
    }

    /// The handler of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Handler>> {
        self.by_name.get(name)
    }

    /// The handler for a launch that names none.
    #[must_use]
    pub fn default_handler(&self) -> Option<&Arc<Handler>> {
        self.default.as_ref()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Handler>> {
        self.by_name.values()
    }
}
