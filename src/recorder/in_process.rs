//! Launches of futures of this process. They belong to no lane: they start at once, and are tried once.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Launch, LaunchError, Recorder, run};
use crate::store::StoreError;
use crate::task::{
    ErrorKind, Failure, HandlerName, Input, Outcome, Output, Request, Start, StartKind, Task, TaskId,
};

impl Recorder {
    /// Launches a future under an id, unless the id is working or has succeeded. Returns as soon as that is decided
    /// and durable; the future then runs by itself. What it returns is kept as JSON.
    ///
    /// # Errors
    /// [`LaunchError`]; the future was not polled.
    pub async fn launch<F, T, E>(&self, id: TaskId, future: F) -> Result<Launch, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        let request = Request::new(HandlerName::in_process(), Input::empty());
        self.start(id, request.into(), |_| outcome_of(future)).await
    }

    /// Launches a future as [`Recorder::launch`] does, and waits until the id is not working any more. After a
    /// refusal because it is working it waits for that run. It waits no longer than until the recorder has stopped. None
    /// where the id is not found by then, because it was forgotten or revoked.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn launch_and_wait<F, T, E>(&self, id: TaskId, future: F) -> Result<Option<Launch>, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        let launch = self.launch(id, future).await?;
        Ok(self.settled(launch, None).await?)
    }

    /// Launches a future under an id that has failed, and under no other.
    ///
    /// # Errors
    /// [`LaunchError`]; the future was not polled.
    pub async fn retry<F, T, E>(&self, id: TaskId, future: F) -> Result<Launch, LaunchError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Display + 'static,
    {
        let kind = StartKind::Retry { trace: None, if_entered: None };
        self.start(id, Start { kind, is_queued: false }, |_| outcome_of(future)).await
    }

    /// Launches what `work` makes of the claimed task. The future is dropped when the run is canceled, or when the
    /// recorder stops and the grace period is over.
    ///
    /// # Errors
    /// [`LaunchError`]; `work` was not called.
    pub async fn start<W, F>(&self, id: TaskId, start: Start, work: W) -> Result<Launch, LaunchError>
    where
        W: FnOnce(Arc<Task>) -> F + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let admission = self.admit().map_err(|error| self.inner.tally.failed(error))?;
        let work = |task, _attempt, ending| until_told(ending, async { work(task).await });
        let (first_word, heard) = oneshot::channel();
        self.inner.runs.spawn(run::run_once(Arc::clone(&self.inner), id, start, work, first_word));
        drop(admission);
        let launch = heard.await.unwrap_or(Err(StoreError::Closed));
        launch.map_err(|error| self.inner.tally.failed(LaunchError::Store(error)))
    }
}

/// Drops the work when it is told to end: a future of this process can do nothing more about it.
async fn until_told(ending: CancellationToken, work: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = ending.cancelled() => Outcome::failed(Failure::new(ErrorKind::Canceled, "it was told to end")),
    }
}

async fn outcome_of<T: Serialize, E: Display>(future: impl Future<Output = Result<T, E>>) -> Outcome {
    let value = match future.await {
        Ok(value) => value,
        Err(error) => return Outcome::failed(Failure::new(ErrorKind::Error, error.to_string())),
    };
    match serde_json::to_vec(&value) {
        Ok(json) if json == b"null" => Outcome::success(),
        Ok(json) => {
            let media_type = Some("application/json".to_owned());
            let output = Output { media_type, truncated: false, bytes: json.into() };
            Outcome { output: Some(output), ..Outcome::success() }
        }
        Err(error) => {
            let message = format!("it succeeded, but what it returned is no JSON: {error}");
            Outcome::failed(Failure { in_doubt: true, ..Failure::new(ErrorKind::Error, message) })
        }
    }
}
