//! What the service counts, as OpenMetrics: read where it is counted, at the moment somebody asks.
//!
//! Nothing here is on the path of a launch but [`Requests`]. Labels come from closed sets: the handlers of the config,
//! the routes, words of the code.
//!
//! Invariant: how many series there are does not depend on how many ids there are (tests/it/metrics.rs).

mod families;
mod process;
mod requests;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Registry, Unit};

pub use self::requests::Requests;

use self::families::{Counted, Families, family};
use self::process::Process;
use crate::recorder::{LaneCounts, Recorder};
use crate::store::{Health, StateCounts};
use crate::task::HandlerName;

/// What every name begins with, but for those of the process, which are the same for all programs.
const PREFIX: &str = "task_recorder";

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

/// All metrics as they are now.
///
/// # Errors
/// Where the encoder fails, which it does not for a string.
pub fn text(recorder: &Recorder, requests: &Arc<Requests>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let service = OfService { recorder: recorder.clone(), requests: Arc::clone(requests) };
    registry.sub_registry_with_prefix(PREFIX).register_collector(Box::new(service));
    registry.register_collector(Box::new(OfProcess));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => text::older(&text),
    })
}

struct OfService {
    recorder: Recorder,
    requests: Arc<Requests>,
}

impl fmt::Debug for OfService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfService").finish_non_exhaustive()
    }
}

impl Collector for OfService {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        families.info(family("build", "The program that runs."), &version)?;
        self.launches(families)?;
        self.tasks(families)?;
        self.attempts(families)?;
        self.outcomes(families)?;
        self.store(families)?;
        self.http(families)
    }
}

impl OfService {
    fn launches(&self, families: &mut Families<'_>) -> fmt::Result {
        let launches = self.recorder.tally().launches();
        families.counters(
            family("launches", "Launches and retries, by what they came to."),
            launches.map(|(result, count)| ([("result", result.as_str())], count)),
        )?;
        families.gauge(
            family("draining", "Whether the service is stopping and takes no launches."),
            &u64::from(self.recorder.is_draining()),
        )
    }

    fn tasks(&self, families: &mut Families<'_>) -> fmt::Result {
        let (counts, lanes) = (self.recorder.counts(), self.recorder.lanes());
        let mut by_handler: BTreeMap<_, _> =
            lanes.iter().map(|(name, _)| (name.clone(), StateCounts::default())).collect();
        by_handler.extend(counts.by_handler);
        let tasks = by_handler.iter().flat_map(|(handler, counts)| {
            let StateCounts { working, success, failed } = *counts;
            [("working", working), ("success", success), ("failed", failed)]
                .map(|(state, count)| ([("handler", handler.as_str()), ("state", state)], count))
        });
        families.gauges(family("tasks", "Tasks, by handler and state."), tasks)?;
        let working = lanes.iter().flat_map(|(handler, lane)| {
            let LaneCounts { running, queued, backing_off, .. } = *lane;
            [("queued", queued), ("running", running), ("backing_off", backing_off)]
                .map(|(phase, count)| ([("handler", handler.as_str()), ("phase", phase)], count))
        });
        families.gauges(
            family("working_tasks", "Working tasks of the handlers that are configured, by phase."),
            working,
        )?;
        let age = |since: Option<Timestamp>| {
            since.map_or(0.0, |since| Timestamp::now().duration_since(since).as_secs_f64().max(0.0))
        };
        let of_handler = |name: &HandlerName| [("handler", name.as_str().to_owned())];
        families.gauges(
            family("queue_age", "Time since the launch of the oldest task that is queued; 0 where none is.")
                .in_unit(&Unit::Seconds),
            lanes.iter().map(|(name, lane)| (of_handler(name), age(lane.oldest_queued))),
        )?;
        families.gauges(
            family("handler_paused", "Whether the handler is paused."),
            lanes.iter().map(|(name, lane)| (of_handler(name), u64::from(lane.is_paused))),
        )?;
        families.gauge(
            family(
                "oldest_working",
                "Time since the launch of the task that works for longest; 0 if none does.",
            )
            .in_unit(&Unit::Seconds),
            &age(counts.oldest_working.map(|task| task.since)),
        )
    }

    fn attempts(&self, families: &mut Families<'_>) -> fmt::Result {
        let handlers = self.recorder.tally().handlers();
        families.gauge(
            family("runs_in_flight", "Runs with an attempt under way."),
            &self.recorder.figures().in_flight,
        )?;
        let outcomes = handlers.iter().flat_map(|(name, tally)| {
            tally
                .outcomes()
                .map(|(outcome, count)| ([("handler", name.as_str()), ("outcome", outcome)], count))
        });
        families.counters(
            family(
                "attempts",
                "Attempts of runs that have ended, by what they came to: success or a kind of error.",
            ),
            outcomes,
        )?;
        families.histograms(
            family("attempt_duration", "How long attempts of runs took.").in_unit(&Unit::Seconds),
            Counted::Microseconds,
            handlers.iter().map(|(name, tally)| ([("handler", name.as_str())], tally.durations())),
        )?;
        families.counters(
            family("runs_in_doubt", "Runs that failed and may have had an effect all the same."),
            handlers.iter().map(|(name, tally)| ([("handler", name.as_str())], tally.in_doubt())),
        )
    }

    fn outcomes(&self, families: &mut Families<'_>) -> fmt::Result {
        let figures = self.recorder.figures();
        families.counter(
            family("stale_outcomes", "Outcomes of runs that were over already; they changed nothing."),
            &figures.stale,
        )?;
        families.counter(family("panics", "Attempts whose handler panicked."), &figures.panics)?;
        families
            .gauge(family("unsettled_outcomes", "Outcomes that wait to be recorded."), &figures.unsettled)?;
        families.gauge(family("notices_due", "Notices that are still to be told."), &figures.notices_due)?;
        families.counters(
            family("notices", "Notices that have ended: told, or given up."),
            [
                ([("result", "told")], figures.notices_told),
                ([("result", "given_up")], figures.notices_given_up),
            ],
        )?;
        let (exported, dropped) = self.recorder.span_figures();
        families.counters(
            family("spans", "Spans that were told: exported to the collector, or dropped."),
            [([("result", "exported")], exported), ([("result", "dropped")], dropped)],
        )
    }

    fn store(&self, families: &mut Families<'_>) -> fmt::Result {
        let health = match &*self.recorder.health().borrow() {
            Health::Writable => "writable",
            Health::Unavailable(_) => "unavailable",
            Health::Dead(_) => "dead",
        };
        families.gauges(
            family(
                "store_health",
                "1 for how the store is: writable, unavailable (for now), dead (for good).",
            ),
            ["writable", "unavailable", "dead"].map(|one| ([("health", one)], u64::from(one == health))),
        )?;
        let Some(tally) = self.recorder.store_tally() else { return Ok(()) };
        families.histogram(
            family("store_commit_duration", "How long commits of changes took until they were on disk.")
                .in_unit(&Unit::Seconds),
            Counted::Microseconds,
            &tally.durations.observed(),
        )?;
        families.histogram(
            family("store_commit_changes", "How many changes were in a commit."),
            Counted::Things,
            &tally.changes.observed(),
        )
    }

    fn http(&self, families: &mut Families<'_>) -> fmt::Result {
        let requests = self.requests.routes().flat_map(|route| {
            route.classes().map(|(class, count)| {
                ([("method", route.method.as_str()), ("route", route.path), ("status", class)], count)
            })
        });
        families.counters(
            family("http_requests", "Answered requests, by route and class of status."),
            requests,
        )?;
        let durations = self
            .requests
            .routes()
            .map(|route| ([("method", route.method.as_str()), ("route", route.path)], route.durations()));
        families.histograms(
            family("http_request_duration", "Time from the head of a request to the head of its answer.")
                .in_unit(&Unit::Seconds),
            Counted::Microseconds,
            durations,
        )
    }
}

/// The metrics that every program has, under the names that all use.
#[derive(Debug)]
struct OfProcess;

impl Collector for OfProcess {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        let Some(process) = Process::now() else { return Ok(()) };
        families.counter(
            family("process_cpu", "Processor time that was used, by user and system.")
                .in_unit(&Unit::Seconds),
            &process.cpu_seconds,
        )?;
        families.gauge(
            family("process_resident_memory", "Memory in use.").in_unit(&Unit::Bytes),
            &process.resident_bytes,
        )?;
        families.gauge(family("process_open_fds", "Open files and sockets."), &process.open_fds)?;
        if let Some(max) = process.max_fds {
            families.gauge(family("process_max_fds", "How many may be open."), &max)?;
        }
        families.gauge(
            family("process_start_time", "When the process was started, in seconds since 1970.")
                .in_unit(&Unit::Seconds),
            &process.start_seconds,
        )
    }
}
