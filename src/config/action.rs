//! What a handler does, or does to undo it: the keys of a webhook and of a command.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use regex::bytes::Regex;

use super::error::Fault;
use super::handler_kinds::{Argv, Folder, Headers, Statuses, VariableName};
use super::kind::{Choice, List, Size, Text, Time, Whole};
use super::outbound::Outbound;
use super::reader::Section;
use super::{SHORTEST, bytes, known_keys};
use crate::handler::command::CommandSettings;
use crate::handler::template::UrlTemplate;
use crate::handler::webhook::WebhookSettings;
use crate::handler::{Action, Command, Webhook};

/// The type of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Webhook,
    Command,
}

const TYPES: [(&str, Type); 2] = [("webhook", Type::Webhook), ("command", Type::Command)];
pub(super) const TYPE: Choice<Type> = Choice(&TYPES);
const METHODS: [(&str, Method); 5] = [
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("PATCH", Method::PATCH),
    ("DELETE", Method::DELETE),
    ("GET", Method::GET),
];
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
    // Somebody may have put the value there too.
    of: Text::secret("the name of an environment variable"),
};
const EXIT_CODES: List<Whole<i32>> =
    List { expected: "a list of exit codes, such as [0]", may_be_empty: false, of: Whole(0..=255) };

/// The action of this type in a table, with the keys of a webhook's calls; what is left out of those is as in
/// `inherited`. Without a type the keys of both are taken as known, so that one mistake is told
/// once.
pub(super) fn read(
    section: &mut Section<'_, '_>,
    kind: Option<Type>,
    inherited: &Outbound,
) -> (Option<Action>, Outbound) {
    let Some(kind) = kind else {
        section.expect(TYPES.iter().flat_map(|(word, _)| keys_of(word)));
        return (None, Outbound::default());
    };
    let output_bytes_max = bytes(section.get("output_max", 64 << 10, &OUTPUT_MAX));
    match kind {
        Type::Webhook => {
            let (webhook, outbound) = webhook(section, output_bytes_max, inherited);
            (webhook.map(Action::Webhook), outbound)
        }
        Type::Command => (command(section, output_bytes_max).map(Action::Command), Outbound::default()),
    }
}

/// A webhook that keeps so much of the answer.
pub(super) fn webhook(
    section: &mut Section<'_, '_>,
    output_bytes_max: usize,
    inherited: &Outbound,
) -> (Option<Webhook>, Outbound) {
    let url = section.required("url", &URL);
    let method = section.get("method", Method::POST, &Choice(&METHODS));
    let headers = section.get("headers", Vec::new(), &Headers);
    let timeout = section.get("timeout", Duration::from_secs(30), &TIMEOUT);
    let success = section.get("success", vec![200..=299], &Statuses::LIST);
    let success_body = section.optional("success_body", &PATTERN);
    let outbound = Outbound::read(section, inherited);
    let tls = outbound.tls(section);
    let Some(url) = url else { return (None, outbound) };
    if let Some(address) = url.address().filter(|address| !outbound.egress.allows(*address)) {
        let (found, expected) = (format!("at {address}"), "an address that `egress` allows".to_owned());
        let why =
            "metadata and link-local addresses are allowed only where they stand there alone".to_owned();
        let fault = Fault::BadValue { key: "url".to_owned(), found, expected, why: Some(why) };
        section.report_at("url", fault);
    }
    let webhook = Webhook::new(WebhookSettings {
        url,
        method,
        headers,
        timeout,
        success,
        success_body,
        output_bytes_max,
        egress: outbound.egress.clone(),
        secrets: outbound.secrets.clone(),
        tls,
    });
    (Some(webhook), outbound)
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

/// A key that the table has no use for because its action is of another type.
pub(super) fn of_other_type(table: &str, kind: Option<Type>, key: &str) -> Option<Fault> {
    let (this, _) = TYPES.iter().find(|(_, other)| Some(*other) == kind)?;
    let (other, _) = TYPES.iter().find(|(other, _)| other != this && keys_of(other).any(|k| k == key))?;
    Some(Fault::OtherType { key: key.to_owned(), table: table.to_owned(), this, other })
}

/// The keys of a type of action: those of a revoke action, which has no others.
fn keys_of(word: &str) -> impl Iterator<Item = &'static str> {
    let table = format!("handlers.{word}.revoke");
    known_keys().into_iter().filter(move |(t, _)| *t == table).map(|(_, key)| key)
}
