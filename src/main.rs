//! Wiring: flags, config, log, then what was asked for, and an exit code.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use futures_util::FutureExt as _;
use task_recorder::api::{self, Api};
use task_recorder::cli::{self, Cli, Verb, data, healthcheck::healthcheck};
use task_recorder::client;
use task_recorder::config::{Config, StoreConfig, StorePath};
use task_recorder::exit::Exit;
use task_recorder::handler::{Handler, Handlers, Webhook};
use task_recorder::recorder::{LaneSpec, NoticeSpec, Recorder, RecoveryReport, Work};
use task_recorder::server::{self, ServerOptions};
use task_recorder::store::{EmbeddedStore, MemoryStore, Store};
use task_recorder::telemetry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let stdout = &mut io::stdout();
    match &cli.verb {
        Some(Verb::Ask(ask)) => return client::run(ask).into(),
        Some(Verb::Completions { shell }) => return printed(cli::completions(*shell, stdout)),
        Some(Verb::Man) => return printed(cli::man(stdout)),
        _ => {}
    }
    let config = match Config::load(&cli.flags, std::env::vars_os()) {
        Ok(config) => config,
        Err(error) => return refuse(&error, Exit::Usage),
    };
    match cli.verb.unwrap_or(Verb::Serve) {
        Verb::CheckConfig => printed(cli::check_config(&config, stdout)),
        Verb::PrintConfig => printed(cli::print_config(&config, stdout)),
        Verb::Healthcheck => ask(&config),
        Verb::Backup { target } => data::backup(&config.store, &target).into(),
        Verb::Export => data::export(&config.store, stdout).into(),
        Verb::Import { file } => data::import(&config.store, &file).into(),
        // Answered above, without a config.
        Verb::Ask(_) | Verb::Completions { .. } | Verb::Man => Exit::Fine.into(),
        Verb::Serve => {
            if let Err(error) = telemetry::begin(&config.log, std::env::var_os("RUST_LOG").as_deref()) {
                return refuse(&error, Exit::Usage);
            }
            run(config)
        }
    }
}

fn run(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, Exit::Unhealthy),
    };
    match runtime.block_on(serve(config)) {
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
async fn serve(config: Config) -> Result<Exit, Stopped> {
    let stopped = |exit| move |error| Stopped { exit, error };
    // The port first: a second service on one port goes away before it touches the data.
    let listener = listen(config.server.listen).await.map_err(stopped(Exit::CannotListen))?;
    let listen =
        listener.local_addr().context("the address is unknown").map_err(stopped(Exit::CannotListen))?;
    let (store, store_name) = open(&config.store).await.map_err(stopped(Exit::CannotOpenStore))?;
    let handlers = Arc::new(Handlers::new(config.handlers));
    let recorder = Recorder::with_lanes(store, handlers.iter().map(lane));
    let found = recorder
        .recover()
        .await
        .context("the runs that the last process left cannot be settled")
        .map_err(stopped(Exit::CannotOpenStore))?;
    if found != RecoveryReport::default() {
        let RecoveryReport { interrupted, launched_again, resumed } = found;
        tracing::warn!(interrupted, launched_again, resumed, "took over what the last process left");
    }

    if let Some(age) = config.retention.success {
        tracing::warn!(
            ?age,
            "retention.success is on: a success is forgotten at this age, AND THEN ITS ID CAN RUN AGAIN"
        );
    }
    recorder.retain(&config.retention);

    let names: Vec<_> = handlers.iter().map(|handler| handler.name.as_str()).collect();
    let names = names.join(", ");
    let api = Api {
        recorder: recorder.clone(),
        handlers: Arc::clone(&handlers),
        wait_max: config.server.wait_max,
        body_timeout: config.server.body_timeout,
    };
    let options = ServerOptions {
        connections_max: config.server.connections_max,
        header_timeout: config.server.header_timeout,
    };
    // Before anybody is told that it runs: from then on a signal is an orderly stop.
    let mut signals = Signals::new().map_err(stopped(Exit::Unhealthy))?;
    let closing = CancellationToken::new();
    let mut background = JoinSet::new();
    background.spawn(server::serve(listener, api::router(api), options, closing.clone()));
    tracing::info!(%listen, store = %store_name, handlers = %names, config = %config.file, "listening");

    let exit = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, grace = ?config.server.grace, "stopping; once more to stop at once");
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
    tokio::select! {
        () = recorder.stop(config.server.grace) => {}
        _ = signals.next() => recorder.stop(Duration::ZERO).await,
    }
    closing.cancel();
    background.join_all().await;
    tracing::info!("stopped");
    Ok(exit)
}

/// A handler as the recorder sees it.
fn lane(handler: &Arc<Handler>) -> LaneSpec {
    let work: Work = {
        let handler = Arc::clone(handler);
        Arc::new(move |task, attempt, ending| {
            let handler = Arc::clone(&handler);
            async move { handler.run(&task, attempt, &ending).await }.boxed()
        })
    };
    let undo = handler.revoke.as_ref().map(|_| -> Work {
        let handler = Arc::clone(handler);
        Arc::new(move |task, attempt, ending| {
            let handler = Arc::clone(&handler);
            async move { handler.undo(&task, attempt, &ending).await }.boxed()
        })
    });
    let notices = NoticeSpec {
        on_success: handler.on_success.as_ref().map(notice),
        on_failure: handler.on_failure.as_ref().map(notice),
        ..NoticeSpec::default()
    };
    LaneSpec { handler: handler.name.clone(), policy: handler.policy.clone(), work, undo, notices }
}

/// Tells a webhook of an outcome: the record, as the interface gives it.
fn notice(webhook: &Arc<Webhook>) -> Work {
    let webhook = Arc::clone(webhook);
    Arc::new(move |task, attempt, ending| {
        let webhook = Arc::clone(&webhook);
        async move { webhook.tell(&task, api::notice(&task), attempt, &ending).await }.boxed()
    })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
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

/// What asks a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn ask(config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, Exit::Unhealthy),
    };
    match runtime.block_on(healthcheck(config.server.listen)) {
        Ok(at) => printed(writeln!(io::stdout(), "ready: {at}")),
        Err(error) => refuse(&error, Exit::Unhealthy),
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
