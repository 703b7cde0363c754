//! Launches work under ids that the caller chooses, and records what became of it.
//!
//! **An id that has succeeded never runs again, an id that is working is never launched twice, an id that failed may
//! be launched again.** Over HTTP this is the service `task-recorder`; as a library it is [`recorder::Recorder`], which
//! launches any future.
//!
//! ```
//! use std::sync::Arc;
//! use task_recorder::recorder::{Launch, Recorder};
//! use task_recorder::store::MemoryStore;
//! use task_recorder::task::Refusal;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let recorder = Recorder::new(Arc::new(MemoryStore::new()));
//! let id = "order-42".parse::<task_recorder::task::TaskId>()?;
//!
//! // The first try fails, so the id may be launched again.
//! let charge = async { Err::<(), _>("the card was refused") };
//! recorder.launch_and_wait(id.clone(), charge).await?;
//! let task = recorder.status(&id).await?.ok_or("it is known")?;
//! assert_eq!(task.failure().map(|failure| failure.message.as_str()), Some("the card was refused"));
//!
//! // The second one succeeds, so it may not.
//! recorder.launch_and_wait(id.clone(), async { Ok::<_, String>("paid") }).await?;
//! match recorder.launch(id.clone(), async { Ok::<_, String>("paid twice") }).await? {
//!     Launch::Refused(refused) => assert_eq!(refused.reason, Refusal::Success),
//!     Launch::Started(_) => unreachable!("a success never runs again"),
//! }
//!
//! // Unless the success is revoked: then the id is not found, and free.
//! recorder.revoke(&id).await?;
//! assert!(recorder.status(&id).await?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`task`] | an id, its record and its state; which move is legal, as one pure function |
//! | [`store`] | where records live: in memory, or durable on one machine |
//! | [`recorder`] | launch, wait, retry, revoke, recover, stop; the only caller of claim and settle |
//! | [`handler`] | what the config says a launch does: a webhook or a command |
//! | [`access`] | bearer tokens: who may do what |
//! | [`config`] | file, environment and flags, checked |
//! | [`metrics`] | what is counted, as OpenMetrics; [`tally`] is what the others count with |
//! | [`telemetry`] | the log; and [`spans`], which the recorder tells, on their way to a collector |
//! | [`api`] | the HTTP interface |
//! | [`reload`] | config that changes while the service runs |
//! | [`server`] | the accept loop |
//! | [`transfer`] | whole records as lines of JSON, out of a store and into another |
//! | [`client`] | the verbs that ask a running service |
//!
//! `task <- store <- recorder <- api <- server <- main`, and `handler <- task`: nothing runs back
//! (tests/it/tidy.rs).
//!
//! # The laws
//!
//! Each has tests named after it (tests/it/laws.rs, tests/it/http.rs).
//!
//! 1. Of many launches of one id at the same moment exactly one starts; the others are told so.
//! 2. After a success no launch starts until a revoke is recorded, or until it is forgotten at the age that
//!    [`task::Retention`] gives, where it gives one. A refused launch changes nothing.
//! 3. What is answered with success is on disk. What cannot be written is answered with 503, and has not started.
//! 4. Status is linearizable per id: once anybody has seen a state, nobody sees an older one.
//! 5. Everything settles: a panic, a timeout, a client that hangs up, a full disk, a crash.
//! 6. Every write after the claim carries the run number: a late worker changes nothing, and is counted.
//! 7. A list and the status agree; a cursor misses no task that stayed in its state.
//! 8. Effects are honest: what may have had an effect says `in_doubt`, and does not run again by itself.

pub mod access;
pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod exit;
pub mod handler;
mod json;
pub mod metrics;
mod pauses;
pub mod recorder;
pub mod reload;
pub mod server;
pub mod spans;
pub mod store;
mod sync;
pub mod tally;
pub mod task;
pub mod telemetry;
pub mod transfer;
