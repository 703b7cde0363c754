//! `launch --batch`, and `bulk`.

use std::fmt::Write as _;

use tempfile::TempDir;

use super::{failing, service};
use crate::support::program::{ask, ask_with, ended, program};
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::until;

const LINES: usize = 5_000;

fn lines() -> String {
    let mut text = String::new();
    for n in 0..LINES {
        writeln!(text, "{{\"id\":\"order-{n}\",\"input\":{{\"n\":{n}}}}}").unwrap();
    }
    text
}

#[tokio::test]
async fn a_batch_of_thousands_of_lines_is_launched_and_its_bad_lines_are_told() {
    let (receiver, server) = service().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("orders.ndjson");
    std::fs::write(&file, lines()).unwrap();
    let launch = ["launch", "--batch", file.to_str().unwrap()];
    let ran = ask(server.base(), &launch).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "5000 launched, 0 not launched, 0 refused\n"));
    assert_eq!(ran.lines().iter().filter(|line| line["launched"] == true).count(), LINES);

    let ran = ask(server.base(), &["launch", "--batch", file.to_str().unwrap(), "--output", "table"]).await;
    let said = (ran.code, ran.out.as_str(), ran.err.as_str());
    assert_eq!(said, (Some(0), "", "0 launched, 5000 not launched, 0 refused\n"));

    let bad =
        "{\"id\":\"order-1\"}\n\nnonsense\n{\"id\":\"new\"}\n{\"id\":\"order-2\",\"handler\":\"echo\"}\n";
    let ran = ask_with(server.base(), &["launch", "--batch", "-", "--output", "ids"], bad.as_bytes()).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(12), "new\n"), "{ran:?}");
    let said: Vec<_> = ran.err.lines().collect();
    assert!(said[0].starts_with("line 3: The line is no launch"), "{ran:?}");
    assert!(said[1].starts_with("line 5: order-2 belongs to the handler hook"), "{ran:?}");
    assert_eq!(said[2..], ["1 launched, 1 not launched, 2 refused"]);

    receiver.wait_for(LINES + 1).await;
    assert_eq!(receiver.count("order-4999"), 1);
    for arguments in [&["launch", "--batch", "/nonexistent"][..], &["launch", "a", "--batch", "-"]] {
        let ran = ask(server.base(), arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
    }
    let ran = ask(server.base(), &["launch", "--batch", "/"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("cannot be read to its end"), "{ran:?}");
}

#[tokio::test]
async fn a_batch_whose_service_dies_says_so_and_is_sent_again() {
    let (receiver, mut server) = service().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("orders.ndjson");
    std::fs::write(&file, lines()).unwrap();
    let launch = ["launch", "--batch", file.to_str().unwrap()];
    let base = server.base().to_owned();
    let command = program(&[("TASK_RECORDER_URL", &base)], &launch);
    let kill = async {
        receiver.wait_for(20).await;
        server.kill_now();
    };
    let (ran, ()) = tokio::join!(ended(command), kill);
    assert_eq!(ran.code, Some(13), "{ran:?}");
    assert!(ran.err.contains("sending it all again is safe"), "{}", ran.err);
    assert!(ran.out.lines().count() < LINES);

    server.kill();
    server.restart();
    let ran = ask(server.base(), &launch).await;
    assert_eq!((ran.code, ran.lines().len()), (Some(0), LINES), "{}", ran.err);
    let stats = server.client();
    for _ in 0..1_000 {
        if stats.get("/stats").await.json()["tasks"]["working"] == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let ran =
        ask(server.base(), &["list", "--prefix", "order-", "--state", "success", "--output", "ids"]).await;
    assert_eq!(ran.out.lines().count(), LINES);
}

#[tokio::test]
async fn a_bulk_operation_is_followed_to_its_end() {
    let (receiver, server) = service().await;
    receiver.by_default(failing());
    let base = server.base();
    ask_with(
        base,
        &["launch", "--batch", "-"],
        lines().lines().take(300).collect::<Vec<_>>().join("\n").as_bytes(),
    )
    .await;
    receiver.wait_for(300).await;
    within_failed(base, 300).await;
    receiver.by_default(Behaviour::Answer(Answer::of(200)));

    let ran = ask(base, &["bulk", "retry", "--handler", "hook", "--dry-run"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "{\"matched\":300}\n"), "{ran:?}");
    let ran =
        ask(base, &["bulk", "retry", "--handler", "hook", "--error-kind", "status", "--max", "100"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (state, done) = (&ran.json()["state"], &ran.json()["done"]);
    assert_eq!((state, done), (&"done".into(), &100.into()), "{ran:?}");
    assert!(ran.err.contains("go on with `bulk follow 1`"), "{ran:?}");

    let ran = ask(base, &["bulk", "retry", "--state", "failed", "--detach", "--output", "ids"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "2\n"), "{ran:?}");
    let ran = ask(base, &["bulk", "follow", "2", "--output", "table"]).await;
    let said = "operation 2, retry: done; 200 of 200 done, 0 skipped, 0 failed\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), said), "{ran:?}");

    let ran = ask(base, &["bulk", "retry"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("A filter is needed"), "{ran:?}");
    let ran = ask(base, &["bulk", "follow", "99"]).await;
    assert_eq!(ran.code, Some(11), "{ran:?}");
    let ran = ask(base, &["bulk", "follow"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

const RUNNING: &str = "{\"op\":7,\"action\":\"retry\",\"state\":\"running\",\"matched\":1,\"done\":0,\"skipped\":0,\"failed\":0}";
const RETRY: [&str; 4] = ["bulk", "retry", "--handler", "hook"];

#[tokio::test]
async fn a_bulk_operation_is_followed_over_a_break_right_after_its_beginning() {
    let receiver = Receiver::start().await;
    let done = RUNNING.replace("running", "done").replace("\"done\":0", "\"done\":1");
    receiver.on(
        "",
        [
            Behaviour::AnswerAndLeave(Answer::of(202).header("connection", "close").body(RUNNING)),
            Behaviour::HangUp,
            Behaviour::Answer(Answer::of(200).body(done)),
        ],
    );
    let ran = ask(&receiver.url(""), &RETRY).await;
    assert_eq!((ran.code, &ran.json()["done"]), (Some(0), &1.into()), "{ran:?}");
    assert!(ran.err.contains("asking again"), "{ran:?}");
    // One that was never asked before is not waited for.
    receiver.on("", [Behaviour::HangUp]);
    let ran = ask(&receiver.url(""), &["bulk", "follow", "7"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(13), ""), "{ran:?}");
}

#[tokio::test]
async fn a_bulk_operation_whose_beginning_is_not_answered_says_how_to_go_on() {
    let receiver = Receiver::start().await;
    let url = receiver.url("");
    let told = format!("the operation may have begun all the same: {url}/bulk lists");
    for (behaviour, may_have_begun) in [
        (Behaviour::HangUp, true),
        (Behaviour::HangUpInBody(Answer::of(202).body(RUNNING)), true),
        (Behaviour::NeverAnswer, true),
        // A proxy says so, and the service may have the request.
        (Behaviour::Answer(Answer::of(504)), true),
        (Behaviour::Answer(Answer::of(503).body("{\"detail\":\"Not now.\"}")), false),
        (Behaviour::Answer(Answer::of(429)), false),
    ] {
        receiver.on("", [behaviour.clone()]);
        let ran = ask(&url, &[&RETRY[..], &["--answer-within", "500ms"]].concat()).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(13), ""), "{behaviour:?}: {ran:?}");
        assert_eq!(ran.err.contains(&told), may_have_begun, "{behaviour:?}: {ran:?}");
        assert_eq!(ran.err.contains("`bulk follow`"), may_have_begun, "{behaviour:?}: {ran:?}");
        let ran = ask(&url, &[&RETRY[..], &["--dry-run", "--answer-within", "500ms"]].concat()).await;
        assert!(ran.code == Some(13) && !ran.err.contains("may have begun"), "{behaviour:?}: {ran:?}");
    }
}

async fn within_failed(base: &str, count: usize) {
    let failed =
        async || ask(base, &["list", "--state", "failed", "--output", "ids"]).await.out.lines().count();
    while failed().await < count {}
}

#[tokio::test]
async fn a_bulk_operation_that_fails_for_some_says_for_which() {
    let receiver = crate::support::receiver::Receiver::start().await;
    let revoke = format!("\n[handlers.hook.revoke]\nurl = \"{}\"\n", receiver.url("/undo/{id}"));
    let server =
        crate::support::server::TestServer::start(&format!("{}{revoke}", crate::http::config(&receiver)));
    let ok = || Behaviour::Answer(Answer::of(200));
    receiver.on("b", [ok(), failing()]);
    for id in ["a", "b"] {
        assert_eq!(ask(server.base(), &["launch", id, "--wait", "30"]).await.code, Some(0));
    }
    let ran = ask(server.base(), &["bulk", "revoke", "--handler", "hook"]).await;
    assert_eq!((ran.code, &ran.json()["failed"]), (Some(10), &1.into()), "{ran:?}");
    assert!(ran.err.lines().any(|line| line.starts_with("b: ")), "{ran:?}");
    until("both were asked", || receiver.calls().len() >= 4).await;
}
