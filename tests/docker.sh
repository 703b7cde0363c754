#!/usr/bin/env bash
# The images, in a real engine: the lines of the README as they stand there, and what a container has to hold.
# Needs root on Debian. The engine is its own: data, socket and network are in a temporary folder and a network of
# their own, so that neither another engine nor a port that is taken is in its way. Base images are made here.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support.sh

need dockerd docker.io
need docker docker-cli
need mmdebstrap mmdebstrap
need ip iproute2
need nsenter util-linux
need curl curl
command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || install_packages docker-compose

work=$(mktemp -d /tmp/recorder-docker.XXXXXX)
engine='' netns=''
docker=$(command -v docker)
export DOCKER_HOST=unix://$work/socket DOCKER_CONFIG=$work/client

clean_up() {
    local status=$?
    set +e
    if [ $status != 0 ]; then
        printf '\n== what the containers said last\n' >&2
        for name in $("$docker" ps -aq 2>/dev/null); do
            "$docker" inspect --format '{{.Name}} {{.Config.Image}} {{.State.Status}} {{.State.ExitCode}}' "$name" >&2
            "$docker" logs --tail 15 "$name" >&2
        done
        tail -n 5 "$work/engine.log" >&2
    fi
    stop_engine
    [ -z "$netns" ] || kill "$netns" 2>/dev/null
    awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
    rm -rf "$work"
    [ $status = 0 ] || echo "docker: FAILED" >&2
    exit $status
}
trap clean_up EXIT

# Starts the engine, behind the command that is given, if any.
start_engine() {
    "$@" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" --host "$DOCKER_HOST" \
        --storage-driver overlay2 --containerd-namespace "${work##*.}" \
        --containerd-plugins-namespace "${work##*.}-plugins" >>"$work/engine.log" 2>&1 &
    engine=$!
    if ! until_true 60 "$docker" version; then
        tail -n 20 "$work/engine.log" >&2
        fail "the engine does not start"
    fi
}

stop_engine() {
    [ -n "$engine" ] || return 0
    "$docker" ps -aq 2>/dev/null | xargs -r "$docker" rm -fv >/dev/null 2>&1
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    engine=''
}

# Runs a command where published ports are.
near() { nsenter --target "$netns" --net -- "$@"; }
ask() { near curl -sS --max-time 60 "$@"; }

# The n-th block of lines for a shell in a section of the README.
readme() {
    awk -v section="## $1" -v wanted="$2" '
        /^## / { in_section = $0 == section }
        in_section && /^ *```sh$/ { count++; in_block = 1; next }
        /^ *```$/ { in_block = 0 }
        in_block && count == wanted' README.md
}

# Runs the lines of such a block, and says what they printed.
type_lines() {
    local lines
    lines=$(readme "$1" "$2")
    [ -n "$lines" ] || fail "the README has no block $2 in the section $1"
    (cd "$work/tree" && PATH=$work/bin:$PATH "${@:3}" bash -euxo pipefail -c "$lines")
}

health() { "$docker" inspect --format '{{.State.Health.Status}}' "$1"; }
is_healthy() { [ "$(health "$1")" = healthy ]; }
is_ready() { "$docker" exec "$1" /usr/bin/task-recorder healthcheck; }
# The states of the processes in a container, and their names, without its own commands.
processes() { "$docker" exec "$1" sh -c 'cat /proc/[0-9]*/stat 2>/dev/null' | awk '{ print $3, $2 }'; }

# --- The images ------------------------------------------------------------------------------------------------

step "base images, from the packages of this machine"
. /etc/os-release
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Origin: Debian" \
    "Codename: $VERSION_CODENAME" "Component: main" | head -n 1)
[ -n "$mirror" ] || { apt-get update -q && mirror=$(apt-get indextargets --format '$(REPO_URI)' \
    "Created-By: Packages" "Codename: $VERSION_CODENAME" "Component: main" | head -n 1); }
apt-config dump Acquire::http Acquire::https >"$work/apt.conf"
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --aptopt="$work/apt.conf" "$VERSION_CODENAME" "$work/base.tar" "$mirror"
took
# Without a network of its own, for the time being: what is built needs that of the machine.
start_engine dockerd --bridge none --iptables=false --ip6tables=false
"$docker" import "$work/base.tar" base:test >/dev/null
rm "$work/base.tar"
# In the place of rust:slim: the toolchain of this machine, with the packed sources that its cargo has fetched.
cargo fetch --quiet --locked
mkdir -p "$work/toolchain/usr/local/cargo"
tar -C "$(rustc --print sysroot)" --exclude=lib/rustlib/src -c bin/cargo bin/rustc lib |
    tar -C "$work/toolchain/usr/local" -x
(cd "${CARGO_HOME:-$HOME/.cargo}" && find registry/index registry/cache config config.toml -print0 -prune 2>/dev/null || true) |
    tar -C "${CARGO_HOME:-$HOME/.cargo}" --null --files-from=- -c | tar -C "$work/toolchain/usr/local/cargo" -x
took
cat >"$work/toolchain/Dockerfile" <<'END'
FROM base:test
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY usr /usr
ARG JOBS
ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true CARGO_BUILD_JOBS=${JOBS}
END
mkdir "$work/bin" "$work/tree"
proxies='--build-arg http_proxy --build-arg https_proxy --build-arg no_proxy'
cat >"$work/bin/docker" <<END
#!/bin/sh
# The README's docker, with the base images of this test.
if [ "\$1" = build ]; then
    shift
    set -- build --network host --build-arg BUILD_IMAGE=build:test --build-arg BASE_IMAGE=base:test $proxies "\$@"
elif [ "\$1" = compose ] && ! "$docker" compose version >/dev/null 2>&1; then
    shift
    exec docker-compose "\$@"
fi
exec "$docker" "\$@"
END
chmod +x "$work/bin/docker"
# shellcheck disable=SC2086  # they are words
"$docker" build --network host -t build:test --build-arg JOBS="${CARGO_BUILD_JOBS:-$(nproc)}" $proxies \
    "$work/toolchain" >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; fail "no build image"; }
rm -r "$work/toolchain"
took

step "the images"
tar --exclude=./target --exclude=./.git --exclude=./data -c . | tar -C "$work/tree" -x
type_lines Docker 1 >"$work/build.log" 2>&1 || { tail -n 60 "$work/build.log" >&2; fail "the build has failed"; }
took
version=$("$docker" run --rm --network none task-recorder --version)
for image in task-recorder task-recorder:webhook; do
    for label in title description licenses version revision; do
        text=$("$docker" inspect --format "{{index .Config.Labels \"org.opencontainers.image.$label\"}}" "$image")
        [ -n "$text" ] || fail "$image has no label $label"
        [ $label != version ] || same "the label" "task-recorder $text" "$version"
    done
    printf '%s: %s bytes\n' "$image" "$("$docker" inspect --format '{{.Size}}' "$image")"
done
printf 'base image: %s bytes\n' "$("$docker" inspect --format '{{.Size}}' base:test)"

step "a change of the sources does not build the dependencies again"
dependencies() { "$work/bin/docker" build -q --target dependencies "$work/tree" 2>"$work/build.log"; }
before=$(dependencies) || fail "it cannot be built alone"
echo '// changed' >>"$work/tree/src/main.rs"
same "the layer of the dependencies" "$(dependencies)" "$before"
took

# --- Containers ------------------------------------------------------------------------------------------------

stop_engine
unshare --net sleep infinity &
netns=$!
is_apart() { [ "$(readlink "/proc/$netns/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
until_true 10 is_apart || fail "no network of its own"
near ip link set lo up
start_engine nsenter --target "$netns" --net -- dockerd

step "nobody is let in by accident"
refused=0
said=$("$docker" run --rm task-recorder 2>&1) || refused=$?
same "the exit code without tokens" "$refused" 2
contains "$said" allow_anonymous

step "the README's lines"
started=$(date +%s%N)
"$docker" run -d --name started -e TASK_RECORDER_SERVER_ALLOW_ANONYMOUS=true -p 127.0.0.1:8080:8080 task-recorder >/dev/null
until_true 30 near curl -sf localhost:8080/readyz || fail "not ready"
echo "ready $((($(date +%s%N) - started) / 1000000)) ms after docker run"
"$docker" rm -fv started >/dev/null
said=$(type_lines Docker 2 near 2>&1) || { echo "$said" >&2; fail "they do not work"; }
contains "$said" '"launched":true'
contains "$said" '"state":"success"'
same "results, before the stop and after it" "$(grep -c '^two apples' <<<"$said")" 2
contains "$(near curl -s -H 'host: evil.example' localhost:8080/stats)" unknown-host
until_true 60 is_healthy recorder || fail "not healthy, but $(health recorder)"
echo "healthy"
same "the user" "$("$docker" exec recorder id -u)" 10001
for tool in sh curl timeout base64; do
    "$docker" exec recorder sh -c "command -v $tool" >/dev/null || fail "no $tool"
done
"$docker" exec recorder test -s /etc/ssl/certs/ca-certificates.crt || fail "no certificates"
took

step "tokens and a reload"
mkdir -m 755 "$work/config"
printf '[handlers.echo]\ntype = "command"\ncommand = ["cat"]\ndefault = true\n' >"$work/config/task-recorder.toml"
said=$(type_lines Docker 3)
secret=$(grep -o '^tr_[0-9a-f]*' <<<"$said") || fail "no secret: $said"
sed -n '/^\[tokens/,$p' <<<"$said" >>"$work/config/task-recorder.toml"
"$docker" run -d --name guarded -p 127.0.0.1:8081:8080 -v "$work/config:/etc/task-recorder:ro" task-recorder >/dev/null
until_true 30 is_ready guarded || fail "not ready"
launch() { ask -o "$work/answer" -w '%{http_code}' -X POST -H "authorization: Bearer $secret" "localhost:8081/tasks/$1"; }
same "without a token" "$(ask -o /dev/null -w '%{http_code}' -X POST localhost:8081/tasks/a)" 401
same "with a token" "$(launch a)" 202
same "a handler that is not there" "$(launch 'b?handler=late')" 404
printf '[handlers.late]\ntype = "command"\ncommand = ["cat"]\n' >>"$work/config/task-recorder.toml"
"$docker" kill --signal HUP guarded >/dev/null
is_launched() { [ "$(launch 'b?handler=late')" = 202 ]; }
until_true 20 is_launched || fail "SIGHUP does not reload: $(cat "$work/answer")"
"$docker" rm -f guarded >/dev/null
took

step "zombies are reaped"
# Each leaves one process that leaves its group and ends later.
cat >"$work/config/task-recorder.toml" <<'END'
[handlers.leaves]
type = "command"
command = ["sh", "-c", "setsid sleep 0.5 >/dev/null 2>&1 & sleep 0.1"]
default = true
END
leave_some() {
    "$docker" run -d --name "$1" -e TASK_RECORDER_SERVER_ALLOW_ANONYMOUS=true \
        -v "$work/config:/etc/task-recorder:ro" "${@:2}" task-recorder >/dev/null
    until_true 30 is_ready "$1" || fail "$1 is not ready"
    for number in 1 2 3 4 5 6 7 8; do
        contains "$("$docker" exec "$1" curl -s -X POST "localhost:8080/tasks/$number?wait=30")" '"success"'
    done
    # All have ended, whether somebody waits for them or not.
    until_true 30 all_have_ended "$1" || fail "they do not end: $(processes "$1")"
}
all_have_ended() { ! processes "$1" | grep -qE '^[^Z] \((sleep|setsid)\)'; }
has_no_zombies() { ! processes "$1" | grep -q '^Z'; }
leave_some reaped
until_true 10 has_no_zombies reaped || fail "zombies: $(processes reaped)"
contains "$(processes reaped)" '(task-recorder)'
# The same without the init, so that this test is known to see them.
leave_some unreaped --entrypoint /usr/bin/task-recorder
same "zombies without an init" "$(processes unreaped | grep -c '^Z')" 8
"$docker" rm -f reaped unreaped >/dev/null
took

step "1,000 tasks in flight through docker stop, with a read-only root"
cat >"$work/config/task-recorder.toml" <<'END'
[server]
grace = "5s"
[handlers.gate]
type = "command"
command = ["cat", "/tmp/gate"]
concurrency = 500
[handlers.long]
type = "command"
command = ["sleep", "3600"]
concurrency = 500
END
"$docker" run -d --name busy --read-only --tmpfs /tmp --stop-timeout 60 -p 127.0.0.1:8081:8080 \
    -e TASK_RECORDER_SERVER_ALLOW_ANONYMOUS=true -v "$work/config:/etc/task-recorder:ro" -v busy:/data \
    task-recorder >/dev/null
until_true 30 is_ready busy || fail "not ready"
"$docker" exec busy sh -c 'touch /etc/x' 2>/dev/null && fail "the root can be written"
"$docker" exec busy mkfifo /tmp/gate
for handler in gate long; do
    seq 1 500 | sed "s/.*/{\"id\":\"$handler-&\"}/" | ask -T - -X POST "localhost:8081/tasks?handler=$handler" \
        -H 'content-type: application/x-ndjson' >"$work/launched"
    same "launches of $handler" "$(grep -c '"status":202' "$work/launched")" 500
done
all_run() { [ "$(ask localhost:8081/handlers | grep -o '"running":500' | wc -l)" = 2 ]; }
until_true 120 all_run || fail "not all run"
started=$(date +%s%N)
"$docker" stop busy >/dev/null &
stopping=$!
is_stopping() { [ "$(ask -o /dev/null -w '%{http_code}' localhost:8081/readyz)" = 503 ]; }
until_true 10 is_stopping || fail "it does not stop"
"$docker" exec busy sh -c 'sleep 2 >/tmp/gate'
wait "$stopping"
echo "docker stop took $((($(date +%s%N) - started) / 1000000)) ms, with a grace of 5 s"
same "the exit code" "$("$docker" inspect --format '{{.State.ExitCode}}' busy)" 0
"$docker" start busy >/dev/null
until_true 30 is_ready busy || fail "not ready again"
ask -H 'accept: application/x-ndjson' localhost:8081/tasks >"$work/tasks"
count() { grep -c "\"id\":\"$1-[0-9]*\",\"state\":\"$2\"${3-}" "$work/tasks" || true; }
same "all tasks" "$(wc -l <"$work/tasks")" 1000
same "those that ended within the grace" "$(count gate success)" 500
same "those that did not" "$(count long failed '.*"kind":"shutdown"')" 500
"$docker" rm -fv busy >/dev/null
took

step "the image for webhooks alone"
cat >"$work/config/task-recorder.toml" <<'END'
[handlers.forward]
type = "webhook"
url = "http://recorder:8080/tasks/{id}"
default = true
END
"$docker" create --name bare task-recorder:webhook >/dev/null
"$docker" export bare | tar -t | grep -vE '/$|^(\.dockerenv|dev/|proc/|sys/|etc/(hosts|hostname|resolv.conf|mtab)$)' | tee "$work/files"
same "what is there besides libraries" "$(grep -cvE '^lib(64)?/' "$work/files")" 3
"$docker" run --rm --entrypoint /bin/sh task-recorder:webhook -c true 2>/dev/null && fail "it has a shell"
"$docker" network create between >/dev/null
"$docker" network connect between recorder
started=$(date +%s%N)
"$docker" run -d --name forward --network between -p 127.0.0.1:8081:8080 --read-only \
    -e TASK_RECORDER_SERVER_ALLOW_ANONYMOUS=true -v "$work/config:/etc/task-recorder:ro" \
    task-recorder:webhook >/dev/null
until_true 30 near curl -sf localhost:8081/readyz || fail "not ready"
echo "ready $((($(date +%s%N) - started) / 1000000)) ms after docker run"
# The name is one of the engine's resolver; the other one lets nobody in under it that it does not know.
contains "$(ask -X POST 'localhost:8081/tasks/through?wait=30' -d pear)" '"state":"failed"'
contains "$(ask localhost:8081/tasks/through)" unknown-host
"$docker" run -d --name known --network between --network-alias known -e TASK_RECORDER_SERVER_ALLOW_ANONYMOUS=true \
    task-recorder >/dev/null
sed -i 's/recorder:8080/known:8080/' "$work/config/task-recorder.toml"
"$docker" kill --signal HUP forward >/dev/null
passes() { ask -X POST 'localhost:8081/tasks/through?wait=30' -d pear | grep -q '"state":"success"'; }
until_true 30 passes || fail "it does not pass through: $(ask localhost:8081/tasks/through)"
same "what was received" "$("$docker" exec known curl -s localhost:8080/tasks/through/result)" pear
same "the user" "$(awk '/^Uid:/ { print $2 }' "/proc/$("$docker" inspect --format '{{.State.Pid}}' forward)/status")" 10001
until_true 60 is_healthy forward || fail "not healthy, but $(health forward)"
"$docker" stop forward >/dev/null
same "the exit code" "$("$docker" inspect --format '{{.State.ExitCode}}' forward)" 0
"$docker" rm -fv forward known bare recorder >/dev/null
took

step "the compose example"
# It starts only if it can read the secret.
printf '[handlers.signed]\ntype = "webhook"\nurl = "http://127.0.0.1:1/"\nsecrets_file = "/run/secrets/charge"\n' \
    >>"$work/tree/config/task-recorder.toml"
said=$(type_lines Docker 4 near 2>&1) || { echo "$said" >&2; fail "it does not work"; }
contains "$said" '"state":"success"'
took
echo "docker: all well"
