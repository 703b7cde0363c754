#!/usr/bin/env bash
# Feeds what reads foreign bytes (ids, queries, configs, templates, stored files, lines, heads) with inputs that libFuzzer
# makes, guided by the branches that they take. What is promised of each is in the modules `fuzzing` of the sources.
#
#   tests/fuzz.sh                    every target for 10 seconds, from the same random numbers each time
#   tests/fuzz.sh 600                every target for 10 minutes, from others each time
#   tests/fuzz.sh 600 id framing     some of them
#   tests/fuzz.sh again id FILE      one input once more
#
# A finding is kept in target/fuzz/findings. FUZZ_JOBS says how many targets run at once.
set -euo pipefail
cd "$(dirname "$0")/.."

all=(id query config template stored index batch import framing)
fuzzer=$PWD/target/debug/examples/fuzz
# The most memory in MiB, really used and asked for: an input is some KiB.
used_max=1024
asked_max=4096

fail() { echo "$*" >&2; exit 1; }

seconds=10
# Luck finds things in the long form; it does not decide what passes in the short one.
luck=(-seed=1)
again=
case ${1:-} in
again)
    again=${3:-}
    [ -f "$again" ] || fail "usage: tests/fuzz.sh again TARGET FILE"
    set -- "$2"
    ;;
[0-9]*)
    seconds=$1
    luck=()
    shift
    ;;
esac
targets=("${@:-${all[@]}}")
[ $# -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [ -d "tests/fuzz/seeds/$target" ] || fail "no target is called $target; there are ${all[*]}"
done

command -v c++ >/dev/null || fail "c++ is missing, for libFuzzer: install a C++ compiler (Debian: build-essential)"
# Dependencies are those of the tests; only this package is instrumented, and a little faster than in the tests.
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/rustc.sh \
    cargo build --locked --quiet --features fuzzing --example fuzz \
    --config profile.dev.package.task-recorder.opt-level=1 --config profile.dev.package.task-recorder.debug=false
echo "(built after $SECONDS s)"

# For the files of the index, in memory where there is such a place.
TMPDIR=$(mktemp -d "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/task-recorder-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

run() {
    local target=$1
    shift
    TASK_RECORDER_FUZZ=$target "$fuzzer" -timeout=10 -rss_limit_mb=$used_max "$@"
}

if [ -n "$again" ]; then
    ulimit -v $((asked_max * 1024))
    run "$1" "$again"
    exit
fi

# Fuzzes one target, and says in a line what came of it.
fuzz() {
    local target=$1 code=0 started=$SECONDS
    local corpus=target/fuzz/corpus/$target findings=target/fuzz/findings/$target log=target/fuzz/$target.log
    local dictionary=target/fuzz/$target.dict
    local seeds=("tests/fuzz/seeds/$target")
    mkdir -p "$corpus" "$findings"
    if [ "$target" = config ]; then
        seeds=(target/fuzz/seeds/config)
        mkdir -p "${seeds[@]}"
        cp tests/fuzz/seeds/config/* config/task-recorder.toml "${seeds[@]}"
    fi
    # The words of the seeds, so that they come to stand elsewhere too.
    cat "${seeds[@]/%//}"* 2>/dev/null | grep -aoE '[A-Za-z_-]{3,}' | sort -u | sed 's/.*/"&"/' >"$dictionary" || true
    (
        ulimit -v $((asked_max * 1024))
        run "$target" -max_total_time="$seconds" "${luck[@]}" -print_final_stats=1 \
            -dict="$dictionary" -artifact_prefix="$findings/" "$corpus" "${seeds[@]}"
    ) >"$log" 2>&1 || code=$?
    local executions covered
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    covered=$(grep -aoE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1) || true
    printf '%-9s %10s executions  %-22s %4s s  %s\n' "$target" "${executions:-?}" "${covered:-no coverage}" \
        $((SECONDS - started)) "$([ $code = 0 ] && echo 'nothing found' || echo FOUND)"
    if [ $code != 0 ]; then
        local found
        found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        { grep -aA 4 -E 'panicked at|ERROR: libFuzzer|memory allocation of' "$log" || tail -n 20 "$log"; } | head -n 12
        echo "once more: tests/fuzz.sh again $target ${found:-FILE (see $log)}"
    # Nothing that was not guided may pass for fuzzed.
    elif [ -z "$covered" ] || [ "${executions:-0}" -lt 100 ]; then
        echo "$target did not run as it should, see $log"
        code=1
    fi
    return $code
}

mkdir -p target/fuzz
at_once=${FUZZ_JOBS:-$(nproc)}
found=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$at_once" ]; then
        wait -n || found=$((found + 1))
        running=$((running - 1))
    fi
    fuzz "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || found=$((found + 1))
    running=$((running - 1))
done
[ "$found" = 0 ] || fail "$found of ${#targets[@]} targets have a finding"
echo "${#targets[@]} targets fuzzed for $seconds s each, nothing found (${SECONDS} s in all)"
