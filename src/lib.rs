//! placeholder
#![allow(missing_docs, clippy::allow_attributes, clippy::allow_attributes_without_reason)]
pub mod cli;
pub mod config;
pub mod exit;
pub mod handler;
pub mod task;
pub mod telemetry;
