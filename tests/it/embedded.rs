//! The store in two SQLite files: what is on disk after a close, a drop, a crash, and what it says when it cannot open.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rusqlite::Connection;
use task_recorder::recorder::{Launch, Recorder};
use task_recorder::store::{
    EmbeddedOptions, EmbeddedStore, Filter, Health, OpenError, Order, StateCounts, Store,
};
use task_recorder::task::{Change, ErrorKind, Refusal, State, StateName, Task, TaskId};

use crate::stores::{
    Kind, Moves as _, RETRY, assert_counts_agree, attempt, claim, done, failure, id, in_states, launch,
    list_all, list_ids, not_started, number, open_embedded, open_to_read, query, run, settle, started,
    success,
};
use crate::support::{until, within};

/// With these set, the test of the name is the child of another one.
const FOLDER: &str = "TASK_RECORDER_TEST_FOLDER";
const HOT_TASKS: &str = "TASK_RECORDER_TEST_HOT_TASKS";
/// How many ids each of the child's workers has, and how many workers there are.
const IDS: usize = 25;
const WORKERS: usize = 8;

fn open(path: &Path) -> EmbeddedStore {
    open_embedded(path, &EmbeddedOptions::default())
}

fn refused_to_open(path: &Path) -> OpenError {
    EmbeddedStore::open(path, &EmbeddedOptions::default()).unwrap_err()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_close_and_after_a_drop() {
    for is_closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let settled = run(&store, &id("settled"), success()).await;
        let working = Arc::clone(claim(&store, &id("working"), launch("in")).await.task());
        if is_closed {
            store.close().await;
        }
        drop(store);
        // SQLite removes it with the last connection.
        assert!(!folder.path().join("journal.db-wal").exists(), "its writer goes with it");
        let store = open(folder.path());
        assert_eq!(store.get(&id("settled")).await.unwrap(), Some(settled));
        assert_eq!(store.get(&id("working")).await.unwrap(), Some(working));
        assert_eq!(store.recover().await.unwrap().claims.len(), 1);
    }
}

#[tokio::test]
async fn numbers_and_places_never_go_back() {
    for kind in [Kind::Embedded, Kind::Tiny(0)] {
        let mut store = kind.open();
        let mut last = 0;
        for turn in 0..5 {
            let revoked = run(&*store, &id("again"), success()).await;
            assert!(revoked.entered > last, "{} after {last}", revoked.entered);
            assert_eq!(revoked.run, turn + 1);
            let now = done(store.revoke(&id("again")).await.unwrap());
            assert_eq!((now.revision, now.revoked), (u64::from(turn + 1) * 3, turn + 1));
            last = now.entered;
            store.at_rest().await;
            store = store.reopen().await;
        }
    }
}

#[tokio::test]
async fn an_archived_success_refuses_a_launch_and_an_archived_failure_is_relaunched() {
    let store = Kind::Tiny(0).open();
    run(&*store, &id("succeeded"), success()).await;
    run(&*store, &id("failed"), failure(ErrorKind::Error)).await;
    store.at_rest().await;
    let store = store.reopen().await;
    let answer = store.claim(&id("succeeded"), launch("in")).await.unwrap();
    assert_eq!(not_started(answer).reason, Refusal::Success);

    let claim = started(store.claim(&id("failed"), RETRY).await.unwrap());
    assert_eq!((claim.task().run, &claim.task().input.bytes[..]), (2, &b"in"[..]));
    // The archive still has the older record, which nobody may see.
    let store = store.reopen().await;
    assert_eq!(list_ids(&*store, query(in_states(&[StateName::Failed]), Order::Ascending, 9)).await, [""; 0]);
    assert_eq!(
        list_ids(&*store, query(Filter::default(), Order::Descending, 9)).await,
        ["failed", "succeeded"]
    );
    assert_eq!(store.get(&id("failed")).await.unwrap().as_ref(), Some(claim.task()));
    assert_eq!(assert_counts_agree(&*store).await, StateCounts { working: 1, success: 1, failed: 0 });
}

#[tokio::test]
async fn counts_are_exact_after_a_reopen() {
    for is_archived in [false, true] {
        let mut store = Kind::Tiny(8).open();
        for turn in 0..6 {
            for n in 0..30 {
                let task = id(&format!("t{n}"));
                match (n * 7 + turn * 3) % 11 {
                    0 => drop(claim_if_free(&*store, &task).await),
                    1..4 => settle_if_free(&*store, &task, true).await,
                    4..8 => settle_if_free(&*store, &task, false).await,
                    8 => drop(store.forget(&task).await.unwrap()),
                    _ => drop(store.revoke(&task).await.unwrap()),
                }
            }
            if is_archived {
                store.at_rest().await;
            }
            let before = assert_counts_agree(&*store).await;
            store = store.reopen().await;
            assert_eq!(assert_counts_agree(&*store).await, before);
        }
    }
}

async fn claim_if_free(store: &dyn Store, task: &TaskId) -> Option<task_recorder::store::Claim> {
    match store.claim(task, launch(task.to_string())).await.unwrap() {
        task_recorder::store::Claimed::Started(claim) => Some(claim),
        task_recorder::store::Claimed::Refused(_) => None,
    }
}

async fn settle_if_free(store: &dyn Store, task: &TaskId, is_success: bool) {
    if let Some(claim) = claim_if_free(store, task).await {
        settle(store, claim, if is_success { success() } else { failure(ErrorKind::Error) }).await;
    }
}

#[tokio::test]
async fn the_journal_holds_only_what_is_hot() {
    for (hot_tasks, with_input) in [(0, true), (40, true), (40, false)] {
        let store = Kind::Hot(hot_tasks).open();
        for n in 0..300 {
            let input = if with_input { "in" } else { "" };
            let claim = claim(&*store, &id(&format!("t{n}")), launch(input)).await;
            settle(&*store, claim, if n % 2 == 0 { success() } else { failure(ErrorKind::Error) }).await;
        }
        let working = claim(&*store, &id("working"), launch("in")).await;
        store.at_rest().await;
        let journal = open_to_read(&store.path().join("journal.db"));
        let rows = || number(&journal, "SELECT count(*) FROM changes");
        // Two rows for each settled task that is hot, one for the working one; a batch may be due.
        let most = 2 * (hot_tasks + (hot_tasks / 8).max(1)) + 1;
        until("the journal has let go of what is archived", || (1..=most).contains(&rows())).await;
        let archive = open_to_read(&store.path().join("archive.db"));
        let archived = number(&archive, "SELECT count(*) FROM tasks");
        assert!(archived >= 300 - hot_tasks - hot_tasks / 8, "{archived} archived");
        drop(working);
    }
}

#[tokio::test]
async fn any_sqlite_tool_reads_the_files() {
    let store = Kind::Tiny(0).open();
    let settled = run(&*store, &id("settled"), failure(ErrorKind::Timeout)).await;
    let working = claim(&*store, &id("working"), launch("hello")).await;
    let journal = open_to_read(&store.path().join("journal.db"));
    until("only the working one is in the journal", || number(&journal, "SELECT count(*) FROM changes") == 1)
        .await;
    drop(journal);
    // While it is open, and afterwards.
    for is_closed in [false, true] {
        if is_closed {
            store.close().await;
        }
        for (file, table, task) in
            [("archive.db", "tasks", &settled), ("journal.db", "changes", working.task())]
        {
            let database = open_to_read(&store.path().join(file));
            let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok", "{file}");
            assert_eq!(number(&database, "PRAGMA application_id"), 0x7461_736b, "{file}");
            assert_eq!(number(&database, "PRAGMA user_version"), 3, "{file}");
            assert_eq!(columns(&database, table), columns_of(task), "{file}");
        }
    }
}

/// The documented columns of the only row.
fn columns(database: &Connection, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT id, handler, run, revision, revoked, state, entered, since, cast(input AS text), \
         coalesce(detail ->> '$.failure.kind', '') FROM {table}"
    );
    // The bytes of a commit are one behind the other; this one has only one input.
    let sql = match table {
        "changes" => sql.replace("cast(input AS text)", "(SELECT cast(payload AS text) FROM journal)"),
        _ => sql,
    };
    let value = |row: &rusqlite::Row<'_>, column| match row.get_ref(column)? {
        rusqlite::types::ValueRef::Integer(number) => Ok(number.to_string()),
        other => Ok::<_, rusqlite::Error>(other.as_str()?.to_owned()),
    };
    database.query_one(&sql, [], |row| (0..10).map(|column| value(row, column)).collect()).unwrap()
}

fn columns_of(task: &Task) -> Vec<String> {
    vec![
        task.id.to_string(),
        task.handler.to_string(),
        task.run.to_string(),
        task.revision.to_string(),
        task.revoked.to_string(),
        task.state_name().as_str().to_owned(),
        task.entered.to_string(),
        task.since.as_microsecond().to_string(),
        String::from_utf8(task.input.bytes.to_vec()).unwrap(),
        task.failure().map_or("", |failure| failure.kind.as_str()).to_owned(),
    ]
}

#[tokio::test]
async fn a_folder_in_use_names_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    run(&store, &id("a"), success()).await;
    let error = refused_to_open(folder.path());
    let pid = std::process::id();
    assert!(
        matches!(&error, OpenError::InUse { holder, path } if *holder == format!("process {pid}")
            && *path == *folder.path()),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("in use by process {pid}")), "{error}");
    run(&store, &id("b"), success()).await;
    store.close().await;
    assert_eq!(assert_counts_agree(&open(folder.path())).await.success, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_closes_it_finds_it_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()));
    let writes = (0..2_000).map(|n| {
        let store = Arc::clone(&store);
        async move { store.claim(&id(&format!("t{n}")), launch(vec![0; 1_000])).await.map(drop) }
    });
    let mut all = tokio::task::JoinSet::new();
    for write in writes {
        all.spawn(write);
    }
    let mut closes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, path) = (Arc::clone(&store), folder.path().to_owned());
        closes.spawn(async move {
            store.close().await;
            // SQLite removes it with the last connection.
            path.join("journal.db-wal").exists()
        });
    }
    for is_in_use in closes.join_all().await {
        assert!(!is_in_use, "a close has returned while the folder was still in use");
    }
    all.join_all().await;
}

#[test]
fn a_close_does_not_wait_for_what_blocks_the_threads_of_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(folder.path());
        let (free, held) = std::sync::mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || held.recv()));
        within("the close", store.close()).await;
        assert!(!folder.path().join("journal.db-wal").exists(), "it is still open");
        drop(free);
    });
}

/// Its answers go through the runtime that it was opened in, while there is one.
#[test]
fn a_store_outlives_the_runtime_that_it_was_opened_in() {
    let folder = tempfile::tempdir().unwrap();
    let begin =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = begin();
    let store = first.block_on(async { open(folder.path()) });
    first.block_on(run(&store, &id("a"), success()));
    drop(first);
    begin().block_on(within("an answer", run(&store, &id("b"), success())));
    drop(store);
    // Opened outside of any.
    let store = open(folder.path());
    begin().block_on(within("an answer", run(&store, &id("c"), success())));
    assert_eq!(store.counts().total().success, 3);
}

#[test]
fn a_file_is_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "something").unwrap();
    let error = refused_to_open(&path);
    assert!(matches!(&error, OpenError::NotUsable { path: found, .. } if *found == path), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"something");
}

#[tokio::test]
async fn another_format_is_left_alone() {
    for file in ["journal.db", "archive.db"] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        run(&store, &id("a"), success()).await;
        drop(store);
        let path = folder.path().join(file);
        let set_format = |format: i64| {
            Connection::open(&path).unwrap().pragma_update(None, "user_version", format).unwrap();
        };
        set_format(99);
        let error = refused_to_open(folder.path());
        assert!(
            matches!(&error, OpenError::Format { path: found, found: 99, known: 3 } if *found == path),
            "{error}"
        );
        set_format(3);
        assert!(open(folder.path()).get(&id("a")).await.unwrap().is_some());
    }
}

#[test]
fn garbage_is_left_alone() {
    for file in ["journal.db", "archive.db"] {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        let path = folder.path().join(file);
        let garbage = vec![b'x'; 8_192];
        std::fs::write(&path, &garbage).unwrap();
        let error = refused_to_open(folder.path());
        assert!(matches!(&error, OpenError::Database { path: found, .. } if *found == path), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
}

/// A crash between two commits that trim the journal leaves any part of the rows that nobody needs.
#[tokio::test]
async fn it_opens_with_any_part_of_the_rows_that_nobody_needs() {
    for left_over in ["seq IN (1, 2)", "seq = 2", "0"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let old = folder.path().join("old.db");
        // Rows 1 and 2, and the archive has the task.
        let store = open(&path);
        run(&store, &id("failed"), failure(ErrorKind::Error)).await;
        drop(store);
        std::fs::copy(path.join("journal.db"), &old).unwrap();
        let options = Kind::Tiny(0).options();
        let store = open_embedded(&path, &options);
        run(&store, &id("other"), success()).await;
        let archive = open_to_read(&path.join("archive.db"));
        until("both are archived", || number(&archive, "SELECT count(*) FROM tasks") == 2).await;
        drop((store, archive));

        let expect = async |counts| {
            let journal = Connection::open(path.join("journal.db")).unwrap();
            journal.execute_batch("DELETE FROM journal WHERE seq < 5").unwrap();
            journal.execute("ATTACH ? AS old", [old.to_str().unwrap()]).unwrap();
            let put_back = format!("INSERT INTO journal SELECT * FROM old.journal WHERE {left_over}");
            journal.execute_batch(&put_back).unwrap();
            drop(journal);
            let store = open(&path);
            assert_eq!(assert_counts_agree(&store).await, counts, "{left_over}");
            store
        };
        let store = expect(StateCounts { working: 0, success: 1, failed: 1 }).await;
        // A third row, which stands for itself.
        let _working = claim(&store, &id("failed"), RETRY).await;
        drop(store);
        let store = expect(StateCounts { working: 1, success: 1, failed: 0 }).await;
        assert_eq!(store.get(&id("failed")).await.unwrap().unwrap().input.bytes, "in");
    }
}

/// The record is in memory again, but its input is only in the archive, and the rows before it are dead or will be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_an_archived_record_is_there_after_a_reopen() {
    let store = Kind::Hot(0).open();
    let mut walkers = tokio::task::JoinSet::new();
    for walker in 0..64 {
        let store = store.shared();
        walkers.spawn(async move {
            for n in 0..30 {
                let task = id(&format!("t{walker}-{n}"));
                run(&*store, &task, success()).await;
                for _ in 0..n % 5 {
                    tokio::task::yield_now().await;
                }
                done(store.change(&task, Change::BeginRevoke).await.unwrap());
            }
        });
    }
    walkers.join_all().await;
    let store = store.reopen().await;
    assert_eq!(store.recover().await.unwrap().revoking.len(), 64 * 30);
    for walker in 0..64 {
        for n in 0..30 {
            let task = store.get(&id(&format!("t{walker}-{n}"))).await.unwrap().unwrap();
            assert!(task.is_revoking() && task.input.bytes == "in", "{task:?}");
        }
    }
}

/// Takes five seconds, because that is how long a commit waits for another tool's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_written_is_written_later() {
    let store = Kind::Embedded.open();
    let recorder = Recorder::new(store.shared());
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let launched = recorder.launch(id("kept"), async { finished.await.map_err(|error| error.to_string()) });
    assert!(matches!(launched.await.unwrap(), Launch::Started(_)));
    let tool = Connection::open(store.path().join("journal.db")).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    finish.send(()).unwrap();
    let mut health = recorder.health();
    within("the store says so", health.wait_for(|health| matches!(health, Health::Unavailable(_))))
        .await
        .unwrap();
    until("the outcome waits", || recorder.figures().unsettled == 1).await;
    assert!(recorder.status(&id("kept")).await.unwrap().unwrap().is_working());
    tool.execute_batch("ROLLBACK").unwrap();
    let task = recorder.wait(&id("kept"), std::time::Duration::from_secs(30)).await.unwrap().unwrap();
    assert!(matches!(task.state, State::Success { .. }), "{task:?}");
    until("nothing waits", || recorder.figures().unsettled == 0).await;
    assert_eq!(*health.borrow_and_update(), Health::Writable);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    killed_again_and_again(EmbeddedOptions::default().hot_tasks).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill_while_the_archive_is_written() {
    killed_again_and_again(0).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill_while_batches_are_archived() {
    killed_again_and_again(40).await;
}

/// What the child has said of an id.
#[derive(Debug, Clone, Default)]
struct Said {
    /// The state and revision that it was told of; none for an id that was never written.
    acknowledged: Option<(String, u64)>,
    /// Whether it has begun something that it was not told the end of.
    is_under_way: bool,
}

/// Kills a process that writes, at 20 moments, and looks at what it left.
async fn killed_again_and_again(hot_tasks: usize) {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { hot_tasks, ..EmbeddedOptions::default() };
    let mut said = HashMap::<String, Said>::new();
    let mut last_place = 0;
    for round in 0..20 {
        let lines = 1 + (round * 97) % 400;
        last_place = last_place.max(write_until_killed(folder.path(), hot_tasks, lines, &mut said));

        let store = Arc::new(open_embedded(folder.path(), &options));
        compare(&*store, &said).await;
        let before = assert_counts_agree(&*store).await;
        let working = list_all(&*store, query(in_states(&[StateName::Working]), Order::Ascending, 100)).await;
        let recorder = Recorder::new(Arc::clone(&store) as Arc<dyn Store>);
        assert_eq!(recorder.recover().await.unwrap().interrupted, working.len());
        let after = assert_counts_agree(&*store).await;
        assert_eq!((after.working, after.failed), (0, before.failed + before.working));
        for task in working {
            let now = store.get(&task.id).await.unwrap().unwrap();
            let failure = now.failure().unwrap();
            assert_eq!((failure.kind, failure.in_doubt, now.run), (ErrorKind::Interrupted, true, task.run));
        }
        for (name, said) in &mut said {
            let task = store.get(&id(name)).await.unwrap();
            *said = Said { acknowledged: said_of(task.as_deref(), said), is_under_way: false };
        }
        let probe = run(&*store, &id(&format!("probe-{round}")), success()).await;
        assert!(probe.entered > last_place, "place {} after {last_place}", probe.entered);
        store.close().await;
    }
}

/// What stands now, in the words of the child.
fn said_of(task: Option<&Task>, before: &Said) -> Option<(String, u64)> {
    match task {
        Some(task) => Some((task.state_name().as_str().to_owned(), task.revision)),
        // The revision of what is not found cannot be seen; it is at least the last one.
        None => before.acknowledged.as_ref().map(|(_, revision)| ("not_found".to_owned(), *revision)),
    }
}

/// Every acknowledged change is there, and nothing but what was under way is there besides.
async fn compare(store: &dyn Store, said: &HashMap<String, Said>) {
    for (name, said) in said {
        let task = store.get(&id(name)).await.unwrap();
        let Some((state, revision)) = &said.acknowledged else {
            let is_first = task.as_ref().is_none_or(|task| said.is_under_way && task.revision == 1);
            assert!(is_first, "{name}: {task:?}");
            continue;
        };
        match &task {
            Some(task) => {
                let is_acknowledged =
                    task.revision == *revision && task.state_name().as_str() == state.as_str();
                let is_next = said.is_under_way && task.revision > *revision;
                assert!(is_acknowledged || is_next, "{name} {said:?}: {task:?}");
                assert_eq!(task.input.bytes, input_of(name), "{name}");
            }
            None => assert!(said.is_under_way || state == "not_found", "{name} {said:?} is not found"),
        }
    }
    let listed = list_all(store, query(Filter::default(), Order::Ascending, 7)).await;
    let mut ids: Vec<_> = listed.iter().map(|task| &task.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), listed.len(), "no id is listed twice");
}

/// Starts a child that writes, and kills it after so many acknowledged changes. Returns the last place it told of.
fn write_until_killed(
    folder: &Path,
    hot_tasks: usize,
    lines: usize,
    said: &mut HashMap<String, Said>,
) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(HOT_TASKS, hot_tasks.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut acknowledged, mut last_place) = (String::new(), 0, 0);
    loop {
        line.clear();
        let is_whole = output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n');
        if !is_whole {
            break;
        }
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["begin", name] => said.entry(name.to_owned()).or_default().is_under_way = true,
            ["done", name, state, revision, place] => {
                let acknowledged_now = Some((state.to_owned(), revision.parse().unwrap()));
                *said.get_mut(name).unwrap() = Said { acknowledged: acknowledged_now, is_under_way: false };
                last_place = last_place.max(place.parse().unwrap());
                acknowledged += 1;
                if acknowledged == lines {
                    child.kill().unwrap();
                }
            }
            _ => {}
        }
    }
    child.wait().unwrap();
    assert!(acknowledged >= lines, "the child ended by itself after {acknowledged} changes");
    last_place
}

/// Some inputs are empty, because their rows stand for themselves.
fn input_of(name: &str) -> Bytes {
    if name.ends_with(['0', '3', '6']) { Bytes::new() } else { Bytes::from(name.repeat(20)) }
}

/// Not a test by itself: what [`write_until_killed`] starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let (Some(folder), Ok(hot_tasks)) = (std::env::var_os(FOLDER), std::env::var(HOT_TASKS)) else { return };
    let options = EmbeddedOptions { hot_tasks: hot_tasks.parse().unwrap(), ..EmbeddedOptions::default() };
    let store = open_embedded(Path::new(&folder), &options);
    join_all((0..WORKERS).map(|worker| write_for_ever(&store, worker))).await;
}

async fn write_for_ever(store: &dyn Store, worker: usize) {
    let say = |line: String| std::io::stdout().write_all(line.as_bytes()).unwrap();
    let done = |task: &Task| {
        let state = task.state_name().as_str();
        say(format!("done {} {state} {} {}\n", task.id, task.revision, task.entered));
    };
    for turn in 0_usize.. {
        let task = id(&format!("w{worker}-{}", turn * 7 % IDS));
        let now = store.get(&task).await.unwrap();
        say(format!("begin {task}\n"));
        match now.as_deref().map(Task::state_name) {
            Some(StateName::Success) => done(&crate::stores::done(store.revoke(&task).await.unwrap())),
            Some(StateName::Failed) if turn % 4 == 0 => {
                done(&crate::stores::done(store.forget(&task).await.unwrap()));
            }
            Some(StateName::Working) => {
                let claims = store.recover().await.unwrap().claims;
                let claim = claims.into_iter().find(|claim| claim.task().id == task).unwrap();
                done(&*settle(store, claim, success()).await);
            }
            Some(StateName::Failed | StateName::Absent) | None => {
                let claim = claim(store, &task, launch(input_of(task.as_str()))).await;
                done(claim.task());
                if turn % 5 == 0 {
                    continue;
                }
                say(format!("begin {task}\n"));
                let outcome = if turn % 3 == 0 { failure(ErrorKind::Error) } else { success() };
                let answer = store.settle(claim, attempt(0, &outcome), None).await.unwrap();
                done(&crate::stores::done(answer));
            }
        }
    }
}

#[tokio::test]
async fn a_folder_that_has_lost_a_file_does_not_open() {
    let refused = |path: &Path| match EmbeddedStore::open(path, &EmbeddedOptions::default()) {
        Err(error @ OpenError::Incomplete { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for missing in ["journal.db", "archive.db"] {
        let folder = tempfile::tempdir().unwrap();
        let store = open_embedded(folder.path(), &EmbeddedOptions::default());
        let _ = store.claim(&id("t"), launch("in")).await.unwrap();
        store.close().await;
        let file = folder.path().join(missing);
        // What a copy leaves that had no room.
        std::fs::write(&file, "").unwrap();
        assert!(refused(folder.path()).contains(missing));
        std::fs::remove_file(&file).unwrap();
        assert!(refused(folder.path()).contains(missing));
    }
}
