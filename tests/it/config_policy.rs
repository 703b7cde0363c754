//! The config of a handler's attempts, limits and crash policy, and of its revoke action: good ones and bad ones.

use std::time::Duration;

use task_recorder::config::Config;
use task_recorder::handler::template::Template;
use task_recorder::handler::{Action, Handler};
use task_recorder::task::{OnCrash, Policy, Rate, Retry};

use crate::config::{Written, good};
use crate::config_refused::{COMMAND, WEBHOOK, each_is_told, problems};

const RETRY_TABLE: &str = "[handlers.a.retry]\n";
const REVOKE_TABLE: &str = "[handlers.a.revoke]\n";

/// The only handler of a file.
fn only(config: &Config) -> &Handler {
    let [handler] = config.handlers.as_slice() else { panic!("{:?}", config.handlers) };
    handler
}

fn command(rest: &str) -> String {
    format!("{COMMAND}command = [\"a\"]\n{rest}")
}

fn webhook(rest: &str) -> String {
    format!("{WEBHOOK}{rest}")
}

fn url(action: Option<&Action>) -> &str {
    match action {
        Some(Action::Webhook(webhook)) => webhook.settings().url.as_str(),
        other => panic!("no webhook: {other:?}"),
    }
}

#[test]
fn a_webhook_is_tried_again_and_a_command_is_not_unless_the_config_says_so() {
    let config = good(&webhook(""));
    let retry = Retry {
        attempts: 5,
        initial: Duration::from_secs(1),
        factor: 2.0,
        max_interval: Duration::from_mins(5),
        jitter: 0.2,
        in_doubt: false,
    };
    let policy = Policy {
        retry: retry.clone(),
        on_crash: OnCrash::Fail,
        concurrency: 1_000,
        rate: None,
        queue_max: 100_000,
        match_input: false,
        ending: Duration::ZERO,
    };
    assert_eq!(only(&config).policy, policy);
    assert!(only(&config).revoke.is_none());

    let config = good(&command(""));
    let ending = Duration::from_secs(5);
    let policy = Policy { retry: Retry { attempts: 1, ..retry }, concurrency: 16, ending, ..policy };
    assert_eq!(only(&config).policy, policy);
    assert!(only(&config).revoke.is_none());
}

#[test]
fn every_key_of_a_policy_can_be_set_inline_or_in_a_table() {
    let keys = "retry_in_doubt = true\non_crash = \"retry\"\nconcurrency = 100_000\nrate = \"100/s\"\nqueue = 0\n\
                match_input = true\n";
    let inline =
        "retry = { attempts = 1000, initial = \"1ms\", factor = 1, max_interval = \"24h\", jitter = 0 }";
    let table = "[handlers.a.retry]\nattempts = 1000\ninitial = \"1ms\"\nfactor = 1.0\nmax_interval = \"24h\"\n\
                 jitter = 0.0";
    let dotted = "retry.attempts = 1000\nretry.initial = \"1ms\"\nretry.factor = 1e0\nretry.max_interval = \"24h\"\n\
         retry.jitter = +0.0";
    let policy = Policy {
        retry: Retry {
            attempts: 1_000,
            initial: Duration::from_millis(1),
            factor: 1.0,
            max_interval: Duration::from_hours(24),
            jitter: 0.0,
            in_doubt: true,
        },
        on_crash: OnCrash::Retry,
        concurrency: 100_000,
        rate: Some(Rate { starts: 100, per: Duration::from_secs(1) }),
        queue_max: 0,
        match_input: true,
        ending: Duration::ZERO,
    };
    for retry in [inline, table, dotted] {
        let of_command = Policy { ending: Duration::from_secs(5), ..policy.clone() };
        for (handler, policy) in [(command(keys), &of_command), (webhook(keys), &policy)] {
            assert_eq!(&only(&good(&format!("{handler}{retry}"))).policy, policy, "{handler}{retry}");
        }
    }
}

#[test]
fn the_longest_kill_after_of_a_handler_is_how_long_its_attempts_may_take_to_end() {
    let ending = |config: &str| only(&good(config)).policy.ending;
    let revoke =
        |keys: &str| format!("[handlers.a.revoke]\ntype = \"command\"\ncommand = [\"undo\"]\n{keys}");
    let (one, long) = ("kill_after = \"1s\"\n", "kill_after = \"10m\"\n");
    let (second, minutes) = (Duration::from_secs(1), Duration::from_mins(10));
    assert_eq!(ending(&command(one)), second);
    assert_eq!(ending(&(command(one) + &revoke(long))), minutes);
    assert_eq!(ending(&(command(long) + &revoke(one))), minutes);
    assert_eq!(ending(&(webhook("") + &revoke(one))), second);
}

#[test]
fn a_rate_is_a_number_a_second_a_minute_or_an_hour() {
    for (text, starts, per) in [
        ("1/s", 1, Duration::from_secs(1)),
        ("30/m", 30, Duration::from_mins(1)),
        ("1000000/h", 1_000_000, Duration::from_hours(1)),
    ] {
        let config = good(&webhook(&format!("rate = \"{text}\"")));
        assert_eq!(only(&config).policy.rate, Some(Rate { starts, per }));
        assert!(config.to_toml().contains(&format!("rate = \"{text}\"\n")), "{}", config.to_toml());
    }
}

#[test]
fn a_first_pause_longer_than_the_default_of_the_longest_makes_that_longer() {
    let config = good(&webhook("retry = { initial = \"10m\" }"));
    let retry = &only(&config).policy.retry;
    assert_eq!((retry.initial, retry.max_interval), (Duration::from_mins(10), Duration::from_mins(10)));
}

#[test]
fn a_revoke_action_has_the_type_of_its_handler_unless_it_says_otherwise() {
    let config = good(&webhook("[handlers.a.revoke]\nurl = \"https://a.example/undo\""));
    assert_eq!(url(only(&config).revoke.as_ref()), "https://a.example/undo");
    assert_eq!(url(Some(&only(&config).action)), "https://a.example/");

    let config = good(&command("revoke = { command = [\"undo\", \"{id}\"], timeout = \"1s\" }"));
    let Some(Action::Command(undo)) = &only(&config).revoke else { panic!("{config:?}") };
    let argv: Vec<_> = undo.settings().argv.iter().map(Template::as_str).collect();
    assert_eq!((argv.as_slice(), undo.settings().timeout), (&["undo", "{id}"][..], Duration::from_secs(1)));

    let config = good(&command("[handlers.a.revoke]\ntype = \"webhook\"\nurl = \"https://a.example/undo\""));
    assert_eq!(url(only(&config).revoke.as_ref()), "https://a.example/undo");
    assert!(matches!(only(&config).action, Action::Command(_)));
}

#[test]
fn a_printed_policy_and_revoke_action_read_as_the_same() {
    let first = good(
        r#"
        [handlers.charge.retry]
        max_interval = "1m30s"
        factor = 1.25
        jitter = 0.333333333333333314829616256247390992939472198486328125
        [handlers.charge]
        type = "webhook"
        url = "https://pay.example/charges/{id}"
        rate = "7/m"
        on_crash = "retry"
        [handlers.charge.revoke]
        url = "https://pay.example/charges/{id}/refund"
        headers = { Authorization = "Bearer hush" }
        success = [200, 404]
        success_body = "refunded"
        output_max = "0B"
        [handlers.report]
        revoke = { type = "webhook", url = "https://reports.example/{id}", method = "DELETE" }
        type = "command"
        command = ["make-report"]
        retry = { attempts = 3 }
        retry_in_doubt = true
        queue = 10
        [handlers.plain]
        type = "command"
        command = ["true"]
        revoke.command = ["false"]
        "#,
    );
    let printed = first.to_toml();
    let second = good(&printed);
    assert_eq!(second.to_toml(), printed);
    assert!(printed.contains("[handlers.charge.revoke]\ntype = \"webhook\"\n") && !printed.contains("hush"));
    for (first, second) in first.handlers.iter().zip(&second.handlers) {
        assert_eq!((&first.name, &first.policy), (&second.name, &second.policy));
        let (first, second) = (format!("{:?}", first.revoke), format!("{:?}", second.revoke));
        assert_eq!(first, second);
    }
}

#[test]
fn each_mistake_in_a_policy_is_told_with_its_line_and_what_would_be_right() {
    let attempts = &["a whole number from 1 to 1000"][..];
    let rate = &["`rate` is", "from 1 to 1000000", "\"100/s\", \"100/m\" or \"100/h\""][..];
    each_is_told(&[
        (webhook("retry = { attempts = 0 }"), "4:22", attempts),
        (webhook("retry = { attempts = 1001 }"), "4:22", attempts),
        (webhook("retry = { attempts = 2.0 }"), "4:22", attempts),
        (webhook("retry = { initial = \"0s\" }"), "4:21", &["`initial` is \"0s\"", "\"1ms\" to \"1h\""]),
        (webhook("retry = { initial = 1 }"), "4:21", &["`initial` is 1", "such as \"30s\""]),
        (webhook("retry = { factor = 0.99 }"), "4:20", &["`factor` is 0.99", "a number from 1 to 100"]),
        (webhook("retry = { factor = 101 }"), "4:20", &["a number from 1 to 100"]),
        (webhook("retry = { factor = nan }"), "4:20", &["`factor` is nan", "from 1 to 100"]),
        (webhook("retry = { factor = inf }"), "4:20", &["`factor` is inf"]),
        (webhook("retry = { jitter = -0.1 }"), "4:20", &["`jitter` is -0.1", "a number from 0 to 1"]),
        (webhook("retry = { jitter = \"20%\" }"), "4:20", &["`jitter` is \"20%\""]),
        (webhook("retry = { max_interval = \"25h\" }"), "4:26", &["to \"24h\""]),
        (
            webhook("retry = { initial = \"10s\", max_interval = \"9s\" }"),
            "4:43",
            &["`max_interval` is \"9s\"", "from \"10s\" to \"24h\"", "not shorter than `initial`"],
        ),
        (webhook("retry = 5"), "4:9", &["is 5", "a table, which begins with [handlers.a.retry]"]),
        (webhook("retry = { atempts = 5 }"), "4:11", &["in [handlers.a.retry]", "did you mean `attempts`?"]),
        (format!("{}{RETRY_TABLE}zzz = 5", webhook("")), "5:1", &["known are attempts, factor, initial,"]),
        (
            format!("{}{RETRY_TABLE}retry_in_doubt = true", webhook("")),
            "5:1",
            &["it belongs in [handlers.a]"],
        ),
        (webhook("attempts = 5"), "4:1", &["unknown key `attempts`", "it belongs in [handlers.a.retry]"]),
        (command("jitter = 0.5"), "4:1", &["it belongs in [handlers.a.retry]"]),
        (webhook("retry_in_doubt = \"yes\""), "4:18", &["`retry_in_doubt` is \"yes\"; give true or false"]),
        (webhook("on_crash = \"again\""), "4:12", &["is \"again\"", "\"fail\" or \"retry\""]),
        (webhook("on_crash = true"), "4:12", &["\"fail\" or \"retry\""]),
        (webhook("concurrency = 0"), "4:15", &["from 1 to 100000"]),
        (webhook("concurrency = 100001"), "4:15", &["from 1 to 100000"]),
        (webhook("queue = -1"), "4:9", &["`queue` is -1", "from 0 to 10000000"]),
        (webhook("match_input = 1"), "4:15", &["give true or false"]),
        (webhook("concurency = 1"), "4:1", &["did you mean `concurrency`?"]),
        (webhook("rate = 100"), "4:8", rate),
        (webhook("rate = \"100\""), "4:8", rate),
        (webhook("rate = \"0/s\""), "4:8", rate),
        (webhook("rate = \"1000001/s\""), "4:8", rate),
        (webhook("rate = \"99999999999/s\""), "4:8", rate),
        (webhook("rate = \"+1/s\""), "4:8", rate),
        (webhook("rate = \"1/d\""), "4:8", rate),
        (webhook("rate = \"/s\""), "4:8", rate),
        (webhook("rate = \"1 / s\""), "4:8", rate),
    ]);
}

#[test]
fn each_mistake_in_a_revoke_action_is_told_with_its_line_and_what_would_be_right() {
    let of_webhook =
        |rest: &str| format!("{}{REVOKE_TABLE}url = \"https://a.example/\"\n{rest}", webhook(""));
    let of_command = |rest: &str| format!("{}{REVOKE_TABLE}{rest}", command(""));
    each_is_told(&[
        (webhook("revoke = {}"), "4:1", &["[handlers.a.revoke] has no `url`", "https URL"]),
        (of_command(""), "4:13", &["[handlers.a.revoke] has no `command`"]),
        (webhook("revoke = \"undo\""), "4:10", &["a table, which begins with [handlers.a.revoke]"]),
        (of_webhook("type = \"wehbook\""), "6:8", &["is \"wehbook\"", "\"webhook\" or \"command\""]),
        (of_webhook("methd = \"PUT\""), "6:1", &["in [handlers.a.revoke]", "did you mean `method`?"]),
        (of_webhook("zzz = 1"), "6:1", &["known are ca_file, ", "headers, method, output_max,"]),
        (of_webhook("timeout = \"25h\""), "6:11", &["from \"1ms\" to \"24h\""]),
        (of_webhook("headers = { Host = \"x\" }"), "6:20", &["`headers.Host` cannot be set"]),
        (
            of_webhook("kill_after = \"5s\""),
            "6:1",
            &["`kill_after` is a key of command handlers", "[handlers.a.revoke] is of type webhook"],
        ),
        (
            of_command("command = [\"a\"]\nurl = 1"),
            "6:1",
            &["`url` is a key of webhook handlers", "[handlers.a.revoke] is of type command"],
        ),
        (of_webhook("retry = { attempts = 0 }"), "6:1", &["`retry` is a key of the handler"]),
        (format!("{}[handlers.a.revoke.retry]", of_webhook("")), "6:20", &["not of its revoke action"]),
        (of_webhook("attempts = 3"), "6:1", &["not of its revoke action; it belongs in [handlers.a.retry]"]),
    ]);
    for key in [
        "default",
        "input_max",
        "retry_in_doubt",
        "on_crash",
        "concurrency",
        "rate",
        "queue",
        "match_input",
        "revoke",
    ] {
        let words =
            format!("`{key}` is a key of the handler, not of its revoke action; it belongs in [handlers.a]");
        each_is_told(&[
            (of_webhook(&format!("{key} = 1")), "6:1", &[&words]),
            (of_command(&format!("command = [\"a\"]\n{key} = 1")), "6:1", &[&words]),
        ]);
    }
}

#[test]
fn notices_are_webhooks_of_their_own() {
    for handler in [command, webhook] {
        let config = good(&handler(
            "on_success = { url = \"https://a.example/{id}\" }\n[handlers.a.on_failure]\n\
             url = \"https://a.example/{id}/{attempt}\"\nmethod = \"PUT\"\nheaders = { x-key = \"hush\" }\n\
             timeout = \"5s\"\nsuccess = [204]",
        ));
        let only = only(&config);
        let (success, failure) = (only.on_success.as_ref().unwrap(), only.on_failure.as_ref().unwrap());
        assert_eq!(success.settings().url.as_str(), "https://a.example/{id}");
        assert_eq!((success.settings().method.as_str(), success.settings().timeout.as_secs()), ("POST", 30));
        assert_eq!((failure.settings().method.as_str(), failure.settings().timeout.as_secs()), ("PUT", 5));
        assert_eq!(failure.settings().success, [204..=204]);
        let printed = config.to_toml();
        assert!(
            printed.contains("[handlers.a.on_failure]\nurl = ") && !printed.contains("hush"),
            "{printed}"
        );
        let again = Written::new(&printed).load(&[]).unwrap();
        assert_eq!(again.to_toml(), printed);
    }
    let of = |rest: &str| webhook(&format!("[handlers.a.on_success]\n{rest}"));
    each_is_told(&[
        (of(""), "4:13", &["[handlers.a.on_success] has no `url`", "https URL"]),
        (of("url = \"https://a.example\"\nmethd = \"PUT\""), "6:1", &["did you mean `method`?"]),
        (of("url = \"https://a.example\"\nretry = 1"), "6:1", &["`retry`", "[handlers.a.on_success]"]),
        (
            of("url = \"https://a.example\"\nheaders = { task-event = \"x\" }"),
            "6:26",
            &["belongs to the call itself"],
        ),
        (webhook("on_failure = \"https://a.example\""), "4:14", &["[handlers.a.on_failure]"]),
    ]);
}

#[test]
fn a_handler_of_an_unknown_type_is_told_once_with_its_revoke_action() {
    let rest = "url = 1\n[handlers.a.retry]\n[handlers.a.revoke]\nurl = 1\ncommand = 1\n";
    let found = problems(&Written::new(format!("[handlers.a]\ntype = \"job\"\n{rest}")));
    assert_eq!(found.len(), 1, "{found:#?}");
}
