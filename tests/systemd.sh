#!/usr/bin/env bash
# The unit: systemd understands every line of it, and it is as closed as it claims to be.
# Needs root on Debian where systemd is not installed; nothing is started.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support.sh

need systemd-analyze systemd
# The most that its exposure may be, in tenths, of 100. The rest is what a service for commands needs: a network, the
# machine's files to read, interpreters that compile while they run.
EXPOSURE_MAX=15

step "the systemd unit"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What it starts does not have to be installed here.
install -m 755 /bin/true "$work/task-recorder"
sed "s#/usr/local/bin/task-recorder#$work/task-recorder#" config/task-recorder.service >"$work/task-recorder.service"
said=$(systemd-analyze verify --man=no "$work/task-recorder.service" 2>&1) || fail "$said"
same "what systemd says of it" "$(grep task-recorder <<<"$said" || true)" ""
echo 'Nonsense=1' >>"$work/task-recorder.service"
contains "$(systemd-analyze verify --man=no "$work/task-recorder.service" 2>&1)" Nonsense

exposure=$(systemd-analyze security --no-pager --offline=true --threshold=$EXPOSURE_MAX config/task-recorder.service) ||
    fail "too open: $exposure"
tail -n 1 <<<"$exposure"

# Stopping in time: more than the default grace, the default time until KILL (with what follows it 8 s at least), and what
# the last answers and spans may take.
seconds() { sed -n "s/^#\?$1 *= *\"\([0-9]*\)s\"/\1/p" config/task-recorder.toml | head -n 1; }
after_grace=$(($(seconds kill_after) + 3))
needed=$(($(seconds grace) + (after_grace > 8 ? after_grace : 8) + 4))
for at_most in "$(sed -n 's/^TimeoutStopSec=\([0-9]*\)s$/\1/p' config/task-recorder.service)" \
    "$(sed -n 's/^ *stop_grace_period: \([0-9]*\)s$/\1/p' config/compose.yaml)" \
    "$(sed -n 's/.*--stop-timeout \([0-9]*\) .*/\1/p' README.md | head -n 1)"; do
    [ "$at_most" -gt "$needed" ] || fail "killed after $at_most s, but it may take $needed s to stop"
done
echo "it may take $needed s to stop, and is given more"
