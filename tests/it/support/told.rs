//! What the service tells of its interface, and whether an answer is as it tells. Every answer that a test gets through
//! the client is compared.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

use hyper::Method;
use jsonschema::Validator;
use serde_json::{Value, json};
use task_recorder::api::openapi;

use super::client::Answer;

/// Headers that HTTP itself has.
const OF_HTTP: [&str; 5] = ["content-type", "content-length", "date", "transfer-encoding", "connection"];

/// The types, closed: here a member that is not told is a fault, while clients have to expect new ones.
static COMPONENTS: LazyLock<Value> = LazyLock::new(|| {
    let mut components = openapi()["components"].clone();
    for (_, schema) in components["schemas"].as_object_mut().unwrap() {
        schema["unevaluatedProperties"] = false.into();
    }
    components
});
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Fails on an answer that is not as the document says.
pub(crate) fn compare(method: &Method, target: &str, answer: &Answer) {
    let faults = faults_of_answer(method, target, answer).join("\n");
    assert!(faults.is_empty(), "{method} {target} is not answered as /openapi.json says:\n{faults}");
}

pub(crate) fn faults_of_answer(method: &Method, target: &str, answer: &Answer) -> Vec<String> {
    // What no route takes is told apart from the operations.
    let Some(operation) = operation(method, target.split('?').next().unwrap_or_default()) else {
        return Vec::new();
    };
    let status = answer.status.as_u16();
    let told = &operation["responses"][status.to_string()];
    if told.is_null() {
        return vec![format!("the status {status} is not told: {}", String::from_utf8_lossy(&answer.body))];
    }
    let known: BTreeSet<_> =
        told["headers"].as_object().unwrap().keys().map(|name| name.to_lowercase()).collect();
    let names = answer.headers.keys().map(hyper::header::HeaderName::as_str);
    let mut faults: Vec<_> = names
        .filter(|name| !OF_HTTP.contains(name) && !known.contains(*name))
        .map(|name| format!("the header {name} of {status} is not told"))
        .collect();
    if answer.body.is_empty() {
        return faults;
    }
    let media = answer.header("content-type").unwrap_or("*/*");
    let content = told["content"].get(media).unwrap_or(&told["content"]["*/*"]);
    if content.is_null() {
        faults.push(format!("{status} as {media} is not told"));
    } else if !content["schema"]["x-line"].is_null() {
        faults.extend(faults_of_lines(&content["schema"], answer.text()));
    } else if content["schema"] != json!({}) && media.ends_with("json") {
        faults.extend(faults_of(&content["schema"], &answer.json()));
    }
    if media == "application/problem+json" && !content.is_null() {
        faults.extend(faults_of_problem(content, &answer.json()));
    }
    faults
}

/// What in a value is not as a schema of the document has it.
pub(crate) fn faults_of(schema: &Value, value: &Value) -> Vec<String> {
    let mut validators = VALIDATORS.lock().unwrap();
    let validator = validators.entry(schema.to_string()).or_insert_with(|| {
        let whole = json!({ "allOf": [schema], "components": *COMPONENTS });
        let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
        Arc::new(options.should_validate_formats(true).build(&whole).unwrap())
    });
    let validator = Arc::clone(validator);
    drop(validators);
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

/// What in a text is not as a schema has its lines.
pub(crate) fn faults_of_lines(schema: &Value, text: &str) -> Vec<String> {
    let lines =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.flat_map(|line| faults_of(&schema["x-line"], &line)).collect()
}

/// The operation of a method and a path that somebody asks for.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let mut pairs = template.split('/').zip(path.split('/'));
        template.split('/').count() == path.split('/').count()
            && pairs.all(|(wanted, given)| wanted == given || wanted.starts_with('{') && !given.is_empty())
    };
    let (_, methods) = openapi()["paths"].as_object()?.iter().find(|(template, _)| fits(template))?;
    let method = if *method == Method::HEAD { "get" } else { &method.as_str().to_lowercase() };
    methods.get(method)
}

/// A problem has to be one of those that are told for its status, and has at least what the example has.
fn faults_of_problem(content: &Value, problem: &Value) -> Vec<String> {
    let code = problem["type"].as_str().unwrap_or_default().trim_start_matches("/problems/");
    if content["examples"].get(code).is_none() {
        return vec![format!("the problem {code} is not told for this operation and status")];
    }
    let example = fields(&COMPONENTS["examples"][code]["value"]);
    let lacks = example.into_iter().filter(|name| problem.get(name).is_none());
    lacks.map(|name| format!("the example of {code} has {name}, the answer has not: {problem}")).collect()
}

/// The names of all members, with the way to them. What is named by the config and not by the code is a star.
pub(crate) fn fields(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(value, "", &mut found);
    found
}

fn collect(value: &Value, way: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let is_chosen = way.ends_with("headers") || way == "handlers";
                let name = if is_chosen { "*" } else { name };
                let way = if way.is_empty() { name.to_owned() } else { format!("{way}.{name}") };
                collect(member, &way, found);
                found.insert(way);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, &format!("{way}[]"), found)),
        _ => {}
    }
}
