//! SIGTERM with much under way: everything is accounted for, and the process leaves in time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::support::batch::{batch, lines};
use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::until;

const TASKS: usize = 2_000;
/// How much longer than the grace period a stop may take on a busy machine.
const LATE: Duration = Duration::from_secs(6);

async fn all(client: &Client) -> BTreeMap<String, Value> {
    let accept = [("accept", "application/x-ndjson")];
    let lines = client.send(Method::GET, "/tasks", &accept, "").await;
    let tasks = lines.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    tasks.map(|task| (task["id"].as_str().unwrap().to_owned(), task)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_2000_tasks_in_flight_at_a_stop_each_is_accounted_for_and_it_leaves_in_time() {
    let receiver = Receiver::start().await;
    let gate = Gate::new();
    receiver.by_default(Behaviour::AnswerAfter(gate.clone(), Answer::of(200)));
    for number in (0..TASKS).step_by(2) {
        receiver.on(&format!("t-{number}"), [Behaviour::NeverAnswer]);
    }
    // One place for each that runs; what comes later waits.
    let mut server = TestServer::start(&format!(
        "[server]\ngrace = \"2s\"\n[handlers.hook]\ntype = \"webhook\"\nurl = \"{}\"\ndefault = true\n\
         concurrency = {TASKS}\n",
        receiver.url("/{id}")
    ));
    let client = server.client();
    let launched = batch(&client, "/tasks", lines(0..TASKS, |n| json!({"id": format!("t-{n}")}))).await;
    assert!(launched.iter().all(|one| one["status"] == 202));
    receiver.wait_for(TASKS).await;
    for number in 0..50 {
        assert_eq!(client.post(&format!("/tasks/waits-{number}"), "").await.json()["phase"], "queued");
    }

    let told = Instant::now();
    server.terminate();
    while client.get("/readyz").await.status != 503 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let late = client.post("/tasks/late", "").await;
    late.problem(503, "draining");
    assert_eq!(late.header("retry-after"), Some("1"));
    // Who asks is answered meanwhile.
    assert_eq!(client.get("/tasks/t-0/status").await.json()["phase"], "running");
    gate.open();
    assert_eq!(client.get("/tasks/t-1/status?wait=30").await.json()["state"], "success");
    assert_eq!(server.wait().code(), Some(0));
    let took = told.elapsed();
    eprintln!("{TASKS} in flight: left {took:?} after SIGTERM, with a grace period of 2s");
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(2) + LATE, "{took:?}");
    assert_eq!(receiver.calls().len(), TASKS, "nothing has started while it stopped");

    receiver.by_default(Behaviour::NeverAnswer);
    server.restart();
    let client = server.client();
    let tasks = all(&client).await;
    assert_eq!(tasks.len(), TASKS + 50);
    for number in 0..TASKS {
        let task = &tasks[&format!("t-{number}")];
        if number % 2 == 0 {
            assert_eq!(
                (&task["state"], &task["error"]["kind"]),
                (&json!("failed"), &json!("shutdown")),
                "{task}"
            );
            assert_eq!(task["in_doubt"], true);
        } else {
            assert_eq!(task["state"], "success", "{task}");
        }
        assert_eq!(receiver.count(&format!("t-{number}")), 1);
    }
    // What had not begun goes on.
    receiver.wait_for(TASKS + 50).await;
    for number in 0..50 {
        assert_eq!(tasks[&format!("waits-{number}")]["run"], 1);
        assert_eq!(receiver.count(&format!("waits-{number}")), 1);
    }
    client.get("/tasks/late").await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_get_term_then_kill_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let command = |name: &str, script: &str| {
        format!(
            "[handlers.{name}]\ntype = \"command\"\ncwd = \"{}\"\nkill_after = \"1s\"\n\
             command = [\"sh\", \"-c\", '{script}']\n",
            folder.path().display()
        )
    };
    // Each says who it is once it has set its trap.
    let stubborn = command("stubborn", "trap \"\" TERM; echo $$ > {id}; sleep 600");
    let obedient = command("obedient", "trap \"exit 0\" TERM; echo $$ > {id}; sleep 600 & wait");
    let simple = command("simple", "echo $$ > {id}; exec sleep 600");
    let mut server = TestServer::start(&format!("[server]\ngrace = \"500ms\"\n{stubborn}{obedient}{simple}"));
    let client = server.client();
    let names = ["stubborn", "obedient", "simple"];
    for name in names {
        assert_eq!(client.post(&format!("/tasks/{name}?handler={name}"), "").await.status, 202);
    }
    let pid = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok()?.trim().parse::<u32>().ok();
    until("the commands have begun", || names.iter().all(|name| pid(name).is_some())).await;
    let pids = names.map(|name| pid(name).unwrap());
    assert!(pids.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()));

    let told = Instant::now();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let took = told.elapsed();
    eprintln!("commands: left {took:?} after SIGTERM, with a grace period of 500ms and a second until KILL");
    assert!(took >= Duration::from_millis(1_500) && took < Duration::from_secs(2) + LATE, "{took:?}");
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");
    }
    server.restart();
    let client = server.client();
    for (name, state) in [("stubborn", "failed"), ("obedient", "success"), ("simple", "failed")] {
        let status = client.get(&format!("/tasks/{name}/status")).await.json();
        assert_eq!(status["state"], state, "{status}");
        let kind = (state == "failed").then_some("shutdown");
        assert_eq!(
            (status["error"]["kind"].as_str(), status["in_doubt"].as_bool()),
            (kind, kind.map(|_| true))
        );
    }
}
