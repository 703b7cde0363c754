//! The log: which events are written, and in which form. And where spans go.

mod encode;
mod message;
mod otlp;

use std::ffi::OsStr;
use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{LogConfig, LogFormat};

pub use otlp::Exporter;

/// Why the log cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is no filter.
    #[error(
        "environment variable RUST_LOG is no filter: {0}; give a level or targets with levels, such as \"info\" or \
         \"info,task_recorder=debug\""
    )]
    Filter(#[source] ParseError),
    /// `RUST_LOG` is no UTF-8.
    #[error("environment variable RUST_LOG is not UTF-8")]
    NotUtf8,
    /// The process has a log already.
    #[error("the log was begun twice")]
    Twice(#[source] TryInitError),
}

/// Begins the log of the process, on stdout. `rust_log` is the value of `RUST_LOG`; empty counts as not set.
///
/// # Errors
/// `rust_log` is no filter, or the process has a log already.
pub fn begin(config: &LogConfig, rust_log: Option<&OsStr>) -> Result<(), TelemetryError> {
    let is_terminal = io::stdout().is_terminal();
    let is_json = match config.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let form = match (is_json, is_terminal) {
        (true, _) => Form::Json,
        (false, true) => Form::Colored,
        (false, false) => Form::Plain,
    };
    let registry = subscriber(config, rust_log, form, io::stdout)?;
    registry.try_init().map_err(TelemetryError::Twice)
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Plain,
    /// Unless `NO_COLOR` is set.
    Colored,
}

fn subscriber<W>(
    config: &LogConfig,
    rust_log: Option<&OsStr>,
    form: Form,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match form {
        Form::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        Form::Plain => lines.with_ansi(false).boxed(),
        Form::Colored => lines.boxed(),
    };
    let filter: Box<dyn Layer<Registry> + Send + Sync> = match rust_log.filter(|text| !text.is_empty()) {
        // Costs much for each event that it drops, so it is here only for those who ask for it.
        Some(text) => {
            let text = text.to_str().ok_or(TelemetryError::NotUtf8)?;
            EnvFilter::builder().parse(text).map_err(TelemetryError::Filter)?.boxed()
        }
        None => config.level.boxed(),
    };
    Ok(tracing_subscriber::registry().with(lines.and_then(filter)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::level_filters::LevelFilter;

    use super::*;

    /// What a few events come to.
    fn written(rust_log: Option<&str>, form: Form) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let lines = Lines::default();
        let copy = lines.clone();
        let config = LogConfig { format: LogFormat::Auto, level: LevelFilter::INFO };
        let subscriber = subscriber(&config, rust_log.map(OsStr::new), form, move || copy.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(task.id = "order-42", run = 2, "outcome recorded");
            tracing::debug!("detail");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_in_it() {
        let text = written(None, Form::Json);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "outcome recorded");
        assert_eq!(line["task.id"], "order-42");
        assert_eq!(line["run"], 2);
        assert_eq!(line["level"], "INFO");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn without_the_variable_the_level_is_static() {
        let config = LogConfig { format: LogFormat::Auto, level: LevelFilter::WARN };
        let subscriber = subscriber(&config, None, Form::Json, io::sink).unwrap();
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::WARN));
    }

    #[test]
    fn the_variable_wins_over_the_level_and_a_bad_one_is_refused() {
        assert!(written(Some("debug"), Form::Plain).contains("detail"));
        assert!(!written(Some(""), Form::Plain).contains("detail"), "empty is not set");
        assert_eq!(written(Some("off"), Form::Plain), "");
        let config = LogConfig { format: LogFormat::Auto, level: LevelFilter::INFO };
        let bad = subscriber(&config, Some(OsStr::new("info=what=ever")), Form::Plain, io::sink).err();
        assert!(matches!(bad, Some(TelemetryError::Filter(_))), "{bad:?}");
    }
}
