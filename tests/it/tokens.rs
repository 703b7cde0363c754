//! Who is let in, on every route; and what a token with limits sees and does.

mod limits;
mod meanwhile;
mod strangers;

use std::fmt::Write as _;

use hyper::Method;
use task_recorder::access::{Scope, SecretHash};
use task_recorder::api::{Route, routes};

use crate::support::client::{Answer, Client};
use crate::support::server::TestServer;
use crate::support::sse::Events;
use crate::support::until;

/// Handlers for every test here.
pub(crate) const HANDLERS: &str = "
    [handlers.a]
    type = \"command\"
    command = [\"cat\"]
    default = true
    [handlers.b]
    type = \"command\"
    command = [\"cat\"]
    [handlers.fails]
    type = \"command\"
    command = [\"false\"]
";

/// The table of a token whose secret is `s-` and its name.
pub(crate) fn token(name: &str, more: &str) -> String {
    format!("[tokens.{name}]\nhash = \"{}\"\n{more}\n", hash(&format!("s-{name}")))
}

pub(crate) fn hash(secret: &str) -> String {
    SecretHash::of(secret.as_bytes()).to_config()
}

pub(crate) async fn with(client: &Client, secret: &str, method: Method, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {secret}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if path == "/tasks" && method == Method::POST {
        headers.push(("content-type", "application/x-ndjson"));
    }
    client.send(method, path, &headers, body.to_owned()).await
}

/// A path of the route, and a body that it takes.
fn example(route: &Route) -> (String, &'static str) {
    let path = route.path.replace("{id}", "some-id").replace("{op}", "1").replace("{name}", "a");
    let body = match route.path {
        "/lookup" => "{\"ids\":[\"x\"]}",
        "/bulk" => "{\"action\":\"forget\",\"filter\":{\"prefix\":\"none\"},\"dry_run\":true}",
        "/tasks" => "{\"id\":\"in-a-batch\"}\n",
        _ => "",
    };
    (path, if route.method == Method::GET { "" } else { body })
}

fn scoped(scope: Scope) -> String {
    format!("scopes = [\"{scope}\"]")
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_for_nothing_else() {
    let mut config = format!("[server]\nauth_failures = \"1000000/s\"\n{HANDLERS}");
    for scope in Scope::ALL {
        let _ = write!(config, "{}", token(scope.as_str(), &scoped(scope)));
    }
    config += &token(
        "expired",
        "scopes = [\"read\", \"launch\", \"operate\", \"admin\"]\nexpires = 2020-01-01T00:00:00Z",
    );
    let server = TestServer::start(&config);
    let client = server.client();
    assert!(routes().len() > 20);
    for route in routes() {
        let (path, body) = example(&route);
        let name = format!("{} {}", route.method, route.path);
        let bare = client.send(route.method.clone(), &path, &[], body).await;
        let Some(needed) = route.scope else {
            assert_eq!(bare.status, 200, "{name} needs no token");
            continue;
        };
        bare.problem(401, "token-required");
        assert_eq!(bare.header("www-authenticate"), Some("Bearer realm=\"task-recorder\""), "{name}");
        let wrong = with(&client, "s-nobody", route.method.clone(), &path, body).await;
        wrong.problem(401, "invalid-token");
        let challenge = wrong.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("error=\"invalid_token\""), "{name}: {challenge}");
        let expired = with(&client, "s-expired", route.method.clone(), &path, body).await;
        expired.problem(401, "expired-token");
        let challenge = expired.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("error=\"invalid_token\""), "{name}: {challenge}");
        for scope in Scope::ALL {
            let secret = format!("s-{scope}");
            if scope == needed && route.path == "/events" {
                let bearer = format!("Bearer {secret}");
                drop(Events::open(server.base(), &path, &[("authorization", &bearer)]).await);
                continue;
            }
            let answer = with(&client, &secret, route.method.clone(), &path, body).await;
            if scope == needed {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{name}: {}", answer.text());
                continue;
            }
            let detail = answer.problem(403, "insufficient-scope");
            assert!(detail.contains(needed.as_str()), "{name}: {detail}");
            let challenge =
                format!("Bearer realm=\"task-recorder\", error=\"insufficient_scope\", scope=\"{needed}\"");
            assert_eq!(answer.header("www-authenticate"), Some(challenge.as_str()), "{name}");
        }
        if route.method == Method::GET {
            assert_eq!(client.send(Method::HEAD, &path, &[], "").await.status, 401, "HEAD {}", route.path);
        }
    }
    assert_eq!(with(&client, "s-read", Method::GET, "/tasks/in-a-batch", "").await.status, 200);
}

#[test]
fn each_route_needs_the_scope_that_the_manual_says() {
    for Route { method, path, scope, .. } in routes() {
        let wanted = match (&method, path) {
            (_, "/livez" | "/readyz" | "/version" | "/openapi.json" | "/docs") => None,
            (&Method::GET, _) | (_, "/lookup") => Some(Scope::Read),
            (_, "/tasks") | (&Method::POST | &Method::PUT, "/tasks/{id}") => Some(Scope::Launch),
            (_, path) if path.starts_with("/admin/") => Some(Scope::Admin),
            _ => Some(Scope::Operate),
        };
        assert_eq!(scope, wanted, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_only_to_those_who_have_a_token() {
    let server = TestServer::start(&format!("{HANDLERS}{}", token("r", "scopes = [\"read\"]")));
    let client = server.client();
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/tasks/"),
        (Method::GET, "//tasks"),
        (Method::GET, "/tasks/a/b/c"),
        (Method::GET, "/%74asks"),
        (Method::POST, "/livez"),
        (Method::PATCH, "/tasks/a"),
        (Method::OPTIONS, "/tasks/a"),
        (Method::DELETE, "/tasks"),
    ] {
        client.send(method.clone(), path, &[], "").await.problem(401, "token-required");
        let answer = with(&client, "s-r", method.clone(), path, "").await;
        assert!([400, 404, 405].contains(&answer.status.as_u16()), "{method} {path}: {}", answer.text());
    }
}

#[tokio::test]
async fn two_secrets_open_a_token_while_one_takes_the_place_of_the_other() {
    let (old, new) = (hash("old"), hash("new"));
    let both = format!("[tokens.ci]\nhash = [\"{old}\", \"{new}\"]\nscopes = [\"read\", \"admin\"]");
    let server = TestServer::start(&format!("{HANDLERS}{both}"));
    let client = server.client();
    for secret in ["old", "new"] {
        assert_eq!(with(&client, secret, Method::GET, "/stats", "").await.status, 200);
    }
    let only = format!("[tokens.ci]\nhash = \"{new}\"\nscopes = [\"read\", \"admin\"]");
    server.reconfigure(&format!("{HANDLERS}{only}"));
    assert_eq!(with(&client, "old", Method::POST, "/admin/reload", "").await.status, 200);
    with(&client, "old", Method::GET, "/stats", "").await.problem(401, "invalid-token");
    assert_eq!(with(&client, "new", Method::GET, "/stats", "").await.status, 200);
}

#[tokio::test]
async fn the_header_says_bearer_in_any_case_and_is_there_once() {
    let server = TestServer::start(&format!("{HANDLERS}{}", token("r", "scopes = [\"read\"]")));
    let client = server.client();
    let status = async |headers: &[(&str, &str)]| {
        client.send(Method::GET, "/stats", headers, "").await.status.as_u16()
    };
    for good in ["Bearer s-r", "bearer s-r", "BEARER  s-r"] {
        assert_eq!(status(&[("authorization", good)]).await, 200, "{good}");
    }
    for bad in ["s-r", "Basic cy1yOg==", "Bearer", "Bearers s-r", "Bearer s-r x", "Bearer s-", ""] {
        assert_eq!(status(&[("authorization", bad)]).await, 401, "{bad}");
    }
    let twice = [("authorization", "Bearer s-r"), ("authorization", "Bearer s-r")];
    client.send(Method::GET, "/stats", &twice, "").await.problem(400, "invalid-header");
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_told_to_wait_and_a_right_secret_is_let_in_all_the_same() {
    let server = TestServer::start(&format!(
        "[server]\nauth_failures = \"3/h\"\n{HANDLERS}{}",
        token("r", "scopes = [\"read\"]")
    ));
    let client = server.client();
    for _ in 0..3 {
        with(&client, "s-x", Method::GET, "/stats", "").await.problem(401, "invalid-token");
    }
    for _ in 0..2 {
        let answer = with(&client, "s-x", Method::GET, "/stats", "").await;
        answer.problem(429, "too-many-failures");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1_000..=1_201).contains(&seconds), "{seconds}");
    }
    assert_eq!(with(&client, "s-r", Method::GET, "/stats", "").await.status, 200);
    client.get("/stats").await.problem(401, "token-required");
    assert_eq!(client.get("/readyz").await.status, 200);
    until("the line", || server.logged("faster than server.auth_failures")).await;
    assert_eq!(server.log().matches("faster than server.auth_failures").count(), 1, "{}", server.log());
    assert!(!server.log().contains("s-x"), "no secret is logged");
}
