//! Webhooks: what is sent, what is kept, and what each kind of trouble comes to.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use task_recorder::handler::webhook::{Egress, Tls, WebhookSettings};
use task_recorder::handler::{Action, Handler, Webhook};
use task_recorder::task::{Code, ErrorKind, Outcome};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{assert_failed, handler, output};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::{task, within};

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(200);

pub(super) fn settings(url: &str) -> WebhookSettings {
    WebhookSettings {
        url: url.parse().unwrap(),
        method: Method::POST,
        headers: Vec::new(),
        timeout: LONG,
        success: vec![200..=299],
        success_body: None,
        output_bytes_max: 1000,
        egress: Egress::default(),
        secrets: Vec::new(),
        tls: Tls::default(),
    }
}

fn webhook(settings: WebhookSettings) -> Handler {
    handler(Action::Webhook(Webhook::new(settings)))
}

/// Calls `url` for the task `t`.
async fn call(settings: WebhookSettings) -> Outcome {
    within("the webhook", webhook(settings).run(&task("t", None, "in"), 1, &CancellationToken::new())).await
}

async fn receiver_that(behaviour: Behaviour) -> Receiver {
    let receiver = Receiver::start().await;
    receiver.by_default(behaviour);
    receiver
}

#[tokio::test]
async fn a_call_carries_the_input_unchanged_and_says_whose_it_is() {
    let receiver = receiver_that(Behaviour::Answer(
        Answer::of(201).header("content-type", "text/x; charset=latin1").body("made"),
    ))
    .await;
    let headers =
        [("x-order", "order {id} run {run}"), ("x-two", "a"), ("x-two", "b"), ("task-id", "forged")];
    let handler = webhook(WebhookSettings {
        method: Method::PUT,
        headers: headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).to_vec(),
        ..settings(&receiver.url("/orders/{id}?again={attempt}&of={id}"))
    });
    let input: Vec<u8> = (0..=255).collect();
    let outcome = handler
        .run(&task("a=b+c", Some("Application/X;  y=\"Z\""), input.clone()), 3, &CancellationToken::new())
        .await;

    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.code, Some(Code::HttpStatus(201)));
    let kept = outcome.output.unwrap();
    assert_eq!((kept.bytes, kept.truncated), (Bytes::from("made"), false));
    assert_eq!(kept.media_type.as_deref(), Some("text/x; charset=latin1"));

    let [call] = receiver.calls().try_into().unwrap();
    assert_eq!((call.method.as_str(), call.target.as_str()), ("PUT", "/orders/a=b+c?again=3&of=a%3Db%2Bc"));
    assert_eq!(call.body, input);
    for (name, value) in [
        ("host", receiver.address().to_string().as_str()),
        ("content-length", "256"),
        ("content-type", "Application/X;  y=\"Z\""),
        ("user-agent", concat!("task-recorder/", env!("CARGO_PKG_VERSION"))),
        ("task-id", "a=b+c"),
        ("task-run", "1"),
        ("task-attempt", "3"),
        ("x-order", "order a=b+c run 1"),
    ] {
        let values: Vec<_> = call.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    assert_eq!(call.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(call.headers.len(), 11, "{:?}", call.headers);
}

#[tokio::test]
async fn an_input_without_bytes_or_media_type_is_sent_as_such() {
    let receiver = Receiver::start().await;
    let headers = vec![("content-type".parse().unwrap(), "application/json".parse().unwrap())];
    for settings in [settings(&receiver.url("")), WebhookSettings { headers, ..settings(&receiver.url("")) }]
    {
        let outcome = webhook(settings).run(&task("t", None, ""), 1, &CancellationToken::new()).await;
        assert_eq!((outcome.result, outcome.output), (Ok(()), None));
    }
    let [without, with] = receiver.calls().try_into().unwrap();
    assert_eq!(without.headers.get("content-type"), None);
    assert_eq!(with.headers.get("content-type").unwrap(), "application/json");
    assert_eq!(
        (without.target.as_str(), without.headers.get("content-length").unwrap()),
        ("/", &"0".parse().unwrap())
    );
}

#[tokio::test]
async fn the_status_decides_and_no_redirect_is_followed() {
    let receiver = Receiver::start().await;
    for (status, in_doubt) in [
        (301, false),
        (307, false),
        (404, false),
        (429, false),
        (500, true),
        (502, true),
        (503, false),
        (599, true),
    ] {
        let elsewhere = receiver.url("/elsewhere");
        receiver.by_default(Behaviour::Answer(Answer::of(status).header("location", elsewhere).body("why")));
        let outcome = call(settings(&receiver.url("/"))).await;
        assert_failed(&outcome, ErrorKind::Status, in_doubt, &format!("answered {status}"));
        assert_eq!(outcome.code, Some(Code::HttpStatus(status)));
        assert_eq!(output(&outcome), "why");
    }
    assert!(receiver.calls().iter().all(|call| call.target == "/"));

    receiver.by_default(Behaviour::Answer(Answer::of(404)));
    let gone_is_fine =
        WebhookSettings { success: vec![200..=204, 404..=404], ..settings(&receiver.url("/")) };
    assert_eq!(call(gone_is_fine).await.result, Ok(()));

    receiver.by_default(Behaviour::Answer(Answer::of(202)));
    let only_200 = WebhookSettings { success: vec![200..=200], ..settings(&receiver.url("/")) };
    assert_failed(&call(only_200).await, ErrorKind::Status, true, "answered 202");
}

#[tokio::test]
async fn a_body_has_to_fit_the_pattern_where_there_is_one() {
    let receiver = receiver_that(Behaviour::Answer(Answer::of(200).body("{\"ok\":false}"))).await;
    let with = |pattern: &str| WebhookSettings {
        success_body: Some(regex::bytes::Regex::new(pattern).unwrap()),
        ..settings(&receiver.url("/"))
    };
    let outcome = call(with("\"ok\":true")).await;
    assert_failed(&outcome, ErrorKind::Body, true, "does not fit");
    assert_eq!((outcome.code, output(&outcome)), (Some(Code::HttpStatus(200)), "{\"ok\":false}".to_owned()));
    assert_eq!(call(with("^.{3}k")).await.result, Ok(()));
}

#[tokio::test]
async fn a_body_is_looked_at_behind_the_part_that_is_kept() {
    let receiver = Receiver::start().await;
    let with = |output_bytes_max| WebhookSettings {
        success_body: Some(regex::bytes::Regex::new("paid").unwrap()),
        output_bytes_max,
        ..settings(&receiver.url("/"))
    };
    let limit = 64 * 1024;
    for (before, output_bytes_max, fits) in [
        (100, 10, true),
        (100, 0, true),
        (limit - 4, 10, true),
        (limit - 3, 10, false),
        (limit - 3, limit + 1, true),
    ] {
        let body = format!("{}paid", "x".repeat(before));
        receiver.by_default(Behaviour::Answer(Answer::of(200).body(body.clone())));
        let outcome = call(with(output_bytes_max)).await;
        assert_eq!(outcome.result.is_ok(), fits, "{before} {output_bytes_max}: {:?}", outcome.result);
        let kept = outcome.output.map(|output| (output.bytes.len(), output.truncated));
        let is_cut = body.len() > output_bytes_max;
        let kept_max = output_bytes_max.min(body.len());
        assert_eq!(kept, (kept_max > 0).then_some((kept_max, is_cut)));
    }
    // Of one that is no success nothing more is read than is kept.
    receiver.by_default(Behaviour::Endless(500));
    let outcome = call(with(10)).await;
    assert_failed(&outcome, ErrorKind::Status, true, "answered 500");
    assert_eq!(output(&outcome), "x".repeat(10));
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_and_the_connection_dropped() {
    let receiver = Receiver::start().await;
    let mut cut = 0;
    for (behaviour, is_success) in [
        (Behaviour::Endless(200), true),
        (Behaviour::Endless(500), false),
        (Behaviour::Huge(200, 1 << 40), true),
    ] {
        receiver.by_default(behaviour);
        let outcome = call(settings(&receiver.url("/"))).await;
        assert_eq!(outcome.result.is_ok(), is_success, "{outcome:?}");
        assert_eq!(outcome.output.as_ref().map(|output| output.truncated), Some(true));
        assert_eq!(output(&outcome), "x".repeat(1000));
        cut += 1;
        receiver.wait_for_cut(cut).await;
    }
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_whole() {
    let receiver = Receiver::start().await;
    for (size, truncated) in [(999, false), (1000, false), (1001, true)] {
        receiver.by_default(Behaviour::Huge(200, size));
        let kept = call(settings(&receiver.url("/"))).await.output.unwrap();
        assert_eq!((kept.truncated, kept.bytes.len()), (truncated, 1000.min(usize::try_from(size).unwrap())));
    }
}

#[tokio::test]
async fn nobody_there_is_refused_without_doubt() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let outcome = call(settings(&format!("http://{free}/"))).await;
    let says = format!("nobody accepts connections at {free} (connection refused)");
    assert_failed(&outcome, ErrorKind::Refused, false, &says);
    assert_eq!(outcome.code, None);
    let outcome = call(settings(&format!("https://{free}/"))).await;
    assert_failed(&outcome, ErrorKind::Refused, false, "connection refused");
}

#[tokio::test]
async fn an_unknown_name_is_dns_without_doubt() {
    let outcome = call(settings("http://name.invalid/")).await;
    assert_failed(&outcome, ErrorKind::Dns, false, "name.invalid");
}

#[tokio::test]
async fn no_tls_session_is_tls_without_doubt() {
    let receiver = Receiver::start().await;
    let outcome = call(settings(&format!("https://{}/", receiver.address()))).await;
    assert_failed(&outcome, ErrorKind::Tls, false, &receiver.address().to_string());
    receiver.hang_up_on_accept();
    let outcome = call(settings(&format!("https://{}/", receiver.address()))).await;
    assert_failed(&outcome, ErrorKind::Tls, false, "no TLS session");
    assert_eq!(receiver.calls().len(), 0);
}

#[tokio::test]
async fn a_timeout_is_in_doubt_only_once_something_was_sent() {
    // It accepts, and says nothing: TLS is never agreed on.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let outcome = call(WebhookSettings { timeout: SHORT, ..settings(&url) }).await;
    assert_failed(&outcome, ErrorKind::Timeout, false, "no connection");

    let receiver = receiver_that(Behaviour::NeverAnswer).await;
    for input in ["in", ""] {
        let handler = webhook(WebhookSettings { timeout: SHORT, ..settings(&receiver.url("/")) });
        let outcome =
            within("the timeout", handler.run(&task("t", None, input), 1, &CancellationToken::new())).await;
        assert_failed(&outcome, ErrorKind::Timeout, true, "did not answer within 200ms");
        assert_eq!(outcome.code, None);
    }
    receiver.wait_for_cut(2).await;
}

#[tokio::test]
async fn a_call_that_is_told_to_end_before_it_begins_is_not_made() {
    let ending = CancellationToken::new();
    ending.cancel();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let handler = webhook(settings(&format!("http://{}/", listener.local_addr().unwrap())));
    let outcome = handler.run(&task("t", None, "in"), 1, &ending).await;
    assert_failed(&outcome, ErrorKind::Canceled, false, "told to end");
    let accepted = listener.accept().map_err(|error| error.kind());
    assert!(matches!(accepted, Err(std::io::ErrorKind::WouldBlock)), "nobody connects: {accepted:?}");

    // Nor over a connection that waits to be used again.
    let receiver = receiver_that(Behaviour::Answer(Answer::of(200))).await;
    let handler = webhook(settings(&receiver.url("/")));
    assert_eq!(handler.run(&task("t", None, "in"), 1, &CancellationToken::new()).await.result, Ok(()));
    let outcome = handler.run(&task("t", None, "in"), 2, &ending).await;
    assert_failed(&outcome, ErrorKind::Canceled, false, "told to end");
    assert_eq!(handler.run(&task("u", None, "in"), 1, &CancellationToken::new()).await.result, Ok(()));
    assert_eq!((receiver.count("t"), receiver.count("u")), (1, 1));
}

#[tokio::test]
async fn the_deadline_covers_the_body_too() {
    let receiver = receiver_that(Behaviour::StallInBody(Answer::of(200).body("abc"))).await;
    let outcome = call(WebhookSettings { timeout: SHORT, ..settings(&receiver.url("/")) }).await;
    assert_failed(&outcome, ErrorKind::Timeout, true, "the body did not end");
    assert_eq!((outcome.code, output(&outcome)), (Some(Code::HttpStatus(200)), "ab".to_owned()));
    assert_eq!(outcome.output.map(|output| output.truncated), Some(true));
}

#[tokio::test]
async fn a_lost_connection_is_in_doubt_once_something_was_sent() {
    let answer = || Answer::of(200).body("abc");
    for (behaviour, says, kept) in [
        (Behaviour::HangUp, "before it answered", ""),
        (Behaviour::HangUpAfterHead(answer()), "before the body did", ""),
        (Behaviour::HangUpInBody(answer()), "before the body did", "ab"),
        (Behaviour::Raw("HTTP/1.1 20".into()), "before it answered", ""),
        (Behaviour::Raw("SSH-2.0\r\n\r\n".into()), "is not HTTP", ""),
        (Behaviour::Raw("HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".into()), "200 OK", ""),
    ] {
        let receiver = receiver_that(behaviour).await;
        let outcome = call(settings(&receiver.url("/"))).await;
        assert_failed(&outcome, ErrorKind::ConnectionLost, true, says);
        assert_eq!(output(&outcome), kept);
        assert_eq!(receiver.count("t"), 1, "sent once");
    }
}

#[tokio::test]
async fn a_refusal_stands_even_if_its_body_is_lost() {
    let receiver = receiver_that(Behaviour::HangUpInBody(Answer::of(404).body("abc"))).await;
    let outcome = call(settings(&receiver.url("/"))).await;
    assert_failed(&outcome, ErrorKind::Status, false, "answered 404");
}

#[tokio::test]
async fn connections_are_used_again_and_one_that_has_ended_meanwhile_does_no_harm() {
    let receiver = Receiver::start().await;
    let handler = webhook(settings(&receiver.url("/{id}")));
    for n in 0..10 {
        assert_eq!(
            handler.run(&task(&format!("t{n}"), None, "in"), 1, &CancellationToken::new()).await.result,
            Ok(())
        );
    }
    assert_eq!(receiver.connections(), 1);
    receiver.by_default(Behaviour::AnswerAndLeave(Answer::of(200)));
    for n in 1..=10 {
        assert_eq!(
            handler.run(&task("leaving", None, "in"), 1, &CancellationToken::new()).await.result,
            Ok(())
        );
        receiver.wait_for_closed(n).await;
    }
    assert_eq!(receiver.count("leaving"), 10, "each sent once");
    let connections: Vec<_> = receiver.calls().iter().skip(10).map(|call| call.connection).collect();
    assert_eq!(connections, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dropped_run_ends_its_request() {
    let gate = Gate::new();
    let receiver = receiver_that(Behaviour::AnswerAfter(gate.clone(), Answer::of(200))).await;
    let handler = webhook(settings(&receiver.url("/")));
    let task = task("t", None, "in");
    let ending = CancellationToken::new();
    tokio::select! {
        outcome = handler.run(&task, 1, &ending) => panic!("{outcome:?}"),
        () = receiver.wait_for(1) => (),
    }
    receiver.wait_for_cut(1).await;
    gate.open();
    assert_eq!(handler.run(&task, 2, &CancellationToken::new()).await.result, Ok(()));
    assert_eq!((receiver.count("t"), receiver.connections()), (2, 2));
}

#[tokio::test]
async fn a_script_goes_call_by_call() {
    let receiver = Receiver::start().await;
    let handler = webhook(settings(&receiver.url("/")));
    let answers = |statuses: &[u16]| -> Vec<_> {
        statuses.iter().map(|status| Behaviour::Answer(Answer::of(*status))).collect()
    };
    receiver.on("t", answers(&[503, 429, 200]));
    let mut codes = Vec::new();
    for attempt in 1..=4 {
        codes.push(handler.run(&task("t", None, ""), attempt, &CancellationToken::new()).await.code);
    }
    assert_eq!(codes, [503, 429, 200, 200].map(|status| Some(Code::HttpStatus(status))));
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let receiver = Receiver::start().await;
    let headers =
        ["Bearer hush", "hush {id}"].map(|value| ("authorization".parse().unwrap(), value.parse().unwrap()));
    let handler = webhook(WebhookSettings { headers: headers.to_vec(), ..settings(&receiver.url("/")) });
    assert_eq!(handler.run(&task("t", None, ""), 1, &CancellationToken::new()).await.result, Ok(()));
    assert_eq!(receiver.calls()[0].headers.get_all("authorization").iter().count(), 2);
    assert!(!format!("{handler:?}").contains("hush"), "{handler:?}");
    let broken = vec![("x".parse().unwrap(), "hush\n{id}".parse().unwrap())];
    let outcome = call(WebhookSettings { headers: broken, ..settings(&receiver.url("/")) }).await;
    assert_failed(&outcome, ErrorKind::Error, false, "header x");
    assert!(!format!("{outcome:?}").contains("hush"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_all_arrive_once() {
    const CALLERS: usize = 64;
    const CALLS: usize = 10_000;
    let receiver = receiver_that(Behaviour::Answer(Answer::of(200).body("ok"))).await;
    let handler = std::sync::Arc::new(webhook(settings(&receiver.url("/{id}"))));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let handler = std::sync::Arc::clone(&handler);
        callers.spawn(async move {
            for n in (caller..CALLS).step_by(CALLERS) {
                let outcome =
                    handler.run(&task(&format!("t{n}"), None, "in"), 1, &CancellationToken::new()).await;
                assert_eq!((outcome.result.clone(), output(&outcome).as_str()), (Ok(()), "ok"));
            }
        });
    }
    within("all callers", callers.join_all()).await;
    receiver.wait_for(CALLS).await;
    assert!((0..CALLS).all(|n| receiver.count(&format!("t{n}")) == 1));
    assert!(receiver.connections() <= 2 * CALLERS, "{}", receiver.connections());
}
