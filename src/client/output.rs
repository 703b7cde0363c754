//! Answers on standard output: as a table, as JSON, or as bare ids.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use super::answer::Status;
use super::args::OutputForm;

/// So many rows are looked at for the width of the columns.
const ROWS_AT_ONCE: usize = 200;
const COLUMNS: usize = 6;
const HEAD: [&str; COLUMNS] = ["ID", "STATE", "HANDLER", "RUN", "SINCE", "WHAT"];

/// Writes answers in the form that is wanted.
#[derive(Debug)]
pub(super) struct Printer {
    pub(super) form: OutputForm,
    out: BufWriter<Stdout>,
    rows: Vec<[String; COLUMNS]>,
    /// Of the columns so far; none before the head is written.
    widths: Option<[usize; COLUMNS]>,
}

impl Printer {
    /// Without a wish, a table for people and JSON for programs.
    pub(super) fn new(form: Option<OutputForm>) -> Self {
        let usual = if io::stdout().is_terminal() { OutputForm::Table } else { OutputForm::Json };
        let out = BufWriter::new(io::stdout());
        Self { form: form.unwrap_or(usual), out, rows: Vec::new(), widths: None }
    }

    /// Writes how a task stands; `text` is the answer as it came.
    pub(super) fn task(&mut self, text: &[u8], task: &Status) -> io::Result<()> {
        match self.form {
            OutputForm::Table => {
                self.rows.push(row(task));
                if self.rows.len() < ROWS_AT_ONCE { Ok(()) } else { self.write_rows() }
            }
            OutputForm::Json => self.line(text),
            OutputForm::Ids => self.line(task.id.as_bytes()),
        }
    }

    /// Writes a line as it is.
    pub(super) fn line(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.write_all(text.trim_ascii_end())?;
        self.out.write_all(b"\n")
    }

    /// What was written so far is seen.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write_rows()?;
        self.out.flush()
    }

    fn write_rows(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let head = HEAD.map(str::to_owned);
        let is_first = self.widths.is_none();
        let mut widths = self.widths.unwrap_or(HEAD.map(str::len));
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        self.widths = Some(widths);
        for row in is_first.then_some(&head).into_iter().chain(&rows) {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(self.out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn row(task: &Status) -> [String; COLUMNS] {
    let text = |given: &Option<String>| given.as_deref().map(plain).unwrap_or_default();
    let run = task.run.map(|run| run.to_string()).unwrap_or_default();
    // Without the microseconds.
    let since = task.since.as_deref().map(|since| match since.split_once('.') {
        Some((seconds, _)) => format!("{}Z", plain(seconds)),
        None => plain(since),
    });
    [plain(&task.id), plain(&task.state), text(&task.handler), run, since.unwrap_or_default(), what(task)]
}

/// What else there is to say of a task.
fn what(task: &Status) -> String {
    let mut words = Vec::new();
    if task.launched == Some(false) {
        words.push(format!("not launched: {}", task.reason.as_deref().unwrap_or("it stands")));
    }
    if let Some(phase) = &task.phase {
        words.push(match task.attempt {
            Some(attempt) if attempt > 1 => format!("{phase}, attempt {attempt}"),
            _ => phase.clone(),
        });
    }
    if let Some(error) = &task.error {
        words.push(format!("{}: {}", error.kind, error.message));
    }
    if task.in_doubt == Some(true) {
        words.push("in doubt".to_owned());
    }
    if let Some(failed) = &task.revoke_error {
        words.push(format!("not revoked: {}: {}", failed.error.kind, failed.error.message));
    }
    plain(&words.join("; "))
}

/// Without what a terminal would take for a command.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_on_one_line_what_is_to_be_said() {
        let task: Status = serde_json::from_str(
            r#"{"id":"a","state":"failed","handler":"h","run":2,"since":"2026-01-31T09:00:00.004000Z",
                "error":{"kind":"status","message":"503\n\u001b[2Jgone"},"in_doubt":true,"new":{"to":"come"}}"#,
        )
        .unwrap();
        let expected = ["a", "failed", "h", "2", "2026-01-31T09:00:00Z", "status: 503  [2Jgone; in doubt"];
        assert_eq!(row(&task), expected);
    }
}
