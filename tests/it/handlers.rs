//! Handlers, run through [`Handler::run`] against real sockets and real processes.

mod command;
mod egress;
mod pool;
mod signature;
mod tls;
mod webhook;

use task_recorder::handler::{Action, Handler};
use task_recorder::task::{ErrorKind, Failure, Outcome, Policy};

pub(super) fn handler(action: Action) -> Handler {
    Handler {
        name: "h".parse().unwrap(),
        is_default: false,
        input_bytes_max: 1024 * 1024,
        action,
        revoke: None,
        on_success: None,
        on_failure: None,
        policy: Policy::default(),
    }
}

/// Checks kind and doubt of a failure, and that its message holds this.
#[track_caller]
pub(super) fn assert_failed(outcome: &Outcome, kind: ErrorKind, in_doubt: bool, says: &str) {
    match &outcome.result {
        Err(Failure { kind: found, in_doubt: doubt, message }) => {
            assert_eq!((*found, *doubt), (kind, in_doubt), "{message}");
            assert!(message.contains(says), "{message:?} does not say {says:?}");
        }
        Ok(()) => panic!("a success: {outcome:?}"),
    }
}

/// The kept output as text.
fn output(outcome: &Outcome) -> String {
    let bytes = outcome.output.as_ref().map(|output| output.bytes.to_vec()).unwrap_or_default();
    String::from_utf8(bytes).unwrap()
}
