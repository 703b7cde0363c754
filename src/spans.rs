//! Spans: what is told of runs and calls to whoever exports them. Those who tell know nothing of where they go.
//!
//! Invariant: telling a span never waits and never fails; where there is no room it is dropped, and counted
//! (tests/it/spans.rs).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::task::{Code, Failure, HandlerName, Purpose, Task, TaskId, Trace};

/// What happened between two moments, as a part of somebody's trace. It holds nothing that a handler was given or gave
/// back, and no message.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its own place in the trace.
    pub place: Trace,
    /// Below which span it is.
    pub parent: Trace,
    /// What it was done for.
    pub task: TaskId,
    /// The handler of the task.
    pub handler: HandlerName,
    /// The number of the run.
    pub run: u32,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Why it failed, without the message; none for a success.
    pub failure: Option<Failure>,
    /// What it was.
    pub kind: SpanKind,
}

/// What a span is about.
#[derive(Debug, Clone, Copy)]
pub enum SpanKind {
    /// A whole run, from its launch to its outcome.
    Run {
        /// How many attempts it had.
        attempts: u32,
        /// How long it waited for the first of them, if that is still known.
        queued: Option<Duration>,
    },
    /// One call of the handler.
    Call {
        /// What for.
        purpose: Purpose,
        /// Its number, from 1.
        attempt: u32,
        /// With what it ended.
        code: Option<Code>,
        /// Of a notice: whether it is one of a failure.
        is_of_failure: bool,
    },
}

/// Takes spans in, as many as there is room for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<Span>,
    /// Traces are told of whose ids, without the upper half and the last bit, are lower than this.
    ids_below: u64,
    tally: Arc<SpanTally>,
}

/// What became of spans, since the start.
#[derive(Debug, Default)]
pub struct SpanTally {
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Lost.
    pub dropped: AtomicU64,
}

impl Spans {
    /// Room for so many, for this part of the traces (from 0 to 1) that the callers record, and where they come out.
    #[must_use]
    pub fn new(queue_max: usize, ratio: f64) -> (Self, mpsc::Receiver<Span>) {
        let (queue, told) = mpsc::channel(queue_max.max(1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float stays within what there is, and a share may be a little off"
        )]
        let ids_below = (ratio * 2.0_f64.powi(63)) as u64;
        (Self { queue, ids_below, tally: Arc::default() }, told)
    }

    /// Whether spans of this trace are told: where the caller records it, and its id is among the chosen part. All
    /// spans of a trace are, or none.
    #[must_use]
    pub fn wants(&self, trace: Trace) -> bool {
        let id = trace.id_bytes();
        let is_chosen = |low: &[u8; 8]| u64::from_be_bytes(*low) >> 1 < self.ids_below;
        trace.is_sampled() && id.last_chunk().is_some_and(is_chosen)
    }

    /// Takes a span in, or drops it.
    pub fn tell(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of them.
    #[must_use]
    pub fn tally(&self) -> &Arc<SpanTally> {
        &self.tally
    }
}

impl Span {
    /// A part of the run of this task; none where nobody traces it.
    #[must_use]
    pub fn of(task: &Task, place: Option<Trace>, parent: Option<Trace>, kind: SpanKind) -> Option<Self> {
        Some(Self {
            place: place?,
            parent: parent?,
            task: task.id.clone(),
            handler: task.handler.clone(),
            run: task.run,
            started: task.since,
            ended: task.since,
            failure: None,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: &str, flags: &str) -> Trace {
        format!("00-{id}-00f067aa0ba902b7-{flags}").parse().unwrap()
    }

    #[test]
    fn the_caller_decides_and_a_ratio_takes_its_part_of_that() {
        let (low, high) = ("ffffffffffffffff0fffffffffffffff", "0000000000000000f000000000000000");
        for (ratio, wanted) in [(1.0, [true, true]), (0.5, [true, false]), (0.0, [false, false])] {
            let (spans, _told) = Spans::new(1, ratio);
            assert_eq!([low, high].map(|id| spans.wants(trace(id, "01"))), wanted, "{ratio}");
            assert_eq!([low, high].map(|id| spans.wants(trace(id, "02"))), [false, false]);
        }
        let (all, _told) = Spans::new(1, 1.0);
        assert!(all.wants(trace(&"f".repeat(32), "01")));
    }
}
