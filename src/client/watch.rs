//! `watch`: the changes as they happen, over every break of the connection.

use std::time::Duration;

use hyper::Method;
use hyper::header::ACCEPT;

use super::Failure;
use super::answer::{Gap, Status};
use super::args::{OutputForm, WatchArgs};
use super::link::Link;
use super::output::Printer;
use super::service::{Service, no_body, query};
use super::sse::{Event, Events};
use crate::exit::Exit;

/// The service says something every 15 seconds; one that is silent for longer has gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Does not end by itself.
pub(super) async fn watch(
    service: &Service,
    args: &WatchArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let mut link = Link::default();
    let mut events = Events::after(args.after);
    loop {
        let failure = match follow(service, args, &mut link, &mut events, printer).await {
            // It stops in order, and may be there again soon.
            Ok(()) => Failure::new(Exit::Unavailable, "the service has ended the stream"),
            Err(failure) => failure,
        };
        events.begin_again();
        link.lost(failure).await?;
    }
}

/// Until the stream ends or breaks.
async fn follow(
    service: &Service,
    args: &WatchArgs,
    link: &mut Link,
    events: &mut Events,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut pairs: Vec<_> = args.state.iter().map(|state| ("state", state.clone())).collect();
    pairs.extend(args.id.iter().map(|id| ("id", id.to_string())));
    pairs.extend(args.handler.iter().map(|handler| ("handler", handler.clone())));
    let mut request = service.request(Method::GET, &format!("/events{}", query(&pairs)));
    request = request.header(ACCEPT, "text/event-stream");
    if let Some(place) = events.place {
        request = request.header("last-event-id", place);
    }
    let mut lines = service.lines(service.send(request, no_body(), Duration::ZERO).await?);
    link.reached();
    while let Some(line) = lines.next(SILENCE_MAX).await? {
        if let Some(event) = events.take(&line) {
            tell(service, &event, printer)?;
            printer.flush()?;
        }
    }
    Ok(())
}

fn tell(service: &Service, event: &Event, printer: &mut Printer) -> Result<(), Failure> {
    let foreign = |error: serde_json::Error| service.foreign(&error);
    if event.name == "gap" {
        let Gap { from, to } = serde_json::from_str(&event.data).map_err(foreign)?;
        if printer.form != OutputForm::Json {
            super::say(&format_args!(
                "the changes {from} to {to} are not told any more; `list` says how things stand"
            ));
            return Ok(());
        }
    }
    // The place is what `--after` goes on from.
    let seq = event.seq.unwrap_or_default();
    let rest = event.data.strip_prefix('{').unwrap_or(&event.data);
    let line = format!("{{\"seq\":{seq},\"event\":\"{}\",{rest}", event.name);
    if event.name == "gap" {
        return Ok(printer.line(line.as_bytes())?);
    }
    let task: Status = serde_json::from_str(&event.data).map_err(foreign)?;
    Ok(printer.task(line.as_bytes(), &task)?)
}
