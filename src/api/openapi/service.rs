//! The operations on what is more than one task: bulk operations, events, handlers, the service itself.

use schemars::JsonSchema;

use super::operation::{Operation, events as event_stream, json, text};
use super::parameters as p;
use crate::api::action::PausedView;
use crate::api::admin::Reloaded;
use crate::api::bulk::{BulkView, ListView, MatchedView, Wanted};
use crate::api::events::GapView;
use crate::api::problem::ProblemType::{
    self, BodyTimeout, BodyTooLarge, Draining, InvalidBody, InvalidConfig, MissingFilter, NotAcceptable,
    NotReady, NotRunning, OutOfReach, StoreUnavailable, TooManyBodies, TooManyOperations, UnknownHandler,
    UnknownOperation,
};
use crate::api::service::{HandlersView, Live, Ready, StatsView, Version};
use crate::api::view::EventView;

pub(super) const BULK: &str = "Bulk operations";
pub(super) const SERVICE: &str = "The service";

const BULK_EXAMPLE: &str = r#"{"op":7,"action":"retry","filter":{"state":"failed","handler":"charge"},"state":"running","matched":120,"done":56,"skipped":1,"failed":0,"failures":[],"started":"2026-01-31T09:00:00.000000Z","ended":null}"#;

fn operation(id: &'static str, summary: &'static str, about: &'static str) -> Operation {
    Operation::new(SERVICE, id, summary, about)
}

fn bulk(id: &'static str, summary: &'static str, about: &'static str) -> Operation {
    Operation::new(BULK, id, summary, about)
}

pub(in crate::api) fn begin_bulk() -> Operation {
    bulk(
        "begin_bulk",
        "Act on every task that a filter finds",
        "Retries or forgets failed tasks, cancels working ones, or revokes successes, in the background. What matches is \
         fixed when it begins; each task is looked at again when it is its turn.",
    )
    .body(
        true,
        "The action, and which tasks it is for; a filter only of the `state` means all of them.",
        json::<Wanted>(
            r#"{"action":"retry","filter":{"handler":"charge","error_kind":"refused"},"dry_run":false,"max":1000}"#,
        ),
    )
    .answer(
        200,
        "How many tasks it would be for (`dry_run`).",
        &[],
        [json::<MatchedView>(r#"{"matched":120}"#)],
    )
    .answer(202, "It has begun.", &[p::LOCATION_OF_BULK], [json::<BulkView<'_>>(BULK_EXAMPLE)])
    .problems(&[
        InvalidBody,
        MissingFilter,
        OutOfReach,
        BodyTimeout,
        TooManyBodies,
        BodyTooLarge,
        TooManyOperations,
        Draining,
        StoreUnavailable,
    ])
}

pub(in crate::api) fn list_bulk() -> Operation {
    bulk("list_bulk", "All bulk operations", "Those that are remembered.").answer(
        200,
        "Newest first: those that run and the last 100, without their failures.",
        &[],
        [json::<ListView<'_>>(
            r#"{"operations":[{"op":7,"action":"retry","filter":{"state":"failed","handler":"charge"},"state":"done","matched":120,"done":119,"skipped":1,"failed":0,"started":"2026-01-31T09:00:00.000000Z","ended":"2026-01-31T09:00:02.000000Z"}]}"#,
        )],
    )
}

pub(in crate::api) fn view_bulk() -> Operation {
    bulk("view_bulk", "A bulk operation", "How far it is.")
        .takes(&[p::OP])
        .answer(
            200,
            "How it stands, with id and reason of the first 100 failures.",
            &[],
            [json::<BulkView<'_>>(BULK_EXAMPLE)],
        )
        .problems(&[OutOfReach, UnknownOperation])
}

pub(in crate::api) fn cancel_bulk() -> Operation {
    bulk("cancel_bulk", "Stop a bulk operation", "What it has done stands.")
        .takes(&[p::OP])
        .answer(202, "It takes no further tasks in hand.", &[], [json::<BulkView<'_>>(BULK_EXAMPLE)])
        .problems(&[OutOfReach, UnknownOperation, NotRunning, StoreUnavailable])
}

pub(in crate::api) fn events() -> Operation {
    operation(
        "events",
        "Every change as it happens",
        "Server-sent events of the changes of tasks, in the order in which they were recorded, from now or from behind an \
         event on.",
    )
    .takes(&[p::OF_HANDLER, p::EVENT_STATE, p::EVENT_ID, p::AFTER, p::LAST_EVENT_ID])
    .answer(
        200,
        "A stream without an end. The event is the state; `gap` says with `from` and `to` what is not kept any more.",
        &[p::NO_STORE, p::NO_BUFFER],
        [event_stream::<EventData<'_>>(
            ": events\nid: 41\n\nid: 43\nevent: success\ndata: {\"id\":\"order-42\",\"state\":\"success\",\"handler\":\"charge\",\"run\":1,\"revision\":2,\"since\":\"2026-01-31T09:00:00.004000Z\"}\n\n",
        )],
    )
    .problems(&[OutOfReach])
}

/// What an event says.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "EventData")]
#[expect(dead_code, reason = "it tells a shape, and is never made")]
enum EventData<'a> {
    Change(EventView<'a>),
    Gap(GapView),
}

pub(in crate::api) fn stats() -> Operation {
    operation(
        "stats",
        "Figures",
        "How many tasks are in each state, and what else is counted. For tokens without limits.",
    )
    .answer(
        200,
        "The figures.",
        &[],
        [json::<StatsView<'_>>(
            r#"{"tasks":{"working":1,"success":40,"failed":2},"handlers":{"charge":{"working":1,"success":40,"failed":2}},"queued":0,"oldest_working":{"id":"order-43","state":"working","handler":"charge","phase":"running","run":1,"attempt":1,"since":"2026-01-31T09:00:00.000000Z"},"unsettled":0,"stale_outcomes":0,"panics":0,"notices":{"due":0,"told":12,"given_up":0},"store":{"commits":70,"changes":86}}"#,
        )],
    )
    .problems(&[OutOfReach])
}

pub(in crate::api) fn handlers() -> Operation {
    operation("handlers", "The handlers", "What can be launched.").answer(
        200,
        "The handlers, in the order of the config. The values of headers, and those in the queries of URLs, are masked; \
         the counts are for who may see them.",
        &[],
        [json::<HandlersView<'_>>(
            r#"{"handlers":[{"name":"charge","default":true,"type":"webhook","method":"POST","url":"https://pay.example/charges/{id}","headers":{"authorization":"***"},"timeout_seconds":30.0,"input_bytes_max":1048576,"paused":false,"running":1,"queued":0,"backing_off":0},{"name":"report","default":false,"type":"command","command":["make-report","--order","{id}"],"timeout_seconds":300.0,"input_bytes_max":1048576,"paused":false,"running":0,"queued":0,"backing_off":0}]}"#,
        )],
    )
}

const OF_PAUSE: &[ProblemType] = &[OutOfReach, UnknownHandler, StoreUnavailable];

pub(in crate::api) fn pause() -> Operation {
    operation("pause", "Pause a handler", "Starts nothing of it any more; launches are accepted and queued.")
        .takes(&[p::NAME])
        .answer(
            200,
            "Paused, also over a restart.",
            &[],
            [json::<PausedView<'_>>(r#"{"name":"charge","paused":true}"#)],
        )
        .problems(OF_PAUSE)
}

pub(in crate::api) fn resume() -> Operation {
    operation("resume", "Resume a handler", "Starts what is queued.")
        .takes(&[p::NAME])
        .answer(200, "Resumed.", &[], [json::<PausedView<'_>>(r#"{"name":"charge","paused":false}"#)])
        .problems(OF_PAUSE)
}

pub(in crate::api) fn reload() -> Operation {
    operation(
        "reload",
        "Read the config again",
        "Lets the handlers and tokens of the config file hold as it is now, all or nothing. For tokens without limits.",
    )
    .answer(
        200,
        "They hold now.",
        &[],
        [json::<Reloaded>(
            r#"{"handlers":["charge","report"],"tokens":["ci"],"needs_restart":["server.listen"]}"#,
        )],
    )
    .problems(&[OutOfReach, InvalidConfig, Draining, StoreUnavailable])
}

pub(in crate::api) fn metrics() -> Operation {
    operation("metrics", "Metrics", "What the service counts, for Prometheus. For tokens without limits.")
        .answer(
            200,
            "OpenMetrics where `Accept` names it, else the text format of Prometheus.",
            &[p::VARY],
            [
                text(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    "# HELP task_recorder_launches Launches and retries, by what they came to.\n# TYPE task_recorder_launches counter\ntask_recorder_launches_total{result=\"started\"} 42\n# EOF\n",
                ),
                text(
                    "text/plain; version=0.0.4; charset=utf-8",
                    "# HELP task_recorder_launches_total Launches and retries, by what they came to.\n# TYPE task_recorder_launches_total counter\ntask_recorder_launches_total{result=\"started\"} 42\n",
                ),
            ],
        )
        .problems(&[OutOfReach, NotAcceptable, NotReady])
}

pub(in crate::api) fn livez() -> Operation {
    operation("livez", "Whether the process answers", "").answer(
        200,
        "It answers.",
        &[],
        [json::<Live>(r#"{"live":true}"#)],
    )
}

pub(in crate::api) fn readyz() -> Operation {
    operation("readyz", "Whether the service takes launches", "")
        .answer(200, "It takes launches.", &[], [json::<Ready>(r#"{"ready":true}"#)])
        .problems(&[NotReady])
}

pub(in crate::api) fn version() -> Operation {
    let example = concat!(r#"{"name":"task-recorder","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    operation("version", "Which version runs", "").answer(
        200,
        "The version.",
        &[],
        [json::<Version>(example)],
    )
}

pub(in crate::api) fn openapi() -> Operation {
    operation("openapi", "This document", "").answer(
        200,
        "OpenAPI 3.1.",
        &[],
        [json::<serde_json::Map<String, serde_json::Value>>(r#"{"openapi":"3.1.0"}"#)],
    )
}

pub(in crate::api) fn docs() -> Operation {
    operation("docs", "This document, for people", "").answer(
        200,
        "A page that loads nothing.",
        &[p::OWN_ASSETS_ONLY, p::NOSNIFF],
        [text("text/html; charset=utf-8", "<!doctype html>…")],
    )
}
