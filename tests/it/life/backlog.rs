//! Much that waits: what it costs, and that it is all there after `kill -9`.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::batch::resident;
use crate::support::batch::{batch, lines};
use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;

const TASKS: usize = 100_000;
/// How many run after the restart, to see in which order.
const RUN: usize = 50;

fn handler(name: &str, receiver: &Receiver, keys: &str) -> String {
    let url = receiver.url("/{id}");
    format!("[handlers.{name}]\ntype = \"webhook\"\nurl = \"{url}\"\n{keys}\n")
}

/// The ids that are working, in the order of their launches.
async fn working(client: &Client) -> Vec<String> {
    let list = client.send(Method::GET, "/tasks?state=working", &[("accept", "text/plain")], "").await;
    list.text().lines().map(str::to_owned).collect()
}

async fn lane(client: &Client) -> Value {
    client.get("/handlers").await.json()["handlers"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tasks_wait_cheaply_and_survive_kill_9_in_order() {
    let receiver = Receiver::start().await;
    receiver.by_default(Behaviour::NeverAnswer);
    let keys = "default = true\nconcurrency = 1\nqueue = 200000\ntimeout = \"1h\"";
    let mut server = TestServer::start(&handler("narrow", &receiver, keys));
    let client = server.client();
    client.post("/tasks/first", "").await;
    receiver.wait_for(1).await;
    // Everything that is allocated once is there.
    batch(&client, "/tasks", lines(0..1_000, |n| json!({"id": format!("warm-{n}")}))).await;
    let before = resident(&server);

    let mut asking = JoinSet::new();
    let other = server.client();
    asking.spawn(async move {
        let mut took = Vec::new();
        loop {
            let begun = Instant::now();
            let answer = other.get(&format!("/tasks/warm-{}/status", took.len() % 1_000)).await;
            took.push(begun.elapsed());
            assert_eq!(answer.json()["phase"], "queued");
            if other.get("/tasks/t-99999/status").await.status == 200 {
                took.sort();
                return took;
            }
        }
    });
    let begun = Instant::now();
    let launched = batch(&client, "/tasks", lines(0..TASKS, |n| json!({"id": format!("t-{n}")}))).await;
    let took = begun.elapsed();
    assert!(launched.len() == TASKS && launched.iter().all(|one| one["phase"] == "queued"));
    let each = (resident(&server).saturating_sub(before) << 10) / TASKS;
    let times = asking.join_next().await.unwrap().unwrap();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!(
        "{TASKS} queued in {took:?}, {each} bytes resident each; {} answers to status meanwhile: median {median:?}, p99 {p99:?}",
        times.len()
    );
    assert!(each < 4_096, "{each} bytes each");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    let counts = lane(&client).await;
    assert_eq!((&counts["running"], &counts["queued"]), (&json!(1), &json!(TASKS + 1_000)));

    let order = working(&client).await;
    let waiting = TASKS + 1_000;
    assert_eq!((order.len(), order[0].as_str()), (waiting + 1, "first"));
    server.kill();
    for id in &order[1..=RUN] {
        receiver.on(id, [Behaviour::Answer(Answer::of(200))]);
    }
    let begun = Instant::now();
    server.restart();
    eprintln!("started again with {waiting} that wait in {:?}", begun.elapsed());
    let client = server.client();
    // The one that ran, those that ran now, and one that does not end.
    receiver.wait_for(1 + RUN + 1).await;
    let calls: Vec<_> = receiver.calls().iter().map(|call| call.headers["task-id"].clone()).collect();
    let expected: Vec<_> = order[..=RUN + 1].iter().collect();
    assert_eq!(calls, expected, "they run in the order of their launches");
    assert_eq!(working(&client).await, order[RUN + 1..], "the rest waits in its order");
    let counts = lane(&client).await;
    assert_eq!((&counts["running"], &counts["queued"]), (&json!(1), &json!(waiting - RUN - 1)));
    let first = client.get("/tasks/first/status").await.json();
    assert_eq!((&first["error"]["kind"], &first["in_doubt"]), (&json!("interrupted"), &json!(true)));
    let stats = client.get("/stats").await.json();
    assert_eq!(stats["tasks"], json!({"working": waiting - RUN, "success": RUN, "failed": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_backs_off_at_a_kill_9_goes_on_when_it_is_due() {
    let receiver = Receiver::start().await;
    let tried = |initial| {
        format!("retry = {{ attempts = 3, initial = \"{initial}\", max_interval = \"2h\", jitter = 0 }}")
    };
    let config = handler("soon", &receiver, &tried("4s")) + &handler("late", &receiver, &tried("1h"));
    let mut server = TestServer::start(&config);
    let client = server.client();
    receiver.by_default(Behaviour::Answer(Answer::of(503)));
    let ids = ["soon", "late", "late-too"];
    for id in ids {
        let handler = id.trim_end_matches("-too");
        assert_eq!(client.post(&format!("/tasks/{id}?handler={handler}"), "the input").await.status, 202);
    }
    let mut before = Vec::new();
    for id in ids {
        let status = loop {
            let status = client.get(&format!("/tasks/{id}/status")).await.json();
            if status["phase"] == "backing_off" {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(
            (&status["state"], &status["run"], &status["attempt"]),
            (&json!("working"), &json!(1), &json!(2))
        );
        assert!(status["next_attempt_at"].is_string() && status.get("in_doubt").is_none(), "{status}");
        before.push(status);
    }
    server.kill();
    receiver.by_default(Behaviour::Answer(Answer::of(200)));
    server.restart();
    let client = server.client();
    for (id, before) in ids.iter().zip(&before).skip(1) {
        assert_eq!(&client.get(&format!("/tasks/{id}/status")).await.json(), before);
    }
    let soon = client.get("/tasks/soon/status?wait=30").await.json();
    assert_eq!((&soon["state"], &soon["run"]), (&json!("success"), &json!(1)));
    let record = client.get("/tasks/soon").await.json();
    let attempts = record["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|one| (&one["attempt"], &one["http_status"])).collect();
    assert_eq!(outcomes, [(&json!(1), &json!(503)), (&json!(2), &json!(200))]);
    let (started, due) = (attempts[1]["started"].as_str(), before[0]["next_attempt_at"].as_str());
    assert!(started >= due, "{started:?} is not before {due:?}");
    assert_eq!(receiver.calls().last().unwrap().body, "the input");

    // The others wait on; one that is canceled does not run, and may be launched again.
    let canceled = client.post("/tasks/late/cancel", "").await;
    assert_eq!((canceled.status.as_u16(), &canceled.json()["state"]), (202, &json!("failed")));
    assert_eq!(
        (&canceled.json()["error"]["kind"], &canceled.json()["in_doubt"]),
        (&json!("canceled"), &json!(false))
    );
    let again = client.post("/tasks/late?handler=late&wait=30", "").await.json();
    assert_eq!((&again["state"], &again["run"]), (&json!("success"), &json!(2)));
    assert_eq!((receiver.count("soon"), receiver.count("late"), receiver.count("late-too")), (2, 2, 1));
}
