//! The closed list of problem types: whatever is answered and is no success is one of these.

use axum::http::StatusCode;

macro_rules! problem_types {
    ($($variant:ident = $status:ident, $code:literal, $title:literal, $when:literal;)*) => {
        /// Why a request was not answered with success.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ProblemType {
            $(#[doc = $when] $variant,)*
        }

        impl ProblemType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What its `type` has behind `/problems/`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Its status. `unknown-handler` may have another one.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The same for all problems of the type.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// When it is given, in a sentence.
            #[must_use]
            pub const fn when(self) -> &'static str {
                match self { $(Self::$variant => $when,)* }
            }
        }
    };
}

problem_types! {
    InvalidId = BAD_REQUEST, "invalid-id", "The id is not allowed",
        "The id is not allowed; the detail says which character.";
    InvalidParameter = BAD_REQUEST, "invalid-parameter", "A parameter is not allowed",
        "A parameter is unknown, is given twice, or has a value that is not allowed.";
    InvalidCursor = BAD_REQUEST, "invalid-cursor", "The cursor is not allowed",
        "The cursor is none that a list in this order gave.";
    InvalidContentType = BAD_REQUEST, "invalid-content-type", "The Content-Type is not allowed",
        "The `Content-Type` holds bytes outside of visible ASCII.";
    InvalidHeader = BAD_REQUEST, "invalid-header", "A header is not allowed",
        "A header is not as it has to be, or is given twice.";
    MalformedRequest = BAD_REQUEST, "malformed-request", "The request is malformed",
        "The request breaks HTTP, or its body broke off.";
    InvalidBody = BAD_REQUEST, "invalid-body", "The body is not allowed",
        "The JSON of the body is not as it has to be; the detail says where.";
    MalformedLine = BAD_REQUEST, "malformed-line", "The line is malformed",
        "A line of a batch is no launch; the detail says where.";
    HandlerRequired = BAD_REQUEST, "handler-required", "A handler has to be named",
        "No handler was named, and none is the default.";
    MissingFilter = BAD_REQUEST, "missing-filter", "The filter is missing",
        "A bulk operation has to say which tasks are meant.";
    TokenRequired = UNAUTHORIZED, "token-required", "A token is needed",
        "The request has no token.";
    InvalidToken = UNAUTHORIZED, "invalid-token", "The token is not valid",
        "No token has this secret, or the token is not valid any more.";
    ExpiredToken = UNAUTHORIZED, "expired-token", "The token has expired",
        "The token has expired.";
    InsufficientScope = FORBIDDEN, "insufficient-scope", "The token is not good for this",
        "The token has not the scope that the route needs.";
    OutOfReach = FORBIDDEN, "out-of-reach", "The token does not reach this",
        "The limits of the token leave out this task, this handler, or figures of all tasks.";
    ForeignOrigin = FORBIDDEN, "foreign-origin", "The web page may not do this",
        "Without tokens: a web page of another host has sent this.";
    NotFound = NOT_FOUND, "not-found", "The task is not found",
        "No task with this id is known.";
    UnknownHandler = NOT_FOUND, "unknown-handler", "The handler is unknown",
        "No handler has this name; or, with 409, the handler of the task is not configured any more.";
    UnknownOperation = NOT_FOUND, "unknown-operation", "The operation is not found",
        "No such bulk operation is remembered.";
    UnknownRoute = NOT_FOUND, "unknown-route", "The path is unknown",
        "Nothing is served at this path.";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here",
        "The path does not take this method; `Allow` says which it takes.";
    NotAcceptable = NOT_ACCEPTABLE, "not-acceptable", "No such media type is served",
        "None of the media types that `Accept` names is served.";
    BodyTimeout = REQUEST_TIMEOUT, "body-timeout", "The body took too long",
        "The body did not arrive within `server.body_timeout`.";
    Duplicate = CONFLICT, "duplicate", "The id is taken",
        "Not launched, and `on_duplicate=error` was asked for.";
    HandlerMismatch = CONFLICT, "handler-mismatch", "The id belongs to another handler",
        "The id belongs to another handler; a task keeps the one it began with.";
    InputMismatch = CONFLICT, "input-mismatch", "The id has another input",
        "The id was launched with another input, and its handler has `match_input`.";
    Revoking = CONFLICT, "revoking", "The success is being revoked",
        "The success of the id is being revoked.";
    NotWorking = CONFLICT, "not-working", "The task is not working",
        "The task is not working, so that there is nothing to cancel.";
    NotFailed = CONFLICT, "not-failed", "The task has not failed",
        "The task has not failed: only failed ones are retried or forgotten.";
    NotSuccess = CONFLICT, "not-success", "The task has not succeeded",
        "The task has not succeeded, so that there is nothing to revoke.";
    InputDropped = CONFLICT, "input-dropped", "The input was dropped",
        "The input of the task is not kept any more (`retention.details`): launch it again with its input.";
    NoResult = CONFLICT, "no-result", "There is no result",
        "The task is working, or its handler gave nothing back.";
    NotRunning = CONFLICT, "not-running", "The operation is over",
        "The bulk operation is done.";
    Conflict = CONFLICT, "conflict", "The task has changed meanwhile",
        "The task has changed meanwhile; look how it stands.";
    DetailsDropped = GONE, "details-dropped", "The result was dropped",
        "The result is not kept any more (`retention.details`).";
    PreconditionFailed = PRECONDITION_FAILED, "precondition-failed", "The record is not as the request demands",
        "`If-Match` or `If-None-Match` does not hold.";
    InputTooLarge = PAYLOAD_TOO_LARGE, "input-too-large", "The input is too large",
        "The input is over the `input_max` of the handler.";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large",
        "The body is over what is taken here.";
    HeadTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "The head is too large",
        "The head of the request is over `server.head_max`, or has more than 100 lines.";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The media type is not taken",
        "A batch is NDJSON.";
    UnknownHost = MISDIRECTED_REQUEST, "unknown-host", "The host is not served",
        "Without tokens: the request is meant for a host that is not served.";
    InvalidConfig = UNPROCESSABLE_ENTITY, "invalid-config", "The config is wrong",
        "The config file is wrong; `errors` has what `check-config` prints.";
    TooManyFailures = TOO_MANY_REQUESTS, "too-many-failures", "Too many bad tokens",
        "Too many requests with bad tokens came from this address.";
    QueueFull = TOO_MANY_REQUESTS, "queue-full", "The queue is full",
        "As many tasks wait for the handler as its queue takes.";
    TooManyOperations = TOO_MANY_REQUESTS, "too-many-operations", "Too many operations are running",
        "As many bulk operations are running as are allowed.";
    TooManyBodies = SERVICE_UNAVAILABLE, "too-many-bodies", "Too much is arriving at once",
        "More bytes of bodies are arriving than there is room for (`server.bodies_max`); nothing was changed.";
    Draining = SERVICE_UNAVAILABLE, "draining", "The service is stopping",
        "The service is stopping and launches nothing any more.";
    StoreUnavailable = SERVICE_UNAVAILABLE, "store-unavailable", "The store is not available",
        "The record cannot be written or read now; nothing was changed.";
    NotReady = SERVICE_UNAVAILABLE, "not-ready", "The service is not ready",
        "The service takes no launches now.";
}
