//! The values that hold in the end, as TOML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::error::Place;

/// Every key with the value that holds, as a config file that gives the same config. Secrets are masked.
#[derive(Default)]
pub(super) struct Effective {
    tables: Vec<(String, Vec<Line>)>,
}

struct Line {
    key: String,
    value: String,
    /// Where it was given; none for a default.
    place: Option<Place>,
}

impl Effective {
    /// Adds the value of a key; the keys of one table have to come one after another.
    pub(super) fn add(&mut self, table: &str, key: &str, value: &toml::Value, place: Option<&Place>) {
        if self.tables.last().is_none_or(|(name, _)| name != table) {
            self.tables.push((table.to_owned(), Vec::new()));
        }
        let Some((_, lines)) = self.tables.last_mut() else { return };
        lines.push(Line { key: key.to_owned(), value: value.to_string(), place: place.cloned() });
    }

    /// Where the value of a key was given; none for a default.
    pub(super) fn place_of(&self, table: &str, key: &str) -> Option<&Place> {
        let (_, lines) = self.tables.iter().find(|(name, _)| name == table)?;
        lines.iter().find(|line| line.key == key)?.place.as_ref()
    }

    /// The keys of these tables whose values differ, as `table.key`.
    pub(super) fn differences(&self, other: &Self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let (own, others) = (self.values(&is_meant), other.values(&is_meant));
        let keys: BTreeSet<_> = own.keys().chain(others.keys()).collect();
        keys.into_iter().filter(|key| own.get(*key) != others.get(*key)).cloned().collect()
    }

    fn values(&self, is_meant: impl Fn(&str) -> bool) -> BTreeMap<String, &str> {
        let tables = self.tables.iter().filter(|(table, _)| is_meant(table));
        let lines = tables.flat_map(|(table, lines)| lines.iter().map(move |line| (table, line)));
        lines.map(|(table, line)| (format!("{table}.{}", line.key), line.value.as_str())).collect()
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (table, lines)) in self.tables.iter().enumerate() {
            let space = if i > 0 { "\n" } else { "" };
            writeln!(f, "{space}[{table}]")?;
            for Line { key, value, place } in lines {
                match place {
                    Some(place @ (Place::Variable(_) | Place::Flag(_))) => {
                        writeln!(f, "{key} = {value} # {place}")?;
                    }
                    Some(Place::File { .. }) | None => writeln!(f, "{key} = {value}")?,
                }
            }
        }
        Ok(())
    }
}
