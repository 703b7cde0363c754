//! The verbs that ask a running service over HTTP, for people and for scripts.
//!
//! Answers go to standard output, everything else to standard error. Invariant: the exit code says what became of it
//! ([`Exit`]), and a reader that goes away early (`| head`) is no error.

mod answer;
pub mod args;
mod batch;
mod bulk;
mod link;
mod list;
mod output;
mod service;
mod sse;
mod tasks;
mod watch;

use std::io::{self, Write as _};

use self::args::Ask;
use self::output::Printer;
use self::service::Service;
use crate::exit::Exit;

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The service said so, or cannot be asked.
    #[error("{message}")]
    Told {
        /// The code that tells it from others.
        exit: Exit,
        /// For people.
        message: String,
        /// Whether the service was asked and its answer is not there: it may have done it all the same.
        is_open: bool,
    },
    /// Standard output does not take it.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told { exit, message: message.into(), is_open: false }
    }

    /// The service was asked, and what it answered is not known.
    fn unanswered(message: impl Into<String>) -> Self {
        Self::Told { exit: Exit::Unavailable, message: message.into(), is_open: true }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Told { exit, .. } => *exit,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
            Self::Output(_) => Exit::CannotWrite,
        }
    }

    /// Says it on standard error, unless it is nothing to tell of.
    fn tell(&self) {
        if self.exit() != Exit::Fine {
            say(self);
        }
    }
}

/// Does what a verb asks for, and says how it ended.
#[must_use]
pub fn run(ask: &Ask) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&error);
            return Exit::Unhealthy;
        }
    };
    let ended = runtime.block_on(answer(ask));
    // A name that is still being looked up is nobody's business any more.
    runtime.shutdown_background();
    ended.unwrap_or_else(|failure| {
        failure.tell();
        failure.exit()
    })
}

async fn answer(ask: &Ask) -> Result<Exit, Failure> {
    let options = ask.service();
    let service = Service::new(options)?;
    let mut printer = Printer::new(options.output);
    let ended = match ask {
        Ask::Launch(args) => match &args.batch {
            Some(file) => batch::launch(&service, args, file, &mut printer).await,
            None => tasks::launch(&service, args, &mut printer).await,
        },
        Ask::Status(args) => tasks::status(&service, args, &mut printer).await,
        Ask::List(args) => list::list(&service, args, &mut printer).await,
        Ask::Wait(args) => tasks::wait(&service, args, &mut printer).await,
        Ask::Retry(args) => tasks::act(&service, tasks::Action::Retry, args, &mut printer).await,
        Ask::Cancel(args) => tasks::act(&service, tasks::Action::Cancel, args, &mut printer).await,
        Ask::Revoke(args) => tasks::act(&service, tasks::Action::Revoke, args, &mut printer).await,
        Ask::Forget(args) => tasks::forget(&service, args, &mut printer).await,
        Ask::Bulk(args) => bulk::bulk(&service, args, &mut printer).await,
        Ask::Watch(args) => watch::watch(&service, args, &mut printer).await,
    };
    // What was answered is seen before it is told what went wrong then.
    let written = printer.flush();
    let exit = ended?;
    written?;
    Ok(exit)
}

/// A line on standard error; where that is closed, the exit code says it alone.
fn say(what: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}
