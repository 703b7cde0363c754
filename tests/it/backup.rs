//! `backup`: a copy of a store that is written meanwhile opens as a store, and has lost nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use task_recorder::store::{EmbeddedStore, Filter, OpenError, Order, Snapshot, Store};
use task_recorder::task::StateName;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::crash::{Told, load};
use crate::http::config;
use crate::stores::{
    Kind, Moves as _, claim, id, in_states, launch, list_all, list_ids, open_embedded, query, run, settle,
    success,
};
use crate::support::program::{Ran, ended, ran, run as program_run};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::within;

async fn backup(data: &std::path::Path, target: &std::path::Path) -> Ran {
    let arguments = ["backup", "--store", data.to_str().unwrap(), target.to_str().unwrap()];
    program_run(&[], &arguments).await
}

#[tokio::test]
async fn a_copy_made_under_load_knows_every_success_that_was_seen_before() {
    let receiver = Receiver::start().await;
    let gate = Gate::new();
    let config = format!("{}\n[store]\nhot_tasks = 200\n", config(&receiver));
    let server = TestServer::start(&config);
    let (next, told) = (Arc::new(AtomicU64::new(0)), Arc::new(Told::default()));
    receiver.on("hangs", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    assert_eq!(server.client().post("/tasks/hangs", "").await.status, 202);
    let folders: Vec<_> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    let mut seen = Vec::new();
    load(&server, &next, &told, async || {
        for folder in &folders {
            receiver.wait_for(receiver.calls().len() + 500).await;
            let succeeded: BTreeSet<_> = told.succeeded.lock().unwrap().clone();
            let accepted: BTreeSet<_> = told.accepted.lock().unwrap().clone();
            let copied = backup(&server.data(), &folder.path().join("data")).await;
            assert_eq!(copied.code, Some(0), "{copied:?}");
            seen.push((succeeded, accepted));
        }
        // The load goes on behind the last copy.
        receiver.wait_for(receiver.calls().len() + 200).await;
    })
    .await;
    drop(server);

    for (folder, (succeeded, accepted)) in folders.into_iter().zip(seen) {
        assert!(succeeded.len() > 200, "{}", succeeded.len());
        std::fs::write(folder.path().join("config.toml"), &config).unwrap();
        let copy = TestServer::start_in(folder);
        let client = copy.client();
        for id in &accepted {
            let task = client.get(&format!("/tasks/{id}/status")).await.json();
            if succeeded.contains(id) {
                assert_eq!(task["state"], "success", "{id}: {task}");
                let again = client.post(&format!("/tasks/{id}"), "x").await.json();
                assert_eq!((&again["launched"], &again["reason"]), (&false.into(), &"success".into()));
            } else {
                // Under way when the copy was made.
                let is_interrupted = task["error"]["kind"] == "interrupted";
                assert!(task["state"] == "success" || is_interrupted, "{id}: {task}");
            }
        }
        let hangs = client.get("/tasks/hangs").await.json();
        assert_eq!((&hangs["state"], &hangs["error"]["kind"]), (&"failed".into(), &"interrupted".into()));
        assert_eq!(client.get("/stats").await.json()["tasks"]["working"], 0);
        eprintln!("{} successes were seen before the copy, all are in it", succeeded.len());
    }
    gate.open();
}

/// Everything is archived at once here, so that every copy meets tasks on their way from one file to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_copy_misses_what_is_on_its_way_to_the_archive() {
    let store = Kind::Tiny(0).open();
    let (shared, is_over) = (store.shared(), Arc::new(AtomicBool::new(false)));
    let last = Arc::new(AtomicU64::new(0));
    let mut working = {
        let (is_over, last) = (Arc::clone(&is_over), Arc::clone(&last));
        let mut working = JoinSet::new();
        working.spawn(async move {
            for n in 1.. {
                run(&*shared, &id(&format!("t-{n}")), success()).await;
                last.store(n, Ordering::Release);
                if is_over.load(Ordering::Acquire) {
                    return n;
                }
            }
            0
        });
        working
    };
    let folder = TempDir::new().unwrap();
    let mut copied = 0;
    for turn in 0..60 {
        let before = last.load(Ordering::Acquire);
        let target = folder.path().join(turn.to_string());
        let path = store.path().to_owned();
        let copy = target.clone();
        tokio::task::spawn_blocking(move || {
            Snapshot::open(&path).unwrap().copy_to(&copy, |_, _| {}).unwrap();
        })
        .await
        .unwrap();
        let copy = open_embedded(&target, &Kind::Tiny(0).options());
        let known = list_all(&copy, query(Filter::default(), Order::Ascending, 1_000)).await;
        let succeeded = known.iter().filter(|task| task.state_name() == StateName::Success).count() as u64;
        assert!(succeeded >= before, "{before} had succeeded, {succeeded} are in the copy");
        // Of one moment: what came later is there only with all that came before.
        let names: Vec<_> = known.iter().map(|task| task.id.to_string()).collect();
        let expected: Vec<_> = (1..=known.len()).map(|n| format!("t-{n}")).collect();
        assert_eq!(names, expected);
        assert!(known.len() as u64 - succeeded <= 1, "one at a time is working");
        copied = succeeded;
    }
    is_over.store(true, Ordering::Release);
    let all = within("the last run", working.join_next()).await.unwrap().unwrap();
    assert!(copied > 50 && copied < all, "{copied} of {all}");
}

#[tokio::test]
async fn a_copy_of_a_stopped_store_has_everything_and_goes_on_counting() {
    let store = Kind::Tiny(4).open();
    for n in 0..40 {
        run(&*store, &id(&format!("t-{n}")), success()).await;
    }
    store.revoke(&id("t-1")).await.unwrap();
    store.put_note("a/note", Some(b"kept".to_vec())).await.unwrap();
    store.at_rest().await;
    store.close().await;
    let folder = TempDir::new().unwrap();
    // An empty folder is as good as none.
    let copied = backup(store.path(), folder.path()).await;
    assert_eq!((copied.code, copied.out.as_str()), (Some(0), ""), "{copied:?}");
    let names: BTreeSet<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["archive.db".into(), "journal.db".into()]));

    let copy = open_embedded(folder.path(), &Kind::Tiny(4).options());
    let successes = query(in_states(&[StateName::Success]), Order::Ascending, 100);
    let again = store.reopen().await;
    assert_eq!(list_ids(&copy, successes.clone()).await, list_ids(&*again, successes).await);
    assert_eq!(copy.counts(), again.counts());
    assert_eq!(copy.notes("a/").await.unwrap(), [("a/note".to_owned(), b"kept".to_vec())]);
    assert_eq!(run(&copy, &id("t-1"), success()).await.run, 2, "the mark of the revoke is there");
}

#[tokio::test]
async fn a_copy_goes_nowhere_where_something_is_and_comes_from_nowhere_else_than_a_store() {
    let store = Kind::Embedded.open();
    run(&*store, &id("a"), success()).await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    let full = backup(store.path(), folder.path()).await;
    assert_eq!(full.code, Some(6), "{full:?}");
    assert!(full.err.contains("is not empty; a copy goes into a folder that is new or empty"), "{full:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("mine")).unwrap(), "mine");
    let itself = backup(store.path(), store.path()).await;
    assert_eq!(itself.code, Some(6), "{itself:?}");
    let file = backup(store.path(), &folder.path().join("mine").join("below")).await;
    assert_eq!(file.code, Some(6), "{file:?}");

    let target = folder.path().join("copy");
    let nothing = backup(folder.path(), &target).await;
    assert_eq!(nothing.code, Some(4), "{nothing:?}");
    assert!(nothing.err.contains("is no data folder"), "{nothing:?}");
    std::fs::copy(store.path().join("journal.db"), folder.path().join("journal.db")).unwrap();
    let half = backup(folder.path(), &target).await;
    assert_eq!(half.code, Some(4), "{half:?}");
    assert!(half.err.contains("has lost archive.db"), "{half:?}");
    let memory = program_run(&[], &["backup", "--store", "memory", target.to_str().unwrap()]).await;
    assert_eq!(memory.code, Some(2), "{memory:?}");
    assert!(!target.exists());
}

#[tokio::test]
async fn a_copy_that_cannot_be_written_is_taken_away_and_one_that_was_cut_off_is_no_store() {
    let store = Kind::Tiny(0).open();
    for n in 0..20 {
        let start = crate::stores::launch(vec![b'x'; 64 << 10]);
        let claim = crate::stores::claim(&*store, &id(&format!("t-{n}")), start).await;
        crate::stores::settle(&*store, claim, success()).await;
    }
    store.at_rest().await;
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("copy");
    // A limit that this process alone has stands for a disk that takes no more.
    let script = format!(
        "trap '' XFSZ; ulimit -f 200; exec {} backup --store {} {}",
        env!("CARGO_BIN_EXE_task-recorder"),
        store.path().display(),
        target.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env_clear();
    let output = ran(within("the copy", command.output()).await.unwrap());
    assert_eq!(output.code, Some(6), "{output:?}");
    assert!(output.err.contains("archive.db cannot be written: "), "{output:?}");
    assert!(!target.exists(), "what was begun is taken away");

    let copied = backup(store.path(), &target).await;
    assert_eq!(copied.code, Some(0), "{copied:?}");
    // What kill -9 leaves: the archive, and a journal that has no name yet.
    std::fs::rename(target.join("journal.db"), target.join("journal.db.part")).unwrap();
    let refused = EmbeddedStore::open(&target, &Kind::Embedded.options()).unwrap_err();
    assert!(matches!(refused, OpenError::Incomplete { missing: "journal.db", .. }), "{refused}");
    std::fs::rename(target.join("journal.db.part"), target.join("journal.db")).unwrap();
    let arguments = ["export", "--store", target.to_str().unwrap()];
    let exported = ended(crate::support::program::program(&[], &arguments)).await;
    assert_eq!(exported.lines().len(), 20, "{}", exported.err);
}

#[tokio::test]
async fn a_copy_tells_how_many_bytes_there_are_and_how_many_it_has() {
    let store = Kind::Tiny(4).open();
    for n in 0..12 {
        let claim = claim(&*store, &id(&format!("t-{n}")), launch(vec![b'x'; 1 << 20])).await;
        settle(&*store, claim, success()).await;
    }
    store.at_rest().await;
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("copy");
    let mut told = Vec::new();
    Snapshot::open(store.path()).unwrap().copy_to(&target, |copied, all| told.push((copied, all))).unwrap();
    let size = |name: &str| std::fs::metadata(target.join(name)).unwrap().len();
    let all = size("journal.db") + size("archive.db");
    assert!(told.len() > 2 && told.is_sorted(), "{told:?}");
    for (copied, of) in told {
        assert!(of == all && copied > 0 && copied < all, "{copied} of {of}, and {all} are there");
    }
}
