//! What the fuzzer feeds to the config (tests/fuzz).

#![expect(clippy::panic, reason = "a promise that is broken is a finding")]

use super::{Config, Environment, Flags, Place, SourceFile};

/// The text of a file: a config that is printed as one that reads as the same, or errors at lines that are there, each
/// said in one line.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = SourceFile { name: "fuzz.toml".to_owned(), text: text.to_owned() };
    match read(&file) {
        Ok(config) => {
            let printed = config.to_toml();
            // The hash of a token is not printed.
            if config.tokens.is_empty() {
                let again = read(&SourceFile { name: "printed.toml".to_owned(), text: printed.clone() });
                let again = again.map(|config| config.to_toml()).map_err(|error| error.to_string());
                assert_eq!(again.as_ref(), Ok(&printed), "it is not printed as it is");
            }
        }
        Err(error) => {
            assert!(!error.problems.is_empty(), "an error without a problem");
            assert!(error.problems.is_sorted_by(|a, b| a.place <= b.place), "{error}");
            for problem in &error.problems {
                is_at_a_line_that_exists(text, &problem.place);
                let said = problem.to_string();
                assert!(!said.contains('\n'), "{said:?} is more than a line");
            }
        }
    }
}

fn read(file: &SourceFile) -> Result<Config, super::ConfigError> {
    Config::read(file, &Environment::default(), &Flags::default())
}

fn is_at_a_line_that_exists(text: &str, place: &Place) {
    let Place::File { line, column, .. } = place else {
        panic!("{place} is not in the file");
    };
    let written = line.checked_sub(1).and_then(|before| text.split('\n').nth(before));
    let columns = written.map(|written| written.chars().count() + 1);
    assert!(columns.is_some_and(|columns| (1..=columns).contains(column)), "{place} is not in {text:?}");
}
