//! What a bad config is told: where, what is wrong, and what would be right.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use task_recorder::config::{Config, Fault, Flags, Place};

use crate::config::{Written, flags, load};
use crate::tokens::hash;

pub(crate) const COMMAND: &str = "[handlers.a]\ntype = \"command\"\n";
pub(crate) const WEBHOOK: &str = "[handlers.a]\ntype = \"webhook\"\nurl = \"https://a.example/\"\n";

/// Every problem of a file as one line, with the folder left out of its name.
pub(crate) fn problems(file: &Written) -> Vec<String> {
    let folder = format!("{}/", file.folder().display());
    match file.load(&[]) {
        Ok(config) => panic!("was taken for good: {}", config.to_toml()),
        Err(error) => error.problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect(),
    }
}

/// A file with one mistake, where the mistake is (line:column), and what has to be in the message.
pub(crate) type Case<'a> = (String, &'a str, &'a [&'a str]);
/// Variables of the environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn each_is_told(cases: &[Case<'_>]) {
    for (text, place, expected) in cases {
        let found = problems(&Written::new(text));
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(&format!("test.toml:{place}")), "{text}\n{}, not at {place}", found[0]);
        for words in *expected {
            assert!(found[0].contains(words), "{text}\n{}\nhas no {words:?}", found[0]);
        }
    }
}

#[test]
fn each_mistake_in_a_name_or_value_is_told_with_its_line_and_what_would_be_right() {
    each_is_told(&[
        ("[server]\nlistn = 1".into(), "2:1", &["unknown key `listn` in [server]", "did you mean `listen`?"]),
        ("[server]\n\n  body-timeout = 1".into(), "3:3", &["did you mean `body_timeout`?"]),
        ("[sever]".into(), "1:2", &["unknown key `sever` at the top", "did you mean `server`?"]),
        ("zzz = 1".into(), "1:1", &["known are handlers, log, retention, server, store, telemetry, tokens"]),
        ("[log]\nzzz = 1".into(), "2:1", &["unknown key `zzz` in [log]", "known are format, level"]),
        ("listen = \"0.0.0.0:80\"".into(), "1:1", &["`listen` at the top", "it belongs in [server]"]),
        ("[server]\nlevel = \"info\"".into(), "2:1", &["it belongs in [log]"]),
        ("server = 3".into(), "1:10", &["`server` is 3", "a table, which begins with [server]"]),
        ("[[handlers]]\ntype = \"command\"".into(), "1:", &["a table, which begins with [handlers]"]),
        ("[handlers]\na = 3".into(), "2:5", &["a table, which begins with [handlers.a]"]),
        ("[server]\nlisten = \":8080\"".into(), "2:10", &["`listen` is \":8080\"", "127.0.0.1:8080"]),
        ("[server]\nlisten = 8080".into(), "2:10", &["`listen` is 8080", "an IP address and a port"]),
        ("[server]\nconnections_max = 0".into(), "2:19", &["from 1 to 1000000"]),
        ("[server]\nthreads = 0".into(), "2:11", &["from 1 to 1024"]),
        ("[server]\nconnections_max = -1".into(), "2:19", &["is -1", "from 1 to 1000000"]),
        ("[server]\nconnections_max = 99999999999999999999".into(), "2:19", &["from 1 to 1000000"]),
        ("[server]\nconnections_max = \"10\"".into(), "2:19", &["is \"10\"", "a whole number"]),
        ("[server]\nconnections_max = 1.5".into(), "2:19", &["a whole number"]),
        ("[server]\ngrace = 20".into(), "2:9", &["`grace` is 20", "such as \"30s\""]),
        ("[server]\ngrace = \"20\"".into(), "2:9", &["such as \"30s\""]),
        ("[server]\ngrace = \"-20s\"".into(), "2:9", &["from \"1ms\" to \"24h\""]),
        ("[server]\nbody_timeout = \"0s\"".into(), "2:16", &["from \"1ms\" to \"1h\""]),
        ("[server]\nbody_timeout = \"61m\"".into(), "2:16", &["from \"1ms\" to \"1h\""]),
        ("[server]\nwait_max = \"30 parsecs\"".into(), "2:12", &["\"30 parsecs\""]),
        ("[store]\npath = \"\"".into(), "2:8", &["the path of a folder, or \"memory\"", "it is empty"]),
        ("[store]\nhot_bytes = \"128 MooB\"".into(), "2:13", &["a size from \"1MiB\" to \"1024GiB\""]),
        ("[store]\nhot_bytes = 1024".into(), "2:13", &["`hot_bytes` is 1024", "such as \"64KiB\""]),
        ("[store]\nbatch_max = true".into(), "2:13", &["`batch_max` is true", "from 1 to 65536"]),
        ("[retention]\ndetail = \"30d\"".into(), "2:1", &["did you mean `details`?"]),
        ("[retention]\ndetails = 30".into(), "2:11", &["`details` is 30", "such as \"30d\""]),
        ("[retention]\ndetails = \"30\"".into(), "2:11", &["give \"off\", or an age"]),
        ("[retention]\ndetails = \"never\"".into(), "2:11", &["give \"off\", or an age"]),
        ("[retention]\ndetails = false".into(), "2:11", &["`details` is false", "\"off\""]),
        ("[retention]\nfailed = \"0s\"".into(), "2:10", &["from \"1s\" to \"36500d\""]),
        ("[retention]\nfailed = \"-3d\"".into(), "2:10", &["from \"1s\" to \"36500d\""]),
        ("[retention]\nsuccess = \"1mo\"".into(), "2:11", &["is \"1mo\"", "from \"1s\" to \"36500d\""]),
        ("[retention]\nsuccess = \"101y\"".into(), "2:11", &["from \"1s\" to \"36500d\""]),
        ("[retention]\ninterval = \"off\"".into(), "2:12", &["from \"100ms\" to \"24h\""]),
        ("[log]\nformat = \"xml\"".into(), "2:10", &["\"auto\", \"json\" or \"text\""]),
        ("[log]\nlevel = \"INFO\"".into(), "2:9", &["\"error\", \"warn\", \"info\""]),
    ]);
}

#[test]
fn each_mistake_in_a_handler_is_told_with_its_line_and_what_would_be_right() {
    let command = |rest: &str| format!("{COMMAND}{rest}");
    let webhook = |rest: &str| format!("{WEBHOOK}{rest}");
    each_is_told(&[
        ("[handlers.\"a b\"]".into(), "1:11", &["`a b` is no name for a handler", "' ' at position 2"]),
        (
            "[handlers.a]\ncommand = [\"cat\"]".into(),
            "1:11",
            &["has no `type`", "\"webhook\" or \"command\""],
        ),
        ("[handlers.a]\ntype = \"wehbook\"".into(), "2:8", &["is \"wehbook\"", "\"webhook\" or \"command\""]),
        ("[handlers.a]\ntype = \"webhook\"".into(), "1:11", &["[handlers.a] has no `url`", "https URL"]),
        (command(""), "1:11", &["[handlers.a] has no `command`"]),
        (command("command = []"), "3:11", &["`command` is []", "[\"make-report\", \"{id}\"]"]),
        (command("command = \"cat\""), "3:11", &["`command` is of type string", "as a list of strings"]),
        (command("command = [\"\"]"), "3:12", &["`command[0]` is \"\"", "the name or path of a program"]),
        (command("command = [\"a\",\n7]"), "4:1", &["`command[1]` is of type integer", "an argument"]),
        (command("command = [\"a\\u0000\"]"), "3:12", &["without a NUL"]),
        (
            command("command = [\"a\"]\nurl = 1"),
            "4:1",
            &["`url` is a key of webhook handlers", "type command"],
        ),
        (command("command = [\"a\"]\ntimeot = 1"), "4:1", &["did you mean `timeout`?"]),
        (command("command = [\"a\"]\ndefault = 1"), "4:11", &["`default` is 1; give true or false"]),
        (
            command("command = [\"a\"]\nenv = [\"A=b\"]"),
            "4:8",
            &["`env[0]`", "the name of an environment variable"],
        ),
        (command("command = [\"a\"]\ncwd = \"\""), "4:7", &["the path of a folder"]),
        (command("command = [\"a\"]\nsuccess = [256]"), "4:12", &["`success[0]` is 256", "from 0 to 255"]),
        (command("command = [\"a\"]\nsuccess = []"), "4:11", &["a list of exit codes"]),
        (command("command = [\"a\"]\noutput_max = \"2MiB\""), "4:14", &["from \"0B\" to \"1MiB\""]),
        (command("command = [\"a\"]\ninput_max = \"65MiB\""), "4:13", &["from \"0B\" to \"64MiB\""]),
        (command("command = [\"a\"]\nkill_after = \"11m\""), "4:14", &["from \"1ms\" to \"10m\""]),
        (
            webhook("kill_after = \"5s\""),
            "4:1",
            &["`kill_after` is a key of command handlers", "type webhook"],
        ),
        (webhook("method = \"post\""), "4:10", &["is \"post\"", "\"POST\", \"PUT\""]),
        (webhook("success = [\"299-200\"]"), "4:12", &["\"299-200\"", "from 200 to 599"]),
        (webhook("success = [199]"), "4:12", &["`success[0]` is 199", "from 200 to 599"]),
        (webhook("success = [\"2xx\"]"), "4:12", &["such as \"200-299\""]),
        (webhook("success_body = \"(\""), "4:16", &["a regular expression", "unclosed group"]),
        (webhook("headers = { \"a b\" = \"x\" }"), "4:21", &["`headers.a b`", "a character in its name"]),
        (webhook("headers = { Host = \"x\" }"), "4:20", &["`headers.Host` cannot be set", "remove it"]),
        (webhook("headers = { A = \"x\\n\" }"), "4:17", &["visible ASCII"]),
        (webhook("headers = { A = \"x\", a = \"y\" }"), "4:26", &["`headers.a` is there twice"]),
        (webhook("headers = { A = \"{what}\" }"), "4:17", &["`headers.A`", "{id}, {run} and {attempt}"]),
        (
            "[handlers.a]\ntype = \"webhook\"\nurl = \"ftp://a.example/\"".into(),
            "3:7",
            &["`url` is", "give an http or https URL", "begins with http://"],
        ),
        (
            command("command = [\"a\", \"{what}\"]"),
            "3:17",
            &["`command[1]` is of type string", "unknown variable {what}", "{id}, {run}"],
        ),
        (webhook("headers = [\"A: x\"]"), "4:11", &["a table of headers"]),
    ]);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    each_is_told(&[
        ("[server]\nlisten = ".into(), "2:", &["not valid TOML"]),
        ("[server]\nlisten = \"a\"\nlisten = \"b\"".into(), "3:1", &["not valid TOML", "duplicate key"]),
        ("[server".into(), "1:", &["not valid TOML"]),
        ("{ \"server\": {} }".into(), "1:1", &["not valid TOML"]),
        ("# \u{e4}\u{f6}\n[log]\n\"\u{e4}\" = 1\n".into(), "3:1", &["unknown key `\u{e4}`"]),
    ]);
}

/// The parser finds what is missing at the end of the file before what is wrong in its middle.
#[test]
fn places_that_are_no_toml_are_told_in_the_order_of_the_file() {
    let found = problems(&Written::new("[log]\nlevel = \"info\"\n[handlers.\u{e9}]\n[store\n"));
    let lines: Vec<_> = found.iter().map(|problem| problem.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["3", "4"], "{found:#?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let file = Written::new(
        "[log]\nlevel = 1\n[store]\nbatch = 1\n[server]\ngrace = 1\nlisten = \"x\"\n[handlers.b]\ntype = \"webhook\"\n\
         sucess = 1\n[handlers.a]\ntyp = \"command\"\n",
    );
    let found = problems(&file);
    let lines: Vec<&str> = found.iter().filter_map(|problem| problem.split(':').nth(1)).collect();
    assert_eq!(lines, ["2", "4", "6", "7", "8", "10", "11", "12"], "{found:#?}");
}

#[test]
fn every_broken_line_is_told() {
    let found = problems(&Written::new("[server]\nlisten = \ngrace = \"1s\"\nbody_timeout = 1s\n"));
    let lines: Vec<&str> = found.iter().filter_map(|problem| problem.split(':').nth(1)).collect();
    assert_eq!(lines, ["2", "4"], "{found:#?}");
}

#[test]
fn two_defaults_are_both_named() {
    let one =
        |name: &str| format!("[handlers.{name}]\ntype = \"command\"\ncommand = [\"a\"]\ndefault = true\n");
    let found = problems(&Written::new(one("zebra") + &one("ape")));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("test.toml:8:11: `ape` is marked default, and so is `zebra` at test.toml:4:11")
    );
}

#[test]
fn a_wrong_header_value_is_not_shown() {
    for value in ["\"hush\\n\"", "[\"hush\"]", "{ a = \"hush\" }"] {
        let found = problems(&Written::new(format!("{WEBHOOK}headers = {{ Authorization = {value} }}")));
        assert!(found[0].contains("headers.Authorization") && !found[0].contains("hush"), "{found:#?}");
    }
}

#[test]
fn a_wrong_argument_is_not_shown() {
    for command in [
        r#"["curl", "Authorization: Bearer hush {oops}"]"#,
        r#"["curl", "-d", '{"password": "hush"}']"#,
        r#"["curl", "-d", '{hush: {id}']"#,
        r#"["curl", "hush\u0000"]"#,
        r#"["curl", ["hush"]]"#,
        r#""curl -H hush""#,
    ] {
        let found = problems(&Written::new(format!("{COMMAND}command = {command}")));
        assert!(found.len() == 1 && found[0].contains("`command"), "{found:#?}");
        assert!(!found[0].contains("hush"), "{found:#?}");
    }
    let file = Written::new(format!("{COMMAND}command = [\"curl\", \"a {{oops}}\"]\nenv = [\"KEY=hush\"]"));
    let found = problems(&file);
    assert!(found[0].contains("`command[1]`") && found[0].contains("unknown variable {oops}"), "{found:#?}");
    assert!(found[1].contains("`env[0]`") && !found[1].contains("hush"), "{found:#?}");
}

#[test]
fn two_tokens_with_one_secret_are_both_named() {
    let one = |name: &str, secrets: &[&str]| {
        let hashes: Vec<_> = secrets.iter().map(|secret| format!("\"{}\"", hash(secret))).collect();
        format!("[tokens.{name}]\nhash = [{}]\nscopes = [\"read\"]\n", hashes.join(", "))
    };
    let found = problems(&Written::new(one("zebra", &["x", "y"]) + &one("ape", &["z", "y"])));
    assert_eq!(found.len(), 1, "{found:#?}");
    let expected = "test.toml:5:8: [tokens.ape] has a secret of [tokens.zebra], at test.toml:2:8; ";
    assert!(found[0].starts_with(expected), "{found:#?}");
    assert!(!found[0].contains(&hash("y")[7..]), "{found:#?}");
    assert!(Written::new(one("a", &["x", "x"])).load(&[]).is_ok(), "twice in one table is harmless");
}

#[test]
fn a_token_for_a_handler_where_there_are_none_is_told_so() {
    let limited =
        format!("[tokens.a]\nhash = \"{}\"\nscopes = [\"read\"]\nhandlers = [\"echo\"]\n", hash("x"));
    each_is_told(&[(limited, "4:12", &["no handler is called `echo`; there are none"])]);
}

#[test]
fn a_file_that_cannot_be_read_is_told_apart() {
    let fault = |path: &Path| match load(&flags(path), &[]) {
        Ok(_) => panic!("{} was read", path.display()),
        Err(mut error) => {
            assert_eq!(error.problems.len(), 1);
            error.problems.remove(0)
        }
    };
    let file = Written::new(b"[log]\nlevel = \"\xff\"\n");

    let problem = fault(&file.folder().join("none.toml"));
    assert_eq!(problem.place, Place::Flag("--config"));
    assert!(matches!(problem.fault, Fault::NoFile { .. }), "{problem}");
    assert!(problem.to_string().contains("none.toml` does not exist"), "{problem}");

    let problem = fault(file.folder());
    assert!(matches!(problem.fault, Fault::IsFolder { .. }), "{problem}");
    assert!(problem.to_string().contains("is a folder; name a TOML file"), "{problem}");

    let problem = fault(&file.path().join("below"));
    assert!(matches!(problem.fault, Fault::Unreadable { .. }), "{problem}");

    let problem = fault(Path::new("/dev/zero"));
    assert!(matches!(problem.fault, Fault::TooLarge { .. }), "{problem}");

    let problem = fault(file.path());
    assert!(matches!(problem.fault, Fault::NotUtf8), "{problem}");
    assert!(problem.to_string().contains("test.toml:2:10: this is not UTF-8"), "{problem}");

    let named = [("TASK_RECORDER_CONFIG", "")];
    let error = load(&Flags::default(), &named).expect_err("an empty name is no file");
    assert_eq!(error.problems[0].place, Place::Variable("TASK_RECORDER_CONFIG".into()));
}

#[test]
fn mistakes_in_the_environment_are_told_with_the_variable() {
    let cases: [(Variables<'_>, &[&str]); 9] = [
        (&[("TASK_RECORDER_LISTN", "x")], &["TASK_RECORDER_LISTN", "did you mean `TASK_RECORDER_LISTEN`?"]),
        (
            &[("TASK_RECORDER_SERVER_BODYTIMEOUT", "x")],
            &["unknown variable", "did you mean `TASK_RECORDER_SERVER_BODY_TIMEOUT`?"],
        ),
        (&[("TASK_RECORDER_QQ", "x")], &["unknown variable", "known are TASK_RECORDER_CONFIG,"]),
        (&[("TASK_RECORDER_PORT", "8080")], &["variable TASK_RECORDER_PORT: unknown variable"]),
        (&[("TASK_RECORDER_HANDLERS_ECHO_TYPE", "webhook")], &["unknown variable"]),
        (&[("TASK_RECORDER_LISTEN", "")], &["environment variable TASK_RECORDER_LISTEN: `listen` is \"\""]),
        (
            &[("TASK_RECORDER_SERVER_GRACE", "7")],
            &["TASK_RECORDER_SERVER_GRACE: `grace` is \"7\"", "\"30s\""],
        ),
        (&[("TASK_RECORDER_STORE_BATCH_MAX", "1e3")], &["is \"1e3\"", "a whole number from 1 to 65536"]),
        (
            &[("TASK_RECORDER_STORE", "a"), ("TASK_RECORDER_STORE_PATH", "b")],
            &["TASK_RECORDER_STORE: this and TASK_RECORDER_STORE_PATH say different things"],
        ),
    ];
    for (environment, expected) in cases {
        let error = load(&Flags::default(), environment).expect_err("it is wrong").to_string();
        for words in expected {
            assert!(error.contains(words), "{error}\nhas no {words:?}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    let value = OsString::from_vec(vec![0xff]);
    let error =
        Config::load(&Flags::default(), [("TASK_RECORDER_STORE".into(), value)]).expect_err("no UTF-8");
    assert!(matches!(error.problems[0].fault, Fault::NotUtf8), "{error}");
    assert!(error.to_string().contains("TASK_RECORDER_STORE"), "{error}");
}

#[test]
fn mistakes_in_flags_are_told_with_the_flag() {
    let flags = Flags { listen: Some("localhost".into()), store: Some(String::new()), config: None };
    let error = load(&flags, &[]).expect_err("both are wrong");
    assert_eq!(
        error.problems.iter().map(|problem| problem.place.clone()).collect::<Vec<_>>(),
        [Place::Flag("--listen"), Place::Flag("--store")]
    );
    assert!(
        error.to_string().starts_with("flag --listen: `listen` is \"localhost\"; give an IP address"),
        "{error}"
    );
}
