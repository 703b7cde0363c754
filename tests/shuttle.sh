#!/usr/bin/env bash
# Small worlds: the recorder and the stores, built so that a scheduler decides who goes on when, tried in many orders of events.
# In how many, says SHUTTLE_ITERATIONS (2,000); which, SHUTTLE_RANDOM_SEED (1). Arguments are names of models; none means all.
set -euo pipefail
cd "$(dirname "$0")/.."

# For this crate alone: what it depends on is built as for any other test.
export RUSTC_WORKSPACE_WRAPPER=$PWD/tests/shuttle/rustc
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}
cargo test --locked --lib -- --nocapture "${@:-models::}"
