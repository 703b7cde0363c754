//! All tests that go through sockets, processes and files, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test that is how it fails"
)]

mod handlers;
mod support;
