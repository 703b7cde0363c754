//! What several tests need.

pub(crate) mod batch;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod collector;
pub(crate) mod interface;
pub(crate) mod meddled;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod silent;
pub(crate) mod sse;
pub(crate) mod tls;
pub(crate) mod told;

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use task_recorder::task::{Input, Phase, State, Task};

/// How long a test waits for something that has to happen; reached only where it does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that has to happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("waited {PATIENCE:?} for {what}");
    };
    value
}

/// Waits until something outside of this process is so; nothing else tells when.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A working task in its first run.
pub(crate) fn task(id: &str, media_type: Option<&str>, input: impl Into<Bytes>) -> Task {
    Task {
        id: id.parse().unwrap(),
        handler: "h".parse().unwrap(),
        run: 1,
        revision: 1,
        revoked: 0,
        entered: 1,
        since: Timestamp::now(),
        state: State::Working { phase: Phase::Running, attempt: 1 },
        input: Input::new(media_type.map(str::to_owned), input.into()),
        attempts: Vec::new(),
        keys: Vec::new(),
        notice_due: false,
        details_dropped: false,
        trace: None,
    }
}
