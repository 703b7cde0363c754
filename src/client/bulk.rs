//! `bulk`: begins an operation, and follows it to its end.

use std::time::Duration;

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::answer::{Answer, Bulk, Matched};
use super::args::{BulkAction, BulkArgs, OutputForm};
use super::link::Link;
use super::output::{Printer, plain};
use super::service::{Service, body, usage};
use super::{Failure, list, say};
use crate::exit::Exit;

/// How often it is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(super) async fn bulk(service: &Service, args: &BulkArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let action = match args.action {
        BulkAction::Retry => "retry",
        BulkAction::Cancel => "cancel",
        BulkAction::Revoke => "revoke",
        BulkAction::Forget => "forget",
        BulkAction::Follow => {
            let Some(op) = args.op else { return Err(usage("the number of the operation is needed")) };
            return follow(service, op, Link::default(), printer).await;
        }
    };
    if let Some(op) = args.op {
        return Err(usage(format!("{op} is the number of an operation, which only `bulk follow` takes")));
    }
    let mut wanted = json!({ "action": action, "filter": filter(args), "dry_run": args.dry_run });
    if let (Some(max), Some(wanted)) = (args.max, wanted.as_object_mut()) {
        wanted.insert("max".to_owned(), max.into());
    }
    let (request, wanted) = (service.request(Method::POST, "/bulk"), body(wanted.to_string()));
    if args.dry_run {
        let answer: Answer<Matched> = service.ask(request, wanted, Duration::ZERO).await?;
        match printer.form {
            OutputForm::Table => printer.line(format!("{} match", answer.value.matched).as_bytes())?,
            OutputForm::Json | OutputForm::Ids => printer.line(&answer.text)?,
        }
        return Ok(Exit::Fine);
    }
    let answer: Answer<Bulk> = service
        .ask(request, wanted, Duration::ZERO)
        .await
        .map_err(|failure| perhaps_begun(service, failure))?;
    if args.detach {
        tell(&answer, printer)?;
        return Ok(Exit::Fine);
    }
    let op = answer.value.op;
    say(&format_args!("operation {op} has begun; if this ends early, go on with `bulk follow {op}`"));
    follow(service, op, Link::known(), printer).await
}

/// A request whose answer is lost may have begun an operation, which then has a number that nobody was told.
fn perhaps_begun(service: &Service, failure: Failure) -> Failure {
    match failure {
        Failure::Told { exit, message, is_open: true } => {
            let place = service.place("/bulk");
            Failure::new(
                exit,
                format!(
                    "{message}\nthe operation may have begun all the same: {place} lists those that have, newest first; go on \
                     with `bulk follow` and its number, or begin it again if it is not among them"
                ),
            )
        }
        failure => failure,
    }
}

/// As the body of a bulk operation has it; a single state is a text.
fn filter(args: &BulkArgs) -> Value {
    let mut filter = Map::new();
    for (name, value) in list::pairs(&args.filter) {
        let states = || args.filter.state.iter().cloned().map(Value::from).collect();
        let value = if name == "state" { Value::Array(states()) } else { Value::from(value) };
        filter.insert(name.to_owned(), value);
    }
    Value::Object(filter)
}

/// Tells how far it is until it is over; over a restart of the service too.
async fn follow(service: &Service, op: u64, mut link: Link, printer: &mut Printer) -> Result<Exit, Failure> {
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}") {
        bar.set_style(style);
    }
    let answer = loop {
        match service.get::<Bulk>(&format!("/bulk/{op}")).await {
            Ok(answer) => {
                link.reached();
                let Bulk { matched, done, skipped, failed, .. } = answer.value;
                bar.set_length(matched);
                bar.set_position(done + skipped + failed);
                bar.set_message(format!("{skipped} skipped, {failed} failed"));
                if answer.value.state != "running" {
                    break answer;
                }
                sleep(ASK_EVERY).await;
            }
            Err(failure) => link.lost(failure).await?,
        }
    };
    bar.finish_and_clear();
    for failure in &answer.value.failures {
        say(&format_args!("{}: {}", plain(&failure.id), plain(&failure.reason)));
    }
    tell(&answer, printer)?;
    Ok(match answer.value {
        Bulk { failed: 1.., .. } => Exit::TaskFailed,
        // Somebody has stopped it.
        Bulk { state, .. } if state != "done" => Exit::Refused,
        _ => Exit::Fine,
    })
}

fn tell(answer: &Answer<Bulk>, printer: &mut Printer) -> Result<(), Failure> {
    let Bulk { op, action, state, matched, done, skipped, failed, .. } = &answer.value;
    let text = match printer.form {
        OutputForm::Json => return Ok(printer.line(&answer.text)?),
        OutputForm::Ids => op.to_string(),
        OutputForm::Table => format!(
            "operation {op}, {action}: {state}; {done} of {matched} done, {skipped} skipped, {failed} failed"
        ),
    };
    Ok(printer.line(text.as_bytes())?)
}
