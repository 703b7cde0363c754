//! What the README says in tables is what the code does.

use std::fs;

use task_recorder::task::{Code, ErrorKind, Failure, Outcome};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// A row of the table of failures.
#[derive(Debug)]
struct Row {
    kind: ErrorKind,
    /// What stands behind the kind: which of its failures the row is about; empty for all that no other row is about.
    of: String,
    is_in_doubt: bool,
    is_tried_again: bool,
    is_tried_again_in_doubt: bool,
}

fn rows(readme: &str) -> Vec<Row> {
    let head = "| `error.kind` | in doubt | tried again | what happened |\n";
    let (_, table) = readme.split_once(head).expect("the table of failures");
    let lines = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, in_doubt, again, what] = cells.as_slice() else { panic!("{line}") };
    let (kind, of) = name.trim_start_matches('`').split_once('`').expect(line);
    let kind = ErrorKind::ALL.iter().find(|known| known.as_str() == kind);
    assert!(!what.is_empty(), "{line}");
    let (is_tried_again, is_tried_again_in_doubt) = match *again {
        "yes" => (true, true),
        "with `retry_in_doubt`" => (false, true),
        "never" => (false, false),
        _ => panic!("{line}"),
    };
    let is_in_doubt = match *in_doubt {
        "yes" => true,
        "no" => false,
        _ => panic!("{line}"),
    };
    let of = of.trim_start_matches(',').trim().to_owned();
    Row { kind: *kind.expect(line), of, is_in_doubt, is_tried_again, is_tried_again_in_doubt }
}

/// A failure as it comes from a handler.
fn failed(failure: Failure) -> Outcome {
    Outcome::failed(failure)
}

fn answered(status: u16) -> Outcome {
    Outcome { code: Some(Code::HttpStatus(status)), ..Outcome::failed(Failure::status(status, "")) }
}

fn assert_is(row: &Row, outcome: &Outcome) {
    let failure = outcome.result.as_ref().expect_err("a failure");
    assert_eq!(failure.kind, row.kind, "{row:?}");
    assert_eq!(failure.in_doubt, row.is_in_doubt, "in doubt: {row:?}\n{outcome:?}");
    assert_eq!(outcome.may_be_retried(false), row.is_tried_again, "tried again: {row:?}\n{outcome:?}");
    let again = outcome.may_be_retried(true);
    assert_eq!(again, row.is_tried_again_in_doubt, "tried again in doubt: {row:?}\n{outcome:?}");
}

/// The row about this status: the first that names it.
fn of_status(rows: &[Row], status: u16) -> &Row {
    let names = |row: &&Row| {
        row.kind == ErrorKind::Status
            && (row.of == "any other"
                || row.of.split(", ").any(|part| match part.split_once('-') {
                    Some((from, to)) => (from.parse().unwrap()..=to.parse().unwrap()).contains(&status),
                    None => part.parse() == Ok(status),
                }))
    };
    rows.iter().find(names).unwrap_or_else(|| panic!("no row is about the status {status}"))
}

#[test]
fn the_table_of_failures_says_which_are_in_doubt_and_which_are_tried_again_as_the_code_does() {
    let rows = rows(&fs::read_to_string(README).expect("the README"));
    let mut kinds: Vec<ErrorKind> = rows.iter().map(|row| row.kind).collect();
    kinds.dedup();
    assert_eq!(kinds, ErrorKind::ALL, "every kind has its rows, in the order of the code");
    for row in rows.iter().filter(|row| row.kind != ErrorKind::Status) {
        match row.of.as_str() {
            "" => assert_is(row, &failed(Failure::new(row.kind, ""))),
            "nothing sent" => assert_is(row, &failed(Failure::without_effect(row.kind, ""))),
            other => panic!("{other:?} is not known to this test: {row:?}"),
        }
    }
    for status in 100..=999 {
        assert_is(of_status(&rows, status), &answered(status));
    }
}
