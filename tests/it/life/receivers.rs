//! Everything that a receiver can do, and what the record says of it: the table in the README.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;
use crate::support::within;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const HEAD: &str = "| the receiver | `state` | `error.kind` | in doubt | attempts |\n";
/// As many attempts as the policy of this test allows.
const ALL: usize = 4;

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    state: String,
    kind: Option<String>,
    in_doubt: Option<bool>,
    attempts: usize,
}

/// The rows of the table, by what the receiver does.
fn table() -> BTreeMap<String, Said> {
    let readme = fs::read_to_string(README).unwrap();
    let (_, table) = readme.split_once(HEAD).expect("the table of receivers");
    let lines = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    lines.map(|line| row(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn row(line: &str) -> Option<(String, Said)> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let [receiver, state, kind, in_doubt, attempts] = cells[..] else { return None };
    let in_doubt = match in_doubt {
        "" => None,
        "yes" => Some(true),
        "no" => Some(false),
        _ => return None,
    };
    let attempts = if attempts == "all" { ALL } else { attempts.parse().ok()? };
    let kind = (!kind.is_empty()).then(|| kind.to_owned());
    Some((receiver.to_owned(), Said { state: state.to_owned(), kind, in_doubt, attempts }))
}

fn said(record: &Value) -> Said {
    Said {
        state: record["state"].as_str().unwrap().to_owned(),
        kind: record["error"]["kind"].as_str().map(str::to_owned),
        in_doubt: record["in_doubt"].as_bool(),
        attempts: record["attempts"].as_array().unwrap().len(),
    }
}

/// A port that resets every connection as soon as a request is read.
async fn resetting() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.set_zero_linger().unwrap();
        }
    });
    (port, serving)
}

/// A port that answers whatever it is told with plain text.
async fn plain() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    (port, serving)
}

async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    // The input stands behind the head.
    while !read.ends_with(b"\r\n\r\nthe input") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
    }
}

/// A port on which nobody listens.
async fn closed() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port()
}

fn handler(name: &str, url: &str, timeout: &str) -> String {
    format!(
        "[handlers.{name}]\ntype = \"webhook\"\nurl = \"{url}\"\ntimeout = \"{timeout}\"\n\
         retry = {{ attempts = {ALL}, initial = \"10ms\", max_interval = \"50ms\" }}\n"
    )
}

#[tokio::test]
async fn a_record_says_of_each_receiver_what_the_readme_says() {
    let receiver = Receiver::start().await;
    let gate = Gate::new();
    let ok = || Answer::of(200).body("fine");
    let plain_answer = |code| vec![Behaviour::Answer(Answer::of(code))];
    let unavailable = || Behaviour::Answer(Answer::of(503));
    let busy = Answer::of(429).header("retry-after", "1");
    let scripted = [
        ("answers 200", plain_answer(200)),
        ("answers 503 twice, then 200", vec![unavailable(), unavailable(), Behaviour::Answer(ok())]),
        ("answers 429 with `Retry-After`", vec![Behaviour::Answer(busy)]),
        ("answers 500", plain_answer(500)),
        ("answers 302", vec![Behaviour::Answer(Answer::of(302).header("location", "/elsewhere"))]),
        ("answers 410", plain_answer(410)),
        ("accepts and never answers", vec![Behaviour::NeverAnswer]),
        ("answers after the timeout", vec![Behaviour::AnswerAfter(gate.clone(), ok())]),
        ("hangs up without an answer", vec![Behaviour::HangUp]),
        ("hangs up behind the headers", vec![Behaviour::HangUpAfterHead(ok())]),
    ];
    let ((reset, _resetting), (plain, _plain)) = (resetting().await, plain().await);
    let others = [
        ("has its port closed", format!("http://127.0.0.1:{}/", closed().await)),
        ("has a name that is not found", "http://name.invalid/".to_owned()),
        ("speaks no TLS behind an https URL", format!("https://127.0.0.1:{plain}/")),
        ("resets the connection", format!("http://127.0.0.1:{reset}/")),
    ];
    let mut config = handler("scripted", &receiver.url("/{id}"), "700ms");
    for (n, (_, url)) in others.iter().enumerate() {
        config += &handler(&format!("other-{n}"), url, "20s");
    }
    let server = TestServer::start(&config);
    let client = server.client();

    let mut cases = Vec::new();
    for (n, (what, behaviours)) in scripted.into_iter().enumerate() {
        let id = format!("scripted-{n}");
        receiver.on(&id, behaviours);
        cases.push((what, id, "scripted".to_owned()));
    }
    for (n, (what, _)) in others.iter().enumerate() {
        cases.push((*what, format!("other-{n}"), format!("other-{n}")));
    }
    for (_, id, handler) in &cases {
        let launched = client.post(&format!("/tasks/{id}?handler={handler}"), "the input").await;
        assert_eq!(launched.status, 202, "{}", launched.text());
    }
    let table = table();
    let mut records = BTreeMap::new();
    for (what, id, handler) in &cases {
        client.get(&format!("/tasks/{id}/status?wait=30")).await;
        let record = client.get(&format!("/tasks/{id}")).await.json();
        let what = what.replace('`', "");
        let expected = table.iter().find(|(row, _)| row.replace('`', "") == what);
        let (_, expected) = expected.unwrap_or_else(|| panic!("no row says: {what}"));
        assert_eq!(&said(&record), expected, "{what}: {record:#}");
        if handler == "scripted" {
            assert_eq!(receiver.count(id), expected.attempts, "{what}");
        }
        records.insert(id.clone(), record);
    }
    assert_eq!(table.len(), cases.len(), "each row is about one of these receivers");

    // Neither an answer that comes too late nor a redirect changes anything.
    gate.open();
    within("the late answer is out", receiver.wait_for_closed(1)).await;
    for (id, record) in records {
        assert_eq!(client.get(&format!("/tasks/{id}")).await.json(), record);
    }
    assert!(receiver.calls().iter().all(|call| call.target.starts_with("/scripted-")));
}
