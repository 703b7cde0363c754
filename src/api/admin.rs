//! `POST /admin/reload`: the handlers and tokens of the config file, as it is now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::caller::Caller;
use super::params::Params;
use super::problem::{Problem, ProblemType};
use super::view;
use crate::config::ConfigError;
use crate::store::StoreError;

/// Reads the config again, and lets it hold: all of it that can change while the service runs, or nothing.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, ReloadError>> + Send + Sync>;

/// What holds after a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Reloaded")]
pub struct Reloaded {
    /// The handlers, in the order of the file.
    pub handlers: Vec<String>,
    /// The tokens, in the order of the file.
    pub tokens: Vec<String>,
    /// The keys that the file has otherwise than the service runs with: they wait for a restart.
    pub needs_restart: Vec<String>,
}

/// Why everything is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store does not say who is paused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

pub(super) async fn reload(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    caller.may_do_all("the config")?;
    let reloaded = (api.reload)().await?;
    Ok(view::json(StatusCode::OK, &reloaded))
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Config(ConfigError { problems }) => {
                let errors: Vec<_> = problems.iter().map(ToString::to_string).collect();
                let detail = match errors.as_slice() {
                    [one] => format!("{one}; nothing was changed."),
                    all => format!("{} things in the config are wrong; nothing was changed.", all.len()),
                };
                Self::new(ProblemType::InvalidConfig, detail).with_errors(errors)
            }
            ReloadError::Store(error) => Self::from(error),
            ReloadError::Stopping => {
                let detail = "The service is stopping and takes no new config; nothing was changed.";
                Self::unavailable(ProblemType::Draining, detail)
            }
        }
    }
}
