//! The config in motion: handlers and tokens are exchanged while the service runs, everything else at a restart.
//!
//! Invariant: a reload takes effect as a whole or not at all (tests/it/reload.rs).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use crate::api::{self, Live, ReloadError, Reloaded};
use crate::config::{Config, ConfigError, Fault, Flags};
use crate::handler::{Handler, Handlers, Webhook};
use crate::recorder::{LaneSpec, NoticeSpec, Recorder, Work};

/// How long a reload waits for the config file and the files that it names.
const READING_MAX: Duration = Duration::from_secs(10);

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
    /// Held by the thread that reads, also when nobody waits for it any more.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Reloader {
    /// For a service that was started with these flags and this config.
    #[must_use]
    pub fn new(flags: Flags, started: Config, recorder: Recorder, live: Arc<ArcSwap<Live>>) -> Self {
        Self { flags, started, recorder, live, turn: tokio::sync::Mutex::default(), reading: Arc::default() }
    }

    /// Reads the config again. What is wrong with it is wrong as a whole: then everything stays as it is. So it does
    /// where nobody waits for the end of this any more.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        if self.recorder.is_draining() {
            return Err(ReloadError::Stopping);
        }
        let config = self.read().await?;
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

    async fn read(&self) -> Result<Config, ConfigError> {
        let flags = self.flags.clone();
        let load = move || Config::load_again(&flags, std::env::vars_os());
        let read = on_a_thread(&self.reading, load).await;
        read.unwrap_or_else(|why| Err(ConfigError::one(self.started.beginning(), Fault::NotRead { why })))
    }
}

/// Reads on a thread of its own: nobody can end a read that hangs, so neither a worker nor a thread of a pool may hang
/// with it. There is one such thread at most, because each that hangs would stay.
async fn on_a_thread<T: Send + 'static>(
    reading: &Arc<tokio::sync::Mutex<()>>,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let Ok(held) = tokio::time::timeout(READING_MAX, Arc::clone(reading).lock_owned()).await else {
        return Err(
            "the last reload still waits for a file that does not answer; see what it is on".to_owned()
        );
    };
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
        let value = read();
        drop(held);
        // Whoever asked may have gone.
        let _ = tell.send(value);
    });
    thread.map_err(|error| format!("there is no thread for it: {error}"))?;
    match tokio::time::timeout(READING_MAX, told).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_panicked)) => Err("the reader panicked".to_owned()),
        Err(_elapsed) => Err(format!(
            "this file, or one that it names, has not answered for {} s; see what it is on",
            READING_MAX.as_secs()
        )),
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_is_given_up_and_followed_by_no_other_until_it_ends() {
        let reading = Arc::default();
        let (end, ended) = mpsc::channel::<()>();
        let hangs = move || ended.recv().is_ok();
        let given_up = on_a_thread(&reading, hangs).await.unwrap_err();
        assert!(given_up.contains("has not answered for 10 s"), "{given_up}");
        let second = on_a_thread(&reading, || panic!("it was read all the same")).await.unwrap_err();
        assert!(second.contains("still waits"), "{second}");
        drop(end);
        tokio::time::resume();
        assert_eq!(on_a_thread(&reading, || 7).await, Ok(7));
    }
}
