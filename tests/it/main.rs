//! All tests that go through sockets, processes and files, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "in a test that is how it fails, and what it says"
)]

mod backup;
mod batch;
mod bulk;
mod bulk_library;
mod cli;
mod client;
mod config;
mod config_outbound;
mod config_policy;
mod config_refused;
mod config_telemetry;
mod conformance;
mod crash;
mod embedded;
mod events;
mod handlers;
mod hostile;
mod http;
mod index;
mod laws;
mod life;
mod load;
mod lookup;
mod metrics;
mod moves;
mod notes;
mod notices;
mod openapi;
mod policy;
mod readme;
mod recovery;
mod reload;
mod retention;
mod secrets;
mod signals;
mod spans;
mod stores;
mod support;
mod tidy;
mod timers;
mod tokens;
mod traces;
mod transfer;
mod waiting;
mod walk;
