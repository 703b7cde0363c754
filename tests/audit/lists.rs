//! Lists: page by page, or as a stream of objects or of bare ids.

use hyper::Method;
use serde_json::Value;
use tokio::time::timeout;

use crate::history::{Bare, History, Listed, Name, Walk};
use crate::support::client::Client;
use crate::workload::PATIENCE;

/// Reads one list in one of its ways. Where the service goes away meanwhile nothing is noted.
pub(crate) async fn read(history: &History, client: &Client) {
    let name = [Name::Success, Name::Failed, Name::Working][fastrand::usize(..3)];
    let began = history.now();
    if fastrand::u32(..3) > 0 {
        let walked = pages(client, name, fastrand::bool(), fastrand::usize(3..60)).await;
        let ended = history.now();
        history.noted().walks.extend(walked.map(|(pages, listed)| Walk {
            name,
            began,
            ended,
            pages,
            listed,
        }));
    } else if fastrand::bool() {
        let Some(text) = stream(client, name, "application/x-ndjson").await else { return };
        let ended = history.now();
        let lines = text.lines().map(|line| Listed::parse(&serde_json::from_str(line).unwrap_or_default()));
        match lines.collect() {
            Some(listed) => history.noted().walks.push(Walk { name, began, ended, pages: 1, listed }),
            None => {
                history
                    .noted()
                    .oddities
                    .push(format!("a stream of objects has a line that is none:\n{text}"));
            }
        }
    } else {
        let Some(text) = stream(client, name, "text/plain").await else { return };
        let ended = history.now();
        let ids = text.lines().map(str::to_owned).collect();
        history.noted().bare.push(Bare { name, began, ended, ids });
    }
}

async fn stream(client: &Client, name: Name, accept: &str) -> Option<String> {
    let order = ["asc", "desc"][fastrand::usize(..2)];
    let path = format!("/tasks?state={}&order={order}", name.as_str());
    let headers = [("accept", accept)];
    let answer = timeout(PATIENCE, client.try_send(Method::GET, &path, &headers, "")).await.ok()?.ok()?;
    (answer.status == 200).then(|| answer.text().to_owned())
}

/// Every page of a list; none where the service went away meanwhile.
async fn pages(
    client: &Client,
    name: Name,
    is_newest_first: bool,
    limit: usize,
) -> Option<(usize, Vec<Listed>)> {
    let order = if is_newest_first { "desc" } else { "asc" };
    let first = format!("/tasks?state={}&order={order}&limit={limit}", name.as_str());
    let (mut path, mut listed, mut pages) = (first.clone(), Vec::new(), 0);
    loop {
        let page = timeout(PATIENCE, client.try_send(Method::GET, &path, &[], "")).await.ok()?.ok()?;
        if page.status != 200 {
            return None;
        }
        let page: Value = serde_json::from_slice(&page.body).ok()?;
        pages += 1;
        listed.extend(
            page["tasks"].as_array()?.iter().map(|line| Listed::parse(line).expect("a line of a list")),
        );
        // In this order new ones come at the end, and clients never stop: what was there at the beginning is long past.
        match page["next"].as_str() {
            Some(cursor) if pages < 2_000 => path = format!("{first}&cursor={cursor}"),
            Some(_) => return None,
            None => return Some((pages, listed)),
        }
    }
}
