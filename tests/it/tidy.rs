//! What holds for the sources themselves: which module knows which, how long a file is, which words stay out.

use std::fs;
use std::path::Path;

use regex::Regex;

/// Which modules of the crate a module may use; one that is not listed may use all, and none of the listed may use it.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("sync", &[]),
    ("json", &[]),
    ("pauses", &[]),
    ("tally", &[]),
    ("task", &[]),
    ("store", &["sync", "pauses", "tally", "task"]),
    ("spans", &["task"]),
    ("recorder", &["sync", "pauses", "tally", "task", "spans", "store"]),
    ("handler", &["task"]),
    ("access", &["task"]),
    ("config", &["task", "handler", "store", "access"]),
    ("api", &["json", "task", "store", "recorder", "handler", "config", "access", "metrics"]),
];
/// The modules that know nothing of HTTP.
const CORE: [&str; 3] = ["task", "store", "recorder"];
const LINES_MAX: usize = 400;
/// What belongs to a workplace and not into a program.
const WORKPLACE: &str = r"(?i-u)\b(todo|fixme|xxx|hack|wip|worktree|claude|anthropic|chatgpt|copilot|llm|jira|sprint|ticket)\b|\b(issue|pr|pull request) ?#?\d|(/work|/home|/root)/\w|\bagents?\b";

/// What is wrong with a source file of the crate; its path begins behind `src/`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: String| faults.push(format!("src/{path}:{line}: {what}"));
    let own = path.split(['/', '.']).next().unwrap();
    let may_use = MAY_USE.iter().find(|(module, _)| *module == own).map(|(_, may_use)| *may_use);
    if Path::new(path).file_name().is_some_and(|name| name == "mod.rs") {
        fault(1, "a module has its file beside its folder, not in it".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        fault(lines, format!("{lines} lines; look for the second noun past {LINES_MAX}"));
    }
    for (number, used) in uses(path, text) {
        let is_allowed = used == own || may_use.is_none_or(|may_use| may_use.contains(&&*used));
        if !is_allowed || used == "server" && own != "main" && own != "server" {
            fault(number, format!("{own} may not use {used}"));
        }
    }
    let (http, anyhow) = (
        Regex::new(r"(?-u)\b(axum|hyper|hyper_util|http)\b").unwrap(),
        Regex::new(r"(?-u)\banyhow\b").unwrap(),
    );
    let words = Regex::new(WORKPLACE).unwrap();
    for (line, number) in text.lines().zip(1..) {
        let code = without_comment(line);
        if CORE.contains(&own) && http.is_match(code) {
            fault(number, format!("{own} knows no HTTP"));
        }
        if own != "main" && anyhow.is_match(code) {
            fault(number, "only main.rs uses anyhow".to_owned());
        }
        if let Some(word) = workplace_word(&words, line) {
            fault(number, format!("{word:?} belongs to a workplace"));
        }
    }
    faults
}

/// The modules at the top of the crate that the code names, each with its line.
fn uses(path: &str, text: &str) -> Vec<(usize, String)> {
    let depth = path.split('/').count();
    let tests_begin = text.lines().position(|line| line.starts_with("mod tests")).unwrap_or(usize::MAX);
    let code: Vec<_> = text.lines().map(without_comment).collect();
    let joined = code.join("\n");
    // One path, or the beginning of a group; `super`s that reach the root count as `crate`.
    let from_root =
        Regex::new(r"(?-u)\b(crate|super(?:\s*::\s*super)*)\s*::\s*(\{(?u:[^;]*?)\}\s*;|\w+)").unwrap();
    let first_names = Regex::new(r"(?-u)(?:^|[{,])\s*(\w+)").unwrap();
    let mut uses = Vec::new();
    for found in from_root.captures_iter(&joined) {
        let (whole, root, names) = (found.get(0).unwrap(), &found[1], &found[2]);
        let line = joined[..whole.start()].matches('\n').count();
        let inner = usize::from(line > tests_begin);
        let is_root = root == "crate" || root.matches("super").count() >= depth + inner;
        if is_root && names.starts_with('{') {
            let flat = without_inner_groups(names);
            uses.extend(first_names.captures_iter(&flat).map(|name| (line + 1, name[1].to_owned())));
        } else if is_root {
            uses.push((line + 1, names.to_owned()));
        }
    }
    uses
}

/// A group without the groups within it.
fn without_inner_groups(group: &str) -> String {
    let mut depth = 0;
    let mut flat = String::new();
    for c in group.chars() {
        depth -= usize::from(c == '}').min(depth);
        if depth < 2 && c != '}' {
            flat.push(c);
        }
        depth += usize::from(c == '{');
        if depth == 2 && c == '{' {
            flat.pop();
        }
    }
    flat
}

fn without_comment(line: &str) -> &str {
    let is_comment = line.trim_start().starts_with("//");
    if is_comment { "" } else { line.split(" // ").next().unwrap_or(line) }
}

fn workplace_word(words: &Regex, line: &str) -> Option<String> {
    // A user agent, as the header of that name, is none.
    let is_header =
        |at: usize| ["user-", "user_", "user "].iter().any(|user| line[..at].to_lowercase().ends_with(user));
    words.find_iter(line).find(|found| !is_header(found.start())).map(|found| found.as_str().to_owned())
}

/// Every Rust file below a folder, with its path in there.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
                sources.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    sources.sort();
    sources
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_sources_are_tidy() {
    let sources = sources(&root().join("src"));
    assert!(sources.len() > 10, "they were found");
    let faults: Vec<_> = sources.iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_tests_hold_no_words_of_a_workplace() {
    let words = Regex::new(WORKPLACE).unwrap();
    for (path, text) in sources(&root().join("tests")) {
        for (line, number) in text.lines().zip(1..) {
            let word = workplace_word(&words, line).filter(|_| !path.ends_with("tidy.rs"));
            assert_eq!(word, None, "tests/{path}:{number}");
        }
    }
}

#[test]
fn a_fault_is_seen() {
    for (path, text, fault) in [
        ("task.rs", "use crate::store::Store;", "task may not use store"),
        ("task/id.rs", "use super::super::store::Store;", "task may not use store"),
        ("task.rs", "mod tests {\n    use super::super::store;\n}", "task may not use store"),
        (
            "store/table.rs",
            "use crate::{\n    recorder::Recorder,\n    task::Task,\n};",
            "store may not use recorder",
        ),
        ("store.rs", "use crate::{task::{Task, State}, recorder};", "store may not use recorder"),
        ("store.rs", "fn f() -> crate::config::Config {}", "store may not use config"),
        ("recorder.rs", "use crate::api;", "recorder may not use api"),
        ("handler/webhook.rs", "use crate::store::Claim;", "handler may not use store"),
        ("config.rs", "use crate::recorder::Recorder;", "config may not use recorder"),
        ("api/tasks.rs", "use crate::server::Server;", "api may not use server"),
        ("metrics.rs", "use crate::server::Server;", "metrics may not use server"),
        ("task.rs", "use axum::Router;", "task knows no HTTP"),
        ("recorder/run.rs", "fn f(code: http::StatusCode) {}", "recorder knows no HTTP"),
        ("api.rs", "use anyhow::Result;", "only main.rs uses anyhow"),
        ("store/mod.rs", "", "a module has its file beside its folder"),
        ("api.rs", &"\n".repeat(LINES_MAX + 1), "401 lines"),
        ("api.rs", "// TODO: later", "\"TODO\" belongs to a workplace"),
        ("api.rs", "// see issue #12", "belongs to a workplace"),
        ("api.rs", "let path = \"/home/me\";", "belongs to a workplace"),
        ("api.rs", "//! Written by an agent.", "belongs to a workplace"),
    ] {
        let faults = faults(path, text);
        assert_eq!(faults.len(), 1, "{path} {text:?}: {faults:?}");
        assert!(faults[0].contains(fault), "{faults:?} for {fault:?}");
    }
    for (path, text) in [
        ("task/id.rs", "use super::{Task, store};"),
        ("task.rs", "mod tests {\n    use super::*;\n}"),
        (
            "store/embedded/row.rs",
            "use super::super::table;\nuse crate::{store::{self, Order}, task::{State, Task}};",
        ),
        ("store.rs", "//! Unlike `crate::api`, it knows no axum."),
        ("server.rs", "use crate::{api, config};"),
        ("main.rs", "use anyhow::Result;\nuse task_recorder::server;"),
        ("handler/webhook.rs", "const HEADER: &str = \"user-agent\";"),
        ("api.rs", &"\n".repeat(LINES_MAX)),
    ] {
        assert_eq!(faults(path, text), [""; 0], "{path} {text:?}");
    }
}
