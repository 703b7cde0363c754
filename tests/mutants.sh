#!/usr/bin/env bash
# Would the tests notice? Each patch in tests/mutants breaks the service on purpose, by a bug that others of its kind have
# had, and names the tests that catch it. This runs them against a broken copy: each of them has to fail.
#
#   tests/mutants.sh          all of them
#   tests/mutants.sh 3 7 12   some, by number
#   tests/mutants.sh --apply  none, but each patch has to fit the sources
set -euo pipefail
cd "$(dirname "$0")/.."

built=$PWD/target/debug
copy=$PWD/target/mutants/copy
# Its own: cargo takes the copy for the project itself, and what is broken must not be left in the project's.
export CARGO_TARGET_DIR=$PWD/target/mutants/target
# A mutant may hang where it should fail.
patience=180

fail() { echo "$*" >&2; exit 1; }

patches=(tests/mutants/*.patch)
if [ $# -gt 0 ] && [ "$1" != --apply ]; then
    patches=()
    for number; do
        found=(tests/mutants/"$(printf %02d "$number")"-*.patch)
        [ -f "${found[0]}" ] || fail "no mutant has the number $number"
        patches+=("${found[@]}")
    done
fi

rm -rf "$copy"
mkdir -p "$copy"
# Dependencies that are built already are built for this too.
if [ -d "$built" ] && [ ! -d "$CARGO_TARGET_DIR" ]; then
    mkdir -p "$CARGO_TARGET_DIR/debug"
    cp -al "$built"/{.fingerprint,build,deps} "$CARGO_TARGET_DIR/debug/"
    find "$CARGO_TARGET_DIR/debug" -name '*task[-_]recorder*' -prune -exec rm -rf {} +
fi
tar -c Cargo.toml Cargo.lock README.md .cargo config src tests | tar -x -C "$copy"
cd "$copy"

for patch in tests/mutants/*.patch; do
    patch -p0 --dry-run --force --silent <"$patch" >/dev/null || fail "$patch does not fit the sources any more"
done
echo "${#patches[@]} mutants to run, each patch of $(ls tests/mutants/*.patch | wc -l) fits"
[ "${1:-}" != --apply ] || exit 0

caught=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    patch -p0 --force --silent <"$patch"
    cargo test --locked --lib --test it --no-run --quiet 2>"$copy/build.log" ||
        { cat "$copy/build.log" >&2; fail "$name does not compile"; }
    mapfile -t tests < <(sed -n 's/^caught by: //p' "$patch")
    [ ${#tests[@]} -gt 0 ] || fail "$name names no test"
    for test in "${tests[@]}"; do
        code=0
        timeout "$patience" cargo test --locked --lib --test it --no-fail-fast --quiet -- --exact "$test" >"$copy/test.log" 2>&1 || code=$?
        if [ "$code" = 124 ]; then
            how="hung for $patience s"
        elif [ "$code" != 0 ] && grep -q "^test result: FAILED. 0 passed; 1 failed" "$copy/test.log"; then
            how="failed"
        else
            cat "$copy/test.log" >&2
            fail "$name LIVES: $test did not fail"
        fi
        echo "$name: caught, $test $how"
    done
    caught=$((caught + 1))
    patch -p0 --force --silent --reverse <"$patch"
done
echo "$caught of ${#patches[@]} mutants caught"
