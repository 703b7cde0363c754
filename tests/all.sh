#!/usr/bin/env bash
# Everything that has to hold before a change lands: formatting, lints, documentation, every test.
# Installs what it needs when it runs as root on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

if ! command -v cc >/dev/null || ! command -v make >/dev/null; then
    step "a C compiler and make, for SQLite and jemalloc"
    [ "$(id -u)" = 0 ] || { echo "cc or make is missing: install them (Debian: build-essential)" >&2; exit 1; }
    apt-get update -q && apt-get install -qy --no-install-recommends build-essential
fi
command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or later" >&2; exit 1; }

# A clock that jumps, for the audit.
if [ "$(id -u)" = 0 ] && ! compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; then
    step "libfaketime, of Debian's package faketime"
    apt-get update -q && apt-get install -qy --no-install-recommends faketime
fi

# Unpacked, not installed: nothing of it starts.
if ! command -v "${PROMTOOL:=promtool}" >/dev/null; then
    PROMTOOL=$PWD/target/tools/prometheus/usr/bin/promtool
    if ! [ -x "$PROMTOOL" ]; then
        step "promtool, of Debian's package prometheus"
        command -v apt-get >/dev/null || { echo "promtool is missing: install Prometheus, or set PROMTOOL" >&2; exit 1; }
        mkdir -p target/tools
        [ "$(id -u)" != 0 ] || apt-get update -q
        (cd target/tools && apt-get download -q prometheus && dpkg-deb -x prometheus_*.deb prometheus && rm prometheus_*.deb)
    fi
fi
export PROMTOOL

step "formatting"
cargo fmt --all --check

step "lints"
cargo clippy --locked --all-targets -- -D warnings
cargo clippy --locked --lib --example fuzz --features fuzzing -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

step "a published verifier of webhook signatures, a published validator of OpenAPI and a fuzzer of it, in Python"
if ! target/verifier/bin/python -c 'import standardwebhooks, openapi_spec_validator, schemathesis' 2>/dev/null; then
    rm -rf target/verifier
    if ! python3 -m venv target/verifier; then
        [ "$(id -u)" = 0 ] || { echo "python3 with venv is missing (Debian: python3-venv)" >&2; exit 1; }
        apt-get update -q && apt-get install -qy --no-install-recommends python3-venv
        rm -rf target/verifier && python3 -m venv target/verifier
    fi
    target/verifier/bin/python -m pip install -q --disable-pip-version-check \
        'standardwebhooks==1.*' 'openapi-spec-validator>=0.7,<1' 'schemathesis==4.32.*'
fi

step "alerts"
"$PROMTOOL" check rules config/alerts.yaml
"$PROMTOOL" test rules tests/alerts.yaml
"$PROMTOOL" check config --syntax-only config/prometheus.yaml

step "tests"
cargo test --locked -- --include-ignored

step "the same code in many orders of events"
bash tests/shuttle.sh

step "fuzzing, some seconds of each target"
bash tests/fuzz.sh

step "three of the bugs that the tests have to notice"
bash tests/mutants.sh 3 6 13

step "images and unit, with a real engine"
if [ "$(id -u)" = 0 ] && grep -qx 'ID=debian' /etc/os-release 2>/dev/null; then
    bash tests/systemd.sh
    bash tests/docker.sh
else
    echo "not done: this needs root and Debian"
fi
