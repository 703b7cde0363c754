//! One binary for all tests that need more than one module.

mod conformance;
mod embedded;
mod laws;
mod stores;
mod tidy;
mod walk;
