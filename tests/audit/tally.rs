//! What was done and seen, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::history::{Answer, How, Noted, Operation, Tiding};
use crate::nemesis::{Nemesis, Point};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lives: u64,
    pub(crate) rounds: u64,
    pub(crate) requests: u64,
    pub(crate) unknown: u64,
    /// Those of them whose client did not wait for an answer.
    pub(crate) hung_up: u64,
    pub(crate) calls: u64,
    pub(crate) crashes: u64,
    pub(crate) power_losses: u64,
    /// Those of them that kept some sectors of what was not synced.
    pub(crate) torn: u64,
    pub(crate) sectors_lost: u64,
    /// Of the disk of our own; writes and syncs that it refused.
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    pub(crate) refused: u64,
    pub(crate) nemeses: BTreeMap<Nemesis, usize>,
    /// How often the service refused writes because of it.
    pub(crate) refusing: BTreeMap<Nemesis, usize>,
    pub(crate) points: BTreeMap<Option<Point>, usize>,
    pub(crate) ids: usize,
    pub(crate) judged: usize,
    pub(crate) unjudged: usize,
    pub(crate) entries_due: usize,
    pub(crate) conditional: usize,
    pub(crate) commands: usize,
    pub(crate) bulks: usize,
    pub(crate) pauses: usize,
    pub(crate) in_groups: usize,
    pub(crate) recorded: usize,
    pub(crate) streams: usize,
    pub(crate) events: usize,
    pub(crate) gaps: usize,
    pub(crate) index_runs: u64,
    pub(crate) checking: Duration,
    pub(crate) violations: usize,
}

impl Tally {
    pub(crate) fn note(&mut self, noted: &Noted) {
        let is_glimpse = |operation: &&Operation| matches!(operation.answer, Answer::Glimpsed { .. });
        let is_conditional = |operation: &&Operation| operation.how != How::default();
        self.conditional += noted.operations.iter().filter(is_conditional).count();
        self.in_groups += noted.operations.iter().filter(is_glimpse).count();
        self.bulks += noted.bulks.len();
        self.pauses += noted.pauses.len();
        self.recorded += noted.recorded.len();
        self.streams += noted.streams.len();
        let told = noted.streams.iter().flat_map(|stream| &stream.told);
        self.gaps += told.filter(|told| matches!(told.what, Tiding::Gap { .. })).count();
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lives, rounds, requests, unknown, hung_up, calls, crashes, .. } = self;
        write!(
            to,
            "{rounds} rounds in {lives} data folders: {requests} requests ({unknown} of unknown outcome, {hung_up} of these let go of), "
        )?;
        write!(
            to,
            "{calls} calls, {crashes} crashes, {} power losses ({} torn, ",
            self.power_losses, self.torn
        )?;
        writeln!(to, "{} sectors and names lost)", self.sectors_lost)?;
        if self.writes > 0 {
            let Self { writes, syncs, refused, .. } = self;
            writeln!(to, "  our disk: {writes} writes, {syncs} syncs, {refused} of them refused")?;
        }
        write!(to, "  nemeses:")?;
        for (nemesis, times) in &self.nemeses {
            write!(to, " {nemesis:?} {times}")?;
        }
        for (nemesis, times) in &self.refusing {
            write!(to, ", writes refused by {nemesis:?} {times}")?;
        }
        if self.points.keys().any(Option::is_some) {
            write!(to, "\n  killed at:")?;
            for (point, times) in &self.points {
                if let Some(point) = point {
                    write!(to, " {point:?} {times}")?;
                }
            }
        }
        let Self { conditional, in_groups, recorded, streams, events, gaps, index_runs, .. } = self;
        write!(
            to,
            "\n  {conditional} launches with conditions, {in_groups} answers in batches and lookups, "
        )?;
        write!(to, "{recorded} whole records, {events} events and {gaps} gaps told to {streams} readers, ")?;
        write!(to, "{index_runs} runs of the index of ids, ")?;
        let Self { commands, bulks, pauses, .. } = self;
        write!(to, "{commands} of the calls were commands, {bulks} bulk operations, {pauses} pauses")?;
        write!(to, "\n  {} ids checked, {} of them by the oracle too ", self.ids, self.judged)?;
        write!(
            to,
            "({} have histories too long for it), {} entries of lists, ",
            self.unjudged, self.entries_due
        )?;
        write!(to, "in {:.1?}: {} violations", self.checking, self.violations)
    }
}
