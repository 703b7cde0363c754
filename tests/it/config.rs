//! What a good config comes to: defaults, what wins over what, the shipped file, and printing it.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::bytes::Regex;
use task_recorder::config::{Config, ConfigError, Flags, LogFormat, StorePath, known_keys};
use task_recorder::handler::Action;
use task_recorder::handler::template::Template;
use task_recorder::task::{Rate, Retention};
use tracing::level_filters::LevelFilter;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/task-recorder.toml");

/// A config file that lasts as long as its folder.
pub(crate) struct Written {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Written {
    pub(crate) fn new(bytes: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("test.toml");
        fs::write(&path, bytes).expect("the file can be written");
        Self { folder, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn load(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        load(&flags(&self.path), environment)
    }
}

pub(crate) fn flags(config: &Path) -> Flags {
    Flags { config: Some(config.to_owned()), ..Flags::default() }
}

pub(crate) fn load(flags: &Flags, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    Config::load(flags, environment.iter().map(pair))
}

pub(crate) fn good(text: &str) -> Config {
    Written::new(text).load(&[]).unwrap_or_else(|error| panic!("{text}\nis refused: {error}"))
}

fn names(config: &Config) -> Vec<&str> {
    config.handlers.iter().map(|handler| handler.name.as_str()).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The shipped file with every line that begins with `#` and no space uncommented.
fn shipped_in_full() -> String {
    let text = fs::read_to_string(SHIPPED).expect("the shipped config");
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with([' ', '#']) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| uncomment(line) + "\n").collect()
}

#[test]
fn an_empty_file_gives_the_defaults_and_no_handlers() {
    let config = good("");
    assert_eq!(config.server.listen, address("127.0.0.1:8080"));
    assert_eq!(config.server.connections_max, 10_000);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(config.server.threads, if cores > 1 { cores - 1 } else { 1 });
    assert_eq!(config.server.header_timeout, Duration::from_secs(30));
    assert_eq!(config.server.body_timeout, Duration::from_secs(30));
    assert_eq!(config.server.write_timeout, Duration::from_mins(2));
    assert_eq!(config.server.bodies_max, 256 << 20);
    assert_eq!((config.server.head_max, config.server.send_buffer), (32 << 10, 128 << 10));
    assert_eq!(config.server.wait_max, Duration::from_mins(5));
    assert_eq!(config.server.grace, Duration::from_secs(20));
    assert_eq!(config.store.path, StorePath::Folder("data".into()));
    assert_eq!(config.store.hot_tasks, 20_000);
    assert_eq!(config.store.hot_bytes, 128 * 1024 * 1024);
    assert_eq!(config.store.batch_max, 1024);
    assert_eq!(config.store.recent_ids, 65_536);
    assert_eq!(config.store.embedded().recent_ids, 65_536);
    assert_eq!(config.store.queue_max, 65_536);
    assert_eq!(config.store.events_kept, 10_000);
    assert!(!config.server.allow_anonymous && config.server.hosts.is_empty() && config.tokens.is_empty());
    assert_eq!(config.server.auth_failures, Rate { starts: 10, per: Duration::from_mins(1) });
    assert_eq!(config.retention, Retention::default());
    assert!(config.retention.is_off());
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.log.level, LevelFilter::INFO);
    assert!(config.handlers.is_empty());
}

#[test]
fn without_a_file_the_shipped_one_holds_with_its_handler() {
    let config = load(&Flags::default(), &[("HOME", "/root")]).expect("the built-in config is good");
    assert_eq!(names(&config), ["echo"]);
    assert!(config.handlers[0].is_default);
    assert_eq!(config.to_toml(), load(&flags(Path::new(SHIPPED)), &[]).expect("the file is good").to_toml());
}

#[test]
fn the_shipped_file_gives_exactly_the_defaults() {
    let shipped = load(&Flags::default(), &[]).expect("the built-in config is good");
    let bare = good("[handlers.echo]\ntype = \"command\"\ndefault = true\ncommand = [\"cat\"]");
    assert_eq!((&shipped.server, &shipped.store, &shipped.log), (&bare.server, &bare.store, &bare.log));
    assert_eq!(shipped.to_toml(), bare.to_toml());
    // What it says about the keys that it leaves out is true as well.
    let in_full = good(&shipped_in_full());
    let bare = good(
        "[handlers.echo]\ntype = \"command\"\ndefault = true\ncommand = [\"cat\"]\n\
         [handlers.echo.revoke]\ncommand = [\"cat\"]\n\
         [handlers.echo.on_success]\nurl = \"https://shop.example/reports/{id}\"\n\
         [handlers.echo.on_failure]\nurl = \"https://shop.example/reports/{id}/failed\"\n\
         [handlers.charge]\ntype = \"webhook\"\nurl = \"https://pay.example/charges/{id}\"\n\
         [handlers.charge.revoke]\nurl = \"https://pay.example/charges/{id}/refund\"\n\
         [tokens.ci]\nscopes = [\"read\", \"launch\"]\n\
         hash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n\
         [handlers.charge.on_success]\nurl = \"https://shop.example/charges/{id}\"\n\
         [handlers.charge.on_failure]\nurl = \"https://shop.example/charges/{id}/failed\"",
    );
    assert_eq!(in_full.to_toml(), bare.to_toml());
}

#[test]
fn the_shipped_file_names_every_key() {
    let text = shipped_in_full();
    let document: toml::Table = text.parse().expect("valid TOML");
    let keys = known_keys();
    assert!(keys.len() > 70, "{keys:?}");
    for (table, key) in keys {
        let table =
            table.replace("handlers.webhook", "handlers.charge").replace("handlers.command", "handlers.echo");
        let entries = table.split('.').try_fold(&document, |table, name| table.get(name)?.as_table());
        let is_set = entries.is_some_and(|entries| entries.contains_key(key));
        // A key without a default cannot stand there with one; a comment between the lines of its table shows it.
        let from_table = text.split_once(&format!("\n[{table}]\n")).map_or("", |(_, rest)| rest);
        let of_table = from_table.split("\n[").next().unwrap_or_default();
        let is_shown = of_table.contains(&format!("\n# {key} = "));
        assert!(is_set || is_shown, "[{table}] {key} is not in the shipped config");
    }
}

#[test]
fn every_key_can_be_set() {
    let config = good(
        r#"
        [server]
        listen = "[::]:0"
        connections_max = 0x10
        header_timeout = "1m30s"
        body_timeout = "250ms"
        wait_max = "24h"
        grace = "1ms"
        allow_anonymous = true
        hosts = ["Recorder.internal", "[fd00::1]"]
        auth_failures = "5/s"
        [store]
        path = "memory"
        hot_tasks = 1
        hot_bytes = "1GiB"
        batch_max = 65_536
        queue_max = 1
        recent_ids = 3
        [retention]
        details = "30d"
        failed = "2w 12h"
        success = "36500d"
        interval = "100ms"
        [log]
        format = "json"
        level = "trace"
        [handlers.a-B_9]
        type = "webhook"
        url = "http://127.0.0.1:9/{id}"
        method = "PUT"
        headers = { X-Order = "{id}", Authorization = "Bearer hush" }
        success = [200, "202-204"]
        success_body = "ok"
        timeout = "1s"
        input_max = "0B"
        output_max = "1MiB"
        [handlers.report]
        type = "command"
        command = ["make-report", "", "{id}"]
        env = []
        cwd = "/"
        kill_after = "1s"
        success = [0, 75]
        default = true
        "#,
    );
    assert_eq!(config.server.listen, address("[::]:0"));
    assert_eq!(config.server.connections_max, 16);
    assert_eq!(config.server.header_timeout, Duration::from_secs(90));
    assert_eq!(config.server.body_timeout, Duration::from_millis(250));
    assert_eq!(config.server.wait_max, Duration::from_hours(24));
    assert!(config.server.allow_anonymous);
    assert_eq!(config.server.hosts, ["recorder.internal", "[fd00::1]"]);
    assert_eq!(config.server.auth_failures, Rate { starts: 5, per: Duration::from_secs(1) });
    assert_eq!(config.store.path, StorePath::Memory);
    assert_eq!(config.store.hot_bytes, 1 << 30);
    let hours = |hours| Some(Duration::from_hours(hours));
    let interval = Duration::from_millis(100);
    let retention =
        Retention { details: hours(720), failed: hours(348), success: hours(36_500 * 24), interval };
    assert_eq!(config.retention, retention);
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LevelFilter::TRACE));
    assert_eq!(names(&config), ["a-B_9", "report"]);
    assert_eq!(config.handlers[0].input_bytes_max, 0);
    assert!(!config.handlers[0].is_default && config.handlers[1].is_default);

    let Action::Webhook(webhook) = &config.handlers[0].action else { panic!("{:?}", config.handlers[0]) };
    let webhook = webhook.settings();
    assert_eq!((webhook.url.as_str(), webhook.method.as_str()), ("http://127.0.0.1:9/{id}", "PUT"));
    let headers: Vec<_> =
        webhook.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, [("x-order", "{id}"), ("authorization", "Bearer hush")]);
    assert_eq!(webhook.success, [200..=200, 202..=204]);
    assert_eq!(webhook.success_body.as_ref().map(Regex::as_str), Some("ok"));
    assert_eq!((webhook.timeout, webhook.output_bytes_max), (Duration::from_secs(1), 1 << 20));

    let Action::Command(command) = &config.handlers[1].action else { panic!("{:?}", config.handlers[1]) };
    let command = command.settings();
    let argv: Vec<_> = command.argv.iter().map(Template::as_str).collect();
    assert_eq!(argv, ["make-report", "", "{id}"]);
    assert_eq!((command.env.len(), command.cwd.as_deref()), (0, Some(Path::new("/"))));
    assert_eq!((command.timeout, command.kill_after), (Duration::from_mins(5), Duration::from_secs(1)));
    assert_eq!((command.success.as_slice(), command.output_bytes_max), (&[0, 75][..], 64 << 10));
}

#[test]
fn handlers_keep_the_order_of_the_file() {
    let command = "type = \"command\"\ncommand = [\"true\"]\n";
    let config = good(&format!("[handlers.z]\n{command}[handlers.m]\n{command}[handlers.a]\n{command}"));
    assert_eq!(names(&config), ["z", "m", "a"]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = Written::new("[server]\nlisten = \"127.0.0.1:1\"\ngrace = \"1s\"\n[store]\npath = \"one\"");
    let environment = [("TASK_RECORDER_LISTEN", "127.0.0.1:2"), ("TASK_RECORDER_STORE", "two")];

    let config = file.load(&[]).expect("good");
    assert_eq!(config.server.listen, address("127.0.0.1:1"));
    assert_eq!(config.store.path, StorePath::Folder("one".into()));

    let config = file.load(&environment).expect("good");
    assert_eq!(config.server.listen, address("127.0.0.1:2"));
    assert_eq!(config.store.path, StorePath::Folder("two".into()));
    assert_eq!(config.server.grace, Duration::from_secs(1), "the file holds where nothing wins over it");

    let all =
        Flags { listen: Some("127.0.0.1:3".into()), store: Some("memory".into()), ..flags(file.path()) };
    let config = load(&all, &environment).expect("good");
    assert_eq!(config.server.listen, address("127.0.0.1:3"));
    assert_eq!(config.store.path, StorePath::Memory);
    assert!(config.to_toml().contains("listen = \"127.0.0.1:3\" # flag --listen\n"), "{}", config.to_toml());
}

#[test]
fn every_scalar_key_has_a_variable() {
    let config = load(
        &Flags::default(),
        &[
            ("TASK_RECORDER_SERVER_LISTEN", "127.0.0.1:4"),
            ("TASK_RECORDER_SERVER_CONNECTIONS_MAX", "5"),
            ("TASK_RECORDER_SERVER_BODY_TIMEOUT", "6s"),
            ("TASK_RECORDER_SERVER_ALLOW_ANONYMOUS", "true"),
            ("TASK_RECORDER_SERVER_HOSTS", "one.example, two.example"),
            ("TASK_RECORDER_STORE_PATH", "seven"),
            ("TASK_RECORDER_STORE_HOT_BYTES", "8MiB"),
            ("TASK_RECORDER_RETENTION_DETAILS", "9d"),
            ("TASK_RECORDER_LOG_FORMAT", "text"),
            ("TASK_RECORDER_LOG_LEVEL", "warn"),
        ],
    )
    .expect("good");
    assert_eq!(config.server.listen, address("127.0.0.1:4"));
    assert_eq!(config.server.connections_max, 5);
    assert_eq!(config.server.body_timeout, Duration::from_secs(6));
    assert!(config.server.allow_anonymous);
    assert_eq!(config.server.hosts, ["one.example", "two.example"]);
    assert_eq!(config.store.path, StorePath::Folder("seven".into()));
    assert_eq!(config.store.hot_bytes, 8 << 20);
    assert_eq!(config.retention.details, Some(Duration::from_hours(9 * 24)));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, LevelFilter::WARN));
    assert_eq!(names(&config), ["echo"]);
}

#[test]
fn the_file_is_named_by_the_flag_else_by_the_variable() {
    let (one, two) = (Written::new("[server]\ngrace = \"1s\""), Written::new("[server]\ngrace = \"2s\""));
    let variable = [("TASK_RECORDER_CONFIG", one.path().to_str().expect("UTF-8"))];
    let config = load(&Flags::default(), &variable).expect("good");
    assert_eq!(config.server.grace, Duration::from_secs(1));
    assert!(config.handlers.is_empty(), "the handlers of the built-in config are not mixed in");
    let config = load(&flags(two.path()), &variable).expect("good");
    assert_eq!(config.server.grace, Duration::from_secs(2));
}

#[test]
fn links_to_a_kubernetes_service_are_no_settings() {
    let links = [
        ("TASK_RECORDER_SERVICE_HOST", "10.0.0.7"),
        ("TASK_RECORDER_SERVICE_PORT", "80"),
        ("TASK_RECORDER_PORT", "tcp://10.0.0.7:80"),
        ("TASK_RECORDER_PORT_80_TCP_ADDR", "10.0.0.7"),
    ];
    assert!(load(&Flags::default(), &links).is_ok());
}

#[test]
fn a_printed_config_reads_as_the_same_config() {
    let first = good(
        r#"
        [server]
        listen = "0.0.0.0:80"
        body_timeout = "1h"
        wait_max = "1m 30s"
        [store]
        path = 'a "quoted" \ path'
        hot_bytes = "1500000B"
        [retention]
        details = "30d"
        failed = "1d 1h"
        interval = "90s"
        [handlers.charge]
        type = "webhook"
        url = "https://pay.example/charges/{id}"
        headers = { Authorization = "Bearer hush", "X-Order" = "{id}" }
        success = ["200-299", 409]
        success_body = '"paid": *true'
        [handlers.report]
        type = "command"
        command = ["sh", "-c", "printf 'a\nb' \"$0\"", "{id}"]
        default = true
        "#,
    );
    let printed = first.to_toml();
    let second = good(&printed);
    assert_eq!(second.to_toml(), printed);
    assert_eq!((first.server, first.store, first.log), (second.server, second.store, second.log));
    assert_eq!(first.retention, second.retention);
    assert_eq!(second.handlers.len(), 2);
}

#[test]
fn header_values_are_never_shown() {
    let config = good(
        "[handlers.a]\ntype = \"webhook\"\nurl = \"http://a.example/\"\nheaders = { Authorization = \"hush\" }",
    );
    for text in [config.to_toml(), format!("{config:?}")] {
        assert!(text.contains("authorization = \"***\"") && !text.contains("hush"), "{text}");
    }
}
