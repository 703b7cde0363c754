//! What is told to who waits for a launch.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::Method;
use serde_json::json;
use task_recorder::recorder::LaunchResult;
use task_recorder::store::Moved;
use task_recorder::task::{Input, Request};

use crate::stores::id;
use crate::support::interface::{InProcess, whole};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::within;

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_launch_whose_record_is_gone_at_the_end_is_told_so() {
    let config = "[handlers.fails]\ntype = \"command\"\ncommand = [\"false\"]\ndefault = true";
    for (method, target) in [(Method::POST, "/tasks/a?wait=30"), (Method::POST, "/tasks/a/retry?wait=30")] {
        let service = InProcess::new(config);
        let is_retry = target.contains("retry");
        if is_retry {
            service.recorder.launch_in_lane(id("a"), request()).await.unwrap();
            within("the end", service.recorder.wait(&id("a"), LONG)).await.unwrap();
        }
        let mut answer = pin!(service.ask(None, method, target, whole("")));
        // Nobody polls it from here to the end, so that it looks at the record once that is gone.
        assert!(answer.as_mut().now_or_never().is_none());
        within("its run", async {
            let run = if is_retry { 2 } else { 1 };
            while service.recorder.status(&id("a")).await.unwrap().is_none_or(|task| task.run < run) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        within("the end", service.recorder.wait(&id("a"), LONG)).await.unwrap();
        assert!(matches!(service.recorder.forget(&id("a")).await.unwrap(), Moved::Done(_)));
        let answer = within("an answer", answer).await;
        let told = (answer.status.as_u16(), answer.json());
        assert_eq!(told, (200, json!({"id": "a", "state": "not_found", "launched": true})));
    }
}

#[tokio::test]
async fn who_waited_for_the_run_of_another_is_told_that_its_record_is_gone() {
    let (receiver, gate) = (Receiver::start().await, Gate::new());
    receiver.on("a", [Behaviour::AnswerAfter(gate.clone(), Answer::of(410))]);
    let url = receiver.url("/{id}");
    let service =
        InProcess::new(&format!("[handlers.hook]\ntype = \"webhook\"\nurl = \"{url}\"\ndefault = true"));
    assert_eq!(service.ask(None, Method::POST, "/tasks/a", whole("")).await.status, 202);
    let mut answer = pin!(service.ask(None, Method::POST, "/tasks/a?wait=30", whole("")));
    assert!(answer.as_mut().now_or_never().is_none());
    within("its refusal", async {
        let refused = |(result, count)| result == LaunchResult::Working && count > 0;
        while !service.recorder.tally().launches().any(refused) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.open();
    within("the end", service.recorder.wait(&id("a"), LONG)).await.unwrap();
    assert!(matches!(service.recorder.forget(&id("a")).await.unwrap(), Moved::Done(_)));
    let told = within("an answer", answer).await.json();
    assert_eq!(told, json!({"id": "a", "state": "not_found", "launched": false, "reason": "working"}));
}

fn request() -> Request {
    Request::new("fails".parse().unwrap(), Input::empty())
}
