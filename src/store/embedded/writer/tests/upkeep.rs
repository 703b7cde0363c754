//! What leaves the journal, and when.

use super::*;
use crate::store::Snapshot;
use crate::task::ErrorKind;

#[test]
fn bytes_that_were_dropped_leave_the_journal_and_nothing_else_does() {
    let (path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5)), ("c", claim(3))]);
    opened.commit([("a", settle(None)), ("b", settle(None))]);
    let entered = opened.table.get(&id("a")).unwrap().entered;
    let bytes = "SELECT coalesce(sum(length(payload)), 0) FROM journal";
    opened.commit([("a", Change::DropDetails { entered })]);
    assert_eq!((opened.number(bytes), opened.writer.patience()), (15, Some(IDLE)));
    let commits = opened.writer.tally().changes.observed().count;
    opened.tidy_up();
    assert_eq!(opened.number(bytes), 8, "those of the others");
    assert_eq!((opened.writer.tally().changes.observed().count, commits), (3, 3), "of changes alone");
    let (journal, archive) = Folder::readers(path.path()).unwrap();
    let archive = ArchiveReader::new(archive, Arc::clone(&opened.archive.ids));
    let table = Table::new(1);
    replay(&Journal::new(journal), &archive, &table).unwrap();
    assert_eq!(table.all(), opened.table.all(), "what a start would find");

    let next = opened.writer.kept.next();
    opened.writer.kept.bury(&id("c"));
    opened.tidy_up();
    assert_eq!((opened.number(bytes), opened.writer.kept.next()), (5, next), "a deletion takes no number");
}

#[test]
fn what_is_archived_is_let_go_of_unless_it_is_back() {
    let (_path, mut opened) = new();
    let (a, b, c) = (id("a"), id("b"), id("c"));
    opened.commit(["a", "b", "c"].map(|name| (name, claim(3))));
    opened.commit(["a", "b", "c"].map(|name| (name, settle(None))));
    opened.archive(2);
    let mut batch = Batch::default();
    opened.writer.decide(&mut batch, &a, Change::BeginRevoke).unwrap();
    let ids = vec![a.clone(), b.clone(), c.clone()];
    assert!(!opened.writer.take(&mut batch, Request::Archived(ids)));
    opened.writer.commit(&mut batch);
    let holds = [&a, &b, &c].map(|id| opened.writer.kept.holds(id));
    assert_eq!(holds, [true, false, true], "one is back with this commit, one is in memory");
}

#[test]
fn what_is_archived_is_let_go_of_where_the_change_that_would_bring_it_back_is_not_written() {
    let (_path, mut opened) = new();
    opened.commit(["a", "b"].map(|name| (name, claim(3))));
    opened.commit(["a", "b"].map(|name| (name, settle(None))));
    let archived = opened.archive(1);
    let mut batch = Batch::default();
    opened.writer.decide(&mut batch, &id("a"), Change::BeginRevoke).unwrap();
    opened.writer.take(&mut batch, Request::Archived(archived));
    no_writes(&opened, true);
    opened.writer.commit(&mut batch);
    no_writes(&opened, false);
    assert!(!opened.writer.kept.holds(&id("a")) && opened.writer.kept.holds(&id("b")));

    let archived = opened.archive(1);
    opened.writer.take(&mut batch, Request::Archived(archived));
    opened.writer.commit(&mut batch);
    assert!(!opened.writer.kept.holds(&id("b")), "without a change beside it");
    opened.tidy_up();
    assert_eq!(opened.number("SELECT count(*) FROM journal"), 0);
}

#[test]
fn a_commit_carries_no_more_than_has_room_beside_it() {
    let (_path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5)), ("c", claim(3))]);
    let large = BATCH_BYTES_MAX / 2;
    opened.commit([("a", settle(None)), ("b", with_output(1, large)), ("c", with_output(1, large))]);
    opened.drop_details("a");
    // The batch in which they settled.
    let of_last = |opened: &Opened| opened.number("SELECT max(length(payload)) FROM journal WHERE batch > 2");
    opened.commit([("d", claim(0))]);
    assert_eq!(of_last(&opened), large + 5, "one of the two");
    opened.commit([("e", claim(0))]);
    assert_eq!(
        opened.number("SELECT length(payload) FROM journal WHERE batch = 5"),
        large + 3,
        "the other one"
    );
    opened.tidy_up();
    assert_eq!(payload(&opened), 2 * large + 8);
}

#[test]
fn a_task_is_carried_however_large_it_is() {
    let (_path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    opened.commit([("a", settle(None)), ("b", with_output(1, BATCH_BYTES_MAX + 1))]);
    opened.drop_details("a");
    opened.tidy_up();
    assert_eq!(payload(&opened), BATCH_BYTES_MAX + 6);
}

#[test]
fn a_disk_that_has_no_room_for_what_is_carried_takes_what_it_can() {
    let (_path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    opened.commit([("a", settle(None)), ("b", with_output(1, 4 << 20))]);
    let pages = opened.number("PRAGMA page_count");
    let pages_at_most = |opened: &Opened, pages: usize| {
        opened.writer.journal.connection().pragma_update(None, "max_page_count", pages).unwrap();
    };
    pages_at_most(&opened, pages + 100);
    opened.drop_details("a");
    let mut health = opened.health.subscribe();
    for name in ["c", "d", "e"] {
        assert_eq!(opened.answer(name, claim(3)).unwrap().state_name(), StateName::Working);
        opened.writer.tidy();
    }
    assert!(!health.has_changed().unwrap(), "{:?}", *health.borrow_and_update());
    assert_eq!(payload(&opened), 7 + 5 + (4 << 20) + 9);

    pages_at_most(&opened, 2 * pages);
    opened.writer.upkeep.paused_until = None;
    opened.tidy_up();
    assert_eq!(payload(&opened), 5 + (4 << 20) + 9, "it is done when there is room");
}

#[test]
fn a_batch_that_cannot_be_read_stays_and_keeps_nobody_from_writing() {
    let (_path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    let meddle = "UPDATE journal SET changes = '[' WHERE batch = 1";
    opened.writer.journal.connection().execute(meddle, []).unwrap();
    opened.commit([("a", settle(None))]);
    opened.drop_details("a");
    assert_eq!(opened.answer("c", claim(3)).unwrap().state_name(), StateName::Working);
    opened.tidy_up();
    assert_eq!(opened.number("SELECT count(*) FROM journal WHERE batch = 1"), 1);
    assert_eq!(*opened.health.borrow(), Health::Writable);
}

#[test]
fn nothing_is_carried_before_the_disk_takes_writes_again() {
    let (_path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    opened.commit([("a", settle(None))]);
    opened.drop_details("a");
    opened.health.send_replace(Health::Unavailable("full".to_owned()));
    opened.commit([("c", claim(3))]);
    assert_eq!((payload(&opened), &*opened.health.borrow()), (15, &Health::Writable), "alone");
    opened.health.send_replace(Health::Unavailable("full".to_owned()));
    opened.writer.tidy();
    assert_eq!((payload(&opened), &*opened.health.borrow()), (15, &Health::Writable), "it looks first");
    opened.tidy_up();
    assert_eq!(payload(&opened), 8);
}

/// One task drops what it has, beside another one that goes on needing the batches that they share.
fn assert_dropped(mut opened: Opened, path: &TempDir) {
    opened.drop_details("a");
    let copied = tempfile::tempdir().unwrap();
    Snapshot::open(path.path()).unwrap().copy_to(copied.path(), |_, _| {}).unwrap();
    opened.tidy_up();
    assert_eq!(payload(&opened), 5, "the input of b");
    let mut restarted = super::opened(copied.path(), 99);
    assert!(payload(&restarted) > 5, "it ended before it tidied up");
    restarted.tidy_up();
    assert_eq!(payload(&restarted), 5, "the input of b");
}

#[test]
fn what_is_dropped_leaves_the_journal_with_what_the_runs_before_have_left() {
    let (path, mut opened) = new();
    let Change::Settle { run, attempt, .. } = settle(Some(Failure::new(ErrorKind::Refused, "no"))) else {
        unreachable!()
    };
    let Change::Settle { output, .. } = with_output(1, 100) else { unreachable!() };
    let failed = Change::Settle { run, attempt, output, is_notice_due: false };
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    opened.commit([("a", failed), ("b", settle(None))]);
    opened.commit([("a", claim(9))]);
    opened.commit([("a", with_output(2, 1_000))]);
    assert_dropped(opened, &path);
}

#[test]
fn what_is_dropped_leaves_the_journal_where_another_record_of_it_is_the_last() {
    let (path, mut opened) = new();
    opened.commit([("a", claim(7))]);
    opened.commit([("a", with_output(1, 100)), ("b", claim(5))]);
    opened.commit([("a", Change::BeginRevoke)]);
    let revision = opened.table.get(&id("a")).unwrap().revision;
    let not_undone = Err(Failure::new(ErrorKind::Refused, "no"));
    opened.commit([("a", Change::EndRevoke { revision, result: not_undone })]);
    assert_dropped(opened, &path);
}

#[test]
fn what_is_dropped_leaves_the_journal_also_once_it_is_in_the_archive() {
    let (path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    opened.commit([("a", with_output(1, 100))]);
    let archived = opened.archive(1);
    let mut batch = Batch::default();
    opened.writer.take(&mut batch, Request::Archived(archived));
    opened.writer.commit(&mut batch);
    assert!(!opened.writer.kept.holds(&id("a")));
    assert_dropped(opened, &path);
}

#[test]
fn what_was_dropped_leaves_the_journal_also_where_the_archive_alone_says_so() {
    let (path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5))]);
    opened.commit([("a", with_output(1, 100)), ("b", settle(None))]);
    opened.drop_details("a");
    opened.commit([("b", Change::BeginRevoke)]);
    assert_eq!(opened.archive(1), [id("a")]);
    let of_drop = "DELETE FROM journal WHERE batch = 3";
    assert_eq!(opened.writer.journal.connection().execute(of_drop, []).unwrap(), 1);
    drop(opened);
    let mut restarted = super::opened(path.path(), 99);
    assert!(payload(&restarted) > 5);
    restarted.tidy_up();
    assert_eq!(payload(&restarted), 5);
}

#[test]
fn what_is_dropped_by_the_commit_that_brought_it_leaves_the_journal() {
    let (_path, mut opened) = new();
    opened.commit([("a", claim(7)), ("b", claim(5)), ("a", with_output(1, 100)), ("a", Change::Revoke)]);
    assert_eq!(payload(&opened), 112);
    opened.tidy_up();
    assert_eq!(payload(&opened), 5, "the input of b");
}

#[test]
fn what_drops_bytes_is_written_once() {
    let (path, mut opened) = new();
    opened.commit([("a", claim(7))]);
    opened.commit([("a", settle(None))]);
    opened.commit([("b", claim(5)), ("a", Change::Revoke)]);
    opened.tidy_up();
    assert_eq!((opened.writer.kept.next(), payload(&opened)), (4, 5));
    drop(opened);
    let restarted = super::opened(path.path(), 99);
    assert!(restarted.writer.kept.is_tidy(), "also at a start");
}
