//! All tests that go through sockets, processes and files, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test that is how it fails"
)]

mod cli;
mod config;
mod config_refused;
mod handlers;
mod support;
