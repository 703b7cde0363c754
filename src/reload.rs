//! The config in motion: handlers and tokens are exchanged while the service runs, everything else at a restart.
//!
//! Invariant: a reload takes effect as a whole or not at all (tests/it/reload.rs).

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;

use crate::api::{self, Live, ReloadError, Reloaded};
use crate::config::{Config, Flags};
use crate::handler::{Handler, Handlers, Webhook};
use crate::recorder::{LaneSpec, NoticeSpec, Recorder, Work};

/// What of a config can change while the service runs.
#[must_use]
pub fn live(config: &Config) -> Live {
    let handlers = Handlers::new(config.handlers.iter().map(Arc::clone));
    Live { handlers, tokens: config.tokens.clone() }
}

/// Its handlers as the recorder sees them.
#[must_use]
pub fn lanes(config: &Config) -> Vec<LaneSpec> {
    config.handlers.iter().map(lane).collect()
}

/// Lets the config file hold as it is now.
pub struct Reloader {
    flags: Flags,
    /// What the service was started with.
    started: Config,
    recorder: Recorder,
    live: Arc<ArcSwap<Live>>,
    /// Held during a reload, so that the last one wins everywhere.
    turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// For a service that was started with these flags and this config.
    #[must_use]
    pub fn new(flags: Flags, started: Config, recorder: Recorder, live: Arc<ArcSwap<Live>>) -> Self {
        Self { flags, started, recorder, live, turn: tokio::sync::Mutex::default() }
    }

    /// Reads the config again. What is wrong with it is wrong as a whole: then everything stays as it is.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        if self.recorder.is_draining() {
            return Err(ReloadError::Stopping);
        }
        let config = Config::load_again(&self.flags, std::env::vars_os())?;
        // The service goes on listening where it does, whatever the file says of that now.
        config.keeps_a_token(&self.started.server, &self.live.load().tokens)?;
        // No step behind this one fails or waits.
        self.recorder.reload(lanes(&config)).await?;
        self.live.store(Arc::new(live(&config)));
        let reloaded = Reloaded {
            handlers: config.handlers.iter().map(|handler| handler.name.to_string()).collect(),
            tokens: config.tokens.iter().map(|token| token.name.clone()).collect(),
            needs_restart: self.started.fixed_keys_unlike(&config),
        };
        tell(&config, &reloaded);
        Ok(reloaded)
    }
}

fn tell(config: &Config, Reloaded { handlers, tokens, needs_restart }: &Reloaded) {
    let (handlers, tokens) = (handlers.join(", "), tokens.join(", "));
    tracing::info!(config = %config.file, handlers, tokens, "config reloaded");
    if !needs_restart.is_empty() {
        tracing::warn!(keys = needs_restart.join(", "), "these keys have changed and wait for a restart");
    }
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
