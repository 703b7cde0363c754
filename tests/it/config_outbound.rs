//! The keys of a webhook's calls: where they may go, secrets, TLS; and the files that they name.

use std::path::{Path, PathBuf};

use standardwebhooks::Webhook as Verifier;
use task_recorder::config::Config;
use tokio_util::sync::CancellationToken;

use crate::config::{Written, good};
use crate::config_refused::{COMMAND, Case, WEBHOOK, each_is_told, problems};
use crate::support::receiver::Receiver;
use crate::support::tls::{Authority, Offer, TlsReceiver};
use crate::support::{task, within};

const SECRETS: [&str; 4] = [
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
    "whsec_GBkaGxwdHh8gISIjJCUmJygpKissLS4v",
    "whsec_MDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZH",
    "whsec_SElKS0xNTk9QUVJTVFVWV1hZWltcXV5f",
];

/// Files that a config names.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes one, and gives its path.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn key(name: &str, path: &Path) -> String {
    format!("{name} = \"{}\"\n", path.display())
}

fn with_variables(text: &str, variables: &[(&str, &str)]) -> Config {
    Written::new(text).load(variables).unwrap_or_else(|error| panic!("{text}\nis refused: {error}"))
}

/// What writes a config with one mistake, where that is, and what has to be in the message.
type Told<'a> = (&'a dyn Fn() -> String, &'a str, &'a [&'a str]);

#[test]
fn each_mistake_is_told_with_its_line_and_never_with_a_secret() {
    let files = Files::new();
    let (authority, secret) = (Authority::new(), SECRETS[0]);
    let (pems, others) = (authority.issue_client("a"), authority.issue_client("b"));
    let certificate = key("client_cert_file", &files.write("cert.pem", &pems.certificate));
    let webhook = |rest: &str| format!("{WEBHOOK}{rest}");
    let file = |name: &str, text: &str| webhook(&key(name, &files.write("file", text)));
    // Each is written anew, since all are read one after another.
    let each: [Told<'_>; 25] = [
        (&|| webhook(&format!("secrets_file = {secret:?}")), "4:16", &["cannot be read"]),
        (&|| webhook("secrets_file = \"/nowhere/at/all\""), "4:16", &["cannot be read", "No such"]),
        (&|| webhook("secrets_file = \"/\""), "4:16", &["cannot be read", "director"]),
        (&|| webhook("secrets_file = \"\""), "4:16", &["it is empty"]),
        (&|| webhook("secrets_file = 3"), "4:16", &["`secrets_file` is of type integer", "a secret a line"]),
        (&|| file("secrets_file", "# none\n\n"), "4:16", &["it holds no secret"]),
        (
            &|| file("secrets_file", &format!("{secret}\n{}", &secret[6..])),
            "4:16",
            &["number 2", "begins with whsec_"],
        ),
        (&|| file("secrets_file", &secret[..20]), "4:16", &["number 1", "no base64"]),
        (&|| file("secrets_file", &secret[..22]), "4:16", &["number 1", "24 to 64 bytes", "has 12"]),
        (&|| file("secrets_file", &format!("{secret} ").repeat(17)), "4:16", &["more than 16"]),
        (&|| webhook(&format!("secrets_env = {secret:?}")), "4:15", &["has no such variable"]),
        (&|| webhook("secrets_env = \"A=B\""), "4:15", &["the name of an environment variable"]),
        (&|| file("ca_file", ""), "4:11", &["no BEGIN CERTIFICATE"]),
        (&|| file("ca_file", &pems.key), "4:11", &["no BEGIN CERTIFICATE"]),
        (&|| file("client_cert_file", &pems.certificate), "4:20", &["[handlers.a] has no `client_key_file`"]),
        (&|| file("client_key_file", &pems.key), "4:19", &["[handlers.a] has no `client_cert_file`"]),
        (&|| file("client_key_file", &others.key) + &certificate, "4:19", &["does not fit the certificate"]),
        (&|| file("client_key_file", "hush") + &certificate, "4:19", &["no BEGIN PRIVATE KEY"]),
        (&|| webhook("egress = \"publik\""), "4:10", &["`egress` is \"publik\"", "\"public\""]),
        (&|| webhook("egress = []"), "4:10", &["or a list of them"]),
        (&|| webhook("egress = [\"public\", \"10.0.0.0/33\"]"), "4:21", &["`egress[1]`", "10.0.0.0/8"]),
        (&|| webhook("egress = [\"10.0.0\"]"), "4:11", &["`egress[0]`", "a network or an address"]),
        (
            &|| webhook("[handlers.a.on_failure]\nurl = \"http://b.example/\"\negress = 7"),
            "6:10",
            &["`egress` is 7"],
        ),
        (
            &|| "[handlers.a]\ntype = \"webhook\"\nurl = \"http://169.254.169.254/latest\"".to_owned(),
            "3:7",
            &["is at 169.254.169.254", "that `egress` allows", "stand there alone"],
        ),
        (&|| format!("{COMMAND}command = [\"a\"]\nca_file = \"x\""), "4:1", &["a key of webhook handlers"]),
    ];
    for (text, place, expected) in each {
        let text = text();
        let case: Case<'_> = (text.clone(), place, expected);
        each_is_told(&[case]);
        let told = problems(&Written::new(&text)).concat();
        assert!(!told.contains(&secret[8..18]), "{told}");
        for hidden in [&pems.key, &others.key] {
            assert!(!told.contains(hidden.lines().nth(1).unwrap()), "{told}");
        }
    }
    let named = Written::new(webhook("secrets_env = \"HUSH\""));
    let error = named.load(&[("HUSH", &SECRETS[0][6..])]).unwrap_err().to_string();
    assert!(error.contains(":4:15: `secrets_env`") && error.contains("begins with whsec_"), "{error}");
    assert!(!error.contains(&SECRETS[0][8..18]), "{error}");
}

#[test]
fn it_is_printed_as_it_was_given_without_what_the_files_hold() {
    let files = Files::new();
    let authority = Authority::new();
    let pems = authority.issue_client("a");
    let text = [
        WEBHOOK,
        "egress = [\"public\", \"10.1.2.3/8\", \"169.254.169.254\"]\n",
        &key("secrets_file", &files.write("secrets", SECRETS[0])),
        "secrets_env = \"TASK_RECORDER_HUSH\"\n",
        &key("ca_file", &files.write("ca.pem", &authority.pem)),
        &key("client_cert_file", &files.write("client.pem", &pems.certificate)),
        &key("client_key_file", &files.write("client.key", &pems.key)),
        "[handlers.a.on_success]\nurl = \"http://b.example/\"\n",
    ]
    .concat();
    let variables = [("TASK_RECORDER_HUSH", SECRETS[1])];
    let config = with_variables(&text, &variables);
    let printed = config.to_toml();
    assert_eq!(
        printed.matches("egress = [\"public\", \"10.0.0.0/8\", \"169.254.169.254\"]").count(),
        2,
        "{printed}"
    );
    assert_eq!(with_variables(&printed, &variables).to_toml(), printed);
    let all = format!("{printed}{config:?}{:?}", config.handlers);
    for hidden in [&SECRETS[0][6..], &SECRETS[1][6..], pems.key.lines().nth(1).unwrap()] {
        assert!(!all.contains(hidden), "{all}");
    }
}

#[tokio::test]
async fn a_revoke_and_notices_are_signed_as_the_handler_unless_they_say_otherwise() {
    let (files, receiver) = (Files::new(), Receiver::start().await);
    let url = format!("url = {:?}\n", receiver.url("/"));
    let text = [
        "[handlers.a]\ntype = \"webhook\"\n",
        &url,
        &key("secrets_file", &files.write("old", &format!("# the old one\n{}\n", SECRETS[0]))),
        "secrets_env = \"NEW_SECRETS\"\n[handlers.a.revoke]\n",
        &url,
        "[handlers.a.on_success]\n",
        &url,
        "[handlers.a.on_failure]\n",
        &url,
        &key("secrets_file", &files.write("own", SECRETS[3])),
    ]
    .concat();
    let config = with_variables(&text, &[("NEW_SECRETS", &format!("{} {}", SECRETS[1], SECRETS[2]))]);
    let (handler, task, ending) = (&config.handlers[0], task("t", None, "in"), CancellationToken::new());
    assert_eq!(handler.run(&task, 1, &ending).await.result, Ok(()));
    assert_eq!(handler.undo(&task, 1, &ending).await.result, Ok(()));
    for notice in [&handler.on_success, &handler.on_failure] {
        let notice = notice.as_ref().unwrap();
        assert_eq!(notice.tell(&task, "{}".into(), 1, &ending).await.result, Ok(()));
    }
    let verified: Vec<[bool; 4]> = receiver
        .calls()
        .iter()
        .map(|call| {
            SECRETS.map(|secret| Verifier::new(secret).unwrap().verify(&call.body, &call.headers).is_ok())
        })
        .collect();
    let of_handler = [true, true, true, false];
    assert_eq!(verified, [of_handler, of_handler, of_handler, [false, false, false, true]]);
}

#[tokio::test]
async fn authorities_and_the_client_certificate_come_from_files_and_hold_for_revokes_and_notices() {
    let (files, authority, clients) = (Files::new(), Authority::new(), Authority::new());
    let client = clients.issue_client("task-recorder");
    let receiver = TlsReceiver::start(&authority.issue("localhost"), Offer::Both, Some(&clients)).await;
    let url = format!("url = {:?}\n", receiver.url("/"));
    let text = [
        "[handlers.a]\ntype = \"webhook\"\n",
        &url,
        &key("ca_file", &files.write("ca.pem", &authority.pem)),
        &key("client_cert_file", &files.write("client.pem", &client.certificate)),
        &key("client_key_file", &files.write("client.key", &client.key)),
        "[handlers.a.revoke]\n",
        &url,
        "[handlers.a.on_success]\n",
        &url,
    ]
    .concat();
    let config = good(&text);
    let (handler, task, ending) = (&config.handlers[0], task("t", None, "in"), CancellationToken::new());
    assert_eq!(within("the launch", handler.run(&task, 1, &ending)).await.result, Ok(()));
    assert_eq!(within("the revoke", handler.undo(&task, 1, &ending)).await.result, Ok(()));
    let notice = handler.on_success.as_ref().unwrap();
    assert_eq!(within("the notice", notice.tell(&task, "{}".into(), 1, &ending)).await.result, Ok(()));
    assert_eq!(receiver.versions(), ["HTTP/2.0"; 3]);
}
