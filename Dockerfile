# Two images from one build. Both run as a user that is not root, and keep their records in the volume /data.
#   docker build -t task-recorder .                               webhooks, and commands with a shell's usual tools
#   docker build -t task-recorder:webhook --target webhook .      webhooks alone: the binary and its libraries
# It needs no BuildKit. The base image has to have a glibc that is at least as new as that of the build image.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

# The dependencies alone, so that a change of the sources does not build them again.
FROM ${BUILD_IMAGE} AS dependencies
# For jemalloc; slim images have none.
RUN command -v make || (apt-get update && apt-get install -y --no-install-recommends make)
WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --bin task-recorder

FROM dependencies AS build
COPY config config
COPY src src
# The touch: to cargo, sources that are older than the empty ones above are not new.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin task-recorder
# What the images take: the binary, and the libraries it is linked with. Names are resolved by glibc itself.
RUN install -D target/release/task-recorder /image/usr/bin/task-recorder \
    && ldd target/release/task-recorder | grep -o '/[^ ]*' | while read -r library; do \
        install -D "$library" "/libraries$library" || exit; done \
    && mkdir -p /image/data /libraries/etc && echo 'hosts: files dns' >/libraries/etc/nsswitch.conf

# No shell, no tools, no init: nothing is started there, so nothing is left to reap.
FROM scratch AS webhook
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="task-recorder" \
    org.opencontainers.image.description="Launches webhooks under ids that the caller chooses, at most one success per id" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /libraries /
COPY --from=build /image/usr/bin/task-recorder /usr/bin/task-recorder
COPY --from=build --chown=10001:10001 /image/data /data
COPY config/task-recorder.toml /etc/task-recorder/task-recorder.toml
ENV TASK_RECORDER_CONFIG=/etc/task-recorder/task-recorder.toml \
    TASK_RECORDER_LISTEN=0.0.0.0:8080 \
    TASK_RECORDER_STORE=/data
USER 10001:10001
# Where SQLite puts its temporary files when there is no /tmp.
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/usr/bin/task-recorder", "healthcheck"]
ENTRYPOINT ["/usr/bin/task-recorder"]

# The default. tini is process 1: it passes signals on, and reaps what commands leave behind when they end (a program
# that puts itself into the background), which would stay as zombies. The service waits only for what it started.
FROM ${BASE_IMAGE} AS commands
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl tini \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin task-recorder
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="task-recorder" \
    org.opencontainers.image.description="Launches webhooks and commands under ids that the caller chooses, at most one success per id" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/usr/bin/task-recorder /usr/bin/task-recorder
COPY --from=build --chown=10001:10001 /image/data /data
COPY config/task-recorder.toml /etc/task-recorder/task-recorder.toml
ENV TASK_RECORDER_CONFIG=/etc/task-recorder/task-recorder.toml \
    TASK_RECORDER_LISTEN=0.0.0.0:8080 \
    TASK_RECORDER_STORE=/data \
    LANG=C.UTF-8
USER 10001:10001
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/usr/bin/task-recorder", "healthcheck"]
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/bin/task-recorder"]
