//! Everything has settled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::{PATIENCE, PROBES};
use crate::asking::ask;
use crate::bulk;
use crate::checker::{self, Rest};
use crate::follower;
use crate::history::{Answer, Ask, History, How, Id, Listed};
use crate::support::client::Client;
use crate::support::server::TestServer;

/// An id of a handler that tells nobody.
const LAST: usize = 2 * PROBES + 1;

/// Waits until nothing is under way, and reads everything.
pub(super) async fn rest(history: &Arc<History>, server: &TestServer) -> Result<Rest, String> {
    let begun = Instant::now();
    let client = &server.client();
    while !bulk::resume(history, client).await {
        if begun.elapsed() > PATIENCE {
            return Err("handlers cannot be resumed".to_owned());
        }
    }
    bulk::at_rest(history, client, PATIENCE).await?;
    come_to_rest(history, client, begun).await?;
    // A change that readers are told of. That a notice has ended is none, and they would wait for the next sign of life.
    let marker = checker::id(LAST);
    while ask(history, client, Ask::LaunchAndWait, How::default(), &marker, PATIENCE).await.is_none() {
        if begun.elapsed() > PATIENCE {
            return Err("nothing can be launched at rest".to_owned());
        }
    }
    let stats = come_to_rest(history, client, begun).await?;
    let ids: BTreeSet<Id> =
        history.noted().operations.iter().map(|operation| Arc::clone(&operation.id)).collect();
    let mut records = BTreeMap::new();
    for id in ids {
        loop {
            // One that was kept for long may have been closed by the service; the next one is new.
            let answered = ask(history, client, Ask::Read, How::default(), &id, PATIENCE).await;
            if answered.is_none() && begun.elapsed() <= PATIENCE {
                continue;
            }
            answered.ok_or("no answer at rest")?;
            let answer = history.noted().operations.last().map(|operation| operation.answer.clone());
            let record = match answer {
                Some(Answer::Seen { seen, .. }) => Some(seen),
                Some(Answer::Absent { .. }) => None,
                other => return Err(format!("{id}: {other:?} at rest")),
            };
            let is_moving = record.as_ref().is_some_and(|seen| seen.phase.is_some());
            if !is_moving || begun.elapsed() > PATIENCE {
                records.insert(id.to_string(), record);
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
    // Revokes may have ended meanwhile.
    let counts = get(client, "/stats").await?;
    let counts =
        ["working", "success", "failed"].map(|name| counts["tasks"][name].as_u64().unwrap_or(u64::MAX));
    let accept = [("accept", "application/x-ndjson")];
    let list = client.try_send(hyper::Method::GET, "/tasks", &accept, "").await?;
    let lines =
        list.text().lines().map(|line| serde_json::from_str(line).ok().and_then(|line| Listed::parse(&line)));
    let listed = lines.collect::<Option<Vec<_>>>().ok_or_else(|| format!("a broken list, {stats}"))?;
    follower::catch_up(history, server.base()).await?;
    Ok(Rest { records, listed, counts, clock_jumped: false })
}

/// Waits until nothing is working, due or under way.
async fn come_to_rest(history: &Arc<History>, client: &Client, begun: Instant) -> Result<Value, String> {
    loop {
        let stats = get(client, "/stats").await?;
        let bulks = get(client, "/bulk").await?;
        let is_running = |bulk: &Value| bulk["state"] == "running";
        let are_over = bulks["operations"].as_array().is_some_and(|all| !all.iter().any(is_running));
        if are_over && stats["tasks"]["working"] == 0 && stats["notices"]["due"] == 0 {
            return Ok(stats);
        }
        // One that was asked to pause it, and did not answer, may do so late.
        bulk::resume(history, client).await;
        if begun.elapsed() > PATIENCE {
            let working = get(client, "/tasks?state=working").await?;
            return Err(format!("it does not come to rest: {stats}, {working}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn get(client: &Client, path: &str) -> Result<Value, String> {
    let answer = client.try_send(hyper::Method::GET, path, &[], "").await?;
    serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))
}

/// How many runs of the index of archived ids were written there.
pub(super) fn index_runs(data: &Path) -> u64 {
    let names = std::fs::read_dir(data.join("ids")).into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".ids")?.parse().ok();
    names.filter_map(|entry| number(entry.file_name())).max().unwrap_or_default()
}
