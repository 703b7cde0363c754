//! One request about one id.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use tokio::time::timeout;

use crate::history::{Answer, Ask, Attempt, History, How, Id, Operation, Recorded, Time};
use crate::support::client::{Answer as Response, Client};
use crate::workload::handler;

/// Asks, and notes what came of it. Returns the answer, if there was one.
pub(crate) async fn ask(
    history: &History,
    client: &Client,
    ask: Ask,
    how: How,
    id: &Id,
    patience: Duration,
) -> Option<Response> {
    let task = format!("/tasks/{id}");
    let (method, path) = match ask {
        Ask::Launch if how.is_strict => {
            (Method::POST, format!("{task}?handler={}&on_duplicate=error", handler(id)))
        }
        Ask::Launch => (Method::POST, format!("{task}?handler={}", handler(id))),
        Ask::LaunchAndWait => (Method::PUT, format!("{task}?handler={}&wait=1s", handler(id))),
        Ask::Retry => (Method::POST, format!("{task}/retry")),
        Ask::Cancel => (Method::POST, format!("{task}/cancel")),
        Ask::Revoke => (Method::POST, format!("{task}/revoke")),
        Ask::Forget => (Method::DELETE, task),
        Ask::Read => {
            let ways = ["/status", "", "/status?wait=50ms"];
            (Method::GET, format!("{task}{}", ways[fastrand::usize(..ways.len())]))
        }
    };
    let headers = headers(how);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let began = history.now();
    let sent = timeout(patience, client.try_send(method, &path, &headers, "input")).await;
    let ended = history.now();
    let mut noted = history.noted();
    // Nobody has taken the connection, so nobody has the request.
    if matches!(&sent, Ok(Err(error)) if error.contains("ConnectionRefused")) {
        return None;
    }
    let response = sent.ok().and_then(Result::ok);
    let answer = match response.as_ref().map(|response| Answer::parse(ask, how, response)) {
        Some(Ok(answer)) => answer,
        Some(Err(odd)) => {
            noted.oddities.push(format!("{id}: {odd}"));
            Answer::Unknown
        }
        None => Answer::Unknown,
    };
    if let (Ask::Read, Answer::Seen { seen, .. }, Some(response)) = (ask, &answer, &response) {
        let record = serde_json::from_slice(&response.body).unwrap_or_default();
        let (id, seen) = (Arc::clone(id), seen.clone());
        // A status has none.
        noted.recorded.extend(Attempt::all(&record).map(|attempts| Recorded {
            id,
            began,
            ended,
            seen,
            attempts,
        }));
    }
    let ended = if answer == Answer::Unknown { Time::MAX } else { ended };
    noted.operations.push(Operation { id: Arc::clone(id), ask, how, began, ended, answer });
    response
}

fn headers(how: How) -> Vec<(&'static str, String)> {
    let key = how.key.map(|key| ("idempotency-key", format!("key-{key}")));
    let if_match = how.if_match.map(|revision| ("if-match", format!("\"{revision}\"")));
    let if_none_match = how.if_unknown.then(|| ("if-none-match", "*".to_owned()));
    key.into_iter().chain(if_match).chain(if_none_match).collect()
}
