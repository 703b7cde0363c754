//! What a handler is called for, and which span of its trace each call is.
//!
//! The span of a run and those of its attempts follow from the record alone, so that a process that takes a run over
//! names the same ones; nothing of them is stored.

use std::hash::Hasher as _;
use std::sync::LazyLock;

use siphasher::sip::SipHasher13;

use super::{Task, Trace};

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To do the work.
    Launch,
    /// To undo it.
    Revoke,
    /// To tell of an outcome.
    Notice,
}

/// Revokes and notices count their attempts from 1 in each process.
static PROCESS: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));

impl Task {
    /// The span of the run that is under way; none where nobody traces it.
    #[must_use]
    pub fn run_span(&self) -> Option<Trace> {
        self.span(0, 0, 0)
    }

    /// The span of one call, which the receiver is told; none where nobody traces it. For a launch the run has to be
    /// under way.
    #[must_use]
    pub fn call_span(&self, purpose: Purpose, attempt: u32) -> Option<Trace> {
        match purpose {
            Purpose::Launch => self.span(1, attempt, 0),
            Purpose::Revoke => self.span(2, attempt, *PROCESS ^ self.revision),
            Purpose::Notice => self.span(3, attempt, *PROCESS ^ self.revision),
        }
    }

    /// `since` keeps apart what two services do under one id for one caller; it stays the same within a state.
    fn span(&self, kind: u8, attempt: u32, more: u64) -> Option<Trace> {
        let trace = self.trace?;
        // Any key: it is only to be the same everywhere.
        let mut hasher = SipHasher13::new();
        hasher.write(&trace.id_bytes());
        hasher.write(&trace.span_bytes());
        hasher.write(&[kind]);
        hasher.write(&attempt.to_be_bytes());
        hasher.write(&self.run.to_be_bytes());
        hasher.write(&more.to_be_bytes());
        hasher.write(&self.since.as_microsecond().to_be_bytes());
        hasher.write(self.id.as_str().as_bytes());
        Some(trace.with_span(hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::task::{Input, Phase, State};

    fn task() -> Task {
        Task {
            id: "a".parse().unwrap(),
            handler: "h".parse().unwrap(),
            run: 1,
            revision: 3,
            revoked: 0,
            entered: 1,
            since: Timestamp::UNIX_EPOCH,
            state: State::Working { phase: Phase::Running, attempt: 1 },
            input: Input::empty(),
            attempts: Vec::new(),
            keys: Vec::new(),
            notice_due: false,
            details_dropped: false,
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
        }
    }

    #[test]
    fn each_run_and_each_call_is_another_span_of_the_same_trace() {
        let task = task();
        let parent = task.trace.unwrap();
        let later = Task { since: task.since + SignedDuration::from_micros(1), ..task.clone() };
        let of_other = Task { id: "b".parse().unwrap(), ..task.clone() };
        let next = Task { run: 2, ..task.clone() };
        let below = Task { trace: Some(parent.with_span(7)), ..task.clone() };
        let mut spans = BTreeSet::from([parent.span_bytes()]);
        for task in [&task, &later, &of_other, &next, &below] {
            let calls = [Purpose::Launch, Purpose::Revoke, Purpose::Notice]
                .map(|purpose| [1, 2].map(|attempt| task.call_span(purpose, attempt).unwrap()));
            for span in calls.into_iter().flatten().chain(task.run_span()) {
                assert_eq!(span.id(), parent.id());
                assert!(spans.insert(span.span_bytes()), "{span}");
            }
        }
        assert_eq!(spans.len(), 1 + 5 * 7);
        assert_eq!(Task { trace: None, ..task }.run_span(), None);
    }

    #[test]
    fn each_revoke_and_each_notice_of_a_process_is_another_span() {
        let mut spans = BTreeSet::new();
        for revision in 0..64 {
            let task = Task { revision, ..task() };
            for purpose in [Purpose::Revoke, Purpose::Notice] {
                assert!(spans.insert(task.call_span(purpose, 1).unwrap().span_bytes()), "{revision}");
            }
        }
    }

    #[test]
    fn those_of_a_run_stay_the_same_whoever_takes_it_over() {
        let task = task();
        // As a later process reads it, when more has happened to it.
        let state = State::Working { phase: Phase::Canceling, attempt: 1 };
        let now = Task { revision: 9, state, ..task.clone() };
        assert_eq!(now.run_span(), task.run_span());
        assert_eq!(now.call_span(Purpose::Launch, 1), task.call_span(Purpose::Launch, 1));
        assert_ne!(now.call_span(Purpose::Revoke, 1), task.call_span(Purpose::Revoke, 1));
        let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-d4be7b1bb23e29e5-01";
        assert_eq!(task.run_span().unwrap().to_string(), known, "also by another version");
    }
}
