//! `POST /tasks`, many launches in one request, through the real binary.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::http::config;
use crate::support::batch::{NDJSON, Stream, batch, lines};
use crate::support::client::{Answer as Told, Client};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;

async fn start() -> (Receiver, TestServer, Client) {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let client = server.client();
    (receiver, server, client)
}

#[tokio::test]
async fn each_line_is_answered_in_order_as_the_single_call_would_be() {
    let (receiver, server, client) = start().await;
    assert_eq!(client.post("/tasks/done?wait=30", "").await.json()["state"], "success");
    assert_eq!(client.post("/tasks/other?handler=echo&wait=30", "").await.json()["state"], "success");
    let gate = Gate::new();
    receiver.by_default(Behaviour::AnswerAfter(gate.clone(), Answer::of(200)));

    let lines = "{\"id\":\"plain\"}\n\
        \n  \r\n\
        {\"id\":\"text\",\"input\": {\"a\" : [1.50, \"\\u00e9\"]} }\r\n\
        {\"id\":\"null\",\"input\":null}\n\
        {\"id\":\"cmd\",\"handler\":\"echo\",\"input\":\"hello\"}\n\
        {\"id\":\"plain\"}\n\
        {\"id\":\"done\"}\n\
        {\"id\":\"other\"}\n\
        {\"id\":\"a/b\"}\n\
        {\"id\":\"x\",\"handler\":\"nobody\"}\n\
        {\"id\":\"x\",\"prority\":1}\n\
        {\"handler\":\"echo\"}\n\
        [\"x\",\"echo\"]\n\
        oops\n\
        {\"id\":\"\"}\n\
        {\"id\":\"last\"}";
    let answers = batch(&client, "/tasks", lines).await;
    let told: Vec<_> =
        answers.iter().map(|one| (one["status"].as_u64().unwrap(), one["line"].as_u64())).collect();
    let expected = [
        (202, None),
        (202, None),
        (202, None),
        (202, None),
        (200, None),
        (200, None),
        (409, Some(9)),
        (400, Some(10)),
        (404, Some(11)),
        (400, Some(12)),
        (400, Some(13)),
        (400, Some(14)),
        (400, Some(15)),
        (400, Some(16)),
        (202, None),
    ];
    assert_eq!(told, expected, "{answers:#?}");
    let single = client.post("/tasks/plain", "").await.json();
    let mut duplicate = answers[4].clone();
    assert_eq!((&duplicate["launched"], &duplicate["reason"]), (&json!(false), &json!("working")));
    duplicate.as_object_mut().unwrap().remove("status");
    assert_eq!(duplicate, single);
    assert_eq!((&answers[0]["launched"], &answers[0]["run"]), (&json!(true), &json!(1)));
    assert_eq!((&answers[5]["reason"], &answers[5]["state"]), (&json!("success"), &json!("success")));
    for (at, code) in [
        (6, "handler-mismatch"),
        (7, "invalid-id"),
        (8, "unknown-handler"),
        (9, "malformed-line"),
        (10, "malformed-line"),
        (11, "malformed-line"),
        (12, "malformed-line"),
        (13, "invalid-id"),
    ] {
        assert_eq!(answers[at]["type"], format!("/problems/{code}"), "{:#}", answers[at]);
        assert!(answers[at]["title"].is_string() && answers[at]["detail"].is_string());
    }
    assert_eq!(answers[6]["id"], "other");
    assert!(answers[9]["detail"].as_str().unwrap().contains("prority"));
    assert!(answers[11]["detail"].as_str().unwrap().contains("expected an object"));

    gate.open();
    for id in ["plain", "text", "null", "cmd", "last"] {
        let status = client.get(&format!("/tasks/{id}/status?wait=30")).await.json();
        assert_eq!(status["state"], "success", "{id}");
    }
    let input = |id: &str| {
        let calls = receiver.calls();
        let call = calls.into_iter().find(|call| call.headers["task-id"] == id).unwrap();
        (call.headers.get("content-type").cloned(), String::from_utf8(call.body.to_vec()).unwrap())
    };
    assert_eq!(input("plain"), (None, String::new()));
    assert_eq!(input("text").1, "{\"a\" : [1.50, \"\\u00e9\"]}");
    assert_eq!(input("text").0.unwrap(), "application/json");
    assert_eq!(input("null").1, "null");
    assert_eq!(client.get("/tasks/cmd/result").await.text(), "\"hello\"");
    drop(server);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_before_anything_starts() {
    let (receiver, _server, client) = start().await;
    let line = "{\"id\":\"a\"}\n";
    client.post("/tasks", line).await.problem(415, "unsupported-media-type");
    let json = [("content-type", "application/json")];
    client.send(Method::POST, "/tasks", &json, line).await.problem(415, "unsupported-media-type");
    let nobody = client.send(Method::POST, "/tasks?handler=nobody", &NDJSON, line).await;
    nobody.problem(404, "unknown-handler");
    let misspelt = client.send(Method::POST, "/tasks?handlr=echo", &NDJSON, line).await;
    assert!(misspelt.problem(400, "invalid-parameter").contains("\"handler\""));
    client.get("/tasks/a").await.problem(404, "not-found");
    assert!(receiver.calls().is_empty());
    assert_eq!(batch(&client, "/tasks", "").await, [Value::Null; 0]);
    assert_eq!(batch(&client, "/tasks", "\n\n").await, [Value::Null; 0]);
    let no_text = batch(&client, "/tasks", &b"{\"id\":\"\xff\"}\n"[..]).await;
    assert_eq!(
        (&no_text[0]["status"], &no_text[0]["type"]),
        (&json!(400), &json!("/problems/malformed-line"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_lines_with_one_id_the_first_one_is_launched() {
    let (receiver, _server, client) = start().await;
    receiver.by_default(Behaviour::NeverAnswer);
    let lines = lines(0..3_000, |n| json!({"id": format!("same-{}", n / 3), "input": n}));
    let answers = batch(&client, "/tasks", lines).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["launched"], number % 3 == 0, "{number}: {answer}");
    }
    receiver.wait_for(1_000).await;
    let first = |body: &[u8]| std::str::from_utf8(body).unwrap().parse::<usize>().unwrap() % 3 == 0;
    assert!(receiver.calls().iter().all(|call| first(&call.body)));
}

#[tokio::test]
async fn the_query_names_the_handler_of_lines_that_name_none() {
    let (receiver, _server, client) = start().await;
    let lines = "{\"id\":\"a\",\"input\":1}\n{\"id\":\"b\",\"handler\":\"hook\"}\n";
    let answers = batch(&client, "/tasks?handler=echo", lines).await;
    assert_eq!((&answers[0]["handler"], &answers[1]["handler"]), (&json!("echo"), &json!("hook")));
    assert_eq!(client.get("/tasks/b/status?wait=30").await.json()["state"], "success");
    assert_eq!(receiver.count("b"), 1);

    let config = "[handlers.one]\ntype = \"command\"\ncommand = [\"cat\"]\n";
    let without_default = TestServer::start(config);
    let answers = batch(&without_default.client(), "/tasks", lines).await;
    assert_eq!(answers[0]["type"], "/problems/handler-required");
    assert_eq!(answers[0]["status"], 400);
}

#[tokio::test]
async fn a_line_over_the_limit_is_told_so_and_the_next_ones_go_on() {
    let (receiver, _server, client) = start().await;
    let line = |id: &str, bytes: usize| format!("{{\"id\":\"{id}\",\"input\":\"{}\"}}\n", "x".repeat(bytes));
    // The handler takes 64 KiB, the largest one of all a MiB.
    let lines = [
        line("fits", (64 << 10) - 2),
        line("big", (64 << 10) - 1),
        line("huge", 3 << 20),
        line("after", 1),
        " ".repeat(2 << 20) + "{\"id\":\"spaced\"}",
    ];
    let answers = batch(&client, "/tasks", lines.concat()).await;
    let told: Vec<_> =
        answers.iter().map(|one| (one["status"].as_u64().unwrap(), one["line"].as_u64())).collect();
    assert_eq!(told, [(202, None), (413, Some(2)), (413, Some(3)), (202, None), (413, Some(5))]);
    assert!(
        answers
            .iter()
            .filter(|one| one["status"] == 413)
            .all(|one| one["type"] == "/problems/input-too-large")
    );
    assert_eq!(answers[1]["id"], "big");
    client.get("/tasks/big").await.problem(404, "not-found");
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn answers_come_while_lines_are_sent_and_a_stall_ends_the_batch() {
    let (_receiver, server, client) = start().await;
    let mut stream = Stream::open(&server, "/tasks").await;
    for number in 0..5 {
        // The deadline (1s) is for each piece, not for the whole.
        tokio::time::sleep(Duration::from_millis(400)).await;
        stream.send(format!("{{\"id\":\"s-{number}\"}}\n{{\"id\":")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        stream.send(format!("\"t-{number}\"}}\n")).await;
        for id in [format!("s-{number}"), format!("t-{number}")] {
            assert_eq!(stream.answers.next().await.unwrap()["id"], id);
        }
    }
    stream.send("{\"id\":\"half").await;
    let stalled = stream.answers.next().await.unwrap();
    assert_eq!((&stalled["status"], &stalled["line"]), (&json!(408), &json!(11)));
    assert_eq!(stalled["type"], "/problems/body-timeout");
    assert_eq!(stream.answers.next().await, None);
    client.get("/tasks/half").await.problem(404, "not-found");
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_reading_and_cuts_nothing() {
    let (receiver, server, client) = start().await;
    let gate = Gate::new();
    receiver.by_default(Behaviour::AnswerAfter(gate.clone(), Answer::of(200)));
    let mut stream = Stream::open(&server, "/tasks").await;
    for number in 0..20 {
        stream.send(format!("{{\"id\":\"h-{number}\"}}\n")).await;
    }
    receiver.wait_for(20).await;
    assert_eq!(stream.answers.next().await.unwrap()["id"], "h-0");
    stream.send("{\"id\":\"half").await;
    drop(stream);
    gate.open();
    for number in 0..20 {
        let status = client.get(&format!("/tasks/h-{number}/status?wait=30")).await.json();
        assert_eq!(status["state"], "success");
    }
    client.get("/tasks/half").await.problem(404, "not-found");
    assert_eq!(receiver.calls().len(), 20);
}

#[tokio::test]
async fn lines_that_come_while_the_service_stops_are_answered_503() {
    let (receiver, mut server, client) = start().await;
    receiver.on("hangs", [Behaviour::NeverAnswer]);
    let mut stream = Stream::open(&server, "/tasks").await;
    stream.send("{\"id\":\"hangs\"}\n{\"id\":\"ends\"}\n").await;
    for id in ["hangs", "ends"] {
        assert_eq!(stream.answers.next().await.unwrap()["id"], id);
    }
    receiver.wait_for(2).await;
    server.terminate();
    while client.get("/readyz").await.status != 503 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.send("{\"id\":\"late\"}\n{\"id\":\"ends\"}\n").await;
    for _ in 0..2 {
        let late = stream.answers.next().await.unwrap();
        assert_eq!((&late["status"], &late["type"]), (&json!(503), &json!("/problems/draining")));
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

/// What the process has in memory, in KiB.
pub(crate) fn resident(server: &TestServer) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn known(stats: &Told) -> usize {
    let tasks = &stats.json()["tasks"];
    ["working", "success", "failed"]
        .iter()
        .map(|state| usize::try_from(tasks[state].as_u64().unwrap()).unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_lines_are_answered_each_and_memory_stays_flat() {
    const LINES: usize = 100_000;
    // A handler that is over at once: what is measured is the batch.
    let config =
        "[handlers.absent]\ntype = \"command\"\ncommand = [\"/nonexistent/program\"]\ndefault = true\n";
    let server = TestServer::start(config);
    let client = server.client();
    let before = resident(&server);

    let Stream { lines: sender, mut answers, connection: _connection } =
        Stream::open(&server, "/tasks").await;
    let started = Instant::now();
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        for from in (0..LINES).step_by(100) {
            let piece = lines(from..from + 100, |n| json!({"id": format!("n-{n}"), "input": n}));
            sender.send(piece.into()).await.unwrap();
        }
    });
    // Nobody reads the answers: the launches stop, far from the end.
    let (mut launched, mut calm) = (0, 0);
    while calm < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = known(&client.get("/stats").await);
        calm = if now == launched && now > 0 { calm + 1 } else { 0 };
        launched = now;
    }
    let stalled = resident(&server);
    eprintln!("{launched} launched while nobody read, {before} KiB -> {stalled} KiB");
    // How many it is depends on the buffers of the sockets, and on how busy the machine is.
    assert!((1_000..LINES * 3 / 4).contains(&launched), "{launched}");

    let (mut next, mut largest) = (0, 0);
    let count = answers
        .count(|line| {
            assert_eq!((&line["status"], &line["id"]), (&json!(202), &json!(format!("n-{next}"))));
            next += 1;
            if next % 1_000 == 0 {
                largest = largest.max(resident(&server));
            }
        })
        .await;
    sending.join_all().await;
    eprintln!("{count} answered after {:?}, {largest} KiB at most", started.elapsed());
    assert_eq!(count, LINES);
    assert_eq!(known(&client.get("/stats").await), LINES);
    // The hot tier may fill up after the stall only; everything else is bounded.
    assert!(largest < stalled + (96 << 10), "{stalled} KiB -> {largest} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_launches_faster_than_single_calls() {
    const CLIENTS: u32 = 64;
    let (_receiver, _server, client) = start().await;
    // Only the launches: nothing starts.
    client.post("/handlers/hook/pause", "").await;
    let single = |prefix: &'static str, from: u32, to: u32| {
        let client = client.clone();
        async move {
            for number in from..to {
                let answer = client.post(&format!("/tasks/{prefix}-{number}"), "1").await;
                assert_eq!(answer.status, 202);
            }
        }
    };
    let started = Instant::now();
    single("one", 0, 1_000).await;
    let one = 1_000.0 / started.elapsed().as_secs_f64();

    let started = Instant::now();
    let clients: JoinSet<()> = (0..CLIENTS).map(|at| single("many", at * 150, (at + 1) * 150)).collect();
    clients.join_all().await;
    let many = 150.0 * f64::from(CLIENTS) / started.elapsed().as_secs_f64();

    let lines = lines(0..20_000, |n| json!({"id": format!("batch-{n}"), "input": 1}));
    let started = Instant::now();
    let answers = batch(&client, "/tasks", lines).await;
    let batched = 20_000.0 / started.elapsed().as_secs_f64();
    assert!(answers.len() == 20_000 && answers.iter().all(|one| one["status"] == 202));
    eprintln!(
        "launches a second: {one:.0} one after the other, {many:.0} over {CLIENTS} connections, {batched:.0} in a batch"
    );
}
