//! `export` and `import`: the same records, and the same rule.

use std::io::Cursor;

use bytes::Bytes;
use jiff::Timestamp;
use task_recorder::store::{Filter, Order, Snapshot, Store};
use task_recorder::task::{
    Attempt, Change, Digest, ErrorKind, Failure, Input, Outcome, Refusal, Request, Start, StartKind,
};
use task_recorder::transfer::{Imported, export, import};
use tempfile::TempDir;

use crate::http::config;
use crate::stores::{
    Kind, Moves as _, RETRY, TestStore, attempt, claim, done, failure, handler, id, launch, list_ids,
    not_started, output, query, run, settle, started, success,
};
use crate::support::program::{ask, ask_with, program, run as program_run};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::server::TestServer;
use crate::support::within;

fn exported(store: &TestStore) -> String {
    let mut text = Vec::new();
    let count = export(&Snapshot::open(store.path()).unwrap(), &mut text, |_| {}).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count() as u64, count);
    text
}

async fn imported(store: &dyn Store, lines: &str) -> Imported {
    import(store, &mut Cursor::new(lines), |_| {}).await.unwrap()
}

async fn settle_with(store: &dyn Store, name: &str, bytes: &'static [u8], outcome: Outcome) {
    let claim = claim(store, &id(name), launch(bytes)).await;
    let attempt = Attempt { answer: Some("a\nword".to_owned()), ..attempt(claim.task().run, &outcome) };
    store.settle(claim, attempt, Some(output(bytes))).await.unwrap();
}

/// A task in each state and phase, with all that a record can hold.
async fn fill(store: &dyn Store) {
    settle_with(store, "text", "two äpples\n\"".as_bytes(), success()).await;
    settle_with(store, "binary", b"\x00\xff\xfe", failure(ErrorKind::Status)).await;
    run(store, &id("revoked"), success()).await;
    done(store.revoke(&id("revoked")).await.unwrap());
    run(store, &id("forgotten"), failure(ErrorKind::Timeout)).await;
    done(store.forget(&id("forgotten")).await.unwrap());
    let request = Request {
        key: Some(Digest::of(b"key")),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap()),
        ..Request::new(handler("other"), Input::new(None, Bytes::from_static(b"in")))
    };
    let queued = Start { kind: StartKind::Launch(request), is_queued: true };
    drop(started(store.claim(&id("queued"), queued).await.unwrap()));
    drop(claim(store, &id("running"), launch("in")).await);
    let backing_off = claim(store, &id("backing-off"), launch("in")).await;
    let attempt = attempt(1, &failure(ErrorKind::Refused));
    let next_attempt_at = Timestamp::from_microsecond(1_900_000_000_000_001).unwrap();
    let change = Change::BackOff { run: 1, attempt, next_attempt_at };
    done(store.change(&backing_off.task().id, change).await.unwrap());
    drop(backing_off);
    run(store, &id("revoking"), success()).await;
    done(store.change(&id("revoking"), Change::BeginRevoke).await.unwrap());
    let task = run(store, &id("not-revoked"), success()).await;
    let revoking = done(store.change(&task.id, Change::BeginRevoke).await.unwrap());
    let result = Err(Failure::new(ErrorKind::Status, "it said no"));
    let end = Change::EndRevoke { revision: revoking.revision, result };
    done(store.change(&task.id, end).await.unwrap());
    let told = claim(store, &id("notice-due"), launch("in")).await.with_notice(true);
    settle(store, told, failure(ErrorKind::Dns)).await;
    let old = run(store, &id("dropped"), failure(ErrorKind::Body)).await;
    done(store.drop_details(&old).await.unwrap());
    // Archived where everything is, and back in memory since.
    let again = started(store.claim(&id("binary"), RETRY).await.unwrap());
    settle(store, again, success()).await;
}

#[tokio::test]
async fn what_is_exported_imported_and_exported_is_the_same_line_for_line() {
    for kind in [Kind::Embedded, Kind::Tiny(0)] {
        let store = kind.open();
        fill(&*store).await;
        let first = exported(&store);
        assert_eq!(first.lines().count(), 11, "{first}");
        assert!(first.contains("\"text\":\"two äpples") && first.contains("\"base64\":\"AP/+\""), "{first}");
        for other in [Kind::Embedded, Kind::Tiny(0)] {
            let copy = other.open();
            let came = imported(&*copy, &first).await;
            assert_eq!(came, Imported { imported: 11, ..Imported::default() });
            assert_eq!(exported(&copy), first);
            assert_eq!(copy.counts().total(), store.counts().total());
            let copy = copy.reopen().await;
            assert_eq!(exported(&copy), first, "also over a restart");
            for name in ["text", "binary", "queued", "not-revoked", "dropped", "notice-due"] {
                let (was, is) = (store.get(&id(name)).await.unwrap(), copy.get(&id(name)).await.unwrap());
                let (was, mut is) = (was.unwrap(), (*is.unwrap()).clone());
                is.entered = was.entered;
                assert_eq!(is, *was);
            }
            let all = query(Filter::default(), Order::Ascending, 100);
            assert_eq!(list_ids(&*copy, all.clone()).await, list_ids(&*store, all).await);
            assert_eq!(copy.recover().await.unwrap().claims.len(), 3);
        }
    }
}

#[tokio::test]
async fn a_success_that_was_imported_never_runs_again_and_numbers_go_on() {
    let store = Kind::Tiny(0).open();
    fill(&*store).await;
    let copy = Kind::Tiny(0).open();
    run(&*copy, &id("own"), success()).await;
    imported(&*copy, &exported(&store)).await;
    // In memory first, then in the archive, but for what is under way.
    let copy = copy.reopen().await;
    for name in ["text", "not-revoked", "binary", "own"] {
        let refused = not_started(copy.claim(&id(name), launch("in")).await.unwrap());
        assert_eq!(refused.reason, Refusal::Success, "{name}");
    }
    let refused = not_started(copy.claim(&id("revoking"), launch("in")).await.unwrap());
    assert_eq!(refused.reason, Refusal::Revoking);
    let again = claim(&*copy, &id("revoked"), launch("in")).await;
    assert_eq!((again.task().run, again.task().revoked), (2, 1));
    let again = claim(&*copy, &id("forgotten"), launch("in")).await;
    assert_eq!(again.task().run, 2);
}

#[tokio::test]
async fn a_line_is_refused_alone_and_an_import_can_be_done_again() {
    let store = Kind::Embedded.open();
    for name in ["a", "b", "c"] {
        run(&*store, &id(name), success()).await;
    }
    run(&*store, &id("gone"), success()).await;
    store.revoke(&id("gone")).await.unwrap();
    let good = exported(&store);
    let copy = Kind::Embedded.open();
    let own = run(&*copy, &id("b"), failure(ErrorKind::Error)).await;
    run(&*copy, &id("mark"), success()).await;
    copy.revoke(&id("mark")).await.unwrap();

    let mark = good.lines().next().unwrap().replace("\"a\"", "\"mark\"");
    let wrong = good.lines().next().unwrap().replace("\"text\":\"in\"", "\"text\":\"other\"");
    let cut = &good[..40];
    let came = imported(&*copy, &format!("{good}\n{mark}\n{wrong}\n{cut}")).await;
    assert_eq!((came.imported, came.same, came.refused), (3, 0, 4), "{came:?}");
    let [cut, wrong, b, mark] = ["line 8: ", "line 7: ", "line 2: ", "line 6: "].map(|line| {
        came.reasons.iter().find(|reason| reason.starts_with(line)).unwrap_or_else(|| panic!("{came:?}"))
    });
    assert!(cut.contains("EOF"), "{cut}");
    assert!(wrong.contains("SHA-256"), "{wrong}");
    assert!(b.contains("b is known to this store already (failed), and stays as it is there"), "{b}");
    assert!(mark.contains("mark is known to this store already (not_found"), "{mark}");
    assert_eq!(copy.get(&id("b")).await.unwrap(), Some(own));

    let came = imported(&*copy, &good).await;
    assert_eq!((came.imported, came.same, came.refused), (0, 3, 1), "{came:?}");
    let strange = r#"{"id":"x","handler":"h","state":"failed","run":1,"revision":1,"revoked":0,"since":"2026-01-31T09:00:00Z","input":{"size":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#;
    let unknown = strange.replacen('{', "{\"new\":1,", 1);
    let came = imported(&*copy, &format!("{strange}\n{unknown}\n")).await;
    assert!(
        came.reasons[0].contains("x is failed, and does not have what belongs to that state"),
        "{came:?}"
    );
    assert!(came.reasons[1].contains("unknown field `new`"), "{came:?}");
    let came = imported(&*copy, "[\"x\",\"h\"]").await;
    assert!(came.reasons[0].contains("expected an object"), "{came:?}");
}

/// Nobody is told of it, and what is still to be told of never leaves memory.
#[tokio::test]
async fn a_line_of_what_is_not_found_has_nobody_who_is_to_be_told() {
    let from = Kind::Embedded.open();
    run(&*from, &id("gone"), success()).await;
    done(from.revoke(&id("gone")).await.unwrap());
    let line = exported(&from);
    let due = line.replacen('{', "{\"notice_due\":true,", 1);
    let store = Kind::Embedded.open();
    let came = imported(&*store, &due).await;
    assert_eq!((came.imported, came.refused), (0, 1), "{came:?}");
    assert!(
        came.reasons[0].contains("gone is not_found, and does not have what belongs to that state"),
        "{came:?}"
    );
    assert_eq!(imported(&*store, &line).await.imported, 1);
}

/// A queued task without its input would be launched without it, and nothing would ever drop the rest.
#[tokio::test]
async fn a_line_with_more_or_less_than_its_state_has_is_refused() {
    let from = Kind::Embedded.open();
    let request = Request::new(handler("h"), Input::new(None, Bytes::from_static(b"in")));
    let start = Start { kind: StartKind::Launch(request), is_queued: true };
    drop(started(from.claim(&id("queued"), start).await.unwrap()));
    let queued = exported(&from);
    let from = Kind::Embedded.open();
    settle_with(&*from, "text", b"word", success()).await;
    let settled = exported(&from);
    let from = Kind::Embedded.open();
    run(&*from, &id("gone"), success()).await;
    done(from.revoke(&id("gone")).await.unwrap());
    let gone = exported(&from);

    let with = |line: &str, first: &str| line.replacen('{', &format!("{{{first},"), 1);
    let dropped = |line: &str| with(line, "\"details_dropped\":true");
    let value: serde_json::Value = serde_json::from_str(&settled).unwrap();
    let of_settled = |name: &str| {
        let mut gone: serde_json::Value = serde_json::from_str(&gone).unwrap();
        gone[name] = value[name].clone();
        gone.to_string()
    };
    let (state, left) = ("does not have what belongs to that state", "has more than is left where details");
    for (line, says) in [
        (dropped(&queued).replace(",\"text\":\"in\"", ""), left),
        (dropped(&settled), left),
        (dropped(&gone), left),
        (of_settled("input"), state),
        (of_settled("attempts"), state),
        (with(&queued, "\"notice_due\":true"), state),
    ] {
        let copy = Kind::Embedded.open();
        let came = imported(&*copy, &line).await;
        assert_eq!((came.imported, came.refused), (0, 1), "{line}");
        assert!(came.reasons[0].contains(says), "{line}: {came:?}");
    }
    for line in [queued, settled, gone] {
        assert_eq!(imported(&*Kind::Embedded.open(), &line).await.imported, 1, "{line}");
    }
}

/// How often it was revoked is a part of the ids of its messages.
#[tokio::test]
async fn a_mark_with_other_numbers_is_not_the_same() {
    let from = Kind::Embedded.open();
    run(&*from, &id("gone"), success()).await;
    done(from.revoke(&id("gone")).await.unwrap());
    let line = exported(&from);
    let copy = Kind::Embedded.open();
    assert_eq!(imported(&*copy, &line).await.imported, 1);
    assert_eq!(imported(&*copy, &line).await.same, 1);
    let other = Kind::Embedded.open();
    run(&*other, &id("gone"), failure(ErrorKind::Dns)).await;
    done(other.forget(&id("gone")).await.unwrap());
    let came = imported(&*other, &line).await;
    assert_eq!((came.same, came.refused), (0, 1), "{came:?}");
    assert!(came.reasons[0].contains("not_found, after a revoke or forget"), "{came:?}");
}

/// What a record counts has to leave room to count on, and its time is as fine as a store keeps it.
#[tokio::test]
async fn a_line_with_numbers_that_no_store_keeps_is_refused_and_its_time_is_cut() {
    let line = r#"{"id":"x","handler":"h","state":"success","run":1,"revision":1,"revoked":0,"since":"2026-01-31T09:00:00Z","input":{"size":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#;
    let store = Kind::Embedded.open();
    for (number, huge) in [
        ("\"run\":1", "\"run\":4294967295"),
        ("\"revoked\":0", "\"revoked\":4294967295"),
        ("\"revision\":1", "\"revision\":9223372036854775808"),
        ("\"revision\":1", "\"revision\":18446744073709551615"),
    ] {
        let came = imported(&*store, &line.replace(number, huge)).await;
        assert_eq!((came.imported, came.refused), (0, 1), "{huge}: {came:?}");
        assert!(came.reasons[0].contains("x has a number that no store has counted to"), "{came:?}");
    }
    let fine = line.replace("00:00Z", "00:00.123456789Z");
    assert_eq!(imported(&*store, &fine).await.imported, 1);
    assert_eq!(imported(&*store, &fine).await.same, 1);
    assert!(exported(&store).contains("\"2026-01-31T09:00:00.123456Z\""));
}

/// A store that took it in could not be opened again.
#[tokio::test]
async fn a_line_with_a_time_that_no_store_keeps_is_refused() {
    let line = r#"{"id":"x","handler":"h","state":"failed","run":1,"revision":1,"revoked":0,"since":"2026-01-31T09:00:00Z","error":{"kind":"dns","message":"no","in_doubt":false},"input":{"size":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"attempts":[{"run":1,"attempt":1,"started":1769850000000000,"ended":1769850000000005}]}"#;
    let waiting = line
        .replace(
            "\"failed\"",
            "\"working\",\"phase\":{\"backing_off\":{\"next_attempt_at\":7}},\"attempt\":2",
        )
        .replace("\"error\":{\"kind\":\"dns\",\"message\":\"no\",\"in_doubt\":false},", "");
    let store = Kind::Embedded.open();
    let since = "2026-01-31T09:00:00Z";
    let micros = ["1769850000000000", "1769850000000005", "at\":7"];
    let (first, last) = ("-009999-01-02T01:59:59Z", "9999-12-30T22:00:00Z");
    for (line, was, is, says) in [
        (line, since, "9999-12-30T22:00:00.999999999Z", "x has a time (since) that no store keeps"),
        (line, since, "9999-12-30T22:00:00.000001Z", "x has a time (since) that no store keeps"),
        (line, since, "9999-12-31T00:00:00Z", "not in the required range"),
        (line, micros[0], "253402207200000001", "not in the required range"),
        (line, micros[1], "9223372036854775807", "not in the required range"),
        (line, micros[1], "-377705023201000001", "not in the required range"),
        (&waiting, micros[2], "at\":253402207200000001", "not in the required range"),
    ] {
        assert!(line.contains(was), "{was}");
        let came = imported(&*store, &line.replace(was, is)).await;
        assert_eq!((came.imported, came.refused), (0, 1), "{is}: {came:?}");
        assert!(came.reasons[0].contains(says), "{is}: {came:?}");
    }
    // The first and the last of those that are kept.
    let mut lines = Vec::new();
    for (name, time, number) in [("a", first, "-377705023201000000"), ("b", last, "253402207200000000")] {
        let line = line.replace(since, time).replace(micros[0], number).replace(micros[1], number);
        lines.push(line.replace("\"x\"", &format!("\"{name}\"")));
        let waiting = waiting.replace(micros[2], &format!("at\":{number}"));
        lines.push(waiting.replace("\"x\"", &format!("\"{name}-waits\"")));
    }
    assert_eq!(imported(&*store, &lines.join("\n")).await.imported, 4);
    let first = exported(&store);
    let store = store.reopen().await;
    assert_eq!(exported(&store), first);
}

/// Each of them counts from 1, and no more is remembered than that.
#[tokio::test]
async fn a_line_with_numbers_or_lists_that_no_export_has_is_refused() {
    let store = Kind::Embedded.open();
    let with_key = |n: u32| Request {
        key: Some(Digest::of(&n.to_be_bytes())),
        ..Request::new(handler("h"), Input::new(None, Bytes::from_static(b"in")))
    };
    for n in 0..30 {
        let start = Start { kind: StartKind::Launch(with_key(n)), is_queued: false };
        let claim = started(store.claim(&id("order"), start).await.unwrap());
        settle(&*store, claim, failure(ErrorKind::Timeout)).await;
    }
    let full = exported(&store);
    let copy = Kind::Embedded.open();
    assert_eq!(imported(&*copy, &full).await.imported, 1, "as many as are remembered");
    drop(claim(&*store, &id("works"), launch("in")).await);
    let working = exported(&store).lines().last().unwrap().to_owned();

    let mut many: serde_json::Value = serde_json::from_str(&full).unwrap();
    let with_one_more = |list: &str| {
        let mut line = many.clone();
        let list = line[list].as_array_mut().unwrap();
        assert_eq!(list.len(), 20);
        list.insert(0, list[0].clone());
        line
    };
    let (attempts, keys) = (with_one_more("attempts"), with_one_more("keys"));
    let mut changed = |path: &str, number: u32| {
        *many.pointer_mut(path).unwrap() = number.into();
        let line = many.to_string();
        many = serde_json::from_str(&full).unwrap();
        line
    };
    let zero = "has a run, a revision or an attempt of 0";
    for (line, says) in [
        (changed("/run", 0), zero),
        (changed("/revision", 0), zero),
        (changed("/attempts/19/run", 0), zero),
        (changed("/attempts/0/attempt", 0), zero),
        (working.replace("\"attempt\":1", "\"attempt\":0"), zero),
        (changed("/attempts/19/run", 31), "has an attempt of a run that it has not had"),
        (attempts.to_string(), "has more attempts or keys than are remembered (20)"),
        (keys.to_string(), "has more attempts or keys than are remembered (20)"),
    ] {
        let copy = Kind::Embedded.open();
        let came = imported(&*copy, &line).await;
        assert_eq!((came.imported, came.refused), (0, 1), "{says}: {line}");
        assert!(came.reasons[0].contains(says), "{says}: {came:?}");
    }
}

#[tokio::test]
async fn the_binary_exports_a_running_store_and_imports_into_a_stopped_one() {
    let receiver = Receiver::start().await;
    let config = format!("{}\n[store]\nhot_tasks = 50\n", config(&receiver));
    let server = TestServer::start(&config);
    let lines: Vec<_> = (0..1_000).map(|n| format!("{{\"id\":\"t-{n}\",\"input\":{n}}}")).collect();
    ask_with(server.base(), &["launch", "--batch", "-"], lines.join("\n").as_bytes()).await;
    receiver.wait_for(1_000).await;
    while server.client().get("/stats").await.json()["tasks"]["success"] != 1_000 {
        tokio::task::yield_now().await;
    }
    receiver.on("hangs", [Behaviour::NeverAnswer]);
    ask(server.base(), &["launch", "hangs"]).await;
    receiver.wait_for(1_001).await;
    let data = server.data();
    let from = data.to_str().unwrap();
    let first = program_run(&[], &["export", "--store", from]).await;
    assert_eq!(
        (first.code, first.lines().len(), first.err.as_str()),
        (Some(0), 1_001, "1001 records are exported\n")
    );

    let busy = program_run(&[], &["import", "--store", from, "/dev/null"]).await;
    assert_eq!(busy.code, Some(4), "{busy:?}");
    assert!(busy.err.contains("is in use by process"), "{busy:?}");

    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("config.toml"), &config).unwrap();
    let file = folder.path().join("records.ndjson");
    std::fs::write(&file, &first.out).unwrap();
    let (to, file) = (folder.path().join("data"), file.to_str().unwrap());
    let to = to.to_str().unwrap();
    let came = program_run(&[], &["import", "--store", to, file]).await;
    let said = "1001 records are imported, 0 were there already, 0 are refused\n";
    assert_eq!((came.code, came.err.as_str()), (Some(0), said));
    assert_eq!(program_run(&[], &["export", "--store", to]).await.out, first.out);
    let came = program_run(&[], &["import", "--store", to, file]).await;
    let said = "0 records are imported, 1001 were there already, 0 are refused\n";
    assert_eq!((came.code, came.err.as_str()), (Some(0), said));

    drop(server);
    let other = TestServer::start_in(folder);
    let again = ask(other.base(), &["launch", "t-7", "--input", "@7"]).await;
    assert_eq!((&again.json()["launched"], &again.json()["reason"]), (&false.into(), &"success".into()));
    let hangs = ask(other.base(), &["status", "hangs"]).await.json();
    assert_eq!(hangs["error"]["kind"], "interrupted", "{hangs}");
    assert_eq!(receiver.count("t-7"), 1);
}

#[tokio::test]
async fn an_import_that_refuses_lines_has_a_code_and_an_export_that_nobody_reads_ends_quietly() {
    let store = Kind::Embedded.open();
    for n in 0..300 {
        run(&*store, &id(&format!("t-{n}")), Outcome::success()).await;
    }
    let lines = exported(&store);
    store.close().await;
    let path = store.path().to_str().unwrap().to_owned();
    let other = lines.replace("\"revision\":2", "\"revision\":9");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("lines");
    std::fs::write(&file, other).unwrap();
    let came = program_run(&[], &["import", "--store", &path, file.to_str().unwrap()]).await;
    assert_eq!(came.code, Some(12), "{came:?}");
    let said: Vec<_> = came.err.lines().collect();
    assert_eq!(said.len(), 22, "{came:?}");
    assert_eq!(said[20..], ["and 280 more", "0 records are imported, 0 were there already, 300 are refused"]);

    let mut child = program(&[], &["export", "--store", &path]).spawn().unwrap();
    drop(child.stdout.take());
    let output = within("its end", child.wait_with_output()).await.unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
