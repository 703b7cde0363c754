//! Spans of runs and calls, as a collector gets them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hyper::Method;
use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

use crate::metrics::Metrics;
use crate::support::client::Client;
use crate::support::collector::{Told, read, so_many_spans, spans, texts};
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;
use crate::support::{until, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const LAUNCH: &str = "00f067aa0ba902b7";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02";

/// What sends to a collector, soon.
fn telemetry(collector: &Receiver, more: &str) -> String {
    let endpoint = collector.url("");
    format!("[telemetry]\notlp_endpoint = \"{endpoint}\"\nexport_interval = \"10ms\"\n{more}\n")
}

/// A webhook that is undone and told of, and commands.
fn handlers(receiver: &Receiver) -> String {
    let url = format!("url = \"{}\"\n", receiver.url("/hush-path/{id}?token=hush-query"));
    format!(
        "[handlers.w]\ntype = \"webhook\"\ndefault = true\n{url}retry = {{ initial = \"1ms\" }}\n\
         headers = {{ Authorization = \"hush-header\" }}\n\
         [handlers.w.revoke]\n{url}method = \"PUT\"\n[handlers.w.on_success]\n{url}\
         [handlers.c]\ntype = \"command\"\ncommand = [\"printenv\", \"TRACEPARENT\"]\n\
         [handlers.f]\ntype = \"command\"\ncommand = [\"sh\", \"-c\", \"echo hush-output; echo hush-error >&2; exit 3\"]\n"
    )
}

async fn launch(client: &Client, path: &str, parent: &str) -> Value {
    let answer = client.send(Method::POST, path, &[("traceparent", parent)], "hush-input").await;
    assert!(answer.status.is_success(), "{}", answer.text());
    answer.json()
}

/// The id of the span that each call was told.
fn told(receiver: &Receiver) -> Vec<String> {
    let calls = receiver.calls();
    let parents = calls.iter().map(|call| call.headers["traceparent"].to_str().unwrap().to_owned());
    parents.map(|parent| parent[36..52].to_owned()).collect()
}

fn named<'a>(spans: &'a [Told], name: &str) -> Vec<&'a Told> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn nanoseconds(time: &Value) -> u64 {
    let time: Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_nanosecond().try_into().unwrap()
}

fn is_kind(span: &Told, kind: SpanKind) -> bool {
    span.span.kind == i32::from(kind)
}

/// Waits for the end without keeping the collector, which is in this process, from answering.
async fn ended(server: &mut TestServer) {
    until("the end", || server.ended().is_some()).await;
    assert!(server.ended().is_some_and(|status| status.success()), "{}", server.log());
}

async fn figures(client: &Client) -> (usize, usize) {
    let metrics = Metrics::of(client).await;
    let count = |result: &str| metrics.count(&format!("spans_total{{result=\"{result}\"}}"));
    (count("exported"), count("dropped"))
}

#[tokio::test]
async fn a_run_hangs_below_its_launch_its_attempts_below_the_run_and_the_receivers_below_the_attempts() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let server = TestServer::start(&(handlers(&receiver) + &telemetry(&collector, "")));
    let client = server.client();
    // The notice is the fourth, and the first revoke fails.
    receiver.on(
        "a",
        [503, 503, 200, 200, 500, 200].map(|status| Behaviour::Answer(Answer::of(status).body("hush-body"))),
    );
    assert_eq!(launch(&client, "/tasks/a?wait=30s", PARENT).await["state"], "success");
    receiver.wait_for(4).await;
    let record = client.get("/tasks/a").await.json();
    for _ in 0..2 {
        client.post("/tasks/a/revoke?wait=30s", "").await;
    }
    let all = so_many_spans(&collector, 7).await;

    assert!(all.iter().all(|span| span.trace == TRACE), "{all:#?}");
    let [run] = named(&all, "run w")[..] else { panic!("{all:#?}") };
    let mut attempts = named(&all, "POST w");
    attempts.sort_by_key(|span| span.get("task.attempt").to_owned());
    let mut revokes = named(&all, "PUT w revoke");
    revokes.sort_by_key(|span| span.span.start_time_unix_nano);
    let ([notice], [failed, revoke]) = (&named(&all, "POST w notice")[..], &revokes[..]) else {
        panic!("{all:#?}")
    };
    // Three attempts, the notice, two revokes: what the receiver was told is what the collector is.
    let beside = [notice, failed, revoke];
    let expected: Vec<_> = attempts.iter().chain(beside).map(|span| span.id.clone()).collect();
    assert_eq!(told(&receiver), expected);
    assert!(run.parent == LAUNCH && beside.iter().all(|span| span.parent == LAUNCH), "{all:#?}");
    assert!(attempts.iter().all(|span| span.parent == run.id && span.id != run.id));

    assert!(is_kind(run, SpanKind::Consumer) && attempts.iter().all(|span| is_kind(span, SpanKind::Client)));
    let (port, first) = (receiver.address().port().to_string(), attempts[0]);
    for (span, key, value) in [
        (run, "task.id", "a"),
        (run, "task.run", "1"),
        (run, "task.handler", "w"),
        (run, "task.outcome", "success"),
        (run, "task.attempts", "3"),
        (first, "task.outcome", "failed"),
        (first, "task.error_kind", "status"),
        (first, "task.in_doubt", "false"),
        (first, "error.type", "503"),
        (first, "http.request.method", "POST"),
        (first, "http.response.status_code", "503"),
        (first, "server.address", "127.0.0.1"),
        (first, "server.port", &port),
        (first, "url.scheme", "http"),
        (attempts[2], "http.response.status_code", "200"),
        (attempts[2], "http.request.resend_count", "2"),
        (failed, "error.type", "500"),
        (revoke, "http.request.method", "PUT"),
    ] {
        assert_eq!(span.get(key), value, "{key} of {span:#?}");
    }
    let times = |span: &Told| [span.span.start_time_unix_nano, span.span.end_time_unix_nano];
    for (attempt, span) in record["attempts"].as_array().unwrap().iter().zip(&attempts) {
        let recorded = ["started", "ended"].map(|key| nanoseconds(&attempt[key]) / 1_000);
        assert_eq!(times(span).map(|time| time / 1_000), recorded, "{attempt}");
    }
    // Those beside the run have a time of their own, behind it.
    for [started, ended] in beside.map(|span| times(span)) {
        assert!(times(run)[1] < started && started < ended, "{all:#?}");
    }
    let queued = Duration::from_secs_f64(run.get("task.queue_seconds").parse().unwrap());
    assert_eq!(queued.as_micros(), u128::from(times(first)[0] - times(run)[0]) / 1_000);
    assert_eq!(first.attributes.get("http.request.resend_count"), None);
    assert_eq!(first.span.status.as_ref().unwrap().code, 2);
    assert!(run.span.status.is_none() && attempts[2].span.status.is_none());
    for span in &all {
        assert!(span.span.start_time_unix_nano <= span.span.end_time_unix_nano, "{span:#?}");
        assert_eq!(span.span.flags, if span.parent == LAUNCH { 0x301 } else { 0x101 }, "{span:#?}");
    }
    assert!(run.span.start_time_unix_nano <= first.span.start_time_unix_nano);
    assert!(attempts[2].span.end_time_unix_nano / 1_000 <= run.span.end_time_unix_nano / 1_000);

    for call in collector.calls() {
        assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/v1/traces"));
        assert_eq!(call.headers["content-type"], "application/x-protobuf");
        let resource = texts(&read(&call).resource_spans[0].resource.as_ref().unwrap().attributes);
        assert_eq!(resource["service.name"], "task-recorder");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    }
    within("the count", async { while figures(&client).await != (7, 0) {} }).await;
}

#[tokio::test]
async fn a_command_is_a_span_with_its_exit_code_and_nothing_that_it_was_given_or_said() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let server = TestServer::start(&(handlers(&receiver) + &telemetry(&collector, "")));
    let client = server.client();
    launch(&client, "/tasks/c?handler=c&wait=30s", PARENT).await;
    launch(&client, "/tasks/f?handler=f&wait=30s", PARENT).await;
    launch(&client, "/tasks/w?wait=30s", PARENT).await;
    let output = client.get("/tasks/c/result").await;
    let all = so_many_spans(&collector, 7).await;

    let (c, f) = (named(&all, "exec c")[0], named(&all, "exec f")[0]);
    assert_eq!(output.text().trim(), format!("00-{TRACE}-{}-01", c.id));
    assert!(is_kind(c, SpanKind::Internal) && is_kind(f, SpanKind::Internal));
    assert_eq!((c.get("process.exit.code"), f.get("process.exit.code")), ("0", "3"));
    for failed in [f, named(&all, "run f")[0]] {
        assert_eq!((failed.get("task.error_kind"), failed.get("error.type")), ("exit_code", "exit_code"));
        assert_eq!(failed.get("task.in_doubt"), "false");
        let status = failed.span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "exit_code"));
    }
    for call in collector.calls() {
        let sent = String::from_utf8_lossy(&call.body);
        assert!(!sent.contains("hush"), "{sent}");
    }
}

#[tokio::test]
async fn what_the_caller_does_not_record_is_not_exported() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let server = TestServer::start(&(handlers(&receiver) + &telemetry(&collector, "")));
    let client = server.client();
    launch(&client, "/tasks/unsampled?wait=30s", UNSAMPLED).await;
    client.post("/tasks/untraced?wait=30s", "").await;
    // Their notices too.
    receiver.wait_for(4).await;
    launch(&client, "/tasks/sampled?wait=30s", PARENT).await;
    let all = so_many_spans(&collector, 3).await;
    assert!(all.iter().all(|span| span.trace == TRACE && span.get("task.id") == "sampled"), "{all:#?}");
    let unsampled = receiver.calls().into_iter().find(|call| call.headers["task-id"] == "unsampled").unwrap();
    let parent = unsampled.headers["traceparent"].to_str().unwrap();
    assert!(
        parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-02"),
        "{parent}"
    );
}

#[tokio::test]
async fn a_part_of_the_traces_is_whole_traces() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let half = telemetry(&collector, "sample_ratio = 0.5");
    let server = TestServer::start(&(handlers(&receiver) + &half));
    let client = server.client();
    let (low, high) = (format!("{:016x}0{:015x}", 1, 1), format!("{:016x}f{:015x}", 1, 1));
    for (id, trace) in [("out", &high), ("in", &low)] {
        launch(&client, &format!("/tasks/{id}?handler=c&wait=30s"), &format!("00-{trace}-{LAUNCH}-01")).await;
    }
    let all = so_many_spans(&collector, 2).await;
    assert!(all.iter().all(|span| span.trace == low), "{all:#?}");
}

#[tokio::test]
async fn nothing_is_sent_unless_it_is_asked_for() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let standard = [("OTEL_SERVICE_NAME", "shop"), ("OTEL_RESOURCE_ATTRIBUTES", "no pairs")];
    let mut server = TestServer::start_with(&handlers(&receiver), &standard);
    launch(&server.client(), "/tasks/a?wait=30s", PARENT).await;
    assert_eq!(figures(&server.client()).await, (0, 0));
    server.terminate();
    ended(&mut server).await;

    let endpoint = collector.url("/base/");
    let standard =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")];
    let mut server = TestServer::start_with(&handlers(&receiver), &standard);
    launch(&server.client(), "/tasks/a?handler=c&wait=30s", PARENT).await;
    server.terminate();
    ended(&mut server).await;
    assert_eq!(spans(&collector).len(), 2);
    let call = &collector.calls()[0];
    assert_eq!((call.target.as_str(), &call.headers["x-key"]), ("/base/v1/traces", &"a b".parse().unwrap()));
}

#[tokio::test]
async fn a_collector_that_says_nothing_holds_up_nothing_and_what_is_lost_is_counted() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    collector.by_default(Behaviour::NeverAnswer);
    let small = "queue_max = 2\nbatch_max = 1\nexport_timeout = \"100ms\"";
    let server = TestServer::start(&(handlers(&receiver) + &telemetry(&collector, small)));
    let client = server.client();
    let began = Instant::now();
    for number in 0..20 {
        let task = launch(&client, &format!("/tasks/t{number}?wait=30s"), PARENT).await;
        assert_eq!(task["state"], "success");
    }
    within("the count", async { while figures(&client).await.1 == 0 {} }).await;
    until("the line", || server.logged("spans dropped")).await;
    assert_eq!(figures(&client).await.0, 0);
    let lines = server.log().matches("spans dropped").count() as u64;
    assert!(lines <= 1 + began.elapsed().as_secs() / 60, "{}", server.log());
}

#[tokio::test]
async fn a_collector_that_is_away_or_stuck_does_not_keep_the_service_from_stopping() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let mut config = handlers(&receiver);
    config.push_str("[server]\ngrace = \"1ms\"\n");
    let away = "[telemetry]\notlp_endpoint = \"http://127.0.0.1:1\"\nexport_interval = \"1m\"\n";
    let mut server = TestServer::start(&format!("{config}{away}"));
    launch(&server.client(), "/tasks/a?handler=c&wait=30s", PARENT).await;
    server.terminate();
    ended(&mut server).await;
    until("the line", || server.logged("spans dropped")).await;
    assert!(server.logged("the collector was not reached"), "{}", server.log());

    collector.by_default(Behaviour::NeverAnswer);
    // One is under way then, the other one waits.
    let single = telemetry(&collector, "export_timeout = \"5m\"\nbatch_max = 1");
    let mut server = TestServer::start(&(config + &single));
    launch(&server.client(), "/tasks/a?handler=c&wait=30s", PARENT).await;
    collector.wait_for(1).await;
    server.terminate();
    ended(&mut server).await;
    until("the line", || server.logged("stopped before all spans were exported")).await;
    assert!(server.logged("\"exported\":0,\"dropped\":2"), "{}", server.log());
}

#[tokio::test]
async fn a_stop_sends_what_is_left_also_of_the_runs_that_it_cuts_off() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let late = telemetry(&collector, "").replace("10ms", "1m");
    let mut server = TestServer::start(&(handlers(&receiver) + &late));
    let client = server.client();
    receiver.on("stuck", [Behaviour::NeverAnswer]);
    launch(&client, "/tasks/done?handler=c&wait=30s", PARENT).await;
    launch(&client, "/tasks/stuck", PARENT).await;
    receiver.wait_for(1).await;
    assert_eq!(collector.connections(), 0, "it waits for others to be sent with");
    server.terminate();
    until("the stop", || server.logged("once more to stop at once")).await;
    server.terminate();
    ended(&mut server).await;
    assert!(!server.logged("stopped before all spans"), "{}", server.log());
    let all = so_many_spans(&collector, 4).await;
    let cut = named(&all, "POST w")[0];
    assert_eq!((cut.get("task.error_kind"), cut.get("task.in_doubt")), ("shutdown", "true"));
    assert_eq!(told(&receiver), std::slice::from_ref(&cut.id));
    assert_eq!(collector.calls().len(), 1, "together");
}

#[tokio::test]
async fn after_a_crash_the_run_and_the_attempt_that_it_cut_off_have_the_ids_that_they_had() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let mut server = TestServer::start(&(handlers(&receiver) + &telemetry(&collector, "")));
    let client = server.client();
    receiver.on(
        "cut",
        [503].map(|status| Behaviour::Answer(Answer::of(status))).into_iter().chain([Behaviour::NeverAnswer]),
    );
    launch(&client, "/tasks/cut", PARENT).await;
    receiver.wait_for(2).await;
    so_many_spans(&collector, 1).await;
    server.kill();
    server.restart();
    let all = so_many_spans(&collector, 3).await;
    let (run, attempts) = (named(&all, "run w")[0], named(&all, "POST w"));
    assert_eq!(told(&receiver), [attempts[0].id.clone(), attempts[1].id.clone()]);
    assert!(attempts.iter().all(|span| span.parent == run.id), "the first was told by the process before");
    for span in [run, attempts[1]] {
        assert_eq!((span.get("task.error_kind"), span.get("task.in_doubt")), ("interrupted", "true"));
    }
    assert_eq!(run.get("task.attempts"), "2");
}

#[tokio::test]
async fn a_run_that_is_canceled_while_it_waits_is_a_span_without_attempts() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let server = TestServer::start(&(handlers(&receiver) + &telemetry(&collector, "")));
    let client = server.client();
    client.post("/handlers/w/pause", "").await;
    launch(&client, "/tasks/a", PARENT).await;
    client.post("/tasks/a/cancel", "").await;
    let [run] = &so_many_spans(&collector, 1).await[..] else { panic!() };
    assert_eq!((run.name.as_str(), run.get("task.attempts")), ("run w", "0"));
    assert_eq!((run.get("task.error_kind"), run.get("task.in_doubt")), ("canceled", "false"));
    assert_eq!(run.attributes.get("task.queue_seconds"), None);
}

#[tokio::test]
async fn a_collector_is_asked_again_where_that_may_help_and_what_it_rejects_is_counted() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    // A request has what is told of one task, however long that takes.
    let pairs = telemetry(&collector, "batch_max = 2").replace("10ms", "1m");
    let server = TestServer::start(&(handlers(&receiver) + &pairs));
    let client = server.client();
    // Its calls name no task. Of the third request it takes all but one span: field 1, in it field 1, a 1.
    let rejected = Answer::of(200).body(&b"\x0a\x02\x08\x01"[..]);
    let answers = [Answer::of(503), Answer::of(200), Answer::of(400), rejected, Answer::of(200)];
    collector.on("", answers.map(Behaviour::Answer));
    for (number, expected) in [(1, (2, 0)), (2, (2, 2)), (3, (3, 3)), (4, (5, 3))] {
        launch(&client, &format!("/tasks/t{number}?handler=c&wait=30s"), PARENT).await;
        within("the count", async { while figures(&client).await != expected {} }).await;
    }
    let calls = collector.calls();
    assert_eq!(calls.len(), 5);
    assert_eq!(calls[0].body, calls[1].body, "the same again");
}

#[tokio::test]
async fn headers_are_sent_and_never_shown() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let config = |more: &str| {
        let mut config = handlers(&receiver) + &telemetry(&collector, more);
        let _ = writeln!(config, "[log]\nlevel = \"trace\"");
        config
    };
    let variables = [("COLLECTOR", "x-key=very%20secret-1,x-scope=north")];
    let mut server = TestServer::start_with(&config("otlp_headers_env = \"COLLECTOR\""), &variables);
    server.terminate();
    ended(&mut server).await;
    std::fs::write(server.folder().join("headers"), "# of the collector\nAuthorization: Bearer secret-2\n")
        .unwrap();
    server.configure(&config("otlp_headers_env = \"COLLECTOR\"\notlp_headers_file = \"headers\""));
    server.restart();
    launch(&server.client(), "/tasks/a?handler=c&wait=30s", PARENT).await;
    so_many_spans(&collector, 2).await;
    let headers = &collector.calls()[0].headers;
    assert_eq!(
        (&headers["x-key"], &headers["x-scope"]),
        (&"very secret-1".parse().unwrap(), &"north".parse().unwrap())
    );
    assert_eq!(headers["authorization"], "Bearer secret-2");
    server.terminate();
    ended(&mut server).await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_task-recorder"));
    let command = command.args(["print-config", "--config", "config.toml"]).current_dir(server.folder());
    let printed = command.envs(variables).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("otlp_headers_env = \"COLLECTOR\""), "{printed}");
    for text in [server.log(), printed] {
        assert!(!text.contains("secret-"), "{text}");
    }
}
