//! What the fuzzer feeds to imports (tests/fuzz).

use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::{Imported, Record, import};
use crate::json;
use crate::store::{MemoryStore, fuzzing};
use crate::task::{Change, Input, Request, Stamp, Task};

/// The lines of an export: records that a store keeps as they are, and that go on from there, or errors. Twice the same
/// lines are the same records.
pub fn lines(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(task) = task(line) {
            let written = serde_json::to_vec(&Record::new(&task)).unwrap_or_default();
            assert_eq!(self::task(&written).as_ref(), Some(&task), "it is not exported as it is");
            fuzzing::keep(&task);
            goes_on(&task);
        }
    }
    let store = MemoryStore::new();
    let import =
        || import(&store, &mut &*bytes, |_| {}).now_or_never().and_then(Result::ok).unwrap_or_default();
    let (first, again) = (import(), import());
    let Imported { imported, same, refused, .. } = first;
    assert_eq!((again.imported, again.same, again.refused), (0, imported + same, refused));
}

fn task(line: &[u8]) -> Option<Task> {
    json::object::<Record<'_>>(line).ok()?.into_task().ok()
}

/// Every move that is legal raises the revision, and a launch the run.
fn goes_on(task: &Task) {
    let stamp = Stamp { seq: 1, at: Timestamp::UNIX_EPOCH };
    let request = Request::new(task.handler.clone(), Input::empty());
    let moves = [
        Change::Claim(request.into()),
        Change::Begin { run: task.run },
        Change::Cancel { is_notice_due: false },
        Change::Revoke,
        Change::Forget,
        Change::DropDetails { entered: task.entered },
        Change::Expire { entered: task.entered },
    ];
    for change in moves {
        let is_launch = matches!(change, Change::Claim(_));
        if let Ok(after) = Task::after(Some(task), &task.id, change, stamp) {
            assert!(after.revision > task.revision);
            assert!(after.run >= task.run + u32::from(is_launch));
        }
    }
}
