//! What a reload does not take for a config, and what it does not wait for.

use std::fs;
use std::os::unix::fs::symlink;

use hyper::Method;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::task::JoinSet;

use super::{reload, reloaded, webhook};
use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::silent::SilentFile;
use crate::support::{until, within};
use crate::tokens::{HANDLERS, token, with};

/// Reloads, and has to be refused with these words.
async fn refused(client: &Client, words: &str) {
    let answer = with(client, "s-boss", Method::POST, "/admin/reload", "").await;
    answer.problem(422, "invalid-config");
    assert!(answer.text().contains(words), "{}", answer.text());
    assert!(answer.text().contains("nothing was changed"), "{}", answer.text());
}

/// Handlers and tokens are those that it was started with.
async fn is_unchanged(client: &Client) {
    client.get("/stats").await.problem(401, "token-required");
    let handlers = with(client, "s-boss", Method::GET, "/handlers", "").await.json();
    assert_eq!(handlers["handlers"].as_array().unwrap().len(), 3);
}

fn boss() -> String {
    token("boss", "scopes = [\"read\", \"admin\"]")
}

#[tokio::test]
async fn a_file_that_is_empty_or_no_file_at_all_takes_nothing_away() {
    let server = TestServer::start(&format!("{HANDLERS}{}", boss()));
    let client = server.client();
    for empty in ["", "\n", "# [handlers.a]\n# type = \"command\"\n"] {
        server.reconfigure(empty);
        refused(&client, "config.toml` is empty, or has only comments").await;
        is_unchanged(&client).await;
    }
    let config = server.folder().join("config.toml");
    fs::remove_file(&config).unwrap();
    // As empty as a pipe that was read already.
    symlink("/dev/null", &config).unwrap();
    refused(&client, "config.toml` is no regular file").await;
    is_unchanged(&client).await;
    server.hang_up();
    until("the log", || server.logged("config not reloaded, everything stays as it was")).await;

    fs::remove_file(&config).unwrap();
    server.reconfigure(&format!("[handlers]\n{}", boss()));
    let answer = with(&client, "s-boss", Method::POST, "/admin/reload", "").await;
    assert_eq!(answer.status, 200, "no handlers are fine where that is said: {}", answer.text());
}

#[tokio::test]
async fn the_last_token_is_not_taken_away_unless_everybody_may_come_in() {
    let server = TestServer::start(&format!("{HANDLERS}{}", boss()));
    let client = server.client();
    // What it says of strangers now waits for a restart, as every key of the server does.
    for without in [HANDLERS.to_owned(), format!("[server]\nallow_anonymous = true\n{HANDLERS}")] {
        server.reconfigure(&without);
        refused(&client, "would take away the last token").await;
        is_unchanged(&client).await;
    }
    let other = token("other", "scopes = [\"read\"]");
    server.reconfigure(&format!("{HANDLERS}{other}"));
    assert_eq!(with(&client, "s-boss", Method::POST, "/admin/reload", "").await.status, 200);

    let open = format!("[server]\nallow_anonymous = true\n{HANDLERS}");
    let server = TestServer::start(&format!("{open}{}", boss()));
    let client = server.client();
    server.reconfigure(&open);
    assert_eq!(with(&client, "s-boss", Method::POST, "/admin/reload", "").await.status, 200);
    assert_eq!(client.get("/stats").await.status, 200);
    // And none can be taken away where there is none.
    assert_eq!(reloaded(&client).await["tokens"], serde_json::json!([]));
}

#[tokio::test]
async fn a_pipe_in_place_of_a_secret_is_not_waited_for() {
    let server = TestServer::start(&webhook("h", "http://127.0.0.1:1/", ""));
    let client = server.client();
    let pipe = server.folder().join("secrets");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    server.reconfigure(&webhook("h", "http://127.0.0.1:1/", "secrets_file = \"secrets\""));
    let answer = within("the answer", reload(&client)).await;
    answer.problem(422, "invalid-config");
    assert!(answer.text().contains("no regular file"), "{}", answer.text());
    assert_eq!(client.get("/livez").await.status, 200);
}

/// The config of a service whose signatures are made with what never comes.
fn waiting_for(silent: &SilentFile) -> String {
    webhook("h", "http://127.0.0.1:1/", &format!("secrets_file = \"{}\"", silent.path().display()))
}

/// What never answers is a mount, which only root can make.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn a_file_that_never_answers_holds_up_no_request() {
    if !is_root() {
        return;
    }
    let silent = SilentFile::mount();
    let server =
        TestServer::start(&format!("[server]\nthreads = 1\n{}", webhook("h", "http://127.0.0.1:1/", "")));
    let client = server.client();
    server.reconfigure(&waiting_for(&silent));
    let mut reloading = JoinSet::new();
    let asking = client.clone();
    reloading.spawn(async move { reload(&asking).await });
    until("the question", || silent.is_asked()).await;
    assert_eq!(within("an answer", client.get("/livez")).await.status, 200);
    assert_eq!(within("a launch", client.post("/tasks/a?handler=h", "")).await.status, 202);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_reload() {
    if !is_root() {
        return;
    }
    let silent = SilentFile::mount();
    let mut server = TestServer::start(&webhook("h", "http://127.0.0.1:1/", ""));
    server.reconfigure(&waiting_for(&silent));
    server.hang_up();
    until("the question", || silent.is_asked()).await;
    server.terminate();
    until("the end", || server.ended().is_some()).await;
    assert_eq!(server.ended().unwrap().code(), Some(0));
    assert!(!server.logged("config not reloaded"), "the stop came behind the reload:\n{}", server.log());
}
