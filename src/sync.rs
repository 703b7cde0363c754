//! What threads and tasks meet at, under one name. Here they are the usual things, and this is nothing but their names.
//!
//! Built with `--cfg shuttle` the same code meets at those of a scheduler that tries one order of events after the other
//! (tests/shuttle.sh).

#[cfg(not(shuttle))]
pub(crate) use scc::HashMap;
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64},
        mpsc,
    },
    thread,
};
#[cfg(not(shuttle))]
pub(crate) use tokio::{runtime::Handle, time};
#[cfg(not(shuttle))]
pub(crate) use tokio_util::task::TaskTracker;

#[cfg(shuttle)]
#[path = "../tests/shuttle/world.rs"]
pub(crate) mod world;
#[cfg(shuttle)]
pub(crate) use self::world::{
    AtomicBool, AtomicU64, Condvar, Handle, HashMap, Mutex, MutexGuard, RwLock, RwLockReadGuard,
    RwLockWriteGuard, TaskTracker, mpsc, thread, time,
};
