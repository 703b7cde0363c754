//! What clients asked, what they were told, and when.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::workload::handler;

/// Nanoseconds since the history began. One clock for clients and receiver, because they are one process.
pub(crate) type Time = u64;
pub(crate) type Id = Arc<str>;

/// Everything that clients did in one life of a data folder.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    /// Of the machine, at the same moment or up to a hundredth of a second before.
    uptime: Duration,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) operations: Vec<Operation>,
    pub(crate) walks: Vec<Walk>,
    pub(crate) bare: Vec<Bare>,
    pub(crate) recorded: Vec<Recorded>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) bulks: Vec<Bulk>,
    pub(crate) pauses: Vec<Pause>,
    /// A service that may resume a handler late, because it has not answered.
    pub(crate) unsure: Option<String>,
    /// Answers that nobody should ever get.
    pub(crate) oddities: Vec<String>,
    pub(crate) crashes: Vec<Crash>,
}

/// The end of a process, and the start of the next one.
#[derive(Debug, Clone)]
pub(crate) struct Crash {
    /// When it was alive for certain.
    pub(crate) began: Time,
    /// When it was dead for certain, and no other one had begun.
    pub(crate) ended: Time,
    /// Whether the next one got as far as to serve: then it has settled what this one left.
    pub(crate) is_recovered: bool,
    pub(crate) what: String,
}

/// One request about one id.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: Id,
    pub(crate) ask: Ask,
    pub(crate) how: How,
    pub(crate) began: Time,
    /// [`Time::MAX`] where no answer came: it may still happen at any time.
    pub(crate) ended: Time,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Launch,
    /// A launch that is answered when the run is over: what it says is of a later moment than what it did.
    LaunchAndWait,
    Retry,
    Cancel,
    Revoke,
    Forget,
    Read,
}

/// On which conditions a launch is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// `Idempotency-Key`, one of a few that an id has.
    pub(crate) key: Option<u8>,
    /// `If-Match`: only at this revision.
    pub(crate) if_match: Option<u64>,
    /// `If-None-Match: *`: only an unknown id.
    pub(crate) if_unknown: bool,
    /// `on_duplicate=error`
    pub(crate) is_strict: bool,
}

/// What an answer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None came, or one that does not say whether it was done. Never taken for a failure.
    Unknown,
    /// How it stands. `own`: because of this request.
    Seen { own: bool, seen: Seen },
    /// The same without a revision (which is 0 in it), as batches and lookups tell it.
    Glimpsed { own: bool, seen: Seen },
    /// Not launched, because a request with this key has launched a run of it.
    Same(Seen),
    /// Not launched, because the condition does not hold; in which state it is, if it is known.
    Unmet(Option<Name>),
    /// It is not found. `own`: because of this request; or, of a launch that was waited for, after its own run.
    Absent { own: bool },
    /// Nothing was changed; in which state it is, where that is told.
    Refused(Option<Name>),
}

/// A record at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    pub(crate) run: u64,
    pub(crate) name: Name,
    pub(crate) phase: Option<Phase>,
    pub(crate) attempt: u64,
    pub(crate) since: String,
    /// The kind of a failure and whether it is in doubt.
    pub(crate) error: Option<(String, bool)>,
    pub(crate) has_revoke_error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    Working,
    Success,
    Failed,
    NotFound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Queued,
    Running,
    BackingOff,
    Canceling,
    Revoking,
}

/// Page after page of one list, until its end.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(crate) name: Name,
    pub(crate) began: Time,
    pub(crate) ended: Time,
    pub(crate) pages: usize,
    pub(crate) listed: Vec<Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) name: Name,
    pub(crate) run: u64,
    pub(crate) since: String,
}

/// A whole list of bare ids.
#[derive(Debug, Clone)]
pub(crate) struct Bare {
    pub(crate) name: Name,
    pub(crate) began: Time,
    pub(crate) ended: Time,
    pub(crate) ids: Vec<String>,
}

/// The whole record of an id, beyond what its status says.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) id: Id,
    pub(crate) began: Time,
    pub(crate) ended: Time,
    pub(crate) seen: Seen,
    pub(crate) attempts: Vec<Attempt>,
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) run: u64,
    pub(crate) number: u64,
    /// The kind of a failure and whether it is in doubt; none of a success.
    pub(crate) error: Option<(String, bool)>,
}

/// What a reader of `/events` was told, over as many connections as it took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// The only handler that it wants events of.
    pub(crate) handler: Option<&'static str>,
    /// The only state.
    pub(crate) state: Option<Name>,
    /// Where it began.
    pub(crate) after: u64,
    pub(crate) told: Vec<Told>,
    /// Whether it was read up to the end of everything.
    pub(crate) is_whole: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) at: Time,
    pub(crate) what: Tiding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tiding {
    Event {
        seq: u64,
        id: Id,
        seen: Seen,
    },
    Gap {
        from: u64,
        to: u64,
    },
    /// It has got so far without an event.
    Place(u64),
}

/// An operation on all tasks in a state whose ids begin so.
#[derive(Debug, Clone)]
pub(crate) struct Bulk {
    pub(crate) ask: Ask,
    pub(crate) prefix: String,
    pub(crate) began: Time,
    /// When it was told to have begun; [`Time::MAX`] where no answer came.
    pub(crate) answered: Time,
    pub(crate) op: Option<u64>,
    /// How it stood, in the order of the answers.
    pub(crate) stands: Vec<Stand>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) at: Time,
    pub(crate) is_over: bool,
    pub(crate) matched: u64,
    /// Done, skipped, failed.
    pub(crate) counts: [u64; 3],
}

/// A handler was to start nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) handler: &'static str,
    /// When it was told to be paused.
    pub(crate) known: Time,
    /// When somebody asked to resume it.
    pub(crate) until: Time,
}

impl History {
    pub(crate) fn new() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").ok().and_then(|text| parse_uptime(&text));
        Self { began: Instant::now(), uptime: uptime.expect("the uptime"), noted: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Time {
        u64::try_from(self.began.elapsed().as_nanos()).expect("less than five centuries")
    }

    /// When the machine was so many seconds up, or a little earlier: they are told in hundredths.
    pub(crate) fn at_uptime(&self, seconds: &str) -> Option<Time> {
        const TOLD_IN: Duration = Duration::from_millis(20);
        let at = parse_uptime(seconds)?.saturating_sub(self.uptime).saturating_sub(TOLD_IN);
        u64::try_from(at.as_nanos()).ok()
    }

    pub(crate) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to note what a reader of events is told.
    pub(crate) fn follow(&self, stream: Stream) -> usize {
        let mut noted = self.noted();
        noted.streams.push(stream);
        noted.streams.len() - 1
    }
}

impl Stream {
    /// Whether it asked for this.
    pub(crate) fn wants(&self, id: &str, seen: &Seen) -> bool {
        self.handler.is_none_or(|wanted| handler(id) == wanted)
            && self.state.is_none_or(|wanted| seen.name == wanted)
    }

    /// Behind which number it goes on.
    pub(crate) fn place(&self) -> u64 {
        self.told.last().map_or(self.after, |told| told.what.place())
    }
}

impl Tiding {
    pub(crate) fn place(&self) -> u64 {
        match self {
            Self::Event { seq: place, .. } | Self::Gap { to: place, .. } | Self::Place(place) => *place,
        }
    }
}

/// The first word of what the kernel says.
fn parse_uptime(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}
