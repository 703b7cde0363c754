//! Reads tables key by key, from whichever source wins, and remembers what was asked for.
//!
//! Invariant: a key that was never asked for is unknown. So the code that reads a key is all that a new key needs: its
//! variable, the complaint about unknown keys, and `print-config` follow from it.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::effective::Effective;
use super::error::{ConfigError, Fault, Hint, Place, Problem, Warning};
use super::given::{Given, Raw};
use super::kind::Kind;
use super::source::{Environment, FILE_VARIABLE, Flags, SourceFile, VARIABLE_PREFIX, short_variable};

/// The sources of one load, and what was found out about them so far.
pub(super) struct Reader<'a> {
    file: &'a SourceFile,
    environment: &'a Environment,
    flags: &'a Flags,
    /// Every key that was asked for: its table and its name.
    pub(super) asked: BTreeSet<(String, &'static str)>,
    variables: BTreeSet<String>,
    effective: Effective,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

/// One table that is being read.
pub(super) struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// Its name in the file, such as `server` or `handlers.charge`; empty for the top of the file.
    name: String,
    table: Option<&'a DeTable<'a>>,
    /// Where to say that a key is missing.
    span: Range<usize>,
    /// Whether environment and flags can set its keys.
    has_variables: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a SourceFile, environment: &'a Environment, flags: &'a Flags) -> Self {
        Self {
            file,
            environment,
            flags,
            asked: BTreeSet::new(),
            variables: BTreeSet::from([FILE_VARIABLE.to_owned()]),
            effective: Effective::default(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The top of the file.
    pub(super) fn root(&mut self, table: &'a DeTable<'a>) -> Section<'_, 'a> {
        Section { reader: self, name: String::new(), table: Some(table), span: 0..0, has_variables: false }
    }

    pub(super) fn report(&mut self, offset: usize, fault: Fault) {
        let place = self.file.place(offset);
        self.problems.push(Problem { place, fault });
    }

    /// The warnings so far.
    pub(super) fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// The values that hold, or everything that is wrong.
    pub(super) fn finish(mut self) -> Result<Effective, ConfigError> {
        for name in self.environment.names().filter(|name| !self.variables.contains(*name)) {
            let fault = Fault::UnknownVariable { hint: nearest_variable(name, &self.variables) };
            self.problems.push(Problem { place: Place::Variable(name.to_owned()), fault });
        }
        self.finish_early()
    }

    /// The same where not every key was asked for, so that nobody knows which variables mean nothing.
    pub(super) fn finish_early(mut self) -> Result<Effective, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.effective);
        }
        self.problems.sort_by(|a, b| a.place.cmp(&b.place));
        Err(ConfigError { problems: self.problems })
    }
}

impl<'a> Section<'_, 'a> {
    /// The table of this name inside this one; an empty one where the file has none. Its keys are settable by
    /// environment and flags if `has_variables`.
    pub(super) fn section(&mut self, key: &'static str, has_variables: bool) -> Section<'_, 'a> {
        self.ask(key);
        let entry = self.table.and_then(|table| table.get_key_value(key));
        let (table, span) = match entry {
            Some((key, value)) => (self.table_of(key.get_ref(), value), key.span()),
            None => (None, self.span.clone()),
        };
        let name = self.name_of(key);
        Section { reader: &mut *self.reader, name, table, span, has_variables }
    }

    /// The same, if the file has it. Its keys are not settable by environment and flags.
    pub(super) fn optional_section(&mut self, key: &'static str) -> Option<Section<'_, 'a>> {
        let is_there = self.table.is_some_and(|table| table.contains_key(key));
        let section = self.section(key, false);
        (is_there && section.table.is_some()).then_some(section)
    }

    /// Its name in the file, such as `handlers.charge`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Every table inside this one, whatever its name, in the order of the file.
    pub(super) fn for_each_table(&mut self, mut read: impl FnMut(&'a str, Section<'_, 'a>)) {
        let mut entries: Vec<_> = self.table.into_iter().flatten().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let Some(table) = self.table_of(key.get_ref(), value) else { continue };
            let name = self.name_of(key.get_ref());
            let has_variables = self.has_variables;
            let reader = &mut *self.reader;
            read(
                key.get_ref(),
                Section { reader, name, table: Some(table), span: key.span(), has_variables },
            );
        }
    }

    /// The value of a key, or its default. A value that is wrong is reported, and the default stands in for it.
    pub(super) fn get<K: Kind>(&mut self, key: &'static str, default: K::Value, kind: &K) -> K::Value {
        let Some(given) = self.given(key) else {
            self.reader.effective.add(&self.name, key, &kind.show(&default), None);
            return default;
        };
        self.parse(key, &given, kind).unwrap_or(default)
    }

    /// The value of a key that has no default and may be left out.
    pub(super) fn optional<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Value> {
        let given = self.given(key)?;
        self.parse(key, &given, kind)
    }

    /// The same; where the key is given nowhere, the value of this variable, which is not one of ours. What is wrong
    /// with that is told as a warning, with what becomes of it.
    pub(super) fn optional_or<K: Kind>(
        &mut self,
        key: &'static str,
        kind: &K,
        variable: Option<(&'static str, &'static str)>,
    ) -> Option<K::Value> {
        if let Some(given) = self.given(key) {
            return self.parse(key, &given, kind);
        }
        let (name, so) = variable?;
        let text = self.variable(name).filter(|text| !text.is_empty())?;
        let given = Given { key: key.to_owned(), raw: Raw::Variable(name, text) };
        match kind.parse(&given) {
            Ok(value) => {
                self.reader.effective.add(&self.name, key, &kind.show(&value), Some(&given.place()));
                Some(value)
            }
            Err(problems) => {
                let warnings = problems.into_iter().map(|problem| Warning { problem, so });
                self.reader.warnings.extend(warnings);
                None
            }
        }
    }

    /// The value of a key that has no default; without one that is missing or wrong, which is reported.
    pub(super) fn required<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Value> {
        if let Some(given) = self.given(key) {
            return self.parse(key, &given, kind);
        }
        let fault = Fault::Missing { key, table: self.name.clone(), expected: kind.expected() };
        self.reader.report(self.span.start, fault);
        None
    }

    /// The value of a variable that the config names.
    pub(super) fn variable(&mut self, name: &str) -> Option<&'a str> {
        if name.starts_with(VARIABLE_PREFIX) {
            self.reader.variables.insert(name.to_owned());
        }
        self.reader.environment.any(name)
    }

    /// Whether this key is given anywhere, right or wrong.
    pub(super) fn is_given(&mut self, key: &'static str) -> bool {
        self.given(key).is_some()
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where the value of a key stands in the file; where it is left out, the table.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.reader.file.place(self.offset_of(key))
    }

    /// Reports something about the value of a key.
    pub(super) fn report_at(&mut self, key: &str, fault: Fault) {
        let offset = self.offset_of(key);
        self.reader.report(offset, fault);
    }

    fn offset_of(&self, key: &str) -> usize {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or(self.span.start, |value| value.span().start)
    }

    /// Counts these keys as known without reading them.
    pub(super) fn expect(&mut self, keys: impl IntoIterator<Item = &'static str>) {
        for key in keys {
            self.ask(key);
        }
    }

    /// Warns of a variable that is not one of ours, and of what becomes of it.
    pub(super) fn warn_of_variable(&mut self, name: &str, fault: Fault, so: &'static str) {
        let problem = Problem { place: Place::Variable(name.to_owned()), fault };
        self.reader.warnings.push(Warning { problem, so });
    }

    /// Reports something about the whole table.
    pub(super) fn report(&mut self, fault: Fault) {
        self.reader.report(self.span.start, fault);
    }

    /// Reports every key that was not asked for. `explain` may know more about one than that it is unknown.
    pub(super) fn finish(self, explain: impl Fn(&str) -> Option<Fault>) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref().as_ref();
            let known = self.known();
            if known.contains(&name) {
                continue;
            }
            let fault = explain(name).unwrap_or_else(|| Fault::UnknownKey {
                key: name.to_owned(),
                table: self.name.clone(),
                hint: Hint::of(name, known.into_iter().map(str::to_owned).collect()),
            });
            self.reader.report(key.span().start, fault);
        }
    }

    fn known(&self) -> Vec<&'static str> {
        self.reader.asked.iter().filter(|(table, _)| *table == self.name).map(|(_, key)| *key).collect()
    }

    fn name_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn ask(&mut self, key: &'static str) {
        self.reader.asked.insert((self.name.clone(), key));
    }

    fn table_of(&mut self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<&'a DeTable<'a>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let given = Given { key: self.name_of(key), raw: Raw::File(self.reader.file, value) };
            let example = format!("a table, which begins with [{}]", given.key);
            self.reader.problems.extend(given.wrong(example));
        }
        table
    }

    /// The value that wins: flag, then environment, then file.
    fn given(&mut self, key: &'static str) -> Option<Given<'a>> {
        self.ask(key);
        let raw =
            self.set_outside(key).or_else(|| Some(Raw::File(self.reader.file, self.table?.get(key)?)))?;
        Some(Given { key: key.to_owned(), raw })
    }

    fn set_outside(&mut self, key: &'static str) -> Option<Raw<'a>> {
        if !self.has_variables {
            return None;
        }
        let reader = &mut *self.reader;
        let long = format!("{VARIABLE_PREFIX}{}_{}", self.name.to_uppercase(), key.to_uppercase());
        let by_long = reader.environment.get(&long);
        reader.variables.insert(long);
        let short = short_variable(&self.name, key);
        let by_short = short.and_then(|name| reader.environment.get(name));
        reader.variables.extend(short.map(str::to_owned));
        if let (Some((short, a)), Some((long, b))) = (by_short, by_long)
            && a != b
        {
            let fault = Fault::SetTwice { other: long.to_owned() };
            reader.problems.push(Problem { place: Place::Variable(short.to_owned()), fault });
        }
        if let Some((flag, value)) = reader.flags.get(&self.name, key) {
            return Some(Raw::Flag(flag, value));
        }
        by_short.or(by_long).map(|(name, value)| Raw::Variable(name, value))
    }

    fn parse<K: Kind>(&mut self, key: &'static str, given: &Given<'a>, kind: &K) -> Option<K::Value> {
        match kind.parse(given) {
            Ok(value) => {
                let place = given.place();
                self.reader.effective.add(&self.name, key, &kind.show(&value), Some(&place));
                Some(value)
            }
            Err(problems) => {
                self.reader.problems.extend(problems);
                None
            }
        }
    }
}

/// The prefix is left out of the comparison: alone it would make any two names look alike.
fn nearest_variable(name: &str, known: &BTreeSet<String>) -> Hint {
    let strip = |name: &str| name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name).to_owned();
    match Hint::of(&strip(name), known.iter().map(|name| strip(name)).collect()) {
        Hint::Nearest(rest) => Hint::Nearest(format!("{VARIABLE_PREFIX}{rest}")),
        Hint::BelongsIn(_) | Hint::Known(_) => Hint::Known(known.iter().cloned().collect()),
    }
}
