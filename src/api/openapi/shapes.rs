//! The words and shapes that the types of the answers do not tell by themselves.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::api::filter;
use crate::task::{ErrorKind, HANDLER_NAME_BYTES_MAX, TASK_ID_BYTES_MAX};

/// What several operations have, by its name.
pub(super) fn shared() -> [(String, Value); 2] {
    // Not `.` and not `..`, without looking ahead, which not every engine can.
    let id = r"^(\.*[A-Za-z0-9_~@=+,:-][A-Za-z0-9_~@=+,:.-]*|\.{3,})$";
    let (id_max, name_max) = (TASK_ID_BYTES_MAX, HANDLER_NAME_BYTES_MAX);
    let id = json!({ "type": "string", "minLength": 1, "maxLength": id_max, "pattern": id });
    let name =
        json!({ "type": "string", "minLength": 1, "maxLength": name_max, "pattern": "^[A-Za-z0-9_-]+$" });
    [("TaskId".to_owned(), id), ("HandlerName".to_owned(), name)]
}

pub(in crate::api) fn task_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#/components/schemas/TaskId" })
}

pub(in crate::api) fn handler_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#/components/schemas/HandlerName" })
}

pub(in crate::api) fn state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["working", "success", "failed"] })
}

/// Also of an id that is not known.
pub(in crate::api) fn any_state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["working", "success", "failed", "not_found"] })
}

pub(in crate::api) fn not_found(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "const": "not_found" })
}

pub(in crate::api) fn phase(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["queued", "running", "backing_off", "canceling", "revoking"] })
}

pub(in crate::api) fn reason(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["working", "success", "same_request"] })
}

pub(in crate::api) fn outcome(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["success", "failed"] })
}

pub(in crate::api) fn error_kind(_: &mut SchemaGenerator) -> Schema {
    let kinds: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
    json_schema!({ "type": "string", "enum": kinds })
}

pub(in crate::api) fn bulk_action(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["retry", "cancel", "revoke", "forget"] })
}

pub(in crate::api) fn bulk_state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["running", "done", "canceled"] })
}

/// The number with which a handler ended; one of them.
pub(in crate::api) fn code(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "http_status": { "type": "integer", "description": "The status of the webhook's answer." },
            "exit_code": { "type": "integer", "description": "The exit code of the command." },
            "signal": { "type": "integer", "description": "The signal that ended the command." },
        },
    })
}

pub(in crate::api) fn bulk_failures(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": { "id": { "type": "string" }, "reason": { "type": "string" } },
            "required": ["id", "reason"],
        },
    })
}

/// What a bulk operation is for, in a request.
pub(in crate::api) fn bulk_filter(generator: &mut SchemaGenerator) -> Schema {
    let time = json_schema!({ "type": "string", "format": "date-time" });
    let properties: serde_json::Map<_, _> = filter::NAMES
        .iter()
        .map(|name| {
            let schema = match *name {
                "state" => state(generator),
                "error_kind" => error_kind(generator),
                "in_doubt" => json_schema!({ "type": "boolean" }),
                "since" | "until" => time.clone(),
                "handler" => handler_name(generator),
                _ => json_schema!({ "type": "string" }),
            };
            ((*name).to_owned(), schema.to_value())
        })
        .collect();
    json_schema!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "minProperties": 1,
    })
}
