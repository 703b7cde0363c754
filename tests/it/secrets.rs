//! Secrets stay inside: in no line of the log at its finest level, in no answer, and in nothing that is printed.

use std::process::Command;

use hyper::Method;
use standardwebhooks::Webhook as Verifier;

use crate::support::client::Client;
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::server::TestServer;
use crate::support::tls::{Authority, Offer, Pems, TlsReceiver};
use crate::support::{until, within};

const IN_FILE: &str = "whsec_SHVzaEh1c2hIdXNoSHVzaEh1c2hIdXNoSHVzaA==";
const IN_VARIABLE: &str = "whsec_U2hlbHRlclNoZWx0ZXJTaGVsdGVyU2hlbHRlcg==";
const HEADER: &str = "Bearer hush-0123456789";
const HEADER_OF_NOTICE: &str = "Basic c2h1c2gtc2h1c2g=";

/// What may be seen nowhere.
fn hidden(client: &Pems) -> Vec<String> {
    let texts = [IN_FILE, IN_VARIABLE, HEADER, HEADER_OF_NOTICE];
    let mut hidden: Vec<_> = texts.iter().map(|text| text[6..].to_owned()).collect();
    // What they are once they are decoded, as text and as a list of bytes.
    for decoded in
        ["HushHush", "ShelterShelter", "72, 117, 115, 104", "83, 104, 101, 108", "whsec_", "hush-0123"]
    {
        hidden.push(decoded.to_owned());
    }
    hidden.extend(client.key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    hidden
}

/// Two handlers: one over plain HTTP, one over TLS with a client certificate; with all that goes with them.
fn config(receiver: &Receiver, tls: &TlsReceiver) -> String {
    let (url, https) = (receiver.url("/"), tls.url("/"));
    let (nobody, named) = ("http://127.0.0.1:9/", url.replace("127.0.0.1", "localhost"));
    format!(
        r#"
        [log]
        level = "trace"
        [handlers.plain]
        type = "webhook"
        url = "{url}"
        default = true
        headers = {{ Authorization = "{HEADER}", X-Of = "{HEADER} {{id}}" }}
        secrets_file = "secrets"
        secrets_env = "HUSH"
        retry = {{ attempts = 2, initial = "1ms" }}
        [handlers.plain.revoke]
        url = "{url}"
        headers = {{ Authorization = "{HEADER}" }}
        [handlers.plain.on_success]
        url = "{url}"
        headers = {{ Authorization = "{HEADER_OF_NOTICE}" }}
        [handlers.plain.on_failure]
        url = "{nobody}"
        headers = {{ Authorization = "{HEADER_OF_NOTICE}" }}
        [handlers.tls]
        type = "webhook"
        url = "{https}"
        headers = {{ Authorization = "{HEADER}" }}
        secrets_file = "secrets"
        ca_file = "ca.pem"
        client_cert_file = "client.pem"
        client_key_file = "client.key"
        [handlers.strange]
        type = "webhook"
        url = "{https}"
        headers = {{ Authorization = "{HEADER}" }}
        secrets_file = "secrets"
        retry = {{ attempts = 1 }}
        [handlers.kept]
        type = "webhook"
        url = "{named}"
        headers = {{ Authorization = "{HEADER}" }}
        secrets_env = "HUSH"
        egress = "public"
        [handlers.command]
        type = "command"
        command = ["env"]
        "#
    )
}

/// Everything that the interface answers, headers and all.
async fn asked(client: &Client) -> String {
    let ndjson = [("content-type", "application/x-ndjson")];
    let lines = "{\"id\":\"l1\"}\n{\"id\":\"l2\",\"handler\":\"tls\"}\nnonsense\n";
    let mut answers = vec![
        client.post("/tasks/good?wait=30s", "in").await,
        client.post("/tasks/bad?wait=30s", "in").await,
        client.post("/tasks/bad/retry?wait=30s", "").await,
        client.post("/tasks/tls?handler=tls&wait=30s", "in").await,
        client.post("/tasks/strange?handler=strange&wait=30s", "in").await,
        client.post("/tasks/kept?handler=kept&wait=30s", "in").await,
        client.post("/tasks/command?handler=command&wait=30s", "in").await,
        client.post("/tasks/undone?wait=30s", "in").await,
        client.post("/tasks/undone/revoke?wait=30s", "").await,
        client.post("/tasks/good/cancel", "").await,
        client.send(Method::POST, "/tasks", &ndjson, lines).await,
        client.post("/lookup", "{\"ids\":[\"good\",\"bad\"]}").await,
        client
            .post("/bulk", "{\"action\":\"retry\",\"filter\":{\"state\":\"failed\"},\"dry_run\":true}")
            .await,
        client.send(Method::DELETE, "/tasks/strange", &[], "").await,
        client.send(Method::GET, "/tasks", &[("accept", "application/x-ndjson")], "").await,
        client.send(Method::GET, "/tasks", &[("accept", "text/plain")], "").await,
    ];
    for path in [
        "/tasks/good",
        "/tasks/bad",
        "/tasks/tls",
        "/tasks/kept",
        "/tasks/command",
        "/tasks/command/result",
        "/tasks/good/status",
        "/tasks/good/result",
        "/tasks",
        "/stats",
        "/handlers",
        "/bulk",
        "/readyz",
        "/livez",
        "/version",
        "/metrics",
        "/openapi.json",
        "/nowhere",
    ] {
        answers.push(client.get(path).await);
    }
    let shown = answers.iter().map(|answer| format!("{:?}\n{}", answer.headers, answer.text()));
    shown.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn secrets_are_in_no_log_no_answer_and_nothing_that_is_printed() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = clients.issue_client("task-recorder");
    let receiver = Receiver::start().await;
    let tls = TlsReceiver::start(&authority.issue("localhost"), Offer::Both, Some(&clients)).await;
    receiver.on("bad", [503, 503, 410].map(|status| Behaviour::Answer(Answer::of(status).body("no"))));

    let mut server = TestServer::start_with("[store]\npath = \"memory\"\n", &[("HUSH", IN_VARIABLE)]);
    server.kill();
    for (name, text) in [
        ("secrets", IN_FILE),
        ("ca.pem", &authority.pem),
        ("client.pem", &identity.certificate),
        ("client.key", &identity.key),
    ] {
        std::fs::write(server.folder().join(name), text).unwrap();
    }
    server.configure(&config(&receiver, &tls));
    server.restart();

    let mut seen = within("every answer", asked(&server.client())).await;
    for state in
        ["\"state\":\"success\"", "\"state\":\"failed\"", "\"egress\"", "\"tls\"", "\"state\":\"not_found\""]
    {
        assert!(seen.contains(state), "{state} is missing in\n{seen}");
    }
    // They were used, and what was logged is as much as there is.
    until("the notices", || server.logged("notice not told yet")).await;
    assert_eq!(tls.versions().first().map(String::as_str), Some("HTTP/2.0"));
    for call in receiver.calls() {
        assert!(call.headers["authorization"] == HEADER || call.headers["authorization"] == HEADER_OF_NOTICE);
        for secret in [IN_FILE, IN_VARIABLE] {
            assert!(Verifier::new(secret).unwrap().verify(&call.body, &call.headers).is_ok(), "{call:?}");
        }
    }
    server.terminate();
    server.wait();
    let log = server.log();
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("\"target\":\"h2::"), "{log}");
    seen += &log;

    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_task-recorder"));
        let command = command.args(arguments).current_dir(server.folder()).env("HUSH", IN_VARIABLE);
        let output = command.output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let printed = run(&["print-config", "--config", "config.toml"]);
    assert!(printed.contains("secrets_env = \"HUSH\"") && printed.contains("client_key_file"), "{printed}");
    seen += &printed;
    seen += &run(&["check-config", "--config", "config.toml"]);
    // A config that is wrong is told, and no more.
    for (name, text) in [("secrets", &IN_FILE[6..]), ("client.key", &identity.key.replace("BEGIN", "BEGONE"))]
    {
        let right = std::fs::read(server.folder().join(name)).unwrap();
        std::fs::write(server.folder().join(name), text).unwrap();
        let told = run(&["--config", "config.toml"]);
        assert!(told.contains("config.toml:"), "{told}");
        seen += &told.replace("begins with whsec_", "").replace("such as whsec_", "");
        std::fs::write(server.folder().join(name), right).unwrap();
    }

    for hidden in hidden(&identity) {
        let line = seen.lines().find(|line| line.contains(&hidden));
        assert_eq!(line, None, "{hidden}");
    }
}
