//! Tokens that come, go and change while a request is under way.

use std::pin::{Pin, pin};

use futures_util::FutureExt as _;
use hyper::Method;
use task_recorder::store::Moved;
use tokio::sync::oneshot;

use super::{HANDLERS, hash, token};
use crate::stores::id;
use crate::support::client::Answer;
use crate::support::interface::{InProcess, arriving, whole};
use crate::support::within;

const ALL: &str = "scopes = [\"read\", \"launch\", \"operate\"]";
const FORGET: &str = "{\"action\":\"forget\",\"filter\":{\"handler\":\"fails\"}}";
const LOOKUP: &str = "{\"ids\":[\"a\"]}";
/// What is asked with a body.
const WITH_BODY: [(Method, &str, &str, u16); 4] = [
    (Method::POST, "/tasks/a", "two apples", 202),
    (Method::PUT, "/tasks/a", "two apples", 202),
    (Method::POST, "/bulk", FORGET, 202),
    (Method::POST, "/lookup", LOOKUP, 200),
];

/// The handlers, and this token among others.
fn config(tokens: &str) -> String {
    format!("{HANDLERS}{}{tokens}", token("other", ALL))
}

/// It goes as far as it can now, and waits for something then.
fn waits(answer: Pin<&mut impl Future<Output = Answer>>) {
    assert!(answer.now_or_never().is_none(), "it waits");
}

/// Asks with the secret `s-t`. While the body is on its way the tokens become these.
async fn with_body(
    before: &str,
    after: &str,
    asked: (Method, &'static str, &'static str),
) -> (InProcess, Answer) {
    let service = InProcess::new(before);
    let (method, target, text) = asked;
    let (pieces, body) = arriving();
    let answer = {
        let secret = before.contains("[tokens.").then_some("s-t");
        let mut answer = pin!(service.ask(secret, method, target, body));
        let (first, rest) = text.split_at(3);
        pieces.send(first).unwrap();
        waits(answer.as_mut());
        service.reconfigure(after);
        pieces.send(rest).unwrap();
        drop(pieces);
        within("an answer", answer).await
    };
    (service, answer)
}

async fn assert_nothing_began(service: &InProcess) {
    assert_eq!(service.recorder.status(&id("a")).await.unwrap(), None);
    assert!(service.recorder.bulks().is_empty());
}

#[tokio::test]
async fn who_loses_the_token_while_a_body_arrives_begins_nothing() {
    let before = config(&token("t", ALL));
    for (method, target, text, _) in WITH_BODY {
        for after in [
            config(""),
            config(&token("t", "scopes = [\"admin\"]")),
            config(&token("t", &format!("{ALL}\nprefixes = [\"b\"]"))),
            config(&token("t", &format!("{ALL}\nexpires = 2020-01-01T00:00:00Z"))),
        ] {
            let (service, answer) = with_body(&before, &after, (method.clone(), target, text)).await;
            let detail = answer.problem(401, "invalid-token");
            assert!(detail.contains("not valid any more; nothing was changed"), "{detail}");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
            assert_nothing_began(&service).await;
        }
        // Who had none, and needs one by now.
        let (service, answer) = with_body(HANDLERS, &before, (method.clone(), target, text)).await;
        answer.problem(401, "token-required");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"task-recorder\""));
        assert_nothing_began(&service).await;
    }
}

#[tokio::test]
async fn a_token_that_is_good_for_as_much_by_another_secret_too_loses_no_request() {
    let before = config(&token("t", ALL));
    let both = format!("[tokens.t]\nhash = [\"{}\", \"{}\"]\n{ALL}\n", hash("s-new"), hash("s-t"));
    let more = token("t", "scopes = [\"read\", \"launch\", \"operate\", \"admin\"]");
    for after in [config(&both), config(&more)] {
        for (method, target, text, status) in WITH_BODY {
            let (_service, answer) = with_body(&before, &after, (method, target, text)).await;
            assert_eq!(answer.status, status, "{target}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn who_loses_the_token_while_a_read_waits_is_told_nothing() {
    let before = config(&token("t", ALL));
    let both = format!("[tokens.t]\nhash = [\"{}\", \"{}\"]\n{ALL}\n", hash("s-new"), hash("s-t"));
    for target in ["/tasks/a/status?wait=30", "/tasks/a?wait=30", "/tasks/a/result?wait=30"] {
        for (after, is_let_in) in [(config(""), false), (config(&both), true)] {
            let service = InProcess::new(&before);
            let (finish, finished) = oneshot::channel();
            service.recorder.launch(id("a"), finished).await.unwrap();
            let mut answer = pin!(service.ask(Some("s-t"), Method::GET, target, whole("")));
            waits(answer.as_mut());
            service.reconfigure(&after);
            finish.send("out").unwrap();
            let answer = within("an answer", answer).await;
            if is_let_in {
                assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            } else {
                answer.problem(401, "invalid-token");
            }
        }
    }
}

/// What was begun with a token that was good is told to its end: a 401 would say that nothing was done.
#[tokio::test]
async fn who_loses_the_token_while_a_launch_waits_is_told_what_became_of_it() {
    let service = InProcess::new(&config(&token("t", ALL)));
    let mut answer = pin!(service.ask(Some("s-t"), Method::POST, "/tasks/a?wait=30", whole("two apples")));
    waits(answer.as_mut());
    service.reconfigure(&config(""));
    let answer = within("an answer", answer).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["state"]),
        (200, &"success".into()),
        "{}",
        answer.text()
    );
    assert!(matches!(service.recorder.revoke(&id("a")).await.unwrap(), Moved::Done(_)));
}
