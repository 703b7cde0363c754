//! `[telemetry]`: its keys, the variables that all programs know, and what is told of mistakes.

use std::time::Duration;

use task_recorder::config::OtlpConfig;

use crate::config::{Written, good, load};
use crate::config_refused::each_is_told;
use crate::support::program::run;
use crate::support::server::TestServer;

const ON: &str = "[telemetry]\notlp_endpoint = \"http://127.0.0.1:4318\"\n";

fn with(text: &str, variables: &[(&str, &str)]) -> OtlpConfig {
    let config =
        Written::new(text).load(variables).unwrap_or_else(|error| panic!("{text}\nis refused: {error}"));
    config.otlp.expect("spans are sent")
}

fn resource(config: &OtlpConfig) -> Vec<(&str, &str)> {
    config.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

const VERSION: (&str, &str) = ("service.version", env!("CARGO_PKG_VERSION"));

#[test]
fn without_an_endpoint_nothing_is_sent_and_with_one_the_rest_has_defaults() {
    assert!(good("").otlp.is_none() && good("[telemetry]\nqueue_max = 5").otlp.is_none());
    let config = with(ON, &[]);
    assert_eq!(config.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!((config.queue_max, config.batch_max, config.headers.len()), (8_192, 512, 0));
    assert_eq!((config.export_times(), config.sample_ratio.to_bits()), ((1, 10), 1.0_f64.to_bits()));
    assert_eq!(resource(&config), [("service.name", "task-recorder"), VERSION]);
    let below = with("[telemetry]\notlp_endpoint = \"https://otlp.example/base/\"", &[]);
    assert_eq!(below.endpoint, "https://otlp.example/base/v1/traces");
}

trait Times {
    fn export_times(&self) -> (u64, u64);
}

impl Times for OtlpConfig {
    fn export_times(&self) -> (u64, u64) {
        assert_eq!(self.interval.subsec_nanos() + self.timeout.subsec_nanos(), 0);
        (self.interval.as_secs(), self.timeout.as_secs())
    }
}

#[test]
fn each_key_can_be_set_in_the_file_and_by_its_variable() {
    let text = format!(
        "{ON}service_name = \"shop\"\nresource_attributes = \"a=1, b=x%2Cy ,service.version=7\"\n\
         sample_ratio = 0.25\nqueue_max = 1\nbatch_max = 2\nexport_interval = \"3ms\"\nexport_timeout = \"4s\"\n"
    );
    let config = with(&text, &[("TASK_RECORDER_TELEMETRY_OTLP_ENDPOINT", "http://other:1")]);
    assert_eq!(config.endpoint, "http://other:1/v1/traces");
    let expected = [("service.name", "shop"), ("a", "1"), ("b", "x,y"), ("service.version", "7")];
    assert_eq!(resource(&config), expected);
    assert_eq!((config.queue_max, config.batch_max), (1, 2));
    let times = (Duration::from_millis(3), Duration::from_secs(4));
    assert_eq!((config.interval, config.timeout), times);
    let printed = good(&text).to_toml();
    assert_eq!(good(&printed).to_toml(), printed);
}

#[test]
fn the_variables_of_all_programs_hold_where_the_config_is_silent() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,zone=north"),
    ];
    let config = with("", &variables);
    assert_eq!(config.endpoint, "http://collector:4318/v1/traces");
    assert_eq!(resource(&config), [("service.name", "shop"), ("zone", "north"), VERSION]);
    assert_eq!(config.headers.len(), 1);
    assert_eq!(config.headers[0].1, "a b");
    assert!(config.headers[0].1.is_sensitive());
    let named = with("", &[variables[0], variables[4]]);
    assert_eq!(resource(&named), [("service.name", "other"), ("zone", "north"), VERSION]);

    let all =
        format!("{ON}service_name = \"own\"\nresource_attributes = \"\"\notlp_headers_env = \"MINE\"\n");
    let config = with(&all, &[&variables[..], &[("MINE", "x-mine=1")]].concat());
    assert_eq!(config.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!(resource(&config), [("service.name", "own"), VERSION]);
    assert_eq!(config.headers.len(), 1);
    assert_eq!(config.headers[0].0, "x-mine");
    // Empty means not set.
    assert!(Written::new("").load(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().otlp.is_none());
    // Where nothing is sent they are none of our business, and a protocol is that of their endpoint.
    assert!(Written::new("").load(&[("OTEL_RESOURCE_ATTRIBUTES", "what")]).unwrap().otlp.is_none());
    with(ON, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
}

#[test]
fn each_mistake_is_told() {
    let on = |rest: &str| format!("{ON}{rest}");
    let endpoint = |url: &str| format!("[telemetry]\notlp_endpoint = {url}");
    each_is_told(&[
        ("[telemetry]\notlp_endpont = 1".into(), "2:1", &["did you mean `otlp_endpoint`?"]),
        (endpoint("4318"), "2:17", &["`otlp_endpoint` is of type integer", "the http or https URL"]),
        (endpoint("\"127.0.0.1:4318\""), "2:17", &["the http or https URL of a collector"]),
        (endpoint("\"grpc://a:4317\""), "2:17", &["begins neither with http:// nor with https://"]),
        (endpoint("\"http://u:p@a\""), "2:17", &["no user or password", "send a header instead"]),
        (endpoint("\"http://a/?x=1\""), "2:17", &["it ends with its path"]),
        (endpoint("\"http://a/v1/traces\""), "2:17", &["/v1/traces is added to it"]),
        (on("service_name = \"\""), "3:16", &["it is empty"]),
        (on("resource_attributes = \"a\""), "3:23", &["part 1 has no =", "such as \"deployment."]),
        (on("resource_attributes = \"a=1,=2\""), "3:23", &["part 2 has no name"]),
        (on("resource_attributes = \"a=%ff\""), "3:23", &["no UTF-8"]),
        (on("otlp_headers_file = \"/nowhere\""), "3:21", &["cannot be read", "a header a line"]),
        (on("otlp_headers_env = \"NOWHERE\""), "3:20", &["has no such variable"]),
        (on("otlp_ca_file = \"/nowhere\""), "3:16", &["cannot be read"]),
        (on("sample_ratio = 1.5"), "3:16", &["a number from 0 to 1"]),
        (on("queue_max = 0"), "3:13", &["from 1 to 1000000"]),
        (on("batch_max = 100000"), "3:13", &["from 1 to 65536"]),
        (on("export_interval = \"2m\""), "3:19", &["from \"1ms\" to \"1m\""]),
        (on("export_timeout = 3"), "3:18", &["from \"1ms\" to \"5m\""]),
    ]);
    let file = |text: &str| {
        let file = Written::new(text);
        let path = file.path().display().to_string();
        Written::new(on(&format!("otlp_headers_file = {path:?}"))).load(&[]).err().unwrap().to_string()
    };
    assert!(file("hush").contains("line 1 has no colon"));
    assert!(file("\n# it\nHost: hush").contains("host cannot be set"));
    assert!(file("x-a: hush\u{1}").contains("the value of x-a is none of a header"));
    assert!(["hush", "host: hush", "x: hush\u{1}"].iter().all(|text| !file(text).contains("hush")));
}

/// They are set for many programs at once, by people who may know nothing of this one.
#[tokio::test]
async fn a_mistake_in_a_variable_of_all_programs_is_told_and_keeps_nobody_from_starting() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let (none, without) = ("no spans are sent", "spans are sent without it");
    for (variables, words, is_on) in [
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "a:1")][..],
            ["variable OTEL_EXPORTER_OTLP_ENDPOINT: `otlp_endpoint`", none],
            false,
        ),
        (
            &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            ["OTEL_EXPORTER_OTLP_PROTOCOL` is \"grpc\"; give \"http/protobuf\"", none],
            false,
        ),
        (
            &[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "hush")],
            ["variable OTEL_EXPORTER_OTLP_HEADERS", none],
            false,
        ),
        (
            &[endpoint, ("OTEL_RESOURCE_ATTRIBUTES", "what")],
            ["variable OTEL_RESOURCE_ATTRIBUTES", without],
            true,
        ),
        (&[endpoint, ("OTEL_SERVICE_NAME", " ")], ["variable OTEL_SERVICE_NAME", without], true),
    ] {
        let config = load(&task_recorder::config::Flags::default(), variables)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.otlp.is_some(), is_on, "{variables:?}");
        if let Some(otlp) = &config.otlp {
            assert_eq!(resource(otlp), [("service.name", "task-recorder"), VERSION]);
        }
        let ran = run(variables, &["check-config"]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let server = TestServer::start_with("", variables);
        for told in [ran.out.as_str(), &server.log().replace("\\\"", "\"")] {
            for words in words {
                assert!(told.contains(words) && !told.contains("hush"), "{told}\nhas no {words:?}");
            }
        }
        assert!(ran.out.lines().count() == 2 && ran.out.contains("\nwarning: "), "{}", ran.out);
    }
    // What the config itself has is right or refused.
    let own = Written::new("[telemetry]\notlp_headers_env = \"MINE\"\n");
    assert!(own.load(&[endpoint, ("MINE", "hush")]).is_err());
}
