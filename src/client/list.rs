//! `list`: every match, as it comes.

use std::time::Duration;

use hyper::Method;
use hyper::header::ACCEPT;

use super::Failure;
use super::answer::Status;
use super::args::{FilterArgs, ListArgs};
use super::output::Printer;
use super::service::{Service, no_body, query};
use crate::exit::Exit;

pub(super) async fn list(service: &Service, args: &ListArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut pairs = pairs(&args.filter);
    if args.newest_first {
        pairs.push(("order", "desc".to_owned()));
    }
    if let Some(limit) = args.limit {
        pairs.push(("limit", limit.to_string()));
    }
    let request = service.request(Method::GET, &format!("/tasks{}", query(&pairs)));
    let request = request.header(ACCEPT, "application/x-ndjson");
    let mut lines = service.lines(service.send(request, no_body(), Duration::ZERO).await?);
    while let Some(line) = lines.next(args.service.answer_within).await? {
        let task: Status = serde_json::from_str(&line).map_err(|error| service.foreign(&error))?;
        printer.task(line.as_bytes(), &task)?;
    }
    Ok(Exit::Fine)
}

/// A filter as a query has it.
pub(super) fn pairs(filter: &FilterArgs) -> Vec<(&'static str, String)> {
    let states = filter.state.iter().map(|state| ("state", state.clone()));
    let others = [
        ("handler", filter.handler.clone()),
        ("prefix", filter.prefix.clone()),
        ("error_kind", filter.error_kind.clone()),
        ("in_doubt", filter.in_doubt.map(|doubt| doubt.to_string())),
        ("since", filter.since.clone()),
        ("until", filter.until.clone()),
    ];
    states.chain(others.into_iter().filter_map(|(name, value)| Some((name, value?)))).collect()
}
