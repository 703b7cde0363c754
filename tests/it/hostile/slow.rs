//! Clients that take their time: with the head, with the body, with reading.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Besieged, Footprint, SLACK, connected, narrow, problem, rest};
use crate::support::batch::{NDJSON, batch};
use crate::support::{batch, within};

/// How many of each kind there are at once.
const CLIENTS: usize = 300;
/// How many there are that are sent a lot.
const READERS: usize = 150;
/// How often a slow client sends a byte.
const TRICKLE: Duration = Duration::from_millis(100);
/// How many tasks are listed to who does not read, and the length of their ids.
const LISTED: usize = 6_000;
const ID_BYTES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_cut_off() {
    let besieged = Besieged::start("header_timeout = \"2s\"").await;
    let head = b"POST /tasks/slow HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = besieged.address();
        clients.spawn(async move {
            let mut stream = connected(&address).await;
            // A third says nothing, a third a part of a head, a third is slow with its second request.
            let (first, trickle): (&[u8], &[u8]) = match number % 3 {
                0 => (b"", b""),
                1 => (head, b"x"),
                _ => (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\n", b"x"),
            };
            stream.write_all(first).await.unwrap();
            let (answer, took) = until_closed(stream, trickle).await;
            assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
            // It is not answered: there is no request.
            assert_eq!(answer.matches("HTTP/1.1 ").count(), usize::from(number % 3 == 2), "{answer}");
        });
    }
    clients.join_all().await;
    besieged.client.get("/tasks/slow").await.problem(404, "not-found");
    besieged.over("slow heads").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_are_answered_with_408() {
    let besieged = Besieged::start("body_timeout = \"2s\"").await;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = besieged.address();
        clients.spawn(async move {
            let mut stream = connected(&address).await;
            let (path, framing) = match number % 4 {
                0 => ("/tasks/slow", "Content-Length: 1000\r\n\r\n"),
                1 => ("/tasks/slow", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"),
                2 => ("/lookup", "Content-Length: 1000\r\n\r\n"),
                _ => ("/bulk", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"),
            };
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{framing}");
            stream.write_all(head.as_bytes()).await.unwrap();
            let (answer, took) = until_closed(stream, b"x").await;
            assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
            problem(&answer, 408, "body-timeout");
        });
    }
    clients.join_all().await;
    besieged.client.get("/tasks/slow").await.problem(404, "not-found");
    besieged.over("slow bodies").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_stall_end_with_a_line_that_says_so() {
    let besieged = Besieged::start("body_timeout = \"1s\"").await;
    let mut clients = JoinSet::new();
    for number in 0..100 {
        let address = besieged.address();
        clients.spawn(async move {
            let mut stream = connected(&address).await;
            let line = format!("{{\"id\":\"stalled-{number}\"}}\n{{\"id\":\"half");
            let head = format!(
                "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{line}"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let (answer, took) = until_closed(stream, b"").await;
            assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"launched\":true"), "{answer}");
            assert!(answer.contains("/problems/body-timeout"), "{answer}");
        });
    }
    clients.join_all().await;
    besieged.over("batches that stall").await;
}

/// Half a megabyte each, of which eight fit in at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_share_a_room_and_small_ones_need_none() {
    const BYTES: usize = 512 << 10;
    let besieged = Besieged::start("body_timeout = \"5s\"\nbodies_max = \"4MiB\"").await;
    let mut clients = JoinSet::new();
    for number in 0..60 {
        let address = besieged.address();
        clients.spawn(async move {
            let mut stream = connected(&address).await;
            let (path, more) = match number % 3 {
                0 => ("/tasks", "\r\nContent-Type: application/x-ndjson"),
                1 => ("/tasks/large", ""),
                _ => ("/tasks/large", "\r\nTransfer-Encoding: chunked\r\n\r\n7ffff"),
            };
            let length = if number % 3 == 2 { String::new() } else { format!("\r\nContent-Length: {BYTES}") };
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost{length}{more}\r\n");
            let head = if number % 3 == 2 { head } else { head + "\r\n" };
            let body = "x".repeat(BYTES - 1);
            // Who is refused does not send it all.
            let _ = stream.write_all((head + &body).as_bytes()).await;
            let (answer, _) = until_closed(stream, b"").await;
            let is_refused = answer.contains("/problems/too-many-bodies");
            assert!(is_refused || answer.contains("/problems/body-timeout"), "{number}: {answer:?}");
            if number % 3 > 0 && is_refused {
                problem(&answer, 503, "too-many-bodies");
                assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
            }
            is_refused
        });
    }
    let refused = clients.join_all().await.into_iter().filter(|is_refused| *is_refused).count();
    eprintln!("{refused} of 60 large bodies were refused");
    assert!((60 - 9..60).contains(&refused), "{refused}");
    besieged.client.get("/tasks/large").await.problem(404, "not-found");
    // There is room again, for all of it at once.
    let large = besieged.client.post("/tasks/large?wait=30", "x".repeat(BYTES)).await;
    assert_eq!(large.json()["state"], "success", "{}", large.text());
    let lines = "\n".repeat(BYTES) + "{\"id\":\"line\"}";
    assert_eq!(batch(&besieged.client, "/tasks", lines).await.len(), 1);
    besieged.over("large bodies").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off() {
    let mut besieged = Besieged::start("write_timeout = \"2s\"\nsend_buffer = \"16KiB\"").await;
    let client = besieged.client.clone();
    client.post("/handlers/later/pause", "").await;
    let id = |number: usize| format!("listed-{number}-{}", "x".repeat(ID_BYTES));
    let lines =
        batch::lines(0..LISTED, |number| format!("{{\"id\":\"{}\",\"handler\":\"later\"}}", id(number)));
    assert_eq!(batch(&client, "/tasks", lines).await.len(), LISTED);

    // Each would be sent a megabyte or more.
    let list = |accept: &str| {
        format!("GET /tasks?state=working HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n")
    };
    let events = "GET /events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let page = "GET /tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let mut ask_again = String::new();
    for number in 0..LISTED {
        let _ = writeln!(ask_again, "{{\"id\":\"{}\",\"handler\":\"later\"}}", id(number));
    }
    let [(name, value)] = NDJSON;
    let again = format!(
        "POST /tasks HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\nContent-Length: {}\r\n\r\n{ask_again}",
        ask_again.len()
    );
    // Once more, because what the first time takes may stay: it must not become more.
    for _ in 0..2 {
        besieged.before = Footprint::of(&client).await;
        let mut clients = JoinSet::new();
        for number in 0..READERS {
            let address = besieged.address();
            let request = match number % 6 {
                0 => list("application/x-ndjson"),
                1 => list("text/plain"),
                2 => events.clone(),
                3 => page.clone(),
                _ => again.clone(),
            };
            clients.spawn(async move {
                let mut stream = narrow(&address).await;
                let sent = Instant::now();
                // Of a batch that nobody reads the answers of, only a part is taken.
                let _ = stream.write_all(request.as_bytes()).await;
                (stream, sent)
            });
        }
        // Nobody reads, so that the end of a connection is felt as a write that fails: it was reset.
        for (mut stream, sent) in clients.join_all().await {
            within("the service to cut a client off", async {
                while stream.write_all(b"\n").await.is_ok() {
                    tokio::time::sleep(TRICKLE).await;
                }
            })
            .await;
            assert!(sent.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", sent.elapsed());
            let mut read = Vec::new();
            // What had arrived may be read; it is not all.
            let _ = within("the end", stream.read_to_end(&mut read)).await;
            assert!(!read.ends_with(b"0\r\n\r\n"), "the answer was complete");
        }
    }
    besieged.over("slow readers").await;
}

/// Slow is not still: who goes on taking a little is served to the end.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_is_served_to_the_end() {
    let besieged = Besieged::start("write_timeout = \"2s\"\nsend_buffer = \"16KiB\"").await;
    let client = besieged.client.clone();
    client.post("/handlers/later/pause", "").await;
    let lines = batch::lines(0..LISTED / 6, |number| {
        format!("{{\"id\":\"listed-{number}-{}\",\"handler\":\"later\"}}", "x".repeat(ID_BYTES))
    });
    assert_eq!(batch(&client, "/tasks", lines).await.len(), LISTED / 6);
    let mut stream = narrow(&besieged.address()).await;
    let request = "GET /tasks?state=working HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut read, mut piece) = (Vec::new(), [0; 2 << 10]);
    loop {
        let size = within("a piece", stream.read(&mut piece)).await.unwrap();
        if size == 0 {
            break;
        }
        read.extend_from_slice(&piece[..size]);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let text = String::from_utf8(read).unwrap();
    assert!(text.ends_with("0\r\n\r\n"), "it broke off");
    // Otherwise it proves nothing.
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    besieged.over("a reader that is slow").await;
}

/// Sends this again and again until the connection is closed. Returns what was answered, and how long it took.
async fn until_closed(mut stream: TcpStream, trickle: &[u8]) -> (String, Duration) {
    let begun = Instant::now();
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4 << 10];
        match tokio::time::timeout(TRICKLE, stream.read(&mut piece)).await {
            Ok(Ok(size)) if size > 0 => answer.extend_from_slice(&piece[..size]),
            Ok(_) => break,
            Err(_elapsed) => {
                assert!(begun.elapsed() < Duration::from_mins(1), "it is never closed");
                // The end is seen by the next read.
                let _ = stream.write_all(trickle).await;
            }
        }
    }
    answer.extend_from_slice(rest(&mut stream).await.as_bytes());
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}
