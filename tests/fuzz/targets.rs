//! What is fuzzed: the name of a target is in `TASK_RECORDER_FUZZ`. To be started by tests/fuzz.sh.

#![no_main]
#![expect(clippy::panic, reason = "a name that is wrong ends it")]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use task_recorder::{api, config, handler, server, store, transfer};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 9] = [
    ("id", api::fuzzing::id),
    ("query", api::fuzzing::query),
    ("config", config::fuzzing::file),
    ("template", handler::template::fuzzing::rendered),
    ("stored", store::fuzzing::record),
    ("index", store::fuzzing::index),
    ("batch", api::fuzzing::lines),
    ("import", transfer::fuzzing::lines),
    ("framing", server::fuzzing::pieces),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TASK_RECORDER_FUZZ").unwrap_or_default();
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("TASK_RECORDER_FUZZ={name:?} names no target")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
