//! Signatures of webhooks, checked by published verifiers.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use serde_json::{Value, json};
use standardwebhooks::Webhook as Verifier;
use task_recorder::handler::webhook::{Secret, WebhookSettings};
use task_recorder::handler::{Action, Handler, Webhook};
use task_recorder::task::Task;
use tokio_util::sync::CancellationToken;

use super::handler;
use super::webhook::settings;
use crate::support::receiver::{Call, Receiver};
use crate::support::{task, within};

const SIGNED: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// A secret of this many bytes.
fn secret(first: u8, bytes: u8) -> String {
    let bytes: Vec<u8> = (0..bytes).map(|n| first.wrapping_add(n.wrapping_mul(7))).collect();
    format!("whsec_{}", BASE64_STANDARD.encode(bytes))
}

fn read(secrets: &[&str]) -> Vec<Secret> {
    secrets.iter().map(|secret| secret.parse().unwrap()).collect()
}

/// What a launch, a revoke and a notice of this task send.
async fn calls_of(task: &Task, secrets: &[&str]) -> [Call; 3] {
    let receiver = Receiver::start().await;
    let webhook = || {
        let secrets = read(secrets);
        Webhook::new(WebhookSettings { secrets, ..settings(&receiver.url("/")) })
    };
    let revoke = Some(Action::Webhook(webhook()));
    let handler = Handler { revoke, ..handler(Action::Webhook(webhook())) };
    let ending = CancellationToken::new();
    assert_eq!(within("the launch", handler.run(task, 1, &ending)).await.result, Ok(()));
    assert_eq!(within("the revoke", handler.undo(task, 1, &ending)).await.result, Ok(()));
    assert_eq!(
        within("the notice", webhook().tell(task, "{\"a\":1}".into(), 1, &ending)).await.result,
        Ok(())
    );
    receiver.calls().try_into().unwrap()
}

fn header<'a>(call: &'a Call, name: &str) -> &'a str {
    call.headers.get(name).unwrap().to_str().unwrap()
}

/// The call as it was, and with one thing changed at a time; none of the latter may be accepted.
fn forged(call: &Call) -> Vec<(String, Call)> {
    let mut forged = Vec::new();
    for at in 0..call.body.len() {
        let mut body = call.body.to_vec();
        body[at] ^= 1;
        forged.push((format!("byte {at} of the body"), Call { body: body.into(), ..call.clone() }));
    }
    let mut longer = call.body.to_vec();
    longer.push(b' ');
    forged.push(("a longer body".to_owned(), Call { body: longer.into(), ..call.clone() }));
    let mut with = |what: String, name: &'static str, value: String| {
        let mut call = call.clone();
        call.headers.insert(name, value.parse().unwrap());
        forged.push((what, call));
    };
    for name in ["webhook-id", "webhook-timestamp"] {
        let value = header(call, name);
        for at in 0..value.len() {
            // Another digit for a digit.
            let mut bytes = value.as_bytes().to_vec();
            bytes[at] ^= 1;
            with(format!("byte {at} of {name}"), name, String::from_utf8(bytes).unwrap());
        }
    }
    let signature = header(call, "webhook-signature").strip_prefix("v1,").unwrap();
    let signature = BASE64_STANDARD.decode(signature).unwrap();
    for at in 0..signature.len() {
        let mut bytes = signature.clone();
        bytes[at] ^= 1;
        let value = format!("v1,{}", BASE64_STANDARD.encode(bytes));
        with(format!("byte {at} of the signature"), "webhook-signature", value);
    }
    let value = header(call, "webhook-signature").replace("v1,", "v2,");
    with("another version".to_owned(), "webhook-signature", value);
    for name in SIGNED {
        let mut call = call.clone();
        call.headers.remove(name);
        forged.push((format!("no {name}"), call));
    }
    forged
}

fn is_accepted(secret: &str, call: &Call) -> bool {
    Verifier::new(secret).unwrap().verify(&call.body, &call.headers).is_ok()
}

#[tokio::test]
async fn a_published_verifier_accepts_every_call_and_refuses_each_that_was_changed() {
    for bytes in [24, 32, 64] {
        let secret = secret(bytes, bytes);
        for call in calls_of(&task("a=b:c.d", Some("text/plain"), "two äpples"), &[&secret]).await {
            assert!(is_accepted(&secret, &call), "{call:?}");
            let forged = forged(&call);
            assert!(forged.len() > 70, "{}", forged.len());
            for (what, call) in forged {
                assert!(!is_accepted(&secret, &call), "{what}: {call:?}");
            }
        }
    }
}

#[tokio::test]
async fn with_several_secrets_each_of_them_verifies_and_no_other_does() {
    let (old, new, other) = (secret(1, 24), secret(2, 32), secret(3, 32));
    for call in calls_of(&task("t", None, ""), &[&old, &new]).await {
        assert!(is_accepted(&old, &call) && is_accepted(&new, &call), "{call:?}");
        assert!(!is_accepted(&other, &call));
        let signatures: Vec<_> = header(&call, "webhook-signature").split(' ').collect();
        assert!(
            signatures.len() == 2 && signatures.iter().all(|one| one.starts_with("v1,")),
            "{signatures:?}"
        );
    }
}

/// Asks the Python package about each of these; `tests/all.sh` installs it.
fn accepted_in_python(secret: &str, calls: &[Call]) -> Vec<bool> {
    const SCRIPT: &str = "
import base64, json, sys
from standardwebhooks import Webhook
verifier = Webhook(sys.argv[1])
for line in sys.stdin:
    call = json.loads(line)
    try:
        verifier.verify(base64.b64decode(call['body']), call['headers'], json_parse=False)
        print('accepted')
    except Exception as error:
        print('refused', error)
";
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/verifier/bin/python");
    let mut child = Command::new(python)
        .args(["-c", SCRIPT, secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python} ({error}): tests/all.sh makes it"));
    let mut input = child.stdin.take().unwrap();
    for call in calls {
        let headers: Value = call
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())))
            .collect();
        writeln!(input, "{}", json!({"body": BASE64_STANDARD.encode(&call.body), "headers": headers}))
            .unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "accepted").collect()
}

#[tokio::test]
#[ignore = "needs a Python package, which tests/all.sh installs; it runs this one too"]
async fn a_published_verifier_in_python_does_so_too() {
    let secret = secret(9, 40);
    for call in calls_of(&task("order-42", Some("text/plain"), "two apples"), &[&secret]).await {
        let forged = forged(&call);
        let (what, mut calls): (Vec<_>, Vec<_>) = forged.into_iter().unzip();
        calls.push(call);
        let accepted = accepted_in_python(&secret, &calls);
        assert_eq!(accepted.len(), calls.len());
        assert_eq!(accepted.last(), Some(&true), "{:?}", calls.last());
        let wrong: Vec<_> = what.iter().zip(&accepted).filter(|(_, accepted)| **accepted).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn without_secrets_a_call_has_its_id_and_no_signature() {
    for call in calls_of(&task("t", None, ""), &[]).await {
        assert_eq!(call.headers.get("webhook-signature"), None);
        assert_eq!(call.headers.get("webhook-timestamp"), None);
        assert!(call.headers.contains_key("webhook-id"));
    }
}

#[tokio::test]
async fn the_id_of_a_message_is_the_same_until_a_success_is_revoked() {
    let first = task("t", None, "one");
    let ids = async |task: &Task| {
        let calls = calls_of(task, &[]).await;
        calls.each_ref().map(|call| header(call, "webhook-id").to_owned())
    };
    let [launch, revoke, notice] = ids(&first).await;
    for (id, prefix) in [(&launch, "task_"), (&revoke, "revoke_"), (&notice, "notice_")] {
        let hex = id.strip_prefix(prefix).expect(id);
        assert!(hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    // What is published about how it is made: so it is the same for every version of this program.
    assert_eq!(launch, "task_b8c8f1e5957f7e121a04474610b5188b");

    let later = Task { run: 2, revision: 9, ..task("t", None, "two") };
    let [launch_again, revoke_again, notice_again] = ids(&later).await;
    assert_eq!((&launch_again, &revoke_again), (&launch, &revoke));
    assert_ne!(notice_again, notice, "it is about another run");

    let [launch_anew, revoke_anew, _] = ids(&Task { revoked: 1, ..later }).await;
    assert!(launch_anew != launch && revoke_anew != revoke);
    let [launch_other, ..] = ids(&task("u", None, "one")).await;
    assert_ne!(launch_other, launch);
}

#[test]
fn a_secret_has_24_to_64_bytes_and_never_prints() {
    for bytes in [24, 25, 64] {
        let text = secret(0, bytes);
        let read: Secret = text.parse().unwrap();
        assert_eq!(format!("{read:?}"), "Secret(***)");
    }
    for (text, why) in [
        (secret(0, 23), "this one has 23"),
        (secret(0, 65), "this one has 65"),
        ("whsec_".to_owned(), "this one has 0"),
        (secret(0, 24).replace("whsec_", ""), "begins with whsec_"),
        (format!("{}!", secret(0, 24)), "no base64"),
    ] {
        let error = text.parse::<Secret>().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains(&text[6.min(text.len())..]) || text == "whsec_", "{error}");
    }
}

/// Nobody but the service sets what it signs.
#[tokio::test]
async fn configured_headers_do_not_replace_those_of_the_signature() {
    let receiver = Receiver::start().await;
    let secret = secret(4, 32);
    let names = SIGNED.iter().chain(&["traceparent"]);
    let headers = names.map(|name| (name.parse().unwrap(), "forged".parse().unwrap())).collect();
    let secrets = read(&[&secret]);
    let webhook = Webhook::new(WebhookSettings { headers, secrets, ..settings(&receiver.url("/")) });
    handler(Action::Webhook(webhook)).run(&task("t", None, "in"), 1, &CancellationToken::new()).await;
    let [call] = receiver.calls().try_into().unwrap();
    assert!(is_accepted(&secret, &call), "{call:?}");
    let is_forged = |headers: &HeaderMap| headers.values().any(|value| value == "forged");
    assert!(!is_forged(&call.headers), "{call:?}");
}
