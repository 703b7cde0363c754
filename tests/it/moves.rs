//! What moves leave behind, and moves that come late: each alone, without a store around it.

use jiff::Timestamp;
use task_recorder::task::{
    ATTEMPTS_KEPT, Change, Digest, ErrorKind, Failure, Input, Outcome, Output, Refusal, Request, Stamp,
    Start, State, StateName, Task, Undo,
};

use crate::stores::{RETRY, attempt, failure, handler, id, launch, output};

/// What these changes make of an unknown id, one after the other; each has to be allowed.
fn after(changes: impl IntoIterator<Item = Change>) -> Task {
    let task = changes.into_iter().fold(None, |task, change| Some(changed(task.as_ref(), change).unwrap()));
    task.unwrap()
}

fn changed(task: Option<&Task>, change: Change) -> Result<Task, Refusal> {
    let seq = task.map_or(0, |task| task.entered) + 1;
    Task::after(task, &id("order-42"), change, Stamp { seq, at: Timestamp::now() })
}

fn claim() -> Change {
    Change::Claim(launch("in"))
}

fn settle(run: u32, outcome: &Outcome, output: Option<Output>) -> Change {
    Change::Settle { run, attempt: attempt(run, outcome), output, is_notice_due: false }
}

fn back_off(run: u32) -> Change {
    back_off_after(run, ErrorKind::Refused)
}

fn back_off_after(run: u32, kind: ErrorKind) -> Change {
    let attempt = attempt(run, &failure(kind));
    Change::BackOff { run, attempt, next_attempt_at: Timestamp::now() }
}

/// How a task has failed, and whether it is in doubt.
fn failed_as(task: &Task) -> Option<(ErrorKind, bool)> {
    task.failure().map(|failure| (failure.kind, failure.in_doubt))
}

#[test]
fn the_end_of_a_revoke_is_that_of_the_present_one() {
    let not_undone = || Err(Failure::new(ErrorKind::Refused, "nobody answered"));
    let success = after([claim(), settle(1, &Outcome::success(), Some(output("out")))]);
    let first = changed(Some(&success), Change::BeginRevoke).unwrap();
    let end = |revision, result| Change::EndRevoke { revision, result };

    let failed = changed(Some(&first), end(first.revision, not_undone())).unwrap();
    assert!(matches!(failed.state, State::Success { undo: Some(Undo::Failed(_)), .. }), "{failed:?}");
    assert_eq!(failed.output(), Some(&output("out")), "a revoke that failed takes nothing away");
    // The action has ended, and ends once more.
    assert_eq!(changed(Some(&failed), end(failed.revision, Ok(()))), Err(Refusal::Stale));

    let second = changed(Some(&failed), Change::BeginRevoke).unwrap();
    for late in [first.revision, second.revision + 1] {
        assert_eq!(changed(Some(&second), end(late, Ok(()))), Err(Refusal::Stale));
        assert_eq!(changed(Some(&second), end(late, not_undone())), Err(Refusal::Stale));
    }
    let undone = changed(Some(&second), end(second.revision, Ok(()))).unwrap();
    assert_eq!((undone.state_name(), undone.revoked), (StateName::Absent, 1));
}

#[test]
fn a_run_that_is_being_canceled_neither_backs_off_nor_begins_again() {
    let canceling = after([claim(), Change::Cancel { is_notice_due: false }]);
    assert_eq!(changed(Some(&canceling), back_off(1)), Err(Refusal::Canceling));
    assert_eq!(changed(Some(&canceling), Change::Begin { run: 1 }), Err(Refusal::Canceling));
    assert_eq!(changed(Some(&canceling), Change::Cancel { is_notice_due: false }), Err(Refusal::Canceling));
    // It still is the run's own to settle.
    let settled = changed(Some(&canceling), settle(1, &failure(ErrorKind::Canceled), None)).unwrap();
    assert_eq!(changed(Some(&settled), back_off(1)), Err(Refusal::Stale));
    assert_eq!(changed(Some(&settled), Change::Begin { run: 1 }), Err(Refusal::Stale));

    // A run that backs off already has no attempt that could be followed by another one.
    let waiting = after([claim(), back_off(1)]);
    assert_eq!(changed(Some(&waiting), back_off(1)), Err(Refusal::Stale));
    assert_eq!(waiting.attempt(), Some(2));
    assert_eq!(changed(Some(&waiting), Change::Begin { run: 2 }), Err(Refusal::Stale));
    let begun = changed(Some(&waiting), Change::Begin { run: 1 }).unwrap();
    assert_eq!(changed(Some(&begun), Change::Begin { run: 1 }), Err(Refusal::Stale));
}

#[test]
fn what_an_attempt_may_have_done_leaves_its_run_in_doubt_unless_that_succeeds() {
    let cancel = || Change::Cancel { is_notice_due: false };
    for (kind, in_doubt) in [(ErrorKind::Timeout, true), (ErrorKind::Refused, false)] {
        let waiting = after([claim(), back_off_after(1, kind)]);
        let canceled = changed(Some(&waiting), cancel()).unwrap();
        assert_eq!(failed_as(&canceled), Some((ErrorKind::Canceled, in_doubt)));
        let message = &canceled.failure().unwrap().message;
        assert!(message.contains("before its next attempt"), "{message}");

        let begun = changed(Some(&waiting), Change::Begin { run: 1 }).unwrap();
        let refused = || settle(1, &failure(ErrorKind::Refused), None);
        for last in [&begun, &changed(Some(&begun), cancel()).unwrap(), &waiting] {
            let failed = changed(Some(last), refused()).unwrap();
            assert_eq!(failed_as(&failed), Some((ErrorKind::Refused, in_doubt)), "{last:?}");
            let own = failed.attempts.last().and_then(|attempt| attempt.failure.as_ref());
            assert!(
                own.is_some_and(|own| !own.in_doubt),
                "the last attempt itself had no effect: {failed:?}"
            );
        }
        let success = changed(Some(&begun), settle(1, &Outcome::success(), None)).unwrap();
        assert_eq!(success.state_name(), StateName::Success);

        // Another run is in doubt about its own attempts only.
        let again = changed(Some(&canceled), Change::Claim(RETRY)).unwrap();
        let again = changed(Some(&again), settle(2, &failure(ErrorKind::Refused), None)).unwrap();
        assert_eq!(failed_as(&again), Some((ErrorKind::Refused, false)));
    }
    let queued = after([Change::Claim(Start { is_queued: true, ..launch("in") }), cancel()]);
    assert_eq!(failed_as(&queued), Some((ErrorKind::Canceled, false)));
    assert!(queued.failure().unwrap().message.contains("before it began an attempt"));
}

#[test]
fn a_doubt_outlasts_the_attempts_that_are_remembered() {
    let certain = |run| (0..3 * ATTEMPTS_KEPT).flat_map(move |_| [Change::Begin { run }, back_off(run)]);
    let doubtful = |run| [Change::Begin { run }, back_off_after(run, ErrorKind::Timeout)];
    let doubts = |task: &Task| {
        let doubtful = |failure: &Failure| failure.in_doubt;
        task.attempts.iter().filter(|one| one.failure.as_ref().is_some_and(doubtful)).count()
    };
    let first = [claim(), back_off(1)].into_iter().chain(doubtful(1)).chain(doubtful(1)).chain(certain(1));
    let waiting = after(first);
    assert_eq!((waiting.attempts.len(), doubts(&waiting)), (ATTEMPTS_KEPT, 1), "{waiting:?}");
    let failed = changed(Some(&waiting), settle(1, &failure(ErrorKind::Refused), None)).unwrap();
    assert_eq!(failed_as(&failed), Some((ErrorKind::Refused, true)));
    let canceled = changed(Some(&waiting), Change::Cancel { is_notice_due: false }).unwrap();
    assert_eq!(failed_as(&canceled), Some((ErrorKind::Canceled, true)));

    // Once the run is over, its record says so itself.
    let second = [Change::Claim(RETRY), back_off(2)].into_iter().chain(certain(2));
    let second = second.fold(failed, |task, change| changed(Some(&task), change).unwrap());
    assert_eq!((second.attempts.len(), doubts(&second)), (ATTEMPTS_KEPT, 0), "{second:?}");
    assert!(second.attempts.iter().all(|attempt| attempt.run == 2));
}

#[test]
fn nothing_but_its_numbers_is_left_of_a_task_that_is_not_found() {
    let request = |key: &[u8]| Request {
        key: Some(Digest::of(key)),
        trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
        ..Request::new(handler("h"), Input::new(Some("text/plain".to_owned()), "two apples".into()))
    };
    let claim = |key: &[u8]| Change::Claim(Start::from(request(key)));
    let failed = after([claim(b"first"), settle(1, &failure(ErrorKind::Refused), Some(output("out")))]);
    let success = after([claim(b"first"), settle(1, &Outcome::success(), Some(output("out")))]);
    assert_eq!(success.payload_bytes(), "two apples".len() + "out".len());
    assert!(success.trace.is_some() && success.trace_id() == success.trace.map(|trace| trace.id()));

    let place = |task: &Task| task.entered;
    for (task, change, revoked) in [
        (&failed, Change::Forget, 0),
        (&failed, Change::Expire { entered: place(&failed) }, 0),
        (&success, Change::Revoke, 1),
        (&success, Change::Expire { entered: place(&success) }, 1),
    ] {
        let dropped = changed(Some(task), Change::DropDetails { entered: place(task) }).unwrap();
        assert!(dropped.details_dropped && dropped.payload_bytes() == 0 && dropped.input.size == 10);
        for task in [task, &dropped] {
            let gone = changed(Some(task), change.clone()).unwrap();
            assert_eq!(gone.state_name(), StateName::Absent);
            assert_eq!((gone.run, gone.revoked), (1, revoked), "{change:?}");
            assert_eq!((gone.entered, gone.revision), (task.entered + 1, task.revision + 1));
            assert!(gone.since >= task.since);
            assert_eq!((&gone.input, gone.payload_bytes()), (&Input::empty(), 0));
            assert!(gone.attempts.is_empty() && gone.trace.is_none() && !gone.details_dropped, "{gone:?}");
            // What was undone may be asked for again by the same request; what failed was launched by it all the same.
            let again = changed(Some(&gone), claim(b"second")).unwrap();
            let again = changed(Some(&again), settle(2, &failure(ErrorKind::Refused), None)).unwrap();
            let repeated = changed(Some(&again), claim(b"first")).err();
            assert_eq!(repeated, (revoked == 0).then_some(Refusal::SameRequest), "{change:?}");
        }
    }
}

#[test]
fn a_move_into_another_state_has_its_place_and_its_time() {
    let claimed = after([claim()]);
    let at: Timestamp = "2026-01-31T09:00:00Z".parse().unwrap();
    let stamp = Stamp { seq: 77, at };
    let settle = settle(1, &Outcome::success(), None);
    let settled = Task::after(Some(&claimed), &claimed.id, settle, stamp).unwrap();
    assert_eq!((settled.entered, settled.since, settled.revision), (77, at, claimed.revision + 1));
    // Within its state it stays where it is.
    let begun = Task::after(Some(&settled), &claimed.id, Change::BeginRevoke, Stamp { seq: 78, at }).unwrap();
    assert_eq!((begun.entered, begun.revision), (77, settled.revision + 1));
}

#[test]
fn an_imported_record_has_the_id_under_which_it_is_asked_for() {
    let record = after([claim(), settle(1, &Outcome::success(), None)]);
    let stamp = Stamp { seq: 9, at: Timestamp::now() };
    let taken = Task::after(None, &id("order-43"), Change::Import(Box::new(record.clone())), stamp).unwrap();
    assert_eq!(taken, Task { id: id("order-43"), entered: 9, ..record });
}
