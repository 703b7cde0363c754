//! The index of the archive's ids: whatever becomes of it, an id that succeeded is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use task_recorder::store::{EmbeddedOptions, EmbeddedStore, Store};
use task_recorder::task::{ErrorKind, Refusal};
use tokio::task::JoinSet;

use crate::stores::{claim, failure, id, launch, number, open_embedded, open_to_read, run, success};
use crate::support::until;

const IDS: usize = 400;

fn options() -> EmbeddedOptions {
    EmbeddedOptions { hot_tasks: 0, recent_ids: 10, ..EmbeddedOptions::default() }
}

fn open(path: &Path) -> EmbeddedStore {
    open_embedded(path, &options())
}

/// A folder with so many successes and a failure, all of them archived.
async fn filled(path: &Path) {
    let store = open(path);
    for number in 0..IDS {
        run(&store, &id(&format!("t{number}")), success()).await;
    }
    run(&store, &id("failed"), failure(ErrorKind::Error)).await;
    let archive = open_to_read(&path.join("archive.db"));
    until("all are archived", || number(&archive, "SELECT count(*) FROM tasks") == IDS + 1).await;
    store.close().await;
}

/// Every success is found and refused again, the failure runs again, and an unknown id is unknown.
async fn assert_whole(store: &EmbeddedStore) {
    for number in 0..IDS {
        let id = id(&format!("t{number}"));
        let refused = store.claim(&id, launch("again")).await.unwrap();
        assert!(
            matches!(&refused, task_recorder::store::Claimed::Refused(refused) if refused.reason == Refusal::Success),
            "{id}: {refused:?}"
        );
    }
    assert!(store.get(&id("unknown")).await.unwrap().is_none());
    assert_eq!(store.get(&id("failed")).await.unwrap().unwrap().run, 1);
    drop(claim(store, &id("failed"), launch("again")).await);
    assert_eq!(store.get(&id("failed")).await.unwrap().unwrap().run, 2);
}

fn runs(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path.join("ids")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn ids_are_found_in_runs_that_were_merged() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let archive = open_to_read(&folder.path().join("archive.db"));
    assert!(number(&archive, "SELECT max(level) FROM runs") >= 2, "runs were merged, and merged again");
    assert_eq!(
        runs(folder.path()).len(),
        number(&archive, "SELECT count(*) FROM runs"),
        "no file is left over"
    );
    assert!(number(&archive, "SELECT indexed_to FROM progress") > 0);
    assert_whole(&open(folder.path())).await;
}

#[tokio::test]
async fn an_index_that_is_gone_or_damaged_is_made_anew() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("the folder is gone", |path| fs::remove_dir_all(path.join("ids")).unwrap()),
        ("a file is gone", |path| fs::remove_file(&runs(path)[0]).unwrap()),
        ("a byte has changed", |path| {
            let file = &runs(path)[0];
            let mut bytes = fs::read(file).unwrap();
            bytes[3] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("a file is cut off", |path| {
            let file = &runs(path)[0];
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() - 16]).unwrap();
        }),
        ("a file has more behind its end", |path| {
            let file = &runs(path)[0];
            let bytes = fs::read(file).unwrap();
            fs::write(file, [bytes.as_slice(), b"more"].concat()).unwrap();
        }),
        ("a file is empty", |path| fs::write(&runs(path)[0], "").unwrap()),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await;
        damage(folder.path());
        let store = open(folder.path());
        assert_whole(&store).await;
        drop(store);
        let sizes = runs(folder.path()).into_iter().map(|run| fs::metadata(run).unwrap().len());
        let sizes: Vec<_> = sizes.collect();
        assert!(!sizes.is_empty(), "{what}: there are runs again");
        assert!(sizes.iter().all(|bytes| bytes % 16 == 0), "{what}: {sizes:?} bytes");
        assert_whole_but_failed(&open(folder.path()), what).await;
    }
}

async fn assert_whole_but_failed(store: &EmbeddedStore, what: &str) {
    for number in 0..IDS {
        let found = store.get(&id(&format!("t{number}"))).await.unwrap();
        assert!(found.is_some(), "{what}: t{number}");
    }
}

/// What a crash between the files and the archive leaves: a run that the archive does not name.
#[tokio::test]
async fn a_run_that_never_held_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let stranger = folder.path().join("ids/00009999.ids");
    fs::copy(&runs(folder.path())[0], &stranger).unwrap();
    assert_whole(&open(folder.path())).await;
    assert!(!stranger.exists());
}

/// A crash loses the part of the index that is in memory.
#[tokio::test]
async fn what_no_run_holds_yet_is_found_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { hot_tasks: 0, ..EmbeddedOptions::default() };
    let store = open_embedded(folder.path(), &options);
    run(&store, &id("a"), success()).await;
    let archive = open_to_read(&folder.path().join("archive.db"));
    until("it is archived", || number(&archive, "SELECT count(*) FROM tasks") == 1).await;
    drop(store);
    assert!(runs(folder.path()).is_empty());
    let store = open_embedded(folder.path(), &options);
    assert!(store.get(&id("a")).await.unwrap().is_some());
}

/// Its old row goes with each new one, so that a list shows it once and counts agree; the index forgets old places.
#[tokio::test]
async fn an_id_that_comes_back_again_and_again_has_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for round in 1..=60 {
        run(&store, &id("a"), failure(ErrorKind::Error)).await;
        run(&store, &id(&format!("other{round}")), success()).await;
        let archive = open_to_read(&folder.path().join("archive.db"));
        until("both are archived", || number(&archive, "SELECT count(*) FROM tasks") == round + 1).await;
    }
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.get(&id("a")).await.unwrap().unwrap().run, 60);
    assert_eq!(store.counts().total().failed, 1);
    let entries: u64 = runs(folder.path()).iter().map(|run| fs::metadata(run).unwrap().len() / 16 - 1).sum();
    assert!(entries < 110, "{entries} entries for 61 rows, of 120 that were written");
}

/// Each batch that a long run needs holds many records that nobody needs; they do not stay for its sake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_runs_do_not_keep_the_journal_from_shrinking() {
    const OTHERS: usize = 10_000;
    const LONG: usize = 500;
    const HOT: usize = 800;
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open_embedded(folder.path(), &EmbeddedOptions::default()));
    let mut all = JoinSet::new();
    for client in 0..128 {
        let store = Arc::clone(&store);
        all.spawn(async move {
            for number in (client..OTHERS).step_by(128) {
                run(&*store, &id(&format!("t{number}")), success()).await;
                if number % (OTHERS / LONG) == 0 {
                    drop(claim(&*store, &id(&format!("long{number}")), launch("its input")).await);
                }
            }
        });
    }
    all.join_all().await;
    drop(store);

    let small = EmbeddedOptions { hot_tasks: HOT, ..EmbeddedOptions::default() };
    let store = open_embedded(folder.path(), &small);
    let journal = open_to_read(&folder.path().join("journal.db"));
    let records = || number(&journal, "SELECT count(*) FROM changes");
    assert!(records() > 2 * OTHERS);
    run(&store, &id("next"), success()).await;
    until("the journal has shrunk", || records() <= 4 * (LONG + HOT + HOT / 8) + 5_000).await;
    drop(store);
    let store = open_embedded(folder.path(), &small);
    let counts = store.counts().total();
    assert_eq!((counts.working, counts.success), (LONG as u64, OTHERS as u64 + 1));
    for number in (0..OTHERS).step_by(OTHERS / LONG) {
        let long = store.get(&id(&format!("long{number}"))).await.unwrap().unwrap();
        assert!(long.is_working() && long.input.bytes == "its input");
    }
}
