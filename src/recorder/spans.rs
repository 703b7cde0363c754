//! What the recorder tells of runs and calls as spans, where somebody exports them.
//!
//! Without that, or for a run that nobody traces, it costs a branch.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::{Inner, Recorder};
use crate::spans::{Span, SpanKind, Spans};
use crate::task::{Attempt, Code, Failure, Purpose, Task};

/// A call that is under way, of a run that is traced.
#[derive(Clone, Copy)]
pub(super) struct Begun(Timestamp);

impl Recorder {
    /// Tells of runs and calls from now on. To be called once, before [`Recorder::recover`]; later calls change nothing.
    pub fn tell_spans(&self, spans: Spans) {
        let _ = self.inner.spans.set(spans);
    }

    /// How many spans were exported and how many dropped, since the start.
    #[must_use]
    pub fn span_figures(&self) -> (u64, u64) {
        let tally = self.inner.spans.get().map(Spans::tally);
        tally.map_or((0, 0), |tally| {
            (tally.exported.load(Ordering::Relaxed), tally.dropped.load(Ordering::Relaxed))
        })
    }
}

impl Inner {
    /// Who is told of this task.
    fn spans_of(&self, task: &Task) -> Option<&Spans> {
        let spans = self.spans.get()?;
        task.trace.is_some_and(|trace| spans.wants(trace)).then_some(spans)
    }

    /// Tells of an attempt of a run. `task` is what the handler was given.
    pub(super) fn tell_attempt(&self, task: &Task, attempt: &Attempt) {
        let Some(spans) = self.spans_of(task) else { return };
        let Attempt { attempt: number, started, ended, code, ref failure, .. } = *attempt;
        let purpose = Purpose::Launch;
        let kind = SpanKind::Call { purpose, attempt: number, code, is_of_failure: false };
        let place = task.call_span(purpose, number);
        if let Some(span) = Span::of(task, place, task.run_span(), kind) {
            spans.tell(Span { started, ended, failure: failure.as_ref().map(without_message), ..span });
        }
    }

    /// Tells of a run that has ended. `launched` is the record while it was working, `settled` the one with the outcome.
    pub(super) fn tell_run(&self, launched: &Task, settled: &Task) {
        let Some(spans) = self.spans_of(launched) else { return };
        let of_run = || settled.attempts.iter().filter(|attempt| attempt.run == launched.run);
        let first = of_run().find(|attempt| attempt.attempt == 1);
        let queued = first.and_then(|first| first.started.duration_since(launched.since).try_into().ok());
        let attempts = of_run().next_back().map_or(0, |last| last.attempt);
        let kind = SpanKind::Run { attempts, queued };
        if let Some(span) = Span::of(launched, launched.run_span(), launched.trace, kind) {
            spans.tell(Span {
                ended: settled.since,
                failure: settled.failure().map(without_message),
                ..span
            });
        }
    }

    /// To be called before a revoke or a notice is tried.
    pub(super) fn begin_call(&self, task: &Task) -> Option<Begun> {
        self.spans_of(task).map(|_| Begun(Timestamp::now()))
    }

    /// Tells of a try of a revoke or a notice. They come after the run, and so beside it, below what has launched it.
    pub(super) fn tell_call(
        &self,
        begun: Option<Begun>,
        task: &Task,
        (purpose, attempt): (Purpose, u32),
        code: Option<Code>,
        result: &Result<(), Failure>,
    ) {
        let (Some(Begun(started)), Some(spans)) = (begun, self.spans.get()) else { return };
        let is_of_failure = task.failure().is_some();
        let kind = SpanKind::Call { purpose, attempt, code, is_of_failure };
        if let Some(span) = Span::of(task, task.call_span(purpose, attempt), task.trace, kind) {
            let failure = result.as_ref().err().map(without_message);
            spans.tell(Span { started, ended: Timestamp::now(), failure, ..span });
        }
    }
}

/// Messages may repeat what a handler said.
fn without_message(failure: &Failure) -> Failure {
    Failure { message: String::new(), ..*failure }
}
