//! What is asked about tasks by their ids: launch, status, wait, retry, cancel, revoke, forget.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::Failure;
use super::answer::{Answer, Status, Tasks};
use super::args::{ActArgs, IdsArgs, LaunchArgs, WaitArgs};
use super::link::Link;
use super::output::Printer;
use super::service::{Service, body, no_body, query, usage};
use crate::exit::Exit;
use crate::task::TaskId;

/// How many ids one lookup takes.
const LOOKUP_MAX: usize = 1_000;
/// How many ids are waited for at once, each with a connection of its own.
const WAITS_MAX: usize = 64;
/// How long one request waits at most; then another one does.
const WAIT_AT_ONCE: Duration = Duration::from_mins(1);

/// What may be done to a task, and waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Retry,
    Cancel,
    Revoke,
}

pub(super) async fn launch(
    service: &Service,
    args: &LaunchArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    // Without --batch there is an id.
    let Some(id) = &args.id else { return Err(usage("an id is needed")) };
    let mut pairs = Vec::new();
    if let Some(handler) = &args.handler {
        pairs.push(("handler", handler.clone()));
    }
    let mut request = service.request(Method::POST, &format!("/tasks/{id}{}", query(&pairs)));
    if let Some(media_type) = &args.content_type {
        request = request.header(CONTENT_TYPE, media_type);
    }
    if let Some(key) = &args.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let input = args.input.as_deref().map_or_else(|| Ok(Bytes::new()), input)?;
    let mut answer: Answer<Status> = service.ask(request, body(input), Duration::ZERO).await?;
    // Waited for with a request of its own, which may be sent again when the service goes away; a launch may not.
    if let Some(wait) = args.wait
        && !answer.value.is_at_rest()
    {
        answer = at_rest(service, id, Instant::now().checked_add(wait), Link::known()).await?;
    }
    printer.task(&answer.text, &answer.value)?;
    Ok(exit_of(&answer.value, args.wait.is_some()))
}

/// From a file, from standard input, or the text itself.
fn input(given: &str) -> Result<Bytes, Failure> {
    if let Some(text) = given.strip_prefix('@') {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let mut bytes = Vec::new();
    let read = match given {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| usage(format!("the input cannot be read from {given}: {error}")))?;
    Ok(bytes.into())
}

pub(super) async fn status(
    service: &Service,
    args: &IdsArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    if let [id] = args.ids.as_slice() {
        let answer: Answer<Status> = service.get(&format!("/tasks/{id}/status")).await?;
        printer.task(&answer.text, &answer.value)?;
        return Ok(exit_of(&answer.value, false));
    }
    let mut exits = Vec::new();
    for ids in args.ids.chunks(LOOKUP_MAX) {
        let wanted = serde_json::json!({ "ids": ids }).to_string();
        let request = service.request(Method::POST, "/lookup");
        let found: Answer<Tasks<Box<RawValue>>> = service.ask(request, body(wanted), Duration::ZERO).await?;
        for text in found.value.tasks {
            let task: Status = serde_json::from_str(text.get()).map_err(|error| service.foreign(&error))?;
            printer.task(text.get().as_bytes(), &task)?;
            exits.push(if task.state == "not_found" { Exit::NotFound } else { exit_of(&task, false) });
        }
    }
    Ok(worst(&exits))
}

/// Tells of each task when it has ended.
pub(super) async fn wait(service: &Service, args: &WaitArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let until = args.timeout.and_then(|limit| Instant::now().checked_add(limit));
    let waits = args.ids.iter().map(|id| at_rest(service, id, until, Link::default()));
    let mut ends = stream::iter(waits).buffer_unordered(WAITS_MAX);
    let mut exits = Vec::new();
    while let Some(end) = ends.next().await {
        match end {
            Ok(answer) => {
                printer.task(&answer.text, &answer.value)?;
                printer.flush()?;
                exits.push(exit_of(&answer.value, true));
            }
            Err(failure) if failure.exit() == Exit::NotFound => {
                failure.tell();
                exits.push(Exit::NotFound);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(worst(&exits))
}

/// Does it to one id after the other; what is refused for one does not keep the others from it.
pub(super) async fn act(
    service: &Service,
    action: Action,
    args: &ActArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let mut exits = Vec::new();
    for id in &args.ids {
        match act_on(service, action, id, args.wait).await {
            Ok(answer) => {
                printer.task(&answer.text, &answer.value)?;
                printer.flush()?;
                exits.push(exit_after(action, &answer.value, args.wait.is_some()));
            }
            Err(failure) => exits.push(passed_over(failure)?),
        }
    }
    Ok(worst(&exits))
}

async fn act_on(
    service: &Service,
    action: Action,
    id: &TaskId,
    wait: Option<Duration>,
) -> Result<Answer<Status>, Failure> {
    let word = match action {
        Action::Retry => "retry",
        Action::Cancel => "cancel",
        Action::Revoke => "revoke",
    };
    let request = service.request(Method::POST, &format!("/tasks/{id}/{word}"));
    let answer: Answer<Status> = service.ask(request, no_body(), Duration::ZERO).await?;
    let wait = match wait {
        Some(wait) if !answer.value.is_at_rest() => wait,
        _ => return Ok(answer),
    };
    match at_rest(service, id, Instant::now().checked_add(wait), Link::known()).await {
        Err(failure) if action == Action::Revoke && failure.exit() == Exit::NotFound => {
            let text = serde_json::json!({ "id": id, "state": "not_found" }).to_string();
            let value = serde_json::from_str(&text).map_err(|error| service.foreign(&error))?;
            Ok(Answer { text: text.into(), value })
        }
        answer => answer,
    }
}

pub(super) async fn forget(
    service: &Service,
    args: &IdsArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let mut exits = Vec::new();
    for id in &args.ids {
        let request = service.request(Method::DELETE, &format!("/tasks/{id}"));
        match service.send(request, no_body(), Duration::ZERO).await {
            Ok(_no_content) => {
                let text = serde_json::json!({ "id": id, "state": "not_found" }).to_string();
                let value = serde_json::from_str(&text).map_err(|error| service.foreign(&error))?;
                printer.task(text.as_bytes(), &value)?;
                exits.push(Exit::Fine);
            }
            Err(failure) => {
                printer.flush()?;
                exits.push(passed_over(failure)?);
            }
        }
    }
    Ok(worst(&exits))
}

/// What concerns one id alone is told, and the next one has its turn.
fn passed_over(failure: Failure) -> Result<Exit, Failure> {
    match failure.exit() {
        exit @ (Exit::NotFound | Exit::Refused) => {
            failure.tell();
            Ok(exit)
        }
        _ => Err(failure),
    }
}

/// The task once it is at rest, or as it stands when the time is up; without a time, or with one that no clock reaches,
/// for ever. A service that goes away meanwhile is asked again for a while: the runs go on, or end, without anybody who
/// waits.
async fn at_rest(
    service: &Service,
    id: &TaskId,
    until: Option<Instant>,
    mut link: Link,
) -> Result<Answer<Status>, Failure> {
    let path = format!("/tasks/{id}/status");
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return service.get(&path).await;
        }
        // The first question is one whether it is there at all; from then on it may go away for a moment.
        let most = if link.was_reached() { WAIT_AT_ONCE } else { Duration::ZERO };
        let longer = left.unwrap_or(most).min(most);
        // Whole seconds, the last one begun; the service may shorten it.
        let seconds = longer.as_secs() + u64::from(longer.subsec_nanos() > 0);
        let request = service.request(Method::GET, &path).header("prefer", format!("wait={seconds}"));
        let asked = service.ask::<Status>(request, no_body(), longer);
        match timeout(left.unwrap_or(Duration::MAX), asked).await {
            Ok(Ok(answer)) if answer.value.is_at_rest() => return Ok(answer),
            Ok(Ok(_)) => link.reached(),
            Ok(Err(failure)) => link.lost(failure).await?,
            Err(_elapsed) => {}
        }
    }
}

/// The exit code for a task that stands so.
fn exit_of(task: &Status, was_waited_for: bool) -> Exit {
    if was_waited_for && !task.is_at_rest() {
        Exit::TimedOut
    } else if task.is_failed() {
        Exit::TaskFailed
    } else {
        Exit::Fine
    }
}

fn exit_after(action: Action, task: &Status, was_waited_for: bool) -> Exit {
    match action {
        // A run that was canceled has failed, as it should.
        Action::Cancel if task.is_failed() => Exit::Fine,
        Action::Revoke if was_waited_for && task.is_at_rest() && task.state != "not_found" => {
            Exit::TaskFailed
        }
        _ => exit_of(task, was_waited_for),
    }
}

/// The code that says most of what went wrong with several tasks.
fn worst(exits: &[Exit]) -> Exit {
    let order = [Exit::Refused, Exit::NotFound, Exit::TimedOut, Exit::TaskFailed];
    order.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Fine)
}
