//! The handlers of a config: `[handlers.NAME]`, with its action, its policy, its revoke action and its notices.

use std::sync::Arc;
use std::time::Duration;

use super::action::{self, TYPE, Type};
use super::error::{Fault, Hint, Place};
use super::kind::{Size, Switch};
use super::outbound::Outbound;
use super::reader::Section;
use super::{bytes, known_keys, policy};
use crate::handler::{Action, Handler, Webhook};
use crate::task::{HandlerName, Policy};

/// The tables of a handler, as what stands behind its name.
const OWN: &str = "";
pub(super) const RETRY: &str = ".retry";
const REVOKE: &str = ".revoke";
/// How much of a notice's answer is looked at.
const NOTICE_ANSWER_BYTES_MAX: usize = 64 << 10;
const INPUT_MAX: Size = Size(0..=64 << 20);

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
    let kind = section.required("type", &TYPE);
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
    let (action, outbound) = action::read(&mut section, kind, &Outbound::default());
    // Those with tables of their own come last, because a printed table is in one piece.
    let policy = policy::read(&mut section, kind, &name);
    let revoke =
        section.optional_section("revoke").and_then(|revoke| undoing(revoke, kind, &name, &outbound));
    let on_success = section.optional_section("on_success").and_then(|told| notice(told, &outbound));
    let on_failure = section.optional_section("on_failure").and_then(|told| notice(told, &outbound));
    let table = section.name().to_owned();
    section.finish(|key| {
        action::of_other_type(&table, kind, key).or_else(|| belongs_elsewhere(&name, OWN, key))
    });
    let action = action?;
    let ending = revoke.as_ref().map_or(Duration::ZERO, Action::ending).max(action.ending());
    let policy = Policy { ending, ..policy };
    Some(Handler { name, is_default, input_bytes_max, action, revoke, policy, on_success, on_failure })
}

/// The action of `[handlers.NAME.revoke]`, of the handler's type unless it says otherwise.
fn undoing(
    mut revoke: Section<'_, '_>,
    of_handler: Option<Type>,
    name: &HandlerName,
    inherited: &Outbound,
) -> Option<Action> {
    let kind = match of_handler {
        Some(kind) => Some(revoke.get("type", kind, &TYPE)),
        None => revoke.optional("type", &TYPE),
    };
    let (action, _) = action::read(&mut revoke, kind, inherited);
    let table = revoke.name().to_owned();
    revoke.finish(|key| {
        action::of_other_type(&table, kind, key).or_else(|| belongs_elsewhere(name, REVOKE, key))
    });
    action
}

/// The webhook of `[handlers.NAME.on_success]` or `on_failure`.
fn notice(mut notice: Section<'_, '_>, inherited: &Outbound) -> Option<Arc<Webhook>> {
    let (webhook, _) = action::webhook(&mut notice, NOTICE_ANSWER_BYTES_MAX, inherited);
    notice.finish(|_| None);
    webhook.map(Arc::new)
}

/// A key that is known in another table of the handler than the one where it stands.
pub(super) fn belongs_elsewhere(name: &HandlerName, part: &str, key: &str) -> Option<Fault> {
    let known = known_keys();
    let has = |part: &str| {
        let tables = [format!("handlers.webhook{part}"), format!("handlers.command{part}")];
        known.iter().any(|(table, known)| *known == key && tables.contains(table))
    };
    let home = [OWN, RETRY].into_iter().find(|home| *home != part && has(home))?;
    let (key, home) = (key.to_owned(), format!("handlers.{name}{home}"));
    if part == REVOKE {
        return Some(Fault::NotInRevoke { key, home });
    }
    Some(Fault::UnknownKey { key, table: format!("handlers.{name}{part}"), hint: Hint::BelongsIn(home) })
}
