//! What several benches need.

pub(crate) mod client;
pub(crate) mod figures;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod receiver;
pub(crate) mod records;

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use self::receiver::Receiver;

/// The id with this number. It looks random, because ids in order would flatter the store; two numbers never give the
/// same one.
pub(crate) fn id(number: u64) -> String {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("order-{:016x}", mixed ^ (mixed >> 31))
}

/// A webhook to the receiver, with these further keys, for a config.
pub(crate) fn handler(name: &str, receiver: &Receiver, keys: &str) -> String {
    let url = format!("http://{}/{name}/{{id}}", receiver.address);
    format!("[handlers.{name}]\ntype = \"webhook\"\nurl = \"{url}\"\n{keys}\n")
}

/// The runtime of clients and receiver.
pub(crate) fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().unwrap()
}

/// A folder of its own below this one, which is made where it is missing.
pub(crate) fn folder_in(parent: &Path) -> TempDir {
    std::fs::create_dir_all(parent).unwrap();
    tempfile::tempdir_in(parent).unwrap()
}

/// Lets this process, and those it starts, have so many open files. Returns how many it is allowed: fewer where the
/// hard limit is lower and cannot be raised.
pub(crate) fn open_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(wanted), maximum: Some(hard.max(wanted)) };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return wanted;
    }
    let allowed = wanted.min(hard);
    setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum }).unwrap();
    allowed
}
