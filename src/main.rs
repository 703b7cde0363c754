//! Wiring: flags, config, log, then what was asked for, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use task_recorder::cli::{self, Cli, Verb, healthcheck::healthcheck};
use task_recorder::config::Config;
use task_recorder::exit::Exit;
use task_recorder::telemetry;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli.flags, std::env::vars_os()) {
        Ok(config) => config,
        Err(error) => return refuse(&error, Exit::Usage),
    };
    let stdout = &mut io::stdout();
    match cli.verb.unwrap_or(Verb::Serve) {
        Verb::CheckConfig => printed(cli::check_config(&config, stdout)),
        Verb::PrintConfig => printed(cli::print_config(&config, stdout)),
        Verb::Healthcheck => ask(&config),
        Verb::Serve => {
            if let Err(error) = telemetry::begin(&config.log, std::env::var_os("RUST_LOG").as_deref()) {
                return refuse(&error, Exit::Usage);
            }
            serve(config).unwrap_or_else(|error| refuse(&format!("{error:#}"), Exit::Unhealthy))
        }
    }
}

fn serve(_config: Config) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired yet")
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
