//! Requests about many ids at once: batches, lookups, bulk operations.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::history::{Answer, Ask, History, How, Id, Operation, Time};
use crate::support::client::{Answer as Response, Client};
use crate::workload::{PATIENCE, handler, patience};

/// `POST /tasks`
pub(crate) async fn launch(history: &History, client: &Client, ids: &[Id]) {
    let line = |id: &Id| json!({"id": &**id, "handler": handler(id), "input": {"of": &**id}});
    let body: Vec<_> = ids.iter().map(|id| line(id).to_string()).collect();
    let headers = [("content-type", "application/x-ndjson")];
    let began = history.now();
    let sent = timeout(patience(), client.try_send(Method::POST, "/tasks", &headers, body.join("\n"))).await;
    let answers = lines(&sent.map_err(|_late| String::new()).flatten());
    note(history, Ask::Launch, began, ids, answers, |number, id, line| {
        // Those of problems have the number of their line.
        let is_in_place = line["line"].as_u64().is_none_or(|told| told == number as u64 + 1);
        if line["id"] == **id && is_in_place {
            Answer::of_line(line)
        } else {
            Err(format!("line {number} of a batch, for {id}, was answered with {line}"))
        }
    });
}

/// `POST /lookup`
pub(crate) async fn look_up(history: &History, client: &Client, ids: &[Id]) {
    let wanted = json!({"ids": ids.iter().map(|id| &**id).collect::<Vec<_>>()}).to_string();
    let began = history.now();
    let sent = timeout(PATIENCE, client.try_send(Method::POST, "/lookup", &[], wanted)).await;
    let found = sent.map_err(|_late| String::new()).flatten().and_then(|answer| {
        let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        match (answer.status.as_u16(), body["tasks"].as_array()) {
            (200, Some(tasks)) => Ok(Some(tasks.clone())),
            (503, _) => Ok(None),
            _ => {
                history.noted().oddities.push(format!("a lookup was answered with {} {body}", answer.status));
                Ok(None)
            }
        }
    });
    note(history, Ask::Read, began, ids, found.map(Option::unwrap_or_default), |_, id, found| {
        if found["id"] == **id {
            Answer::of_found(found)
        } else {
            Err(format!("{id} was looked up as {found}"))
        }
    });
}

/// Every line, where all of the answer came.
fn lines(sent: &Result<Response, String>) -> Result<Vec<Value>, String> {
    let answer = sent.as_ref().map_err(Clone::clone)?;
    if answer.status != 200 {
        return Err(answer.status.to_string());
    }
    Ok(answer.text().lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect())
}

/// Notes one operation an id: what its answer says, or that it has none.
fn note(
    history: &History,
    ask: Ask,
    began: Time,
    ids: &[Id],
    answers: Result<Vec<Value>, String>,
    parse: impl Fn(usize, &Id, &Value) -> Result<Answer, String>,
) {
    let ended = history.now();
    if matches!(&answers, Err(error) if error.contains("ConnectionRefused")) {
        return;
    }
    let answers = answers.unwrap_or_default();
    let mut noted = history.noted();
    if !answers.is_empty() && answers.len() != ids.len() {
        noted.oddities.push(format!("{} ids, and {} answers: {answers:?}", ids.len(), answers.len()));
    }
    for (number, id) in ids.iter().enumerate() {
        let answer = answers.get(number).map_or(Ok(Answer::Unknown), |answer| parse(number, id, answer));
        let answer = answer.unwrap_or_else(|odd| {
            noted.oddities.push(odd);
            Answer::Unknown
        });
        let ended = if answer == Answer::Unknown { Time::MAX } else { ended };
        noted.operations.push(Operation {
            id: Arc::clone(id),
            ask,
            how: How::default(),
            began,
            ended,
            answer,
        });
    }
}
