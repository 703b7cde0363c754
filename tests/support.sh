# What the scripts of the tests share; to be sourced.
# shellcheck shell=bash

step() { printf '\n== %s\n' "$*"; }
took() { echo "(${SECONDS} s since the beginning)"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1: $2, but it has to be $3"; }
contains() { case $1 in *"$2"*) ;; *) fail "$2 is not in: $1" ;; esac; }

# Whether a command succeeds within so many seconds; it is asked again and again.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

install_packages() {
    [ "$(id -u)" = 0 ] || fail "missing, and only root can install it: $*"
    apt-get install -qy --no-install-recommends "$@" >/dev/null ||
        { apt-get update -q && apt-get install -qy --no-install-recommends "$@" >/dev/null; }
}

# Sees to it that there is a program, from this package.
need() { command -v "$1" >/dev/null || install_packages "$2"; }
