//! Bulk operations, and handlers that are paused for a while.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::history::{Ask, Bulk, History, Pause, Stand, Time};
use crate::support::client::Client;
use crate::workload::{HANDLERS, PATIENCE, patience};

/// How often it is looked at while there is load; the rest is seen at rest.
const LOOKS: usize = 20;

/// How many later ones there may be before it is forgotten, roughly.
const REMEMBERED: usize = 80;

/// Begins one on all tasks whose ids begin so, and follows it for a while.
pub(crate) async fn operate(history: &History, client: &Client, prefix: String) {
    let all =
        [(Ask::Retry, "retry"), (Ask::Cancel, "cancel"), (Ask::Revoke, "revoke"), (Ask::Forget, "forget")];
    let (ask, action) = all[fastrand::usize(..all.len())];
    let mut wanted = json!({"action": action, "filter": {"prefix": prefix}});
    if fastrand::u32(..4) == 0 {
        wanted["max"] = json!(fastrand::u32(1..4));
    }
    let began = history.now();
    let sent = timeout(patience(), client.try_send(Method::POST, "/bulk", &[], wanted.to_string())).await;
    if matches!(&sent, Ok(Err(error)) if error.contains("ConnectionRefused")) {
        return;
    }
    let mut bulk = Bulk { ask, prefix, began, answered: Time::MAX, op: None, stands: Vec::new() };
    let answer = sent.ok().and_then(Result::ok);
    let body: Value =
        answer.as_ref().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default();
    match answer.map(|answer| answer.status.as_u16()) {
        Some(202) => {}
        // It takes no more of them, or has none begun.
        Some(429) => return,
        Some(503) | None => {
            history.noted().bulks.push(bulk);
            return;
        }
        Some(status) => {
            history.noted().oddities.push(format!("{wanted} was answered with {status} {body}"));
            return;
        }
    }
    bulk.op = body["op"].as_u64();
    bulk.answered = history.now();
    let Some(op) = bulk.op else { return };
    let number = {
        let mut noted = history.noted();
        let first = Stand::parse(bulk.answered, &body);
        bulk.stands.extend(first);
        noted.bulks.push(bulk);
        noted.bulks.len() - 1
    };
    for _ in 0..LOOKS {
        sleep(Duration::from_millis(10)).await;
        match timeout(PATIENCE, look(history, client, number, op)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true) | Err(_)) | Err(_) => return,
        }
    }
}

/// Notes how an operation stands. Whether it is over.
pub(crate) async fn look(history: &History, client: &Client, number: usize, op: u64) -> Result<bool, String> {
    let answer = client.try_send(Method::GET, &format!("/bulk/{op}"), &[], "").await?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut noted = history.noted();
    let stand = Stand::parse(history.now(), &body).filter(|_| answer.status == 200 && body["op"] == op);
    match stand {
        Some(stand) => {
            noted.bulks[number].stands.push(stand);
            Ok(stand.is_over)
        }
        None if answer.status == 503 => Err(body.to_string()),
        // Only the last hundred that have ended are remembered.
        None if answer.status == 404 && noted.bulks.len() - number > REMEMBERED => Ok(true),
        None => {
            noted.oddities.push(format!("the bulk operation {op} is {} {body}", answer.status));
            Ok(true)
        }
    }
}

/// Looks at each until it is over.
pub(crate) async fn at_rest(history: &History, client: &Client, patience: Duration) -> Result<(), String> {
    let open: Vec<_> = {
        let noted = history.noted();
        let is_open = |bulk: &Bulk| !bulk.stands.last().is_some_and(|stand| stand.is_over);
        let all = noted.bulks.iter().enumerate().filter(|(_, bulk)| is_open(bulk));
        all.filter_map(|(number, bulk)| Some((number, bulk.op?))).collect()
    };
    for (number, op) in open.into_iter().rev() {
        let follow = async {
            while !look(history, client, number, op).await? {
                sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, String>(())
        };
        timeout(patience, follow)
            .await
            .map_err(|_late| format!("the bulk operation {op} does not end"))??;
    }
    Ok(())
}

/// Pauses a handler for a moment.
pub(crate) async fn pause(history: &History, client: &Client, base: &str) {
    let handler = HANDLERS[fastrand::usize(..HANDLERS.len())];
    let path = format!("/handlers/{handler}/pause");
    let sent = timeout(PATIENCE, client.try_send(Method::POST, &path, &[], "")).await;
    // Who got no answer does not know whether it is paused; nor does who has asked this process in vain to resume it.
    let is_unsure = history.noted().unsure.as_deref() == Some(base);
    if !is_unsure && sent.ok().and_then(Result::ok).is_some_and(|answer| answer.status.is_success()) {
        let known = history.now();
        history.noted().pauses.push(Pause { handler, known, until: Time::MAX });
        sleep(Duration::from_millis(fastrand::u64(20..150))).await;
    }
    // Now and then it stays paused, over a restart too, until somebody else resumes it.
    if fastrand::u32(..8) > 0 && !resume(history, client).await {
        history.noted().unsure = Some(base.to_owned());
    }
}

/// Resumes all of them. Whether each says that it is.
pub(crate) async fn resume(history: &History, client: &Client) -> bool {
    let now = history.now();
    for pause in &mut history.noted().pauses {
        pause.until = pause.until.min(now);
    }
    let mut are_resumed = true;
    for handler in HANDLERS {
        let path = format!("/handlers/{handler}/resume");
        let sent = timeout(PATIENCE, client.try_send(Method::POST, &path, &[], "")).await;
        are_resumed &= sent.ok().and_then(Result::ok).is_some_and(|answer| answer.status.is_success());
    }
    are_resumed
}
