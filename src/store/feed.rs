//! The changes of a store as they happen: the last ones are kept, so that who was away for a moment can go on.
//!
//! Invariant: what is in here is durable, and events are in the order of their sequence numbers. Between two readings
//! of a [`Feed`] nothing is missing that is not told as a [`Gap`] (tests/it/events.rs).

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::table::Move;
use crate::sync::RwLock;
use crate::task::{ErrorKind, HandlerName, Phase, State, StateName, Task, TaskId, Undo};

/// How many changes a store keeps unless it is told otherwise.
pub const EVENTS_KEPT: usize = 10_000;

/// A change that callers can see, without what may be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The store's sequence number of the change. Numbers grow, also over restarts of a durable store; not every
    /// number is an event.
    pub seq: u64,
    /// Whose.
    pub id: TaskId,
    /// The handler of the task.
    pub handler: HandlerName,
    /// The state that it is in now.
    pub state: StateName,
    /// What it is doing, if it is working.
    pub phase: Option<Phase>,
    /// Whether it is a success that is being undone.
    pub is_revoking: bool,
    /// Its run.
    pub run: u32,
    /// The number of its present or next attempt, if it is working.
    pub attempt: Option<u32>,
    /// Its revision.
    pub revision: u64,
    /// When it entered its state.
    pub since: Timestamp,
    /// Why it failed; of a success, why it could not be undone. The kind, and whether it is in doubt.
    pub failure: Option<(ErrorKind, bool)>,
}

/// A reader of the changes of a store. Holds nothing back: who reads too slowly is told of a gap.
#[derive(Debug, Clone)]
pub struct Feed {
    ring: Arc<Ring>,
    head: watch::Receiver<Head>,
}

/// Some events in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// What comes before them and is not kept any more.
    pub gap: Option<Gap>,
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// From where to read on: behind the last event, or behind all there is.
    pub read_to: u64,
}

/// Events that are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first sequence number that is missing; 0 where the reader has a number that the store has never reached,
    /// because it comes from another store or from before the store forgot everything.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

/// Where a store writes its changes to.
#[derive(Debug)]
pub(super) struct Feeder {
    ring: Arc<Ring>,
    head: watch::Sender<Head>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// The number of the last change that can be read.
    seq: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Ring {
    kept: usize,
    events: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// No event up to this number is here.
    forgotten: u64,
    /// The number of the last change, event or not.
    seq: u64,
}

impl Event {
    fn of(task: &Task, seq: u64) -> Self {
        let failure = match &task.state {
            State::Failed { failure, .. } | State::Success { undo: Some(Undo::Failed(failure)), .. } => {
                Some((failure.kind, failure.in_doubt))
            }
            State::Working { .. } | State::Success { .. } | State::Absent => None,
        };
        Self {
            seq,
            id: task.id.clone(),
            handler: task.handler.clone(),
            state: task.state_name(),
            phase: task.phase(),
            is_revoking: task.is_revoking(),
            run: task.run,
            attempt: task.attempt(),
            revision: task.revision,
            since: task.since,
            failure,
        }
    }
}

impl Feed {
    /// The number of the last change; reading on from here gives what happens from now.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.ring.read(|kept| kept.seq)
    }

    /// At most `max` events behind this number.
    #[must_use]
    pub fn after(&self, seq: u64, max: usize) -> Batch {
        self.ring.read(|kept| {
            let gap = if seq > kept.seq {
                Some(Gap { from: 0, to: kept.forgotten })
            } else if seq < kept.forgotten {
                Some(Gap { from: seq + 1, to: kept.forgotten })
            } else {
                None
            };
            let seq = gap.map_or(seq, |gap| gap.to);
            let begin = kept.events.partition_point(|event| event.seq <= seq);
            let events: Vec<_> = kept.events.range(begin..).take(max).cloned().collect();
            let is_all = begin + events.len() == kept.events.len();
            let last = events.last().map_or(seq, |event| event.seq);
            Batch { gap, read_to: if is_all { kept.seq } else { last }, events }
        })
    }

    /// Returns as soon as there was a change behind this number, event or not; `false` when there never will be one,
    /// because the store is closed.
    pub async fn beyond(&mut self, seq: u64) -> bool {
        // An error means that the store is gone.
        let head = self.head.wait_for(|head| head.seq > seq || head.is_closed).await;
        head.is_ok_and(|head| head.seq > seq)
    }
}

impl Feeder {
    /// Keeps the last `kept` events, at least one.
    pub(super) fn new(kept: usize) -> Self {
        let ring = Ring { kept: kept.max(1), events: RwLock::default() };
        Self { ring: Arc::new(ring), head: watch::Sender::new(Head::default()) }
    }

    pub(super) fn reader(&self) -> Feed {
        Feed { ring: Arc::clone(&self.ring), head: self.head.subscribe() }
    }

    /// Begins behind this change.
    pub(super) fn start_from(&self, seq: u64) {
        self.ring.write(|kept| (kept.forgotten, kept.seq) = (seq, seq));
        self.head.send_modify(|head| head.seq = seq);
    }

    /// Takes changes in; `first` is the number of the first one. Nobody is told before [`Feeder::tell`].
    pub(super) fn take(&self, moves: &[Move], first: u64) {
        self.ring.write(|kept| {
            for (Move { previous, next }, seq) in moves.iter().zip(first..) {
                kept.seq = seq;
                // A change that makes no revision is one of our own books; callers do not see it. A drop of details
                // is no transition, and there may be millions of them.
                let is_untold = |previous: &Arc<Task>| {
                    previous.revision == next.revision || next.details_dropped && !previous.details_dropped
                };
                if previous.as_ref().is_some_and(is_untold) {
                    continue;
                }
                if kept.events.len() == self.ring.kept
                    && let Some(oldest) = kept.events.pop_front()
                {
                    kept.forgotten = oldest.seq;
                }
                kept.events.push_back(Event::of(next, seq));
            }
        });
    }

    /// Wakes who waits.
    pub(super) fn tell(&self) {
        let seq = self.ring.read(|kept| kept.seq);
        self.head.send_modify(|head| head.seq = head.seq.max(seq));
    }

    /// Tells everybody that nothing comes any more.
    pub(super) fn close(&self) {
        self.head.send_modify(|head| head.is_closed = true);
    }
}

impl Ring {
    fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&self.events.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Kept) -> T) -> T {
        write(&mut self.events.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::samples::working;

    #[test]
    fn a_reader_waits_for_what_is_behind_its_number_and_for_nothing_else() {
        let feeder = Feeder::new(9);
        feeder.start_from(5);
        let mut feed = feeder.reader();
        assert_eq!(feed.beyond(4).now_or_never(), Some(true));
        for seq in [5, 6] {
            assert_eq!(feed.beyond(seq).now_or_never(), None, "behind {seq}");
        }
        feeder.take(&[Move { previous: None, next: working("a", 6, 0) }], 6);
        assert_eq!(feed.beyond(5).now_or_never(), None, "nobody is told yet");
        feeder.tell();
        assert_eq!(feed.beyond(5).now_or_never(), Some(true));
        assert_eq!(feed.beyond(6).now_or_never(), None);
        feeder.close();
        assert_eq!((feed.beyond(5).now_or_never(), feed.beyond(6).now_or_never()), (Some(true), Some(false)));
    }

    #[test]
    fn a_gap_begins_behind_what_was_read() {
        let feeder = Feeder::new(1);
        feeder.start_from(5);
        let moves = [6, 7, 8].map(|seq| Move { previous: None, next: working(&format!("t-{seq}"), seq, 0) });
        feeder.take(&moves, 6);
        let feed = feeder.reader();
        let after = |seq| {
            let Batch { gap, events, read_to } = feed.after(seq, 9);
            let gap = gap.map(|gap| (gap.from, gap.to));
            (gap, events.iter().map(|event| event.seq).collect::<Vec<_>>(), read_to)
        };
        assert_eq!(after(2), (Some((3, 7)), vec![8], 8));
        assert_eq!(after(6), (Some((7, 7)), vec![8], 8));
        assert_eq!(after(7), (None, vec![8], 8));
        assert_eq!(after(8), (None, vec![], 8));
        assert_eq!(after(9), (Some((0, 7)), vec![8], 8), "of another store");
        // A change without a revision of its own is no event, but it was read all the same.
        let [.., Move { next: last, .. }] = moves;
        feeder.take(&[Move { previous: Some(Arc::clone(&last)), next: last }], 9);
        assert_eq!(after(7), (None, vec![8], 9));
        assert_eq!(after(8), (None, vec![], 9));
    }
}
