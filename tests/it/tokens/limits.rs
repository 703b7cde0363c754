//! What a token with limits sees and does: on each route, what it names has to be in reach, and the rest is left out.

use hyper::Method;
use serde_json::Value;

use super::{HANDLERS, token, with};
use crate::support::client::{Answer, Client};
use crate::support::server::TestServer;
use crate::support::sse::Events;
use crate::support::within;

const ALL: &str = "scopes = [\"read\", \"launch\", \"operate\", \"admin\"]";
const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// A service with a task of each handler under each prefix, all at rest: `x-a`, `x-b`, `y-a`, `y-b`, and a failed
/// one of each prefix, `x-f` and `y-f`.
async fn start() -> (TestServer, Client) {
    let tokens = [
        token("all", ALL),
        token("of-a", &format!("{ALL}\nhandlers = [\"a\"]")),
        token("of-x", &format!("{ALL}\nprefixes = [\"x-\", \"z\"]")),
    ];
    let server = TestServer::start(&format!("{HANDLERS}{}", tokens.concat()));
    let client = server.client();
    for prefix in ["x", "y"] {
        for (name, handler) in [("a", "a"), ("b", "b"), ("f", "fails")] {
            let path = format!("/tasks/{prefix}-{name}?handler={handler}&wait=30");
            assert_eq!(with(&client, "s-all", POST, &path, "input").await.status, 200);
        }
    }
    (server, client)
}

fn refused(answer: &Answer, secret: &str) -> String {
    let detail = answer.problem(403, "out-of-reach");
    let name = secret.trim_start_matches("s-");
    assert!(detail.contains(&format!("the token {name} ")), "{detail}");
    detail
}

fn ids(tasks: &Value) -> Vec<&str> {
    let mut ids: Vec<_> = tasks.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_task_out_of_reach_is_refused_whatever_is_asked_of_it() {
    let (_server, client) = start().await;
    // What it may not touch, and what it may.
    for (secret, out, inside) in [("s-of-a", "x-b", "x-a"), ("s-of-x", "y-a", "x-a")] {
        for (method, path) in [
            (GET, ""),
            (GET, "/status"),
            (GET, "/status?wait=1"),
            (GET, "/result"),
            (POST, "/retry"),
            (POST, "/cancel"),
            (POST, "/revoke"),
            (Method::DELETE, ""),
            (POST, "?handler=a"),
            (Method::PUT, "?handler=a"),
            (POST, "?handler=a&wait=1"),
            (POST, "?handler=a&on_duplicate=error"),
        ] {
            let answer = with(&client, secret, method.clone(), &format!("/tasks/{out}{path}"), "").await;
            let detail = refused(&answer, secret);
            assert!(detail.contains(out) && !detail.contains("handler b"), "{detail}");
            assert_eq!(answer.json()["state"], Value::Null, "{method} {path} tells nothing");
        }
        assert_eq!(with(&client, "s-all", GET, &format!("/tasks/{out}"), "").await.json()["revision"], 2);
        for path in ["", "/status", "/result"] {
            let answer = with(&client, secret, GET, &format!("/tasks/{inside}{path}"), "").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let relaunch = with(&client, secret, POST, &format!("/tasks/{inside}?handler=a"), "").await;
        assert_eq!(relaunch.json()["reason"], "success");
    }
    // An id out of reach that nobody knows is refused as well, before anything is launched.
    for (method, path) in
        [(GET, ""), (GET, "/result"), (POST, ""), (Method::PUT, ""), (POST, "/retry"), (Method::DELETE, "")]
    {
        refused(&with(&client, "s-of-x", method, &format!("/tasks/y-none{path}"), "").await, "s-of-x");
    }
    with(&client, "s-all", GET, "/tasks/y-none", "").await.problem(404, "not-found");
    // A handler out of reach, known or not, is refused before anything is said of it.
    for handler in ["b", "nobody"] {
        refused(&with(&client, "s-of-a", POST, &format!("/tasks/new?handler={handler}"), "").await, "s-of-a");
    }
    with(&client, "s-all", GET, "/tasks/new", "").await.problem(404, "not-found");
    assert_eq!(with(&client, "s-of-a", POST, "/tasks/new?wait=30", "").await.status, 200);
    assert_eq!(with(&client, "s-of-x", POST, "/tasks/zoo?handler=b&wait=30", "").await.status, 200);
}

#[tokio::test]
async fn lists_lookups_and_figures_hold_what_is_in_reach() {
    let (_server, client) = start().await;
    for (secret, seen) in [
        ("s-all", &["x-a", "x-b", "x-f", "y-a", "y-b", "y-f"][..]),
        ("s-of-a", &["x-a", "y-a"]),
        ("s-of-x", &["x-a", "x-b", "x-f"]),
    ] {
        let page = with(&client, secret, GET, "/tasks", "").await;
        assert_eq!(ids(&page.json()["tasks"]), seen, "{secret}");
        let bearer = format!("Bearer {secret}");
        let headers = [("authorization", bearer.as_str()), ("accept", "text/plain")];
        let stream = client.send(GET, "/tasks", &headers, "").await;
        let mut lines: Vec<_> = stream.text().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, seen, "{secret}");
    }
    for (secret, path) in [
        ("s-of-a", "/tasks?handler=b"),
        ("s-of-a", "/events?handler=b"),
        ("s-of-x", "/tasks?prefix=y"),
        ("s-of-x", "/events?id=y-a"),
        ("s-of-a", "/stats"),
        ("s-of-x", "/stats"),
    ] {
        refused(&with(&client, secret, GET, path, "").await, secret);
    }
    let narrowed = with(&client, "s-of-x", GET, "/tasks?prefix=x-a", "").await;
    assert_eq!(ids(&narrowed.json()["tasks"]), ["x-a"]);
    for (secret, good, bad) in
        [("s-of-a", "[\"x-a\",\"none\"]", "[\"x-a\",\"x-b\"]"), ("s-of-x", "[\"x-b\"]", "[\"y-none\"]")]
    {
        let found = with(&client, secret, POST, "/lookup", &format!("{{\"ids\":{good}}}")).await;
        assert_eq!(found.status, 200, "{}", found.text());
        refused(&with(&client, secret, POST, "/lookup", &format!("{{\"ids\":{bad}}}")).await, secret);
    }
    let names = async |secret| -> Vec<Value> {
        with(&client, secret, GET, "/handlers", "").await.json()["handlers"].as_array().unwrap().clone()
    };
    assert_eq!(names("s-all").await.len(), 3);
    let of_a = names("s-of-a").await;
    assert_eq!((of_a.len(), &of_a[0]["name"], &of_a[0]["running"]), (1, &"a".into(), &0.into()));
    let of_x = names("s-of-x").await;
    assert_eq!((of_x.len(), &of_x[0]["running"]), (3, &Value::Null), "the counts are of all ids");
}

#[tokio::test]
async fn batches_bulk_operations_and_handlers_are_steered_within_reach() {
    let (_server, client) = start().await;
    let lines = "{\"id\":\"x-1\"}\n{\"id\":\"y-1\"}\n{\"id\":\"x-2\",\"handler\":\"b\"}\n{\"id\":\"x-b\",\"handler\":\"a\"}\n";
    for (secret, statuses) in [("s-of-a", [202, 202, 403, 403]), ("s-of-x", [200, 403, 202, 409])] {
        let answer = with(&client, secret, POST, "/tasks", lines).await;
        let answers: Vec<Value> =
            answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let got: Vec<_> = answers.iter().map(|line| line["status"].as_u64().unwrap()).collect();
        // Whether the one of before still works is not the matter here.
        let got: Vec<_> = got
            .iter()
            .zip(&statuses)
            .map(|(got, want)| if *want < 300 && *got < 300 { want } else { got })
            .copied()
            .collect();
        assert_eq!(got, statuses, "{secret}: {}", answer.text());
        let told = answer.text().lines().last().unwrap();
        assert!(secret != "s-of-a" || !told.contains("handler b"), "{told}");
    }

    let everything = "{\"action\":\"forget\",\"filter\":{\"state\":\"failed\"}}";
    let counted = everything.replace("}}", "},\"dry_run\":true}");
    assert_eq!(with(&client, "s-all", POST, "/bulk", &counted).await.json()["matched"], 2);
    assert_eq!(with(&client, "s-of-x", POST, "/bulk", &counted).await.json()["matched"], 1);
    assert_eq!(with(&client, "s-of-a", POST, "/bulk", &counted).await.json()["matched"], 0);
    let begun = with(&client, "s-of-x", POST, "/bulk", everything).await;
    let op = format!("/bulk/{}", begun.json()["op"]);
    within("the operation", async {
        while with(&client, "s-of-x", GET, &op, "").await.json()["state"] != "done" {}
    })
    .await;
    with(&client, "s-all", GET, "/tasks/x-f", "").await.problem(404, "not-found");
    assert_eq!(with(&client, "s-all", GET, "/tasks/y-f", "").await.status, 200, "out of reach, so untouched");
    refused(&with(&client, "s-of-a", GET, &op, "").await, "s-of-a");
    refused(&with(&client, "s-of-a", POST, &format!("{op}/cancel"), "").await, "s-of-a");
    assert_eq!(with(&client, "s-of-a", GET, "/bulk", "").await.json()["operations"], Value::Array(vec![]));
    assert_eq!(with(&client, "s-all", GET, "/bulk", "").await.json()["operations"][0]["done"], 1);
    for (secret, filter) in [("s-of-a", "{\"handler\":\"b\"}"), ("s-of-x", "{\"prefix\":\"y\"}")] {
        let body = format!("{{\"action\":\"revoke\",\"filter\":{filter}}}");
        refused(&with(&client, secret, POST, "/bulk", &body).await, secret);
    }

    for what in ["pause", "resume"] {
        assert_eq!(with(&client, "s-of-a", POST, &format!("/handlers/a/{what}"), "").await.status, 200);
        refused(&with(&client, "s-of-a", POST, &format!("/handlers/b/{what}"), "").await, "s-of-a");
        refused(&with(&client, "s-of-x", POST, &format!("/handlers/a/{what}"), "").await, "s-of-x");
    }
    refused(&with(&client, "s-of-a", POST, "/admin/reload", "").await, "s-of-a");
}

#[tokio::test]
async fn events_are_of_what_is_in_reach() {
    let (server, client) = start().await;
    for (secret, wanted) in [("s-of-a", "y-9"), ("s-of-x", "x-9")] {
        let bearer = format!("Bearer {secret}");
        let mut events = Events::open(server.base(), "/events", &[("authorization", &bearer)]).await;
        // Out of reach for the one by its handler, for the other by its id.
        for path in ["/tasks/y-8?handler=b&wait=30", &format!("/tasks/{wanted}?handler=a&wait=30")] {
            let _ = with(&client, "s-all", POST, path, "").await;
        }
        let first = within("an event", events.next()).await.unwrap();
        assert_eq!(first.data["id"], wanted, "{secret}");
    }
}
