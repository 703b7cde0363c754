//! Requests that others may read differently, and what is no request at all.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::{Besieged, connected, narrow, problem, rest, said};
use crate::support::within;

/// How many clients send the same at once.
const CLIENTS: usize = 20;

/// What is refused with 400, each with a word of the reason. `smuggled` is what an attacker would like to run.
const REFUSED: [(&str, &[u8], &str); 26] = [
    (
        "a coding behind a length",
        b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "not both",
    ),
    (
        "a length behind a coding, and a request behind its end",
        b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\nPOST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "not both",
    ),
    (
        "a length of nothing beside a coding",
        b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-length: 0\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        "not both",
    ),
    ("two lengths", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "at most one"),
    ("one length twice", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "at most one"),
    ("a list of lengths", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", "is a number"),
    ("a length with a sign", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "is a number"),
    ("a negative length", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", "is a number"),
    ("an endless length", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na", "is a number"),
    ("a length without a number", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\na", "is a number"),
    ("two codings", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    ("one coding twice", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    ("an unknown coding", b"POST /tasks/smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    ("a coding of HTTP/1.0", b"POST /tasks/smuggled HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    ("no Host", b"POST /tasks/smuggled HTTP/1.1\r\n\r\n", "one Host"),
    ("two Hosts", b"POST /tasks/smuggled HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "one Host"),
    ("bare line feeds", b"POST /tasks/smuggled HTTP/1.1\nHost: localhost\n\n", "CR and LF"),
    ("one bare line feed", b"POST /tasks/smuggled HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", "CR and LF"),
    ("a head that ends with bare line feeds", b"POST /tasks/smuggled HTTP/1.1\r\nHost: localhost\r\n\n", "CR and LF"),
    ("a folded line", b"POST /tasks/smuggled HTTP/1.1\r\nHost: localhost\r\nX: y\r\n z\r\n\r\n", "no HTTP request"),
    ("a space before the colon", b"POST /tasks/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length : 1\r\n\r\na", "no HTTP request"),
    ("another host in the target", b"POST http://example.com/tasks/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", "another host"),
    ("a fragment in the target", b"POST /tasks/smuggled#x HTTP/1.1\r\nHost: localhost\r\n\r\n", "target"),
    ("a target with characters that none has", b"POST /tasks/smuggled<> HTTP/1.1\r\nHost: localhost\r\n\r\n", "target"),
    ("another version", b"POST /tasks/smuggled HTTP/1.2\r\nHost: localhost\r\n\r\n", "HTTP/1.1"),
    ("no version", b"GET /tasks/smuggled\r\n\r\n", "no HTTP request"),
];

/// What is refused at once, and not only when a whole head has come.
const NO_HTTP: [(&str, &[u8], &str); 4] = [
    ("the beginning of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "no HTTP request"),
    ("bytes", b"\x00\xff\x00\xff", "no HTTP request"),
    ("a mail", b"EHLO <me>\r\n", "no HTTP request"),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_others_may_read_differently_is_refused_and_ends_the_connection() {
    let besieged = Besieged::start("").await;
    let mut clients = JoinSet::new();
    for (what, bytes, why) in REFUSED.into_iter().chain(NO_HTTP) {
        for number in 0..CLIENTS {
            let address = besieged.address();
            clients.spawn(async move {
                let answer = match number {
                    0 => byte_by_byte(&address, bytes).await,
                    _ => said(&address, bytes).await,
                };
                let detail = problem(&answer, 400, "malformed-request");
                assert!(detail.contains(why), "{what}: {detail}");
            });
        }
    }
    clients.join_all().await;
    besieged.client.get("/tasks/smuggled").await.problem(404, "not-found");
    besieged.over("requests that may be read differently").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_behind_good_ones_takes_nothing_from_their_answers() {
    // With and without a body, whose end is what is read last.
    const LAST: [&str; 3] = [
        "Host: localhost\r\n\r\n",
        "Host: localhost\r\nContent-Length: 3\r\n\r\nabc",
        "Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2 \r\nde\r\n0\r\nTrailer: t\r\n\r\n",
    ];
    let besieged = Besieged::start("").await;
    let mut clients = JoinSet::new();
    for (number, (what, bytes, why)) in REFUSED.into_iter().chain(NO_HTTP).enumerate() {
        for (kind, last) in LAST.into_iter().enumerate() {
            let address = besieged.address();
            clients.spawn(async move {
                let mut all = format!(
                    "POST /tasks/before-{number}-{kind}?wait=30 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc\
                     POST /tasks/last-{number}-{kind}?wait=30 HTTP/1.1\r\n{last}"
                )
                .into_bytes();
                all.extend_from_slice(bytes);
                let answer = said(&address, &all).await;
                let at: Vec<_> = [" 200 OK\r\n", " 400 Bad Request\r\n"]
                    .iter()
                    .flat_map(|status| answer.match_indices(status))
                    .map(|(at, _)| at - "HTTP/1.1".len())
                    .collect();
                assert_eq!(at.len(), 3, "{what}: {answer}");
                for answer in [&answer[..at[1]], &answer[at[1]..at[2]]] {
                    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"success\""), "{what}: {answer}");
                }
                assert!(problem(&answer[at[2]..], 400, "malformed-request").contains(why), "{what}");
            });
        }
    }
    clients.join_all().await;
    besieged.client.get("/tasks/smuggled").await.problem(404, "not-found");
    besieged.over("refused requests behind good ones").await;
}

/// What is left of an answer when the client takes its time goes out before the refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_waits_for_the_answer_that_a_slow_client_reads() {
    let besieged = Besieged::start("send_buffer = \"16KiB\"").await;
    let whole = besieged.client.get("/openapi.json").await.text().to_owned();
    assert!(whole.len() > 64 << 10, "{} bytes fit into the buffers", whole.len());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (address, whole) = (besieged.address(), whole.clone());
        clients.spawn(async move {
            let mut stream = narrow(&address).await;
            let good = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(format!("{good}{good}GET / HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            within("the end", async {
                let mut piece = [0; 4 << 10];
                loop {
                    let size = stream.read(&mut piece).await.unwrap();
                    if size == 0 {
                        break;
                    }
                    answer.extend_from_slice(&piece[..size]);
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let answer = String::from_utf8(answer).unwrap();
            let (before, refusal) = answer.split_at(answer.rfind("HTTP/1.1 400 ").expect("a refusal"));
            assert_eq!(before.matches(&whole).count(), 2, "an answer is cut");
            assert!(before.ends_with(&whole), "there is something behind the answer");
            assert!(problem(refusal, 400, "malformed-request").contains("one Host"));
        });
    }
    clients.join_all().await;
    besieged.over("refused requests behind large answers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_reads_in_the_same_way_is_served() {
    let besieged = Besieged::start("").await;
    let address = besieged.address();
    let host = address.as_str();
    for (what, request, body) in [
        (
            "a target with the host that is asked",
            format!("GET http://{host}/livez HTTP/1.1\r\nHost: {host}\r\n"),
            "",
        ),
        ("an old version", "GET /livez HTTP/1.0\r\n".to_owned(), ""),
        ("an empty line before", "\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n".to_owned(), ""),
        ("many spaces", "GET /livez HTTP/1.1\r\nHost: \t localhost \t \r\n".to_owned(), ""),
        (
            "an offer of HTTP/2",
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: upgrade\r\n".to_owned(),
            "",
        ),
        (
            "a body that nobody wants",
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n".to_owned(),
            "body",
        ),
        (
            "chunks",
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n".to_owned(),
            "1\r\nx\r\n0\r\n\r\n",
        ),
    ] {
        // The second one is there to end the connection, and to be found behind the end of the first.
        let next = "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = said(host, format!("{request}\r\n{body}{next}").as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 "),
            "{what}: {answer}"
        );
        let is_last = what == "an old version";
        assert_eq!(answer.matches(" 200 OK").count(), if is_last { 1 } else { 2 }, "{what}: {answer}");
    }
    for (target, status, code) in [("*", 404, "unknown-route"), ("localhost:80", 404, "unknown-route")] {
        let method = if target == "*" { "OPTIONS" } else { "CONNECT" };
        let host = if target == "*" { "localhost" } else { target };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        problem(&said(&besieged.address(), request.as_bytes()).await, status, code);
    }
    besieged.over("unusual requests").await;
}

/// The service does not speak HTTP/2 to its clients: whatever comes behind the preface is not looked at.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_http_2_end_with_their_first_line() {
    let besieged = Besieged::start("").await;
    let mut clients = JoinSet::new();
    for number in 0..64_u32 {
        let address = besieged.address();
        clients.spawn(async move {
            let mut stream = connected(&address).await;
            let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
            for id in 0..20_000_u32 {
                // Settings, pings, requests that are reset at once, endless continuations.
                let (kind, flags) = [(4, 0), (6, 0), (1, 4), (3, 0), (9, 0)][((id + number) % 5) as usize];
                let payload: &[u8] = if kind == 4 { b"" } else { b"\x00\x00\x00\x08\x00\x00\x00\x08" };
                flood.extend_from_slice(&[0, 0, if kind == 4 { 0 } else { 8 }, kind, flags]);
                flood.extend_from_slice(&(id * 2 + 1).to_be_bytes());
                flood.extend_from_slice(payload);
            }
            let _ = stream.write_all(&flood).await;
            let answer = rest(&mut stream).await;
            // Who goes on sending may not see it any more.
            assert!(answer.is_empty() || problem(&answer, 400, "malformed-request").contains("HTTP/1.1"));
            answer.is_empty()
        });
    }
    let unheard = clients.join_all().await.into_iter().filter(|is_unheard| *is_unheard).count();
    assert!(unheard < 32, "{unheard} of 64 were not told why");
    besieged.over("floods of HTTP/2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giant_heads_are_refused_before_they_are_kept() {
    let besieged = Besieged::start("head_max = \"16KiB\"").await;
    let begin = "GET /livez HTTP/1.1\r\nHost: localhost\r\n";
    let long = "x".repeat(4 << 20);
    let too_large = [
        format!("{begin}X: {long}"),
        format!("{begin}{}\r\n", "X: y\r\n".repeat(100)),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("{begin}X: {}\r\n\r\n", "x".repeat(16 << 10)),
        "\r\n".repeat(1 << 20),
        long,
    ];
    let mut clients = JoinSet::new();
    for head in too_large {
        let head: std::sync::Arc<[u8]> = head.into_bytes().into();
        for _ in 0..CLIENTS {
            let (address, head) = (besieged.address(), std::sync::Arc::clone(&head));
            clients.spawn(async move {
                problem(&said(&address, &head).await, 431, "head-too-large");
            });
        }
    }
    clients.join_all().await;
    let just_right = format!("{begin}{}Connection: close\r\n\r\n", "X: y\r\n".repeat(98));
    assert!(said(&besieged.address(), just_right.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    let filled = "x".repeat((16 << 10) - begin.len() - "X: \r\nConnection: close\r\n\r\n".len());
    let just_right = format!("{begin}X: {filled}\r\nConnection: close\r\n\r\n");
    assert!(said(&besieged.address(), just_right.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    besieged.over("giant heads").await;
}

async fn byte_by_byte(address: &str, bytes: &[u8]) -> String {
    let mut stream = connected(address).await;
    for byte in bytes {
        // It may be refused before its end.
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    rest(&mut stream).await
}
