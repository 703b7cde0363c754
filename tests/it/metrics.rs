//! What `GET /metrics` tells: every kind of event, in both formats, in as many series for any number of ids.

mod files;
mod promtool;
mod series;

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use regex::Regex;

use crate::support::client::{Answer, Client};
use crate::support::receiver::{self, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::within;
use crate::tokens;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one answer of `/metrics` holds.
#[derive(Debug)]
pub(crate) struct Metrics {
    text: String,
    /// The type of each family.
    types: BTreeMap<String, String>,
    /// By name and labels as they are written, `name{a="b"}`.
    samples: BTreeMap<String, String>,
}

impl Metrics {
    /// Fails on what neither format allows.
    pub(crate) fn parse(text: &str) -> Self {
        let sample =
            Regex::new(r#"^([a-z_]+)((?:\{(?:[a-z]+="[^"\\]*",?)*\})?) ([0-9.e+-]+|\+Inf)$"#).unwrap();
        let (mut types, mut samples, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(comment) = line.strip_prefix("# ") {
                let [what, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                match what {
                    "HELP" => assert!(rest.ends_with('.') && helped.insert(name.to_owned()), "{line}"),
                    "TYPE" => {
                        assert!(types.insert(name.to_owned(), rest.to_owned()).is_none(), "twice: {line}");
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let found = sample.captures(line).unwrap_or_else(|| panic!("no sample: {line}"));
            let series = format!("{}{}", &found[1], &found[2]);
            assert!(samples.insert(series, found[3].to_owned()).is_none(), "twice: {line}");
        }
        assert_eq!(helped, types.keys().cloned().collect(), "each family has a help and a type");
        Self { text: text.to_owned(), types, samples }
    }

    pub(crate) async fn of(client: &Client) -> Self {
        let answer = client.get("/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self::parse(answer.text())
    }

    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.samples.keys().map(String::as_str).collect()
    }

    /// The names of all samples.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|series| series.split('{').next().unwrap()).collect()
    }

    /// The value of a series, its name without the prefix.
    fn text(&self, series: &str) -> &str {
        let full = format!("task_recorder_{series}");
        self.samples.get(&full).unwrap_or_else(|| panic!("no {full} in\n{}", self.text))
    }

    pub(crate) fn count(&self, series: &str) -> usize {
        let text = self.text(series);
        text.strip_suffix(".0").unwrap_or(text).parse().unwrap()
    }

    fn value(&self, series: &str) -> f64 {
        self.text(series).parse().unwrap()
    }
}

/// Handlers that meet everything, a token for nobody.
fn config(receiver: &Receiver) -> String {
    let (url, told) = (receiver.url("/hook/{id}"), receiver.url("/told/{id}"));
    format!(
        r#"
        [handlers.hook]
        type = "webhook"
        url = "{url}"
        default = true
        match_input = true
        retry = {{ attempts = 2, initial = "1ms", jitter = 0.0 }}
        concurrency = 1
        queue = 1
        [handlers.hook.on_success]
        url = "{told}"
        [handlers.slow]
        type = "webhook"
        url = "{url}"
        timeout = "300ms"
        retry = {{ attempts = 1 }}
        [handlers.closed]
        type = "webhook"
        url = "http://127.0.0.1:1/"
        retry = {{ attempts = 1 }}
        [handlers.echo]
        type = "command"
        command = ["cat"]
        [handlers.fails]
        type = "command"
        command = ["false"]
        [handlers.absent]
        type = "command"
        command = ["/nonexistent/program"]
        "#,
    )
}

/// A service that has seen every kind of event, as it is afterwards.
pub(crate) struct Eventful {
    pub(crate) server: TestServer,
    pub(crate) client: Client,
    _receiver: Receiver,
}

impl Eventful {
    pub(crate) async fn new() -> Self {
        let receiver = Receiver::start().await;
        let server = TestServer::start(&config(&receiver));
        let client = server.client();
        let answer = |status| Behaviour::Answer(receiver::Answer::of(status));
        receiver.on("doubt", [answer(500)]);
        receiver.on("again", [answer(503), answer(200)]);
        receiver.on("late", [Behaviour::NeverAnswer]);
        let gate = Gate::new();
        receiver.on("held", [Behaviour::AnswerAfter(gate.clone(), receiver::Answer::of(200))]);

        for path in ["/tasks/fine?wait=20s", "/tasks/again?wait=20s", "/tasks/doubt?wait=20s"] {
            assert_eq!(client.post(path, "in").await.status, 200, "{path}");
        }
        for (id, handler) in
            [("late", "slow"), ("closed", "closed"), ("echo", "echo"), ("exit", "fails"), ("spawn", "absent")]
        {
            let launched = client.post(&format!("/tasks/{id}?handler={handler}&wait=20s"), "").await;
            assert_eq!(launched.status, 200, "{id}: {}", launched.text());
        }
        let send = async |path: &str, headers: &[(&str, &str)], body: &str, status: u16| -> Answer {
            let answer = client.send(Method::POST, path, headers, body.to_owned()).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            answer
        };
        send("/tasks/fine", &[], "in", 200).await;
        send("/tasks/fine/retry", &[], "", 409).await;
        send("/tasks/nobody/retry", &[], "", 404).await;
        send("/tasks/doubt", &[], "other", 409).await;
        send("/tasks/exit?handler=echo", &[], "", 409).await;
        send("/tasks/new", &[("if-match", "*")], "", 412).await;
        send("/tasks/new?handler=nobody", &[], "", 404).await;
        let key = [("idempotency-key", "k")];
        send("/tasks/keyed?handler=echo&wait=20s", &key, "", 200).await;
        send("/tasks/keyed?handler=echo", &key, "", 200).await;
        // One runs, one waits, a third one finds no place.
        send("/tasks/held", &[], "", 202).await;
        send("/tasks/held", &[], "", 200).await;
        send("/tasks/waits", &[], "", 202).await;
        send("/tasks/full", &[], "", 429).await;
        send("/handlers/echo/pause", &[], "", 200).await;
        assert_eq!(client.get("/nowhere").await.status, 404);
        assert_eq!(client.send(Method::PATCH, "/tasks", &[], "").await.status, 405);
        let during = Metrics::of(&client).await;
        assert_eq!(during.count("working_tasks{handler=\"hook\",phase=\"queued\"}"), 1);
        assert_eq!(during.count("working_tasks{handler=\"hook\",phase=\"running\"}"), 1);
        assert_eq!(during.count("runs_in_flight"), 1);
        assert!(during.value("queue_age_seconds{handler=\"hook\"}") > 0.0);
        assert!(
            during.value("oldest_working_seconds") >= during.value("queue_age_seconds{handler=\"hook\"}")
        );
        gate.open();
        within("the held ones", client.get("/tasks/waits/status?wait=20s")).await;
        Self { server, client, _receiver: receiver }
    }
}

#[tokio::test]
async fn every_kind_of_event_is_counted() {
    let Eventful { server, client, .. } = &Eventful::new().await;
    // Notices are told in the background.
    let mut metrics = Metrics::of(client).await;
    within("notices", async {
        let are_told = |metrics: &Metrics| {
            metrics.count("notices_total{result=\"told\"}") == 4 && metrics.count("notices_due") == 0
        };
        while !are_told(&metrics) {
            metrics = Metrics::of(client).await;
        }
    })
    .await;
    for (result, count) in [
        ("started", 11),
        ("success", 1),
        ("not_failed", 1),
        ("not_found", 1),
        ("input_mismatch", 1),
        ("handler_mismatch", 1),
        ("precondition", 1),
        ("unknown_handler", 1),
        ("same_request", 1),
        ("working", 1),
        ("queue_full", 1),
        ("store_busy", 0),
    ] {
        assert_eq!(metrics.count(&format!("launches_total{{result=\"{result}\"}}")), count, "{result}");
    }
    for (handler, outcome, count) in [
        ("hook", "success", 4),
        ("hook", "status", 2),
        ("slow", "timeout", 1),
        ("closed", "refused", 1),
        ("echo", "success", 2),
        ("fails", "exit_code", 1),
        ("absent", "spawn", 1),
        ("hook", "panic", 0),
    ] {
        let series = format!("attempts_total{{handler=\"{handler}\",outcome=\"{outcome}\"}}");
        assert_eq!(metrics.count(&series), count, "{series}");
    }
    for (series, value) in [
        ("tasks{handler=\"hook\",state=\"success\"}", 4),
        ("tasks{handler=\"hook\",state=\"failed\"}", 1),
        ("tasks{handler=\"fails\",state=\"failed\"}", 1),
        ("tasks{handler=\"absent\",state=\"working\"}", 0),
        ("attempt_duration_seconds_count{handler=\"hook\"}", 6),
        ("attempt_duration_seconds_bucket{le=\"+Inf\",handler=\"hook\"}", 6),
        ("runs_in_doubt_total{handler=\"hook\"}", 1),
        ("runs_in_doubt_total{handler=\"slow\"}", 1),
        ("runs_in_doubt_total{handler=\"fails\"}", 0),
        ("runs_in_flight", 0),
        ("working_tasks{handler=\"hook\",phase=\"queued\"}", 0),
        ("handler_paused{handler=\"echo\"}", 1),
        ("handler_paused{handler=\"hook\"}", 0),
        ("draining", 0),
        ("stale_outcomes_total", 0),
        ("panics_total", 0),
        ("unsettled_outcomes", 0),
        ("notices_total{result=\"given_up\"}", 0),
        ("store_health{health=\"writable\"}", 1),
        ("store_health{health=\"dead\"}", 0),
        (concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1),
        ("http_requests_total{method=\"POST\",route=\"/tasks/{id}\",status=\"4xx\"}", 5),
        ("http_requests_total{method=\"POST\",route=\"/tasks/{id}/retry\",status=\"4xx\"}", 2),
        ("http_requests_total{method=\"other\",route=\"other\",status=\"4xx\"}", 2),
        ("http_request_duration_seconds_count{method=\"POST\",route=\"/tasks/{id}/retry\"}", 2),
    ] {
        assert_eq!(metrics.count(series), value, "{series}");
    }
    let (commits, changes) =
        (metrics.count("store_commit_changes_count"), metrics.count("store_commit_changes_sum"));
    assert!(commits > 0 && changes >= commits, "{commits} {changes}");
    assert_eq!(metrics.count("store_commit_duration_seconds_count"), commits);
    assert!((0.0..60.0).contains(&metrics.value("store_commit_duration_seconds_sum")));
    let stats = client.get("/stats").await.json();
    assert_eq!(stats["store"], serde_json::json!({"commits": commits, "changes": changes}));
    let process = |name: &str| metrics.samples[&format!("process_{name}")].parse::<usize>().unwrap();
    assert!(process("resident_memory_bytes") > 1 << 20, "{}", metrics.text);
    assert!(process("open_fds") < process("max_fds"), "{}", metrics.text);
    assert!(server.pid() > 0);
}

#[tokio::test]
async fn both_formats_tell_the_same() {
    let server = TestServer::start(tokens::HANDLERS);
    let client = server.client();
    let get = async |accept: &str| client.send(Method::GET, "/metrics", &[("accept", accept)], "").await;
    let older = client.get("/metrics").await;
    assert_eq!(older.header("content-type"), Some(PROMETHEUS));
    let newer = get("application/openmetrics-text; version=1.0.0").await;
    assert_eq!(newer.header("content-type"), Some(OPEN_METRICS));
    assert!(newer.text().ends_with("\n# EOF\n") && !older.text().contains("EOF"));
    get("application/json").await.problem(406, "not-acceptable");

    let (older, newer) = (Metrics::parse(older.text()), Metrics::parse(newer.text()));
    assert_eq!(older.series(), newer.series());
    let renamed = newer.types.iter().map(|(name, kind)| match kind.as_str() {
        "counter" => (format!("{name}_total"), "counter"),
        "info" => (format!("{name}_info"), "gauge"),
        kind => (name.clone(), kind),
    });
    let types = older.types.iter().map(|(name, kind)| (name.clone(), kind.as_str()));
    assert_eq!(types.collect::<BTreeMap<_, _>>(), renamed.collect());
}

#[tokio::test]
async fn names_follow_the_rules_and_labels_name_no_task() {
    let Eventful { client, .. } = &Eventful::new().await;
    let metrics = Metrics::of(client).await;
    for (name, kind) in &metrics.types {
        assert!(name.starts_with("task_recorder_") || name.starts_with("process_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let bad = ["_ms", "_millis", "_micros", "_kb", "_count", "_sum"];
        assert!(!bad.iter().any(|bad| name.ends_with(bad)), "{name}");
    }
    let label = Regex::new("([a-z]+)=\"([^\"]*)\"").unwrap();
    let mut labels = BTreeSet::new();
    for series in metrics.samples.keys() {
        for found in label.captures_iter(series) {
            labels.insert(found[1].to_owned());
            let ids = ["fine", "again", "doubt", "late", "exit", "held", "keyed", "nobody", "nowhere"];
            assert!(!ids.contains(&&found[2]), "{series}");
        }
    }
    let known = [
        "handler", "health", "le", "method", "outcome", "phase", "result", "route", "state", "status",
        "version",
    ];
    assert_eq!(labels, known.map(str::to_owned).into());
}

#[tokio::test]
async fn metrics_are_for_tokens_that_may_read_everything() {
    let server = TestServer::start(&format!(
        "{}{}{}",
        tokens::HANDLERS,
        tokens::token("all", "scopes = [\"read\"]"),
        tokens::token("few", "scopes = [\"read\"]\nhandlers = [\"a\"]"),
    ));
    let client = server.client();
    client.get("/metrics").await.problem(401, "token-required");
    let few = tokens::with(&client, "s-few", Method::GET, "/metrics", "").await;
    few.problem(403, "out-of-reach");
    let all = tokens::with(&client, "s-all", Method::GET, "/metrics", "").await;
    let metrics = Metrics::parse(all.text());
    let refused = "http_requests_total{method=\"GET\",route=\"/metrics\",status=\"4xx\"}";
    assert_eq!(metrics.count(refused), 2, "also who was not let in is counted");
}

#[tokio::test]
async fn what_a_crash_cut_off_is_counted_after_the_next_start() {
    let receiver = Receiver::start().await;
    receiver.by_default(Behaviour::NeverAnswer);
    let mut server = TestServer::start(&config(&receiver));
    assert_eq!(server.client().post("/tasks/cut", "").await.status, 202);
    receiver.wait_for(1).await;
    server.kill();
    server.restart();
    let client = server.client();
    let metrics = Metrics::of(&client).await;
    assert_eq!(metrics.count("attempts_total{handler=\"hook\",outcome=\"interrupted\"}"), 1);
    assert_eq!(metrics.count("attempt_duration_seconds_count{handler=\"hook\"}"), 0);
    assert_eq!(metrics.count("runs_in_doubt_total{handler=\"hook\"}"), 1);
}
