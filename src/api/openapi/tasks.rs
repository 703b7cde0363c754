//! The operations on tasks.

use schemars::JsonSchema;

use super::operation::{Header, Operation, Parameter, bytes, json, lines, text};
use super::parameters as p;
use crate::api::action::AbsentView;
use crate::api::batch::{AnswerLine, LaunchLine};
use crate::api::launch::{GoneView, LaunchView};
use crate::api::list::PageView;
use crate::api::lookup::{self, FoundView};
use crate::api::problem::ProblemType::{
    BodyTimeout, BodyTooLarge, Conflict, DetailsDropped, Draining, Duplicate, HandlerMismatch,
    HandlerRequired, InputDropped, InputMismatch, InputTooLarge, InvalidBody, InvalidContentType,
    InvalidCursor, InvalidId, NoResult, NotAcceptable, NotFailed, NotFound, NotSuccess, NotWorking,
    OutOfReach, PreconditionFailed, QueueFull, Revoking, StoreUnavailable, TooManyBodies, UnknownHandler,
    UnsupportedMediaType,
};
use crate::api::view::{ListedView, RecordView, StatusView};

pub(super) const GROUP: &str = "Tasks";

const OF_TASK: &[Header] = &[p::ETAG, p::PREFERENCE_APPLIED];
const OF_LAUNCH: &[Header] = &[p::LOCATION, p::ETAG, p::PREFERENCE_APPLIED];
const WAITING: &[Parameter] = &[p::ID, p::WAIT, p::PREFER];
const LAUNCHED: &str = r#"{"id":"order-42","state":"working","handler":"charge","phase":"running","run":1,"attempt":1,"since":"2026-01-31T09:00:00.000000Z","launched":true}"#;

fn operation(id: &'static str, summary: &'static str, about: &'static str) -> Operation {
    Operation::new(GROUP, id, summary, about)
}

pub(in crate::api) fn launch() -> Operation {
    operation(
        "launch",
        "Launch",
        "Launches the handler under the id, or says how the id stands. Of many launches of one id at the same moment one \
         starts. An id that has succeeded never runs again, one that has failed may.",
    )
    .takes(&[
        p::ID,
        p::HANDLER,
        p::WAIT,
        p::PREFER,
        p::ON_DUPLICATE,
        p::IDEMPOTENCY_KEY,
        p::IF_MATCH,
        p::IF_NONE_MATCH,
        p::TRACEPARENT,
    ])
    .body(
        false,
        "The input, of any type, up to the `input_max` of the handler, which gets it unchanged.",
        bytes("two apples"),
    )
    .answer(
        200,
        "Not launched, because the id is working, has succeeded, or this request has launched it before; or launched, \
         waited for, and ended. Where the record was forgotten or revoked during the wait, the state is `not_found`.",
        OF_LAUNCH,
        [json::<LaunchedView<'_>>(
            r#"{"id":"order-42","state":"success","handler":"charge","run":1,"since":"2026-01-31T09:00:00.004000Z","launched":false,"reason":"success"}"#,
        )],
    )
    .answer(202, "Launched; the run goes on by itself.", OF_LAUNCH, [json::<LaunchView<'_>>(LAUNCHED)])
    .problems(&[
        InvalidContentType,
        HandlerRequired,
        UnknownHandler,
        BodyTimeout,
        TooManyBodies,
        Duplicate,
        HandlerMismatch,
        InputMismatch,
        Revoking,
        PreconditionFailed,
        InputTooLarge,
        QueueFull,
        Draining,
    ])
}

/// The same; HTTP libraries repeat a PUT and not a POST.
pub(in crate::api) fn launch_by_put() -> Operation {
    launch().named("launch_by_put", "Launch, as by POST")
}

pub(in crate::api) fn status() -> Operation {
    operation("status", "The status of a task", "How the task stands now, or once it is not working.")
        .takes(WAITING)
        .answer(
            200,
            "The status.",
            OF_TASK,
            [json::<StatusView<'_>>(
                r#"{"id":"order-42","state":"failed","handler":"charge","run":1,"since":"2026-01-31T09:00:00.004000Z","error":{"kind":"status","message":"the receiver answered 410"},"in_doubt":false}"#,
            )],
        )
        .problems(&[NotFound])
}

pub(in crate::api) fn record() -> Operation {
    operation(
        "record",
        "The whole record of a task",
        "The status, and the size and digest of the input, the last 20 attempts, the size of the result.",
    )
    .takes(WAITING)
    .answer(
        200,
        "The record.",
        OF_TASK,
        [json::<RecordView<'_>>(
            r#"{"id":"order-42","state":"success","handler":"charge","run":1,"since":"2026-01-31T09:00:00.004000Z","revision":2,"revoked":0,"input":{"media_type":"text/plain","size":10,"sha256":"c2f1a1cc6f1a4d1ff4e03fb0f4a2a1b5e5a5f6f8ce3b8a7a2f1b7d7a6a4f3b21"},"attempts":[{"run":1,"attempt":1,"started":"2026-01-31T09:00:00.001000Z","ended":"2026-01-31T09:00:00.003000Z","outcome":"success","http_status":200}],"details_dropped":false,"result":{"media_type":"application/json","size":12,"truncated":false}}"#,
        )],
    )
    .problems(&[NotFound])
}

pub(in crate::api) fn result() -> Operation {
    operation(
        "result",
        "The result of a task",
        "What the handler gave back, with the media type that it declared: the body of the webhook's answer, or the output \
         of the command.",
    )
    .takes(WAITING)
    .answer(
        200,
        "The bytes, as the handler gave them.",
        &[p::TASK_STATE, p::TASK_RESULT_TRUNCATED, p::ETAG, p::PREFERENCE_APPLIED, p::NOSNIFF, p::SANDBOX],
        [bytes("two apples")],
    )
    .problems(&[NotFound, NoResult, DetailsDropped])
}

pub(in crate::api) fn list() -> Operation {
    operation(
        "list",
        "A list of tasks",
        "A page as JSON, or every match as a stream. A page may hold fewer tasks than the limit while `next` is not null: \
         go on until it is null.",
    )
    .takes(&[
        p::STATE,
        p::OF_HANDLER,
        p::PREFIX,
        p::ERROR_KIND,
        p::IN_DOUBT,
        p::SINCE,
        p::UNTIL,
        p::ORDER,
        p::LIMIT,
        p::CURSOR,
    ])
    .answer(
        200,
        "A page, or a stream, as `Accept` asks for.",
        &[p::LINK],
        [
            json::<PageView<'_>>(
                r#"{"tasks":[{"id":"order-42","state":"failed","handler":"charge","run":1,"since":"2026-01-31T09:00:00.004000Z","error":{"kind":"refused","message":"nobody accepts connections there"},"in_doubt":false}],"next":"a2f"}"#,
            ),
            lines::<ListedView<'_>>(
                "{\"id\":\"order-42\",\"state\":\"success\",\"handler\":\"charge\",\"run\":1,\"since\":\"2026-01-31T09:00:00.004000Z\"}\n",
            ),
            text("text/plain; charset=utf-8", "order-42\norder-43\n"),
        ],
    )
    .problems(&[InvalidCursor, OutOfReach, UnknownHandler, NotAcceptable, StoreUnavailable])
}

pub(in crate::api) fn launch_batch() -> Operation {
    operation(
        "launch_batch",
        "Launch many",
        "A launch a line; each is answered by a line, in the same order, with the `status` of the single call and the fields \
         of its answer, or with a problem and the number of the `line`. It streams both ways: read the answers while you send.",
    )
    .takes(&[p::HANDLER, p::TRACEPARENT])
    .body(
        true,
        "A JSON object a line. The JSON text of `input`, of any kind, is the input.",
        lines::<LaunchLine<'_>>(
            "{\"id\":\"order-42\",\"input\":{\"amount\":5}}\n{\"id\":\"order-43\",\"handler\":\"report\"}\n",
        ),
    )
    .answer(
        200,
        "An answer a line: as of the single call, or a problem, `malformed-line` among others.",
        &[],
        [lines::<AnswerLine<'_>>(
            "{\"status\":202,\"id\":\"order-42\",\"state\":\"working\",\"handler\":\"charge\",\"phase\":\"running\",\"run\":1,\"attempt\":1,\"since\":\"2026-01-31T09:00:00.000000Z\",\"launched\":true}\n{\"line\":2,\"type\":\"/problems/unknown-handler\",\"title\":\"The handler is unknown\",\"status\":404,\"detail\":\"No handler is named \\\"report\\\"; configured are: charge.\",\"id\":\"order-43\"}\n",
        )],
    )
    .problems(&[OutOfReach, UnknownHandler, UnsupportedMediaType])
}

pub(in crate::api) fn lookup() -> Operation {
    operation("lookup", "The status of many", "How up to 1000 ids stand, in the same order.")
        .body(true, "The ids.", json::<lookup::Wanted>(r#"{"ids":["order-42","order-43"]}"#))
        .answer(
            200,
            "The status of each.",
            &[],
            [json::<FoundView<'_>>(
                r#"{"tasks":[{"id":"order-42","state":"success","handler":"charge","run":1,"since":"2026-01-31T09:00:00.004000Z"},{"id":"order-43","state":"not_found"}]}"#,
            )],
        )
        .problems(&[InvalidId, InvalidBody, OutOfReach, BodyTimeout, BodyTooLarge, TooManyBodies, StoreUnavailable])
}

pub(in crate::api) fn retry() -> Operation {
    operation(
        "retry",
        "Launch a failed task again",
        "Launches a failed task again with its stored handler and input.",
    )
    .takes(&[p::ID, p::WAIT, p::PREFER, p::TRACEPARENT])
    .answer(
        200,
        "Launched, waited for, and ended. Where the record was forgotten or revoked during the wait, the state is \
         `not_found`.",
        OF_LAUNCH,
        [json::<LaunchedView<'_>>(
            r#"{"id":"order-42","state":"success","handler":"charge","run":2,"since":"2026-01-31T09:00:00.004000Z","launched":true}"#,
        )],
    )
    .answer(202, "Launched; the run goes on by itself.", OF_LAUNCH, [json::<LaunchView<'_>>(LAUNCHED)])
    .problems(&[NotFound, UnknownHandler, Revoking, NotFailed, InputDropped, Conflict, QueueFull, Draining])
}

/// A launch that may have been waited for; the task may be gone by then.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Launched")]
#[expect(dead_code, reason = "it tells a shape, and is never made")]
enum LaunchedView<'a> {
    Known(LaunchView<'a>),
    Gone(GoneView<'a>),
}

/// A task after a move; it may be gone by then.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Moved")]
#[expect(dead_code, reason = "it tells a shape, and is never made")]
enum MovedView<'a> {
    Known(StatusView<'a>),
    Gone(AbsentView<'a>),
}

pub(in crate::api) fn cancel() -> Operation {
    operation(
        "cancel",
        "Stop a working task",
        "A task that waits is failed at once; one with an attempt under way is `canceling` until that has ended. Then it is \
         failed, `canceled`, and may be launched again.",
    )
    .takes(WAITING)
    .answer(
        200,
        "Waited for, and at rest.",
        OF_TASK,
        [json::<MovedView<'_>>(
            r#"{"id":"order-42","state":"failed","handler":"charge","run":1,"since":"2026-01-31T09:00:00.004000Z","error":{"kind":"canceled","message":"a caller canceled the run"},"in_doubt":true}"#,
        )],
    )
    .answer(
        202,
        "It is being canceled, or is canceled.",
        OF_TASK,
        [json::<StatusView<'_>>(
            r#"{"id":"order-42","state":"working","handler":"charge","phase":"canceling","run":1,"attempt":1,"since":"2026-01-31T09:00:00.000000Z"}"#,
        )],
    )
    .problems(&[NotFound, NotWorking, Conflict])
}

pub(in crate::api) fn revoke() -> Operation {
    operation(
        "revoke",
        "Undo a success",
        "With a revoke action of the handler the task is `revoking` until that has ended, then not found; where the action \
         fails, the success stands with a `revoke_error`. Without an action it is not found at once.",
    )
    .takes(WAITING)
    .answer(
        200,
        "Undone: the id is free. Or waited for, and it stands with a `revoke_error`.",
        OF_TASK,
        [json::<MovedView<'_>>(r#"{"id":"order-42","state":"not_found"}"#)],
    )
    .answer(
        202,
        "The action is under way.",
        OF_TASK,
        [json::<StatusView<'_>>(
            r#"{"id":"order-42","state":"success","handler":"charge","phase":"revoking","run":1,"since":"2026-01-31T09:00:00.004000Z"}"#,
        )],
    )
    .problems(&[NotFound, Revoking, NotSuccess, Conflict])
}

pub(in crate::api) fn forget() -> Operation {
    operation(
        "forget",
        "Forget a failed task",
        "Drops the record of a failed task. The id is free, as it was.",
    )
    .takes(&[p::ID])
    .answer(204, "Forgotten.", &[], [])
    .problems(&[NotFound, NotFailed, Revoking, Conflict])
}
