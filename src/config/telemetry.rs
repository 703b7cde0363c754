//! `[telemetry]`: where spans are sent to. What it leaves out is taken from the variables that all programs with
//! OpenTelemetry know. They are set for many programs at once, so a mistake in them is a warning, and no spans at most.
//!
//! Invariant: no header comes out of here again, in no complaint and in no printed config (tests/it/spans.rs).

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;

use super::SHORTEST;
use super::error::Fault;
use super::handler_kinds::VariableName;
use super::kind::{Kind as _, Number, Text, Time, Whole};
use super::outbound::{Content, FromFile};
use super::reader::Section;
use crate::handler::webhook::{Authorities, Tls, is_reserved};

/// Where spans are sent to, and how.
#[derive(Clone)]
pub struct OtlpConfig {
    /// To which URL.
    pub endpoint: Uri,
    /// Sent with each request; their values are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is said of the service: names and values.
    pub resource: Vec<(String, String)>,
    /// Whom it trusts over https.
    pub tls: Tls,
    /// Which part of the traces that callers record.
    pub sample_ratio: f64,
    /// Most spans that wait.
    pub queue_max: usize,
    /// Most spans in one request.
    pub batch_max: usize,
    /// How long a span waits for others to be sent with.
    pub interval: Duration,
    /// How long one request may take.
    pub timeout: Duration,
}

const ENDPOINT: &str = "otlp_endpoint";
const HEADERS_FILE: &str = "otlp_headers_file";
const HEADERS_ENV: &str = "otlp_headers_env";
const OTEL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const OTEL_HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const OTEL_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const OTEL_SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const OTEL_RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// What becomes of a mistake in the variables of all programs.
const NO_SPANS: &str = "no spans are sent";
const WITHOUT_IT: &str = "spans are sent without it";
const SERVICE_NAME: &str = "service.name";
const OUR_NAME: &str = env!("CARGO_PKG_NAME");

const URL: Text<Endpoint> = Text::secret(
    "the http or https URL of a collector, without /v1/traces, such as \"http://127.0.0.1:4318\"",
);
const NAME: Text<ServiceName> = Text::new("a name");
const ATTRIBUTES: Text<Attributes> =
    Text::new("names and values, such as \"deployment.environment.name=production,host.name=recorder-1\"");
const HEADERS: Text<FromFile<Headers>> =
    Text::secret("the path of a file with a header a line, such as Authorization: Bearer 0123");
const VARIABLE: Text<VariableName> = Text::secret(
    "the name of an environment variable that holds headers, such as authorization=Bearer%200123,x-scope=north",
);
const CA_FILE: Text<FromFile<Authorities>> =
    Text::new("the path of a PEM file with the certificates of the authorities to trust");
const SHARE: Number = Number(0.0..=1.0);
const INTERVAL: RangeInclusive<Duration> = SHORTEST..=Duration::from_mins(1);
const TIMEOUT: RangeInclusive<Duration> = SHORTEST..=Duration::from_mins(5);

pub(super) fn read(mut section: Section<'_, '_>) -> Option<OtlpConfig> {
    let own = section.optional(ENDPOINT, &URL);
    let endpoint = match own {
        Some(own) => Some(own),
        None if section.is_given(ENDPOINT) => None,
        None => of_all_programs(&mut section),
    };
    let is_on = endpoint.is_some();
    // They concern nobody here as long as nothing is sent.
    let others = |name| if is_on { Some((name, WITHOUT_IT)) } else { None };
    let name = section.optional_or("service_name", &NAME, others(OTEL_SERVICE_NAME));
    let attributes = section.optional_or("resource_attributes", &ATTRIBUTES, others(OTEL_RESOURCE));
    let headers_file = section.optional(HEADERS_FILE, &HEADERS);
    let headers_env = section.optional(HEADERS_ENV, &VARIABLE);
    let ca_file = section.optional("otlp_ca_file", &CA_FILE);
    let sample_ratio = section.get("sample_ratio", 1.0, &SHARE);
    let queue_max = section.get("queue_max", 8_192, &Whole(1..=1_000_000));
    let batch_max = section.get("batch_max", 512, &Whole(1..=65_536));
    let interval = section.get("export_interval", Duration::from_secs(1), &Time(INTERVAL));
    let timeout = section.get("export_timeout", Duration::from_secs(10), &Time(TIMEOUT));

    let is_silent = !section.is_given(HEADERS_FILE) && !section.is_given(HEADERS_ENV);
    let mut headers = headers_file.map(|file| file.content.0).unwrap_or_default();
    let variable = match headers_env {
        Some(VariableName(name)) => Some((name, true)),
        None => (is_on && is_silent).then(|| (OTEL_HEADERS.to_owned(), false)),
    };
    let more = match variable {
        Some((name, is_ours)) => of_variable(&mut section, &name, is_ours),
        None => Some(Vec::new()),
    };
    section.finish(|key| super::belongs_elsewhere("telemetry", key));
    headers.extend(more?);
    Some(OtlpConfig {
        endpoint: endpoint?.whole,
        headers,
        resource: resource(name, attributes),
        tls: ca_file.and_then(|file| Tls::new(Some(&file.content), None).ok()).unwrap_or_default(),
        sample_ratio,
        queue_max,
        batch_max,
        interval,
        timeout,
    })
}

/// The endpoint that is meant for all programs, unless that is one for another protocol.
fn of_all_programs(section: &mut Section<'_, '_>) -> Option<Endpoint> {
    section.variable(OTEL_ENDPOINT).filter(|endpoint| !endpoint.is_empty())?;
    let protocol = section.variable(OTEL_PROTOCOL).filter(|protocol| !protocol.is_empty());
    if let Some(protocol) = protocol.filter(|protocol| *protocol != "http/protobuf") {
        let (key, found) = (OTEL_PROTOCOL.to_owned(), format!("{protocol:?}"));
        let expected =
            "\"http/protobuf\", or say in telemetry.otlp_endpoint where this service sends to".to_owned();
        section.warn_of_variable(
            OTEL_PROTOCOL,
            Fault::BadValue { key, found, expected, why: None },
            NO_SPANS,
        );
        return None;
    }
    section.optional_or(ENDPOINT, &URL, Some((OTEL_ENDPOINT, NO_SPANS)))
}

/// The headers in a variable; none where something is wrong, which is told. One that all programs know may be missing.
fn of_variable(
    section: &mut Section<'_, '_>,
    name: &str,
    is_ours: bool,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let why = match section.variable(name).filter(|text| !text.is_empty()) {
        None if !is_ours => return Some(Vec::new()),
        None => "the environment of the service has no such variable".to_owned(),
        Some(text) => {
            match text.parse::<Pairs>().and_then(|Pairs(pairs)| pairs.into_iter().map(header).collect()) {
                Ok(headers) => return Some(headers),
                Err(why) => why,
            }
        }
    };
    let (expected, why) = (VARIABLE.expected(), Some(why));
    if is_ours {
        let found = "of type string (not shown)".to_owned();
        section.report_at(HEADERS_ENV, Fault::BadValue { key: HEADERS_ENV.to_owned(), found, expected, why });
    } else {
        let (key, found) = (name.to_owned(), "of type string (not shown)".to_owned());
        let expected = "headers, such as authorization=Bearer%200123,x-scope=north".to_owned();
        section.warn_of_variable(name, Fault::BadValue { key, found, expected, why }, NO_SPANS);
    }
    None
}

/// The name of the service first: as it is given, else as it stands among the attributes, else our own.
fn resource(name: Option<ServiceName>, attributes: Option<Attributes>) -> Vec<(String, String)> {
    let Pairs(mut attributes) = attributes.map(|attributes| attributes.pairs).unwrap_or_default();
    let among = attributes.iter().find(|(key, _)| key == SERVICE_NAME).map(|(_, value)| value.clone());
    let name = name.map(|name| name.0).or(among).unwrap_or_else(|| OUR_NAME.to_owned());
    attributes.retain(|(key, _)| key != SERVICE_NAME);
    attributes.insert(0, (SERVICE_NAME.to_owned(), name));
    if attributes.iter().all(|(key, _)| key != "service.version") {
        attributes.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    }
    attributes
}

/// The URL of a collector.
struct Endpoint {
    text: String,
    /// With the path of spans.
    whole: Uri,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_invalid| "it is no URL".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("it begins neither with http:// nor with https://".to_owned());
        }
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err("no user or password may stand in a URL; send a header instead".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("it ends with its path".to_owned());
        }
        let path = uri.path().trim_end_matches('/');
        if path.ends_with("/v1/traces") {
            return Err("/v1/traces is added to it".to_owned());
        }
        let whole = PathAndQuery::try_from(format!("{path}/v1/traces")).ok();
        let mut parts = uri.into_parts();
        parts.path_and_query = whole;
        let whole = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), whole })
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the service is called.
struct ServiceName(String);

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() { Err("it is empty") } else { Ok(Self(text.to_owned())) }
    }
}

impl Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is said of the service, as it was written and as it is meant.
struct Attributes {
    text: String,
    pairs: Pairs,
}

impl FromStr for Attributes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), pairs: text.parse()? })
    }
}

impl Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `name=value,name=value`, values percent-encoded, as the variables of OpenTelemetry have them.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl FromStr for Pairs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').zip(1..).filter(|(part, _)| !part.trim().is_empty());
        let pairs = parts.map(|(part, number)| {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("part {number} has no ="))?;
            let value = percent_decode_str(value.trim()).decode_utf8();
            let value = value.map_err(|_invalid| format!("the value in part {number} is no UTF-8"))?;
            match name.trim() {
                "" => Err(format!("part {number} has no name")),
                name => Ok((name.to_owned(), value.into_owned())),
            }
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }
}

/// Headers, `name: value` a line; a line that begins with `#` is a comment.
struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Content for Headers {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_invalid| "it holds no text".to_owned())?;
        let lines = text.lines().map(str::trim).zip(1..);
        let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let headers = lines.map(|(line, number)| {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("line {number} has no colon"))?;
            header((name.trim().to_owned(), value.trim().to_owned()))
        });
        headers.collect::<Result<_, _>>().map(Self)
    }
}

fn header((name, value): (String, String)) -> Result<(HeaderName, HeaderValue), String> {
    let name = name.parse::<HeaderName>().map_err(|_invalid| "a name is none of a header".to_owned())?;
    if is_reserved(&name) {
        return Err(format!("{name} cannot be set: it belongs to the request itself"));
    }
    let mut value = HeaderValue::try_from(value)
        .map_err(|_invalid| format!("the value of {name} is none of a header"))?;
    value.set_sensitive(true);
    Ok((name, value))
}
