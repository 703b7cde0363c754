//! The words and shapes that the types of the answers do not tell by themselves.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::api::filter;
use crate::api::lookup::IDS_MAX;
use crate::task::{ErrorKind, HANDLER_NAME_BYTES_MAX, TASK_ID_BYTES_MAX};

/// What several operations have, by its name.
pub(super) fn shared() -> [(String, Value); 4] {
    // Not `.` and not `..`, without looking ahead, which not every engine can.
    let id = r"^(\.*[A-Za-z0-9_~@=+,:-][A-Za-z0-9_~@=+,:.-]*|\.{3,})$";
    let (id_max, name_max) = (TASK_ID_BYTES_MAX, HANDLER_NAME_BYTES_MAX);
    let id = json!({ "type": "string", "minLength": 1, "maxLength": id_max, "pattern": id });
    let name =
        json!({ "type": "string", "minLength": 1, "maxLength": name_max, "pattern": "^[A-Za-z0-9_-]+$" });
    let prefix = json!({ "type": "string", "maxLength": id_max, "pattern": "^[A-Za-z0-9_~@=+,:.-]*$" });
    let kinds: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let kind = json!({ "type": "string", "enum": kinds });
    [("TaskId", id), ("HandlerName", name), ("Prefix", prefix), ("ErrorKind", kind)]
        .map(|(name, schema)| (name.to_owned(), schema))
}

pub(in crate::api) fn task_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#/components/schemas/TaskId" })
}

pub(in crate::api) fn looked_up(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": task_id(generator), "maxItems": IDS_MAX })
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
    json_schema!({ "$ref": "#/components/schemas/ErrorKind" })
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

/// A bulk operation as it is asked for: what the filter may have depends on the action.
pub(in crate::api) fn bulk_request(schema: &mut Schema) {
    let kinds = [
        (["retry", "forget"].as_slice(), ["failed", "error"].as_slice()),
        (&["cancel"], &["working", "running"]),
        (&["revoke"], &["success", "succeeded", "completed"]),
    ];
    let variants = kinds.map(|(actions, states)| {
        let mut variant = schema.clone();
        variant.insert("required".to_owned(), json!(["action", "filter"]));
        if let Some(properties) = variant.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert("action".to_owned(), json!({ "type": "string", "enum": actions }));
            properties.insert("filter".to_owned(), bulk_filter(states));
        }
        variant
    });
    *schema = json_schema!({ "oneOf": variants });
}

/// A filter for tasks in the state that has these names. A member that is null counts as none.
fn bulk_filter(states: &[&str]) -> Value {
    let state = json!({ "type": "string", "enum": states });
    let schema_of = |name: &str| match name {
        "state" => json!({ "anyOf": [state, { "type": "array", "items": state }] }),
        "handler" => json!({ "$ref": "#/components/schemas/HandlerName" }),
        "prefix" => json!({ "$ref": "#/components/schemas/Prefix" }),
        "error_kind" => json!({ "$ref": "#/components/schemas/ErrorKind" }),
        "in_doubt" => json!({ "enum": [true, false, "true", "false"] }),
        _ => json!({ "type": "string", "format": "date-time" }),
    };
    let is_about_failures = states.contains(&"failed");
    let names = filter::NAMES.into_iter();
    let names = names.filter(|name| is_about_failures || !["error_kind", "in_doubt"].contains(name));
    let properties =
        names.map(|name| (name.to_owned(), json!({ "anyOf": [schema_of(name), { "type": "null" }] })));
    json!({
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "additionalProperties": false,
        // One member has to say something.
        "not": { "additionalProperties": { "enum": [null, [], ""] } },
    })
}
