//! Revokes and launches of one success against each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use hyper::StatusCode;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::client::{Answer as Told, Client};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::server::TestServer;

const CLIENTS: usize = 64;
const ROUNDS: usize = 200;

fn config(receiver: &Receiver) -> String {
    format!(
        "[handlers.hook]\ntype = \"webhook\"\ndefault = true\nurl = \"{}\"\n[handlers.hook.revoke]\nurl = \"{}\"\n",
        receiver.url("/do/{id}/{run}"),
        receiver.url("/undo/{id}")
    )
}

fn code(answer: &Told) -> &'static str {
    let body = answer.json();
    let known = ["revoking", "not-success", "not-found"];
    let code = known.into_iter().find(|known| body["type"] == format!("/problems/{known}"));
    code.unwrap_or_else(|| panic!("{}: {body}", answer.status))
}

/// Whether this revoke is the one that undoes it.
async fn revokes(client: &Client, id: &str) -> bool {
    let answer = client.post(&format!("/tasks/{id}/revoke"), "").await;
    match answer.status {
        StatusCode::ACCEPTED => true,
        StatusCode::CONFLICT => {
            assert!(matches!(code(&answer), "revoking" | "not-success"));
            false
        }
        _ => {
            assert_eq!(code(&answer), "not-found");
            false
        }
    }
}

/// Launches, and once more where it came too early. Whether it has started a run.
async fn launches(client: &Client, id: &str) -> bool {
    for _ in 0..2 {
        let answer = client.post(&format!("/tasks/{id}"), "").await;
        match answer.status {
            StatusCode::ACCEPTED => return true,
            StatusCode::OK => assert_eq!(answer.json()["launched"], false),
            StatusCode::CONFLICT => assert_eq!(code(&answer), "revoking"),
            other => panic!("{other}: {}", answer.text()),
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_revokes_one_undoes_and_of_64_launches_at_most_one_starts_after_it_in_200_rounds() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&config(&receiver));
    let barrier = Arc::new(Barrier::new(2 * CLIENTS + 1));
    let (revoked, launched) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..2 * CLIENTS {
        let (client, barrier) = (server.client(), Arc::clone(&barrier));
        let (revoked, launched) = (Arc::clone(&revoked), Arc::clone(&launched));
        clients.spawn(async move {
            for round in 0..ROUNDS {
                let id = format!("round-{round}");
                barrier.wait().await;
                if number % 2 == 0 {
                    revoked.fetch_add(usize::from(revokes(&client, &id).await), SeqCst);
                } else {
                    launched.fetch_add(usize::from(launches(&client, &id).await), SeqCst);
                }
                barrier.wait().await;
            }
        });
    }
    let client = server.client();
    let mut rounds_with_a_launch = 0;
    for round in 0..ROUNDS {
        let id = format!("round-{round}");
        // The run that follows does not end within the round, so that nobody revokes that one too.
        let gate = Gate::new();
        let (ok, held) = (Answer::of(200), Behaviour::AnswerAfter(gate.clone(), Answer::of(200)));
        receiver.on(&id, [Behaviour::Answer(ok.clone()), Behaviour::Answer(ok), held]);
        assert_eq!(client.post(&format!("/tasks/{id}?wait=30"), "").await.json()["state"], "success");
        barrier.wait().await;
        barrier.wait().await;
        gate.open();

        let (revoked, launched) = (revoked.swap(0, SeqCst), launched.swap(0, SeqCst));
        assert_eq!(revoked, 1, "{id}");
        assert!(launched <= 1, "{id}: {launched} launches have started");
        rounds_with_a_launch += launched;
        let after = client.get(&format!("/tasks/{id}/status?wait=30")).await;
        if launched == 1 {
            let body = after.json();
            assert_eq!((&body["state"], &body["run"]), (&"success".into(), &2.into()), "{body}");
        } else {
            after.problem(404, "not-found");
        }
        // What the receiver has seen, in its order.
        let calls = receiver.calls();
        let calls: Vec<_> = calls.iter().filter(|call| call.headers["task-id"] == id.as_str()).collect();
        let seen: Vec<_> = calls.iter().map(|call| call.target.as_str()).collect();
        let expected = [format!("/do/{id}/1"), format!("/undo/{id}"), format!("/do/{id}/2")];
        assert_eq!(seen, expected[..2 + launched], "{id}");
    }
    clients.join_all().await;
    eprintln!("in {rounds_with_a_launch} of {ROUNDS} rounds a launch came after the revoke");
    assert!(rounds_with_a_launch > ROUNDS / 20, "{rounds_with_a_launch}");
}
