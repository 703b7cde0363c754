//! The values that hold in the end, as TOML.

use std::fmt::{self, Write as _};

use super::error::Place;

/// Every key with the value that holds, as a config file that gives the same config. Secrets are masked.
#[derive(Default)]
pub(super) struct Effective {
    tables: Vec<(String, String)>,
}

impl Effective {
    /// Adds the value of a key; the keys of one table have to come one after another.
    pub(super) fn add(&mut self, table: &str, key: &str, value: &toml::Value, place: Option<&Place>) {
        if self.tables.last().is_none_or(|(name, _)| name != table) {
            self.tables.push((table.to_owned(), String::new()));
        }
        let Some((_, lines)) = self.tables.last_mut() else { return };
        // Writing to a string cannot fail.
        let _ = match place {
            Some(place @ (Place::Variable(_) | Place::Flag(_))) => {
                writeln!(lines, "{key} = {value} # {place}")
            }
            Some(Place::File { .. }) | None => writeln!(lines, "{key} = {value}"),
        };
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (table, lines)) in self.tables.iter().enumerate() {
            let space = if i > 0 { "\n" } else { "" };
            write!(f, "{space}[{table}]\n{lines}")?;
        }
        Ok(())
    }
}
