//! Very many clients at once: idle ones, and ones that hang up early.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Besieged, SLACK, connected, narrow, open_files, rest, said};
use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Gate};
use crate::support::within;

const IDLE: usize = 10_000;
/// What this process has open besides the idle connections.
const OTHER_FILES: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_are_closed_in_time() {
    let possible = usize::try_from(open_files().saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let number = IDLE.min(possible);
    if number < IDLE {
        eprintln!(
            "ONLY {number} IDLE CONNECTIONS INSTEAD OF {IDLE}: the system allows too few open files (ulimit -Hn)"
        );
    }
    let besieged = Besieged::start("header_timeout = \"20s\"").await;
    let begun = Instant::now();
    let idle = crowd(&besieged.address(), number, true).await;
    let opened = begun.elapsed();
    let mut held = super::Footprint::of(&besieged.client).await.open_files;
    // A few have made room for the normal client.
    let most = if number == IDLE { 9_500.0 } else { 0.0 };
    within("all of them to be accepted", async {
        while held < most {
            tokio::time::sleep(Duration::from_millis(50)).await;
            held = super::Footprint::of(&besieged.client).await.open_files;
        }
    })
    .await;
    // Half of them has asked for something before, so that they are kept connections.
    let mut clients = JoinSet::new();
    for mut stream in idle {
        clients.spawn(async move {
            let answer = rest(&mut stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }
    clients.join_all().await;
    let took = begun.elapsed();
    eprintln!(
        "{number} idle connections: opened in {opened:.1?}, the service had {held} files open, closed after {took:.1?}"
    );
    assert!(took < opened + Duration::from_secs(20) + SLACK, "{took:?}");
    besieged.over("idle connections").await;
}

/// With fewer places than idle connections, a normal client does not wait until theirs are up.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_new_ones_and_busy_ones_do_not() {
    let besieged = Besieged::start("header_timeout = \"1h\"\nconnections_max = 100").await;
    let gate = Gate::new();
    besieged.receiver.on("busy", [Behaviour::AnswerAfter(gate.clone(), Answer::of(200))]);
    let mut busy = connected(&besieged.address()).await;
    busy.write_all(b"POST /tasks/busy?wait=60 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut reader = connected(&besieged.address()).await;
    reader.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();

    let idle = crowd(&besieged.address(), 1_000, false).await;
    // The normal client has kept its connection: those that never asked have gone.
    let files = super::Footprint::of(&besieged.client).await.open_files;
    assert!(files < besieged.before.open_files + 130.0, "{files} files are open");
    gate.open();
    let answer = rest(&mut busy).await;
    assert!(answer.contains("\"success\""), "{answer}");
    // The stream goes on.
    let told = besieged.client.post("/tasks/after?wait=30", "").await;
    assert_eq!(told.json()["state"], "success");
    let mut seen = String::new();
    within("the event", async {
        while !seen.contains("\"after\"") {
            let mut piece = [0; 4 << 10];
            let size = reader.read(&mut piece).await.unwrap();
            assert!(size > 0, "the stream ended: {seen}");
            seen += &String::from_utf8_lossy(&piece[..size]);
        }
    })
    .await;
    drop((idle, reader));
    besieged.over("more idle connections than places").await;
}

/// Its answer has left the interface, but not the buffers.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_yet_to_read_an_answer_keeps_its_place() {
    let limits = "header_timeout = \"1h\"\nconnections_max = 100\nsend_buffer = \"16KiB\"";
    let besieged = Besieged::start(limits).await;
    let whole = besieged.client.get("/openapi.json").await;
    let mut slow = narrow(&besieged.address()).await;
    slow.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut read = vec![0; 1];
    slow.read_exact(&mut read).await.unwrap();

    // Others have had their answer since, and take each other's places.
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = connected(&besieged.address()).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        within("an answer", stream.read_exact(&mut [0; 1])).await.unwrap();
        idle.push(stream);
    }
    within("the rest of the answer", async {
        while !read.ends_with(whole.text().as_bytes()) {
            assert!(slow.read_buf(&mut read).await.unwrap() > 0, "it is cut after {} bytes", read.len());
        }
    })
    .await;
    drop(idle);
    besieged.over("a slow reader among idle connections").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hang_ups_cost_nothing_and_cut_nothing() {
    const HANG_UPS: usize = 3_000;
    let besieged = Besieged::start("").await;
    let mut clients = JoinSet::new();
    for number in 0..HANG_UPS {
        let address = besieged.address();
        clients.spawn(async move {
            let request = format!(
                "POST /tasks/gone-{number}?wait=30 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\ninput"
            );
            let mut stream = connected(&address).await;
            // From nothing to all of it.
            let part = request.len() * (number % 21) / 20;
            stream.write_all(&request.as_bytes()[..part]).await.unwrap();
            if number % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        });
        if clients.len() > 200 {
            clients.join_next().await;
        }
    }
    clients.join_all().await;
    let client = besieged.client.clone();
    within("every launch to settle", async {
        // One may be that of the normal client.
        while client.get("/stats").await.json()["tasks"]["working"].as_u64() > Some(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut launched = 0;
    for number in 0..HANG_UPS {
        let answer = client.get(&format!("/tasks/gone-{number}/status")).await;
        // A request that was cut is none. Of those that came whole, some are over before anybody has looked at them.
        if answer.status == 200 {
            assert_eq!(number % 21, 20, "gone-{number} was launched with a part of a request");
            assert_eq!(answer.json()["state"], "success");
            launched += 1;
        }
    }
    eprintln!("{launched} of {} whole requests were launched", HANG_UPS.div_ceil(21));
    besieged.over("early hang-ups").await;
}

/// Where the system allows few open files, connections do not take those that handlers need.
#[tokio::test(flavor = "multi_thread")]
async fn files_stay_for_handlers_where_the_system_allows_few() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[handlers.echo]\ntype = \"command\"\ncommand = [\"cat\"]\ndefault = true\n";
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let mut service = Ended(
        Command::new("sh")
            // The soft limit is lower, and is raised.
            .args([
                "-c",
                "ulimit -Sn 100 && ulimit -Hn 200 && exec \"$0\" --config config.toml --listen 127.0.0.1:0",
            ])
            .arg(env!("CARGO_BIN_EXE_task-recorder"))
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = std::io::BufReader::new(service.0.stdout.take().unwrap()).lines();
    let mut log: Vec<Value> = Vec::new();
    let address = loop {
        let entry: Value = serde_json::from_str(&lines.next().expect("it listens").unwrap()).unwrap();
        if let Some(address) = entry["listen"].as_str() {
            break address.to_owned();
        }
        log.push(entry);
    };
    let warning =
        log.iter().find(|entry| entry["connections_max"] == 136).unwrap_or_else(|| panic!("{log:?}"));
    assert_eq!((&warning["level"], &warning["open_files"]), (&"WARN".into(), &200.into()));

    let _idle = crowd(&address, 400, true).await;
    let client = Client::new(format!("http://{address}"));
    for number in 0..20 {
        let answer = client.post(&format!("/tasks/t-{number}?wait=30"), "input").await;
        assert_eq!(answer.json()["state"], "success", "{}", answer.text());
        assert!(said(&address, b"GET /livez HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 "));
    }
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// So many connections. Half of them may ask for something first.
async fn crowd(address: &str, number: usize, may_ask: bool) -> Vec<TcpStream> {
    let mut clients = JoinSet::new();
    let mut idle = Vec::with_capacity(number);
    for number in 0..number {
        let address = address.to_owned();
        clients.spawn(async move {
            let mut stream = connected(&address).await;
            if may_ask && number % 2 == 0 {
                // Somebody else may need its place already.
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            }
            stream
        });
        if clients.len() > 100 {
            idle.push(clients.join_next().await.unwrap().unwrap());
        }
    }
    idle.extend(clients.join_all().await);
    idle
}
