//! The description of the interface: complete, valid, and true.

use std::collections::BTreeSet;
use std::process::Command;

use hyper::{HeaderMap, Method, StatusCode};
use regex::Regex;
use serde_json::{Value, json};
use task_recorder::access::Scope;
use task_recorder::api::{ProblemType, openapi, routes};
use task_recorder::task::TaskId;

use crate::support::client::{Answer, Client};
use crate::support::receiver::{self, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::sse::Events;
use crate::support::told::{faults_of, faults_of_answer, faults_of_lines, fields};
use crate::support::within;

/// Every operation: its method, its path, and what is told of it.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = openapi()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods.iter().map(|(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

/// Every body that is told, with where: its media type, its schema, its examples.
fn contents() -> Vec<(String, &'static str, &'static Value)> {
    let mut contents = Vec::new();
    for (method, path, operation) in operations() {
        let answers = operation["responses"].as_object().unwrap().iter();
        let bodies = answers.map(|(status, answer)| (status.as_str(), &answer["content"]));
        for (what, content) in bodies.chain([("body", &operation["requestBody"]["content"])]) {
            for (media, one) in content.as_object().into_iter().flatten() {
                contents.push((format!("{method} {path} {what}"), media.as_str(), one));
            }
        }
    }
    contents
}

#[test]
fn no_route_is_missing_and_none_is_told_that_is_not_there() {
    let told: BTreeSet<_> =
        operations().map(|(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    let routes = routes();
    let served = routes.iter().map(|route| (route.method.as_str().to_lowercase(), route.path.to_owned()));
    assert_eq!(told, served.collect());
    let ids: BTreeSet<_> =
        operations().map(|(_, _, operation)| operation["operationId"].to_string()).collect();
    assert_eq!(ids.len(), routes.len(), "each has a name of its own");
    let of_path = Regex::new(r"\{(\w+)\}").unwrap();
    for route in &routes {
        let operation = &openapi()["paths"][route.path][route.method.as_str().to_lowercase()];
        let needed = operation["security"][0]["token"][0].as_str();
        assert_eq!(needed, route.scope.map(Scope::as_str), "{} {}", route.method, route.path);
        let wanted: BTreeSet<_> =
            of_path.captures_iter(route.path).map(|found| found[1].to_owned()).collect();
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let given =
            parameters.filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap().to_owned());
        assert_eq!(wanted, given.collect(), "{}", route.path);
    }
}

#[test]
fn no_problem_type_is_missing_here_or_in_the_manual() {
    let all: BTreeSet<_> = ProblemType::ALL.iter().map(|kind| kind.code().to_owned()).collect();
    assert_eq!(all.len(), ProblemType::ALL.len(), "each has a code of its own");
    let mut told = BTreeSet::new();
    let apart = openapi()["components"]["responses"].as_object().unwrap().values();
    let answers =
        operations().flat_map(|(_, _, operation)| operation["responses"].as_object().unwrap().values());
    for answer in answers.chain(apart) {
        let examples = &answer["content"]["application/problem+json"]["examples"];
        told.extend(examples.as_object().into_iter().flatten().map(|(code, _)| code.clone()));
    }
    // What is wrong with a line of a batch is told in a line of the answer.
    let of_lines = &openapi()["paths"]["/tasks"]["post"]["responses"]["200"]["description"];
    assert!(of_lines.as_str().unwrap().contains("`malformed-line`"));
    told.insert("malformed-line".to_owned());
    assert_eq!(told, all);
    let shown = openapi()["components"]["examples"].as_object().unwrap().keys().cloned();
    assert_eq!(shown.collect::<BTreeSet<_>>(), all);

    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, table) =
        readme.split_once("| type `/problems/…` | status | when |\n").expect("the table of problems");
    let row = Regex::new(r"^\| ((?:`[a-z-]+`,? ?)+)\| (\d+) \|").unwrap();
    let mut in_manual = BTreeSet::new();
    for line in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let found = row.captures(line).unwrap_or_else(|| panic!("{line}"));
        for code in found[1].split(',').map(|code| code.trim().trim_matches('`')) {
            let kind = ProblemType::ALL.iter().find(|kind| kind.code() == code);
            assert_eq!(kind.expect(line).status().as_str(), &found[2], "{line}");
            in_manual.insert(code.to_owned());
        }
    }
    assert_eq!(in_manual, all);
}

#[test]
fn every_answer_has_an_example_and_every_example_is_as_its_schema_has_it() {
    let fine = |at: &str, faults: Vec<String>| assert!(faults.is_empty(), "{at}: {}", faults.join("\n"));
    for (at, media, one) in contents() {
        let at = format!("{at} as {media}");
        if media == "application/problem+json" {
            assert_ne!(one["examples"], json!({}), "{at}");
            continue;
        }
        let (schema, example) = (&one["schema"], &one["example"]);
        assert!(!example.is_null(), "{at} has no example, or one that is no JSON");
        if media != "text/event-stream" {
            fine(&at, faults_of(schema, example));
        }
        if !schema["x-line"].is_null() {
            fine(&at, faults_of_lines(schema, example.as_str().unwrap()));
        }
        if let Some(schema) = schema.pointer("/properties/data/contentSchema") {
            let (_, data) = example.as_str().unwrap().split_once("data: ").unwrap();
            fine(&at, faults_of(schema, &serde_json::from_str(data).unwrap()));
        }
    }
    for (code, problem) in openapi()["components"]["examples"].as_object().unwrap() {
        fine(code, faults_of(&json!({ "$ref": "#/components/schemas/Problem" }), &problem["value"]));
    }
    for (_, path, operation) in operations() {
        for parameter in operation["parameters"].as_array().unwrap() {
            let at = format!("{path} {}", parameter["name"]);
            fine(&at, faults_of(&parameter["schema"], &parameter["example"]));
        }
    }
}

#[test]
fn ids_are_told_as_they_are_parsed() {
    let told = json!({ "$ref": "#/components/schemas/TaskId" });
    let long = "x".repeat(256);
    for id in
        ["a", ".", "..", "...", ".a", "..a.", "a..", "A9_~@=+,:.-", "", "a/b", "a b", "ä", &long[1..], &long]
    {
        assert_eq!(faults_of(&told, &json!(id)).is_empty(), id.parse::<TaskId>().is_ok(), "{id:?}");
    }
}

#[test]
fn an_answer_that_is_not_as_it_is_told_is_seen() {
    let faults = |path: &str, status: u16, media: &str, body: &str, more: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", media.parse().unwrap());
        more.map(|name| headers.insert(name, "1".parse().unwrap()));
        let status = StatusCode::from_u16(status).unwrap();
        faults_of_answer(&Method::GET, path, &Answer { status, headers, body: body.to_owned().into() })
    };
    let (json, problem) = ("application/json", "application/problem+json");
    let live = r#"{"live":true}"#;
    assert_eq!(faults("/livez", 200, json, live, None), [""; 0]);
    assert_eq!(faults("/livez", 200, json, live, Some("x-a")), ["the header x-a of 200 is not told"]);
    let lost = r#"{"id":"a","state":"lost","handler":"h","run":1,"since":"2026-01-31T09:00:00Z"}"#;
    let then = r#"{"id":"a","state":"failed","handler":"h","run":1,"since":"then"}"#;
    let without_id = r#"{"type":"/problems/not-found","title":"","status":404,"detail":""}"#;
    let gone = r#"{"type":"/problems/gone","title":"","status":404,"detail":""}"#;
    for (path, status, media, body, what) in [
        ("/livez", 200, json, r#"{"live":true,"well":1}"#, "'well' was unexpected"),
        ("/livez", 200, json, "{}", "\"live\" is a required property"),
        ("/livez", 200, json, r#"{"live":1}"#, "1 is not of type \"boolean\""),
        ("/livez", 500, json, "{}", "500 is not told"),
        ("/livez", 200, "text/plain", "live", "as text/plain is not told"),
        ("/tasks/a/status", 200, json, lost, "\"lost\" is not one of"),
        ("/tasks/a/status", 200, json, then, "\"then\" is not a \"date-time\""),
        ("/tasks/a/status", 404, problem, without_id, "the example of not-found has id"),
        ("/tasks/a/status", 404, problem, gone, "the problem gone is not told"),
    ] {
        let faults = faults(path, status, media, body, None);
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
    }
}

#[tokio::test]
#[ignore = "needs a Python package, which tests/all.sh installs; it runs this one too"]
async fn a_published_validator_finds_no_fault() {
    let server = TestServer::start("");
    let document = server.client().get("/openapi.json").await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("openapi.json");
    std::fs::write(&path, &document.body).unwrap();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/verifier/bin/python");
    let said =
        Command::new(python).args(["-m", "openapi_spec_validator", "--schema", "3.1"]).arg(&path).output();
    let said = said.unwrap_or_else(|error| panic!("{python} ({error}): tests/all.sh makes it"));
    assert!(said.status.success(), "{said:?}");
}

/// What a fuzzer finds that asks for everything that is told: a status, a header or a member that is not told, a wrong
/// request that is taken, a right one that is refused, an answer of 5xx. tests/schemathesis.toml says how it asks.
fn fuzzed(config: &str, more: &[&str]) {
    let server = TestServer::start(&format!(
        r#"
        [handlers.charge]
        type = "command"
        command = ["sh", "-c", "test $(wc -c) -lt 8"]
        default = true
        [handlers.charge.revoke]
        type = "command"
        command = ["true"]
        [handlers.report]
        type = "command"
        command = ["cat"]
        [handlers.idle]
        type = "command"
        command = ["cat"]
        [handlers.closed]
        type = "webhook"
        url = "http://127.0.0.1:1/{{id}}"
        retry = {{ attempts = 2, initial = "10ms" }}
        {config}
        "#
    ));
    let mut fuzzer = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/verifier/bin/schemathesis"));
    fuzzer.current_dir(env!("CARGO_MANIFEST_DIR")).args(["--config-file", "tests/schemathesis.toml", "run"]);
    let said = fuzzer.arg(format!("{}/openapi.json", server.base())).args(more).output();
    let said = said.unwrap_or_else(|error| panic!("no fuzzer ({error}): tests/all.sh installs it"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
#[ignore = "needs a Python package, which tests/all.sh installs; it runs this one too"]
fn a_published_fuzzer_finds_no_fault() {
    fuzzed("", &[]);
}

#[test]
#[ignore = "needs a Python package, which tests/all.sh installs; it runs this one too"]
fn a_published_fuzzer_with_a_token_finds_no_fault() {
    let scopes = "scopes = [\"read\", \"launch\", \"operate\", \"admin\"]";
    let header = "Authorization: Bearer s-all";
    // Without the phases that make up values: these are the same with a token.
    fuzzed(&crate::tokens::token("all", scopes), &["--header", header, "--phases", "examples,coverage"]);
}

#[tokio::test]
async fn the_document_and_the_page_are_open_and_load_nothing_from_elsewhere() {
    let server = TestServer::start(&format!(
        "{}{}",
        crate::tokens::HANDLERS,
        crate::tokens::token("ci", "scopes = [\"launch\"]")
    ));
    let client = server.client();
    let document = client.get("/openapi.json").await;
    assert_eq!(document.json(), *openapi());

    let page = client.get("/docs").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let text = page.text();
    let loads = Regex::new(
        r#"(?i-u)<(?:script|link|img|iframe|object)|@import|url\(|src=|\son[a-z]+=|style=|href="(?:https?:)?//"#,
    );
    let loads = loads.unwrap();
    assert_eq!(loads.find(text).map(|found| found.as_str()), None);
    for (method, path, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(
            text.contains(&format!("id=\"{id}\"")) && text.contains(path),
            "{method} {path} is not shown"
        );
    }
    let (open, closed) = (text.matches("<details").count(), text.matches("</details>").count());
    assert!(open == closed && open > 100, "{open} {closed}");
    // The policy allows the style that is there, and no other.
    let style = text.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap();
    let hash = base64_of_digest(style.as_bytes());
    assert!(policy.contains(&format!("'sha256-{hash}'")), "{policy}");
}

fn base64_of_digest(bytes: &[u8]) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(bytes))
}

/// A service that is asked for everything.
struct Asked {
    client: Client,
    server: TestServer,
    seen: BTreeSet<(String, String)>,
}

impl Asked {
    /// Asks, and compares the names of the members of the answer with those of the example.
    async fn ask(
        &mut self,
        id: &str,
        status: u16,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (method, _, operation) =
            operations().find(|(_, _, operation)| operation["operationId"] == id).expect(id);
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = self.client.send(method, target, headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        let told = &operation["responses"][status.to_string()]["content"];
        let media = answer.header("content-type").unwrap_or_default();
        let example = &told[media]["example"];
        if media == "application/json" && id != "openapi" {
            assert_eq!(fields(&answer.json()), fields(example), "{id} {status}: {}", answer.text());
        } else if media == "application/x-ndjson" {
            let lines = |text: &str| {
                text.lines().map(|line| fields(&serde_json::from_str(line).unwrap())).collect::<Vec<_>>()
            };
            assert_eq!(lines(answer.text()), lines(example.as_str().unwrap()), "{id}: {}", answer.text());
        }
        self.seen.insert((id.to_owned(), status.to_string()));
        answer
    }
}

#[tokio::test]
async fn the_examples_have_the_members_that_real_answers_have() {
    let receiver = Receiver::start().await;
    let (gate, undo, again) = (Gate::new(), Gate::new(), Gate::new());
    let answer = |status| receiver::Answer::of(status).header("content-type", "application/json").body("{}");
    receiver.by_default(Behaviour::Answer(answer(200)));
    receiver.on("held", [Behaviour::AnswerAfter(gate.clone(), answer(200))]);
    receiver.on("failed", [Behaviour::Answer(answer(410))]);
    receiver.on(
        "again",
        [
            Behaviour::Answer(answer(410)),
            Behaviour::Answer(answer(410)),
            Behaviour::AnswerAfter(again.clone(), answer(200)),
        ],
    );
    receiver.on("late", [Behaviour::Answer(answer(410)), Behaviour::Answer(answer(200))]);
    receiver
        .on("undone", [Behaviour::Answer(answer(200)), Behaviour::AnswerAfter(undo.clone(), answer(200))]);
    receiver.on("stuck", [Behaviour::NeverAnswer]);
    receiver.on("stuck-too", [Behaviour::NeverAnswer]);
    let url = receiver.url("/{id}");
    let config = format!(
        "
        [handlers.charge]
        type = \"webhook\"
        url = \"{url}\"
        headers = {{ x-a = \"b\" }}
        default = true
        [handlers.charge.revoke]
        url = \"{url}\"
        [handlers.report]
        type = \"command\"
        command = [\"cat\"]
        [handlers.full]
        type = \"webhook\"
        url = \"{url}\"
        concurrency = 1
        queue = 0
        "
    );
    let server = TestServer::start(&config);
    let mut asked = Asked { client: server.client(), server, seen: BTreeSet::new() };
    let mut events = Events::open(asked.server.base(), "/events?state=success", &[]).await;

    for name in ["livez", "readyz", "version", "docs", "metrics"] {
        asked.ask(name, 200, &format!("/{name}"), &[], "").await;
    }
    asked.ask("openapi", 200, "/openapi.json", &[], "").await;
    asked.ask("reload", 200, "/admin/reload", &[], "").await;
    asked.client.post("/tasks/fine?wait=20s", "two apples").await;
    let told = within("an event", events.next()).await.unwrap();
    let (_, _, of_events) =
        operations().find(|(_, _, operation)| operation["operationId"] == "events").unwrap();
    let example = of_events["responses"]["200"]["content"]["text/event-stream"]["example"].as_str().unwrap();
    let data: Value = serde_json::from_str(example.split("data: ").nth(1).unwrap()).unwrap();
    assert_eq!(fields(&told.data), fields(&data));
    asked.seen.insert(("events".to_owned(), "200".to_owned()));

    asked.ask("launch", 202, "/tasks/held", &[], "").await;
    asked.ask("launch", 200, "/tasks/fine", &[], "").await;
    asked.ask("launch_by_put", 200, "/tasks/fine", &[], "").await;
    asked.ask("launch_by_put", 202, "/tasks/stuck", &[], "").await;
    asked.ask("stats", 200, "/stats", &[], "").await;
    asked.ask("handlers", 200, "/handlers", &[], "").await;
    asked.client.post("/tasks/failed?wait=20s", "").await;
    asked.ask("status", 200, "/tasks/failed/status", &[], "").await;
    let text = [("content-type", "text/plain")];
    asked.client.send(Method::POST, "/tasks/typed?wait=20s", &text, "two apples").await;
    asked.ask("record", 200, "/tasks/typed", &[], "").await;
    asked.ask("result", 200, "/tasks/typed/result", &[], "").await;
    asked.ask("list", 200, "/tasks?state=failed", &[], "").await;
    asked.ask("list", 200, "/tasks?state=success&limit=1", &[("accept", "application/x-ndjson")], "").await;
    asked.ask("list", 200, "/tasks", &[("accept", "text/plain")], "").await;
    let ndjson = [("content-type", "application/x-ndjson")];
    let lines = "{\"id\":\"in-batch\"}\n{\"id\":\"other\",\"handler\":\"nobody\"}\n";
    asked.ask("launch_batch", 200, "/tasks", &ndjson, lines).await;
    asked.ask("lookup", 200, "/lookup", &[], "{\"ids\":[\"fine\",\"unknown\"]}").await;
    asked.client.post("/tasks/again?wait=20s", "").await;
    asked.client.post("/tasks/late?wait=20s", "").await;
    asked.ask("retry", 200, "/tasks/late/retry?wait=20s", &[], "").await;
    asked.client.post("/tasks/again/retry?wait=20s", "").await;
    asked.ask("retry", 202, "/tasks/again/retry", &[], "").await;
    again.open();
    asked.ask("cancel", 202, "/tasks/stuck/cancel", &[], "").await;
    asked.client.post("/tasks/stuck-too", "").await;
    asked.ask("cancel", 200, "/tasks/stuck-too/cancel?wait=20s", &[], "").await;
    asked.client.post("/tasks/undone?wait=20s", "").await;
    asked.ask("revoke", 202, "/tasks/undone/revoke", &[], "").await;
    undo.open();
    asked.client.post("/tasks/plain?handler=report&wait=20s", "").await;
    asked.ask("revoke", 200, "/tasks/plain/revoke", &[], "").await;
    asked.ask("forget", 204, "/tasks/failed", &[], "").await;
    asked.ask("pause", 200, "/handlers/report/pause", &[], "").await;
    asked.ask("resume", 200, "/handlers/report/resume", &[], "").await;

    ask_for_bulk(&mut asked, &receiver).await;
    gate.open();

    let told = operations().flat_map(|(_, _, operation)| {
        let id = operation["operationId"].as_str().unwrap();
        let statuses = operation["responses"].as_object().unwrap().keys();
        statuses.filter(|status| status.starts_with('2')).map(|status| (id.to_owned(), status.clone()))
    });
    assert_eq!(asked.seen, told.collect(), "every answer that is told was seen");
}

async fn ask_for_bulk(asked: &mut Asked, receiver: &Receiver) {
    // One that cannot go on: no place is free for what it launches again.
    receiver.on("blocked", [Behaviour::Answer(receiver::Answer::of(410))]);
    receiver.on("blocks", [Behaviour::NeverAnswer]);
    asked.client.post("/tasks/blocked?handler=full&wait=20s", "").await;
    asked.client.post("/tasks/blocks?handler=full", "").await;
    let bulk = "{\"action\":\"retry\",\"filter\":{\"handler\":\"full\"}}";
    let dry = "{\"action\":\"retry\",\"filter\":{\"handler\":\"full\"},\"dry_run\":true}";
    asked.ask("begin_bulk", 200, "/bulk", &[], dry).await;
    let begun = asked.ask("begin_bulk", 202, "/bulk", &[], bulk).await;
    let location = begun.header("location").unwrap().to_owned();
    asked.ask("view_bulk", 200, &location, &[], "").await;
    asked.ask("list_bulk", 200, "/bulk", &[], "").await;
    asked.ask("cancel_bulk", 202, &format!("{location}/cancel"), &[], "").await;
}
