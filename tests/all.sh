#!/usr/bin/env bash
# Everything that has to hold before a change lands: formatting, lints, documentation, every test.
# Installs what it needs when it runs as root on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

if ! command -v cc >/dev/null; then
    step "a C compiler, for the bundled SQLite"
    [ "$(id -u)" = 0 ] || { echo "cc is missing: install a C compiler (Debian: build-essential)" >&2; exit 1; }
    apt-get update -q && apt-get install -qy --no-install-recommends build-essential
fi
command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or later" >&2; exit 1; }

step "formatting"
cargo fmt --all --check

step "lints"
cargo clippy --locked --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

step "tests"
cargo test --locked
