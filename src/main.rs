//! Wiring: flags, config, log, then what was asked for, and an exit code.

use std::convert::Infallible;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clap::Parser;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use task_recorder::api::{self, Api, Bodies, Interface, Reload};
use task_recorder::cli::token::{self, TokenVerb};
use task_recorder::cli::{self, Cli, Verb, data, healthcheck::healthcheck};
use task_recorder::client;
use task_recorder::config::{Config, Flags, Listen, ServerConfig, StoreConfig, StorePath};
use task_recorder::exit::Exit;
use task_recorder::metrics::Requests;
use task_recorder::recorder::{Figures, Recorder, RecoveryReport};
use task_recorder::reload::{self, Reloader};
use task_recorder::server::{self, ServerOptions};
use task_recorder::store::{EmbeddedStore, MemoryStore, Store};
use task_recorder::telemetry::{self, Exporter};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Half of what a task costs is small pieces of memory that one thread takes and another gives back.
#[cfg(target_arch = "x86_64")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How many connections the system may keep that were not accepted yet; it may have a lower limit of its own.
const BACKLOG: u32 = 4096;

/// How long the last spans may take to be sent when the service stops: what is left of the grace period, but some of
/// it in any case, for what its end has cut off, and no more than a collector needs that lives.
const SPANS_MIN: Duration = Duration::from_secs(1);
const SPANS_MAX: Duration = Duration::from_secs(5);
/// How long what is left may take to be dropped when the process ends, such as commands that are killed then.
const LAST_DROPS: Duration = Duration::from_secs(1);
/// What is logged of a stop while it starts.
const GIVEN_UP: &str = "stopping before the start was over";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let stdout = &mut io::stdout();
    let verb = cli.verb.unwrap_or(Verb::Serve);
    match &verb {
        Verb::Ask(ask) => return client::run(ask).into(),
        Verb::Completions { shell } => return printed(cli::completions(*shell, stdout)),
        Verb::Man => return printed(cli::man(stdout)),
        Verb::Healthcheck => return ask(&cli.flags),
        Verb::Token { verb: TokenVerb::New(wanted) } => return printed(token::print_new(wanted, stdout)),
        _ => {}
    }
    let config = match Config::load(&cli.flags, std::env::vars_os()) {
        Ok(config) => config,
        Err(error) => return refuse(&error, Exit::Usage),
    };
    if matches!(verb, Verb::Serve | Verb::CheckConfig)
        && let Err(error) = config.is_guarded()
    {
        return refuse(&error, Exit::Usage);
    }
    match verb {
        Verb::CheckConfig => printed(cli::check_config(&config, stdout)),
        Verb::PrintConfig => printed(cli::print_config(&config, stdout)),
        Verb::Backup { target } => data::backup(&config.store, &target).into(),
        Verb::Export => data::export(&config.store, stdout).into(),
        Verb::Import { file } => data::import(&config.store, &file).into(),
        // Answered above, without a config.
        Verb::Ask(_) | Verb::Completions { .. } | Verb::Healthcheck | Verb::Man | Verb::Token { .. } => {
            Exit::Fine.into()
        }
        Verb::Serve => {
            if let Err(error) = telemetry::begin(&config.log, std::env::var_os("RUST_LOG").as_deref()) {
                return refuse(&error, Exit::Usage);
            }
            for warning in &config.warnings {
                tracing::warn!(%warning, "a variable is not heeded");
            }
            run(config, cli.flags)
        }
    }
}

fn run(config: Config, flags: Flags) -> ExitCode {
    let threads = config.server.threads;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, Exit::Unhealthy),
    };
    let ended = runtime.block_on(serve(config, flags));
    // Not for as long as something blocks a thread, such as a store that is being opened, or a name that nobody finds.
    runtime.shutdown_timeout(LAST_DROPS);
    match ended {
        Ok(exit) => exit.into(),
        Err(Stopped { exit, error }) => {
            tracing::error!(error = format!("{error:#}"), "cannot start");
            refuse(&format!("{error:#}"), exit)
        }
    }
}

/// A failure to start or to go on, with the exit code that tells it from others.
struct Stopped {
    exit: Exit,
    error: anyhow::Error,
}

/// Listens, opens the store, settles what a crash left, serves until a signal or the store ends it.
async fn serve(config: Config, flags: Flags) -> Result<Exit, Stopped> {
    let stopped = |exit| move |error| Stopped { exit, error };
    // Before all that takes its time. A reload that is asked for meanwhile follows once it runs: the file may have
    // changed after it was read.
    let mut signals = Signals::new().map_err(stopped(Exit::Unhealthy))?;
    // The port first: a second service on one port goes away before it touches the data.
    let listener = listen(&config.server).map_err(stopped(Exit::CannotListen))?;
    let listen =
        listener.local_addr().context("the address is unknown").map_err(stopped(Exit::CannotListen))?;
    let opened = tokio::select! {
        opened = open(&config.store) => opened,
        signal = signals.asked_to_stop() => {
            // Nothing runs yet. The folder is left as by a crash.
            tracing::info!(signal, "{GIVEN_UP}");
            return Ok(Exit::Fine);
        }
    };
    let (store, store_name) = opened.map_err(stopped(Exit::CannotOpenStore))?;
    let recorder = Recorder::with_lanes(store, reload::lanes(&config));
    let live = Arc::new(ArcSwap::from_pointee(reload::live(&config)));
    let exporter = config.otlp.clone().map(|otlp| {
        let (exporter, spans) = Exporter::start(otlp, Arc::clone(&live));
        recorder.tell_spans(spans);
        exporter
    });
    let recovered = tokio::select! {
        recovered = recover(&recorder) => recovered,
        signal = signals.asked_to_stop() => {
            tracing::info!(signal, grace = ?config.server.grace, "{GIVEN_UP}");
            // Some of what it takes over runs already; the rest is left to the next start.
            end(&recorder, exporter, &mut signals, config.server.grace, || {}).await;
            return Ok(Exit::Fine);
        }
    };
    recovered.map_err(stopped(Exit::CannotOpenStore))?;

    if let Some(age) = config.retention.success {
        tracing::warn!(
            ?age,
            "retention.success is on: a success is forgotten at this age, AND THEN ITS ID CAN RUN AGAIN"
        );
    }
    recorder.retain(&config.retention);

    let names: Vec<_> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
    let (names, file, server) = (names.join(", "), config.file.clone(), config.server.clone());
    warn_of_access(&config);
    let reloader = Arc::new(Reloader::new(flags, config, recorder.clone(), Arc::clone(&live)));
    let reload: Reload = {
        let reloader = Arc::clone(&reloader);
        Arc::new(move || {
            let reloader = Arc::clone(&reloader);
            async move { reloader.reload().await }.boxed()
        })
    };
    let interface = Interface::new(Api {
        recorder: recorder.clone(),
        live,
        wait_max: server.wait_max,
        bodies: Bodies::new(server.body_timeout, usize::try_from(server.bodies_max).unwrap_or(usize::MAX)),
        hosts: (server.is_local() || !server.hosts.is_empty()).then(|| server.hosts.clone()),
        auth_failures: server.auth_failures,
        reload,
        requests: Arc::new(Requests::new(api::routes().into_iter().map(|route| (route.method, route.path)))),
    });
    let options = ServerOptions {
        connections_max: server::connections_allowed(server.connections_max),
        header_timeout: server.header_timeout,
        write_timeout: server.write_timeout,
        head_bytes_max: usize::try_from(server.head_max).unwrap_or(usize::MAX),
    };
    let closing = CancellationToken::new();
    let mut background = JoinSet::new();
    background.spawn(server::serve(listener, interface, options, closing.clone()));
    tracing::info!(%listen, store = %store_name, handlers = %names, config = %file, "listening");

    let exit = tokio::select! {
        name = signals.next(&reloader) => {
            tracing::info!(signal = name, grace = ?server.grace, "stopping; once more to stop at once");
            Exit::Fine
        }
        () = recorder.store_failed() => {
            tracing::error!("the store has failed; stopping, so that a restart can find out what it holds");
            Exit::StoreFailed
        }
        _ = background.join_next() => {
            tracing::error!("nobody accepts connections any more; stopping");
            Exit::Unhealthy
        }
    };
    // Status and readiness are answered until the runs have ended; launches are refused.
    if end(&recorder, exporter, &mut signals, server.grace, || closing.cancel()).await {
        background.join_all().await;
        tracing::info!("stopped");
    }
    Ok(exit)
}

/// Takes over what the last process left.
async fn recover(recorder: &Recorder) -> anyhow::Result<()> {
    let found = recorder.recover().await.context("the runs that the last process left cannot be settled")?;
    if found != RecoveryReport::default() {
        let RecoveryReport { interrupted, launched_again, resumed } = found;
        tracing::warn!(interrupted, launched_again, resumed, "took over what the last process left");
    }
    Ok(())
}

/// Ends runs and store in order, calls `ended`, and sends the last spans. The next signal ends the grace, and one more
/// all of it at once; says whether none did.
async fn end(
    recorder: &Recorder,
    exporter: Option<Exporter>,
    signals: &mut Signals,
    grace: Duration,
    ended: impl FnOnce(),
) -> bool {
    let asked = Instant::now();
    let is_asked_again = tokio::select! {
        () = recorder.stop(grace) => false,
        signal = signals.asked_to_stop() => {
            tracing::info!(signal, "ending what still runs; once more to leave it to the next start");
            true
        }
    };
    if is_asked_again {
        tokio::select! {
            () = recorder.stop(Duration::ZERO) => {}
            _ = signals.asked_to_stop() => {
                let Figures { in_flight, unsettled, .. } = recorder.figures();
                tracing::warn!(runs = in_flight, unsettled, "left without an outcome, the next start records them");
                // Dropped, the store would be closed, and what keeps that from ending would keep the process too.
                std::mem::forget(recorder.clone());
                return false;
            }
        }
    }
    ended();
    if let Some(exporter) = exporter {
        let left = grace.saturating_sub(asked.elapsed()).clamp(SPANS_MIN, SPANS_MAX);
        let enough = async {
            let _ = timeout(left, signals.asked_to_stop()).await;
        };
        exporter.stop(enough).await;
    }
    true
}

fn listen(config: &ServerConfig) -> anyhow::Result<TcpListener> {
    let address = config.listen;
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Each connection has it from here.
        socket.set_send_buffer_size(u32::try_from(config.send_buffer).unwrap_or(u32::MAX))?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "stop what uses it, or choose another address with --listen",
            io::ErrorKind::PermissionDenied => "this user may not; choose a port from 1024 on with --listen",
            io::ErrorKind::AddrNotAvailable => {
                "no network of this machine has it; choose another with --listen"
            }
            _ => "choose another address with --listen",
        };
        anyhow::Error::new(error).context(format!("cannot listen on {address}; {hint}"))
    })
}

async fn open(config: &StoreConfig) -> anyhow::Result<(Arc<dyn Store>, String)> {
    let folder = match &config.path {
        StorePath::Memory => {
            let store = MemoryStore::with_events_kept(config.events_kept);
            return Ok((Arc::new(store), "memory, forgotten at exit".to_owned()));
        }
        StorePath::Folder(folder) => folder.clone(),
    };
    let name = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone()).display().to_string();
    let options = config.embedded();
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder, &options)).await??;
    Ok((Arc::new(store), name))
}

/// Says of access what an operator has to know.
fn warn_of_access(config: &Config) {
    let now = Timestamp::now();
    for token in config.tokens.iter().filter(|token| token.expires.is_some_and(|expires| expires <= now)) {
        tracing::warn!(token = token.name, "has expired");
    }
    if config.tokens.is_empty() && !config.server.is_local() {
        tracing::warn!("server.allow_anonymous is on: everybody who reaches the service may do everything");
    }
}

/// What asks a process to stop, or to read its config again.
struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one that asks to stop.
    async fn asked_to_stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// The same. Reloads meanwhile where that is asked for; a stop does not wait for that.
    async fn next(&mut self, reloader: &Reloader) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            never = reload_at(&mut self.hang_up, reloader) => match never {},
        }
    }
}

async fn reload_at(hang_up: &mut Signal, reloader: &Reloader) -> Infallible {
    loop {
        hang_up.recv().await;
        if let Err(error) = reloader.reload().await {
            tracing::error!(%error, "config not reloaded, everything stays as it was");
        }
    }
}

/// Only where it listens is asked of the config: a service goes on when the rest is wrong, or not there any more.
fn ask(flags: &Flags) -> ExitCode {
    let Listen { address, origin } = match Listen::find(flags, std::env::vars_os()) {
        Ok(listen) => listen,
        Err(error) => return refuse(&error, Exit::Usage),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, Exit::Unhealthy),
    };
    match runtime.block_on(healthcheck(address)) {
        Ok(at) => printed(writeln!(io::stdout(), "ready: {at}")),
        Err(error) => refuse(&format!("{error} ({origin})"), Exit::Unhealthy),
    }
}

/// A reader that goes away early (`| head`) has seen what it wanted.
fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => refuse(&error, Exit::Unhealthy),
        Ok(()) | Err(_) => Exit::Fine.into(),
    }
}

fn refuse(error: &impl std::fmt::Display, exit: Exit) -> ExitCode {
    // Where stderr is closed, the exit code says it alone.
    let _ = writeln!(io::stderr(), "{error}");
    exit.into()
}
