//! What lasts: `wait` and `watch`, over a signal and over a restart of the service.

use std::os::unix::process::ExitStatusExt as _;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{failing, service};
use crate::support::program::{ask, ended, program};
use crate::support::receiver::{Answer, Behaviour, Gate};
use crate::support::relay::Relay;
use crate::support::{until, within};

#[tokio::test]
async fn several_are_waited_for_and_the_worst_of_them_is_the_code() {
    let (receiver, server) = service().await;
    let gate = Gate::new();
    receiver.on("slow", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    receiver.on("bad", [Behaviour::AnswerAfter(gate.clone(), Answer::of(410))]);
    for id in ["slow", "bad", "fast"] {
        server.client().post(&format!("/tasks/{id}"), "").await;
    }
    let ran = ask(server.base(), &["wait", "fast", "slow", "--timeout", "1s"]).await;
    assert_eq!((ran.code, ran.lines().len()), (Some(14), 2), "{ran:?}");
    assert_eq!(ran.lines()[1]["id"], "slow", "{ran:?}");
    assert_eq!(ran.lines()[1]["state"], "working", "{ran:?}");

    let mut waiting = Watching::start(server.base(), &["wait", "slow", "bad", "fast"]);
    assert_eq!(waiting.next().await["id"], "fast", "each is told of when it has ended");
    gate.open();
    let mut others = [waiting.next().await, waiting.next().await].map(|task| task["id"].clone());
    others.sort_by_key(ToString::to_string);
    assert_eq!(others, ["bad", "slow"]);
    assert_eq!(within("its end", waiting.child.wait()).await.unwrap().code(), Some(10));
    assert_eq!(ask(server.base(), &["wait", "fast", "slow"]).await.code, Some(0));
    let ran = ask(server.base(), &["wait", "fast", "nobody"]).await;
    assert_eq!((ran.code, ran.lines().len()), (Some(11), 1), "{ran:?}");
}

#[tokio::test]
async fn a_time_that_no_clock_reaches_is_for_ever() {
    let (receiver, server) = service().await;
    receiver.on("b", [failing(), Behaviour::Answer(Answer::of(200))]);
    for (longest, arguments, code) in [
        (u64::MAX, &["launch", "a", "--wait"][..], 0),
        (u64::MAX, &["launch", "b", "--wait"], 10),
        (u64::MAX, &["retry", "b", "--wait"], 0),
        (u64::MAX, &["wait", "a", "--timeout"], 0),
        (u64::MAX, &["status", "a", "--answer-within"], 0),
        (i64::MAX.unsigned_abs() >> 1, &["launch", "c", "--wait"], 0),
        (i64::MAX.unsigned_abs() >> 1, &["wait", "c", "--timeout"], 0),
        (i64::MAX.unsigned_abs() >> 1, &["status", "a", "--answer-within"], 0),
    ] {
        let ran = ask(server.base(), &[arguments, &[&longest.to_string()]].concat()).await;
        assert_eq!((ran.code, ran.err.as_str()), (Some(code), ""), "{arguments:?} {longest}: {ran:?}");
    }
}

#[tokio::test]
async fn a_wait_that_is_interrupted_leaves_the_task_alone() {
    let (receiver, server) = service().await;
    let gate = Gate::new();
    receiver.on("a", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    let child =
        program(&[("TASK_RECORDER_URL", server.base())], &["launch", "a", "--wait", "1h"]).spawn().unwrap();
    receiver.wait_for(1).await;
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = within("its end", child.wait_with_output()).await.unwrap();
    let said = (output.status.signal(), output.stderr.as_slice());
    assert_eq!(said, (Some(Signal::INT.as_raw()), &b""[..]), "{output:?}");
    assert_eq!(ask(server.base(), &["status", "a"]).await.json()["state"], "working");
    gate.open();
    let ran = ask(server.base(), &["wait", "a", "--timeout", "30s"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
}

#[tokio::test]
async fn a_wait_goes_on_over_a_crash_of_the_service_and_launches_nothing_again() {
    let (receiver, mut server) = service().await;
    for (number, arguments) in [&["launch", "a", "--wait", "5m"][..], &["wait", "a"]].into_iter().enumerate()
    {
        receiver.on("a", [Behaviour::NeverAnswer]);
        let relay = Relay::start(server.base()).await;
        if number > 0 {
            assert_eq!(server.client().post("/tasks/a", "").await.json()["run"], 2);
        }
        let command = program(&[("TASK_RECORDER_URL", relay.base())], arguments);
        let crash = async {
            // The first request is answered, and the next one waits.
            receiver.wait_for(number + 1).await;
            until("it waits", || relay.pieces() == 2).await;
            server.kill();
            server.restart();
            relay.lead_to(server.base());
        };
        let (ran, ()) = tokio::join!(ended(command), crash);
        assert_eq!((ran.code, &ran.json()["error"]["kind"]), (Some(10), &"interrupted".into()), "{ran:?}");
        assert!(ran.err.contains("asking again"), "{ran:?}");
        assert_eq!((&ran.json()["run"], receiver.count("a")), (&(number + 1).into(), number + 1));
    }
}

struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(base: &str, arguments: &[&str]) -> Self {
        let mut child = program(&[("TASK_RECORDER_URL", base)], arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> Value {
        let line = within("an event", self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("it goes on")).unwrap()
    }

    /// The ids up to this one, and the place of that.
    async fn up_to(&mut self, last: &str) -> (Vec<String>, u64) {
        let mut ids = Vec::new();
        loop {
            let event = self.next().await;
            let id = event["id"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned();
            let is_last = id == last;
            ids.push(id);
            if is_last {
                return (ids, event["seq"].as_u64().unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_behind_what_it_has_told_over_a_restart_of_the_service() {
    let (receiver, mut server) = service().await;
    receiver.on("bad", [failing()]);
    let relay = Relay::start(server.base()).await;
    server.client().post("/tasks/before?wait=30", "").await;
    let mut watching = Watching::start(relay.base(), &["watch", "--state", "success", "--after", "0"]);
    let (ids, _) = watching.up_to("before").await;
    assert_eq!(ids, ["before"]);
    server.client().post("/tasks/bad?wait=30", "").await;
    server.client().post("/tasks/one?wait=30", "").await;
    let (ids, seq) = watching.up_to("one").await;
    assert_eq!(ids, ["one"], "what has failed is not wanted");

    server.terminate();
    server.wait();
    server.restart();
    // Nobody is told of this one as it happens: the way to the service is still cut off.
    server.client().post("/tasks/two?wait=30", "").await;
    relay.lead_to(server.base());
    let (ids, two) = watching.up_to("two").await;
    assert!(ids == ["two"] && two > seq, "{ids:?} {two} {seq}");
    server.client().post("/tasks/three?wait=30", "").await;
    assert_eq!(watching.up_to("three").await.0, ["three"]);

    // One that comes back to what is not kept any more is told of the gap.
    let mut late = Watching::start(relay.base(), &["watch", "--after", "1"]);
    let gap = late.next().await;
    assert_eq!((&gap["event"], &gap["from"]), (&"gap".into(), &2.into()), "{gap}");
    late.child.kill().await.unwrap();

    // A reader that goes away ends it quietly.
    drop(watching.lines);
    server.client().post("/tasks/four?wait=30", "").await;
    let status = within("its end", watching.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
