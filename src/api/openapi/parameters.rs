//! The parameters that requests take, and the headers that answers have.

use super::operation::{Header, Parameter, Place};

const fn query(
    name: &'static str,
    about: &'static str,
    schema: &'static str,
    example: &'static str,
) -> Parameter {
    Parameter { name, place: Place::Query, about, schema, example }
}

const fn header(
    name: &'static str,
    about: &'static str,
    schema: &'static str,
    example: &'static str,
) -> Parameter {
    Parameter { name, place: Place::Header, about, schema, example }
}

const TASK_ID: &str = r##"{"$ref":"#/components/schemas/TaskId"}"##;
const HANDLER_NAME: &str = r##"{"$ref":"#/components/schemas/HandlerName"}"##;
const STRING: &str = r#"{"type":"string"}"#;
const TIME: &str = r#"{"type":"string","format":"date-time"}"#;

pub(super) const ID: Parameter = Parameter {
    name: "id",
    place: Place::Path,
    about: "The id of the task, as the caller has chosen it. It is decoded once; not `.` or `..`.",
    schema: TASK_ID,
    example: r#""order-42""#,
};
pub(super) const OP: Parameter = Parameter {
    name: "op",
    place: Place::Path,
    about: "The number of the bulk operation.",
    schema: r#"{"type":"integer","minimum":1,"maximum":18446744073709551615}"#,
    example: "7",
};
pub(super) const NAME: Parameter = Parameter {
    name: "name",
    place: Place::Path,
    about: "The name of the handler.",
    schema: HANDLER_NAME,
    example: r#""charge""#,
};
pub(super) const HANDLER: Parameter = query(
    "handler",
    "The handler of the launch; left out, it is the one that is the default.",
    HANDLER_NAME,
    r#""charge""#,
);
pub(super) const OF_HANDLER: Parameter =
    query("handler", "Only of this handler.", HANDLER_NAME, r#""charge""#);
pub(super) const WAIT: Parameter = query(
    "wait",
    "How long to wait at most until the task is not working, in seconds or as `30s`; at most `server.wait_max`.",
    r#"{"type":"string","pattern":"^[0-9]{1,9}s?$"}"#,
    r#""30s""#,
);
pub(super) const PREFER: Parameter = header(
    "Prefer",
    "`wait=30` waits as the parameter `wait` does, shortened to `server.wait_max` (RFC 7240).",
    STRING,
    r#""wait=30""#,
);
pub(super) const ON_DUPLICATE: Parameter = query(
    "on_duplicate",
    "`error` answers with 409 `duplicate` where the id is working or has succeeded.",
    r#"{"type":"string","enum":["error"]}"#,
    r#""error""#,
);
pub(super) const IDEMPOTENCY_KEY: Parameter = header(
    "Idempotency-Key",
    "Names the request: the same key launches no second run of the id, also after a failure. The last 20 keys of an id are known.",
    r#"{"type":"string","minLength":1,"maxLength":255}"#,
    r#""a6f0c1""#,
);
pub(super) const IF_MATCH: Parameter = header(
    "If-Match",
    "Launches only a record with one of these `ETag`s; `*` only one that is known.",
    r#"{"type":"string","minLength":1,"pattern":"^(\\*|\"[0-9]{1,18}\"(, ?\"[0-9]{1,18}\")*)$"}"#,
    r#""\"3\"""#,
);
pub(super) const IF_NONE_MATCH: Parameter = header(
    "If-None-Match",
    "`*` launches only an id that is not known.",
    r#"{"type":"string","enum":["*"]}"#,
    r#""*""#,
);
pub(super) const TRACEPARENT: Parameter = header(
    "traceparent",
    "The trace that the run belongs to (W3C Trace Context); one that is not valid counts as none.",
    STRING,
    r#""00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01""#,
);
pub(super) const STATE: Parameter = query(
    "state",
    "Only tasks in this state; may be repeated. `running`, `succeeded`, `completed` and `error` are taken too.",
    r#"{"type":"array","items":{"type":"string","enum":["working","success","failed","running","succeeded","completed","error"]}}"#,
    r#"["failed"]"#,
);
pub(super) const EVENT_STATE: Parameter = query(
    "state",
    "Only changes to this state; may be repeated.",
    r#"{"type":"array","items":{"type":"string","enum":["working","success","failed","not_found","running","succeeded","completed","error"]}}"#,
    r#"["failed"]"#,
);
pub(super) const EVENT_ID: Parameter = query(
    "id",
    "Only changes of this task; may be repeated.",
    r##"{"type":"array","items":{"$ref":"#/components/schemas/TaskId"}}"##,
    r#"["order-42"]"#,
);
pub(super) const AFTER: Parameter = query(
    "after",
    "Goes on behind the event with this id; `Last-Event-ID` wins over it.",
    r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
    "41",
);
pub(super) const LAST_EVENT_ID: Parameter = header(
    "Last-Event-ID",
    "Goes on behind this event, as browsers ask by themselves.",
    r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
    "41",
);
pub(super) const PREFIX: Parameter =
    query("prefix", "Only ids that begin so.", r##"{"$ref":"#/components/schemas/Prefix"}"##, r#""order-""#);
pub(super) const ERROR_KIND: Parameter = query(
    "error_kind",
    "Only failures of this kind.",
    r##"{"$ref":"#/components/schemas/ErrorKind"}"##,
    r#""refused""#,
);
pub(super) const IN_DOUBT: Parameter = query(
    "in_doubt",
    "Only failures that may, or may not, have had an effect.",
    r#"{"type":"boolean"}"#,
    "true",
);
pub(super) const SINCE: Parameter =
    query("since", "Only tasks that entered their state then or later.", TIME, r#""2026-01-31T00:00:00Z""#);
pub(super) const UNTIL: Parameter =
    query("until", "Only tasks that entered their state before.", TIME, r#""2026-02-01T00:00:00Z""#);
pub(super) const ORDER: Parameter = query(
    "order",
    "Oldest change first, or newest first.",
    r#"{"type":"string","enum":["asc","desc"],"default":"asc"}"#,
    r#""desc""#,
);
pub(super) const LIMIT: Parameter = query(
    "limit",
    "The most tasks on a page; 100 where it is left out. A stream takes any number, and has no limit of its own.",
    r#"{"type":"integer","minimum":1,"maximum":1000}"#,
    "100",
);
pub(super) const CURSOR: Parameter = query(
    "cursor",
    "Where to go on: the `next` of the page before, in the same order.",
    r#"{"type":"string","pattern":"^[ad][0-9a-f]{1,15}$"}"#,
    r#""a2f""#,
);

const fn of_answer(name: &'static str, about: &'static str, example: &'static str) -> Header {
    Header { name, about, example }
}

pub(super) const ETAG: Header =
    of_answer("ETag", "The revision of the record, which grows with every change.", "\"3\"");
pub(super) const LOCATION: Header = of_answer("Location", "Where it is found.", "/tasks/order-42");
pub(super) const LOCATION_OF_BULK: Header = of_answer("Location", "Where the operation is found.", "/bulk/7");
pub(super) const PREFERENCE_APPLIED: Header =
    of_answer("Preference-Applied", "How long a `Prefer: wait` has waited at most.", "wait=30");
pub(super) const LINK: Header =
    of_answer("Link", "The next page, where there is one.", "</tasks?state=failed&cursor=a2f>; rel=\"next\"");
pub(super) const TASK_STATE: Header = of_answer("Task-State", "The state of the task.", "success");
pub(super) const TASK_RESULT_TRUNCATED: Header =
    of_answer("Task-Result-Truncated", "Whether the handler gave more than was kept.", "false");
pub(super) const NOSNIFF: Header =
    of_answer("X-Content-Type-Options", "A browser takes it for nothing else.", "nosniff");
pub(super) const SANDBOX: Header =
    of_answer("Content-Security-Policy", "A browser runs nothing of it.", "sandbox");
pub(super) const NO_STORE: Header = of_answer("Cache-Control", "It is not kept.", "no-store");
pub(super) const NO_BUFFER: Header = of_answer("X-Accel-Buffering", "A proxy passes it on at once.", "no");
pub(super) const VARY: Header = of_answer("Vary", "It depends on `Accept`.", "accept");
pub(super) const OWN_ASSETS_ONLY: Header = of_answer(
    "Content-Security-Policy",
    "Nothing is loaded, and no script runs.",
    "default-src 'none'; style-src 'sha256-…'",
);
pub(super) const RETRY_AFTER: Header =
    of_answer("Retry-After", "After how many seconds the same request may succeed.", "1");
pub(super) const WWW_AUTHENTICATE: Header =
    of_answer("WWW-Authenticate", "Which token is needed.", "Bearer realm=\"task-recorder\"");
pub(super) const ALLOW: Header = of_answer("Allow", "The methods that the path takes.", "GET,HEAD");
