//! The handlers of a config: `[handlers.NAME]`.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use regex::bytes::Regex;

use super::error::{Fault, Place};
use super::handler_kinds::{Argv, Folder, Headers, Statuses, VariableName};
use super::kind::{Choice, List, Size, Switch, Text, Time, Whole};
use super::reader::Section;
use super::{SHORTEST, known_keys};
use crate::handler::command::CommandSettings;
use crate::handler::template::UrlTemplate;
use crate::handler::webhook::WebhookSettings;
use crate::handler::{Action, Command, Handler, Webhook};
use crate::task::HandlerName;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Webhook,
    Command,
}

const TYPES: [(&str, Type); 2] = [("webhook", Type::Webhook), ("command", Type::Command)];
const METHODS: [(&str, Method); 5] = [
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("PATCH", Method::PATCH),
    ("DELETE", Method::DELETE),
    ("GET", Method::GET),
];
const INPUT_MAX: Size = Size(0..=64 << 20);
const OUTPUT_MAX: Size = Size(0..=1 << 20);
const TIMEOUT: Time = Time(SHORTEST..=Duration::from_hours(24));
const KILL_AFTER: Time = Time(SHORTEST..=Duration::from_mins(10));
const URL: Text<UrlTemplate> =
    Text::secret("an http or https URL, with {id}, {run} and {attempt} only behind its host");
const PATTERN: Text<Regex> = Text::new("a regular expression");
const FOLDER: Text<Folder> = Text::new("the path of a folder");
const ENV: List<Text<VariableName>> = List {
    expected: "a list of names of environment variables, such as [\"PATH\", \"HOME\"]",
    may_be_empty: true,
    of: Text::new("the name of an environment variable"),
};
const EXIT_CODES: List<Whole<i32>> =
    List { expected: "a list of exit codes, such as [0]", may_be_empty: false, of: Whole(0..=255) };

/// Every handler of the table, in the order of the file; what is wrong is reported to the reader.
pub(super) fn read(mut handlers: Section<'_, '_>) -> Vec<Handler> {
    let mut all = Vec::new();
    let mut first_default = None;
    handlers.for_each_table(|name, mut section| match name.parse() {
        Ok(name) => all.extend(handler(name, section, &mut first_default)),
        Err(why) => section.report(Fault::HandlerName { name: name.to_owned(), why }),
    });
    all
}

fn handler(
    name: HandlerName,
    mut section: Section<'_, '_>,
    first_default: &mut Option<(HandlerName, Place)>,
) -> Option<Handler> {
    let kind = section.required("type", &Choice(&TYPES));
    let is_default = section.get("default", false, &Switch);
    match first_default {
        Some((first, place)) if is_default => {
            let (first, first_place, second) = (first.to_string(), place.clone(), name.to_string());
            section.report_at("default", Fault::TwoDefaults { first, first_place, second });
        }
        None if is_default => *first_default = Some((name.clone(), section.place_of("default"))),
        Some(_) | None => {}
    }
    let input_bytes_max = bytes(section.get("input_max", 1 << 20, &INPUT_MAX));
    let output_bytes_max = bytes(section.get("output_max", 64 << 10, &OUTPUT_MAX));
    let action = match kind {
        Some(Type::Webhook) => webhook(&mut section, output_bytes_max).map(Action::Webhook),
        Some(Type::Command) => command(&mut section, output_bytes_max).map(Action::Command),
        None => {
            section.expect(TYPES.iter().flat_map(|(word, _)| keys_of(word)));
            None
        }
    };
    let table = format!("handlers.{name}");
    section.finish(|key| {
        let (this, _) = TYPES.iter().find(|(_, other)| Some(*other) == kind)?;
        let (other, _) = TYPES.iter().find(|(other, _)| other != this && keys_of(other).any(|k| k == key))?;
        Some(Fault::OtherType { key: key.to_owned(), table: table.clone(), this, other })
    });
    Some(Handler {
        name,
        is_default,
        input_bytes_max,
        action: action?,
        revoke: None,
        policy: crate::task::Policy::default(),
    })
}

fn webhook(section: &mut Section<'_, '_>, output_bytes_max: usize) -> Option<Webhook> {
    let url = section.required("url", &URL);
    let method = section.get("method", Method::POST, &Choice(&METHODS));
    let headers = section.get("headers", Vec::new(), &Headers);
    let timeout = section.get("timeout", Duration::from_secs(30), &TIMEOUT);
    let success = section.get("success", vec![200..=299], &Statuses::LIST);
    let success_body = section.optional("success_body", &PATTERN);
    Some(Webhook::new(WebhookSettings {
        url: url?,
        method,
        headers,
        timeout,
        success,
        success_body,
        output_bytes_max,
    }))
}

fn command(section: &mut Section<'_, '_>, output_bytes_max: usize) -> Option<Command> {
    let argv = section.required("command", &Argv);
    let env = ["PATH", "HOME", "LANG", "TZ"].map(|name| VariableName(name.to_owned()));
    let env = section.get("env", env.into(), &ENV);
    let cwd = section.optional("cwd", &FOLDER);
    let timeout = section.get("timeout", Duration::from_mins(5), &TIMEOUT);
    let kill_after = section.get("kill_after", Duration::from_secs(5), &KILL_AFTER);
    let success = section.get("success", vec![0], &EXIT_CODES);
    Some(Command::new(CommandSettings {
        argv: argv?,
        env: env.into_iter().map(|name| name.0).collect(),
        cwd: cwd.map(|folder| PathBuf::from(folder.0)),
        timeout,
        kill_after,
        success,
        output_bytes_max,
    }))
}

/// The keys of a type of handler.
fn keys_of(word: &str) -> impl Iterator<Item = &'static str> {
    let table = format!("handlers.{word}");
    known_keys().into_iter().filter(move |(t, _)| *t == table).map(|(_, key)| key)
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
