//! What a user would write without this service: axum, `async_tasks_recorder` and reqwest, all in memory. It measures
//! nothing itself.

use std::sync::Arc;

use async_tasks_recorder::{AsyncTasksRecorder, TaskState};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

struct App {
    recorder: AsyncTasksRecorder<String>,
    client: reqwest::Client,
    receiver: String,
}

/// Serves until it is killed. Says where it listens as the service does.
pub(crate) fn serve(receiver: &str) {
    let client = reqwest::Client::new();
    let app = Arc::new(App { recorder: AsyncTasksRecorder::new(), client, receiver: receiver.to_owned() });
    let router = Router::new()
        .route("/tasks/{id}", post(launch).get(status))
        .route("/stats", get(stats))
        .with_state(app);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", json!({"listen": listener.local_addr().unwrap().to_string()}));
        axum::serve(listener, router).await.unwrap();
    });
}

async fn launch(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    input: Bytes,
) -> (StatusCode, Json<Value>) {
    let url = format!("http://{}/charges/{id}", app.receiver);
    let call = app.client.post(url).header(header::CONTENT_TYPE, "application/json").body(input);
    let work = async move {
        let answer = call.send().await?.error_for_status()?;
        answer.bytes().await
    };
    match app.recorder.launch(id.clone(), work).await {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({"id": id, "state": "working", "launched": true}))),
        Err((state, _)) => {
            (StatusCode::OK, Json(json!({"id": id, "state": word(&state), "launched": false})))
        }
    }
}

async fn status(State(app): State<Arc<App>>, Path(id): Path<String>) -> Json<Value> {
    let state = app.recorder.query_task_state(&id).await;
    Json(json!({"id": id, "state": word(&state)}))
}

async fn stats(State(app): State<Arc<App>>) -> Json<Value> {
    let working = app.recorder.get_working_tasks_ref().len();
    let success = app.recorder.get_success_tasks_ref().len();
    let failed = app.recorder.get_failed_tasks_ref().len();
    Json(json!({"tasks": {"working": working, "success": success, "failed": failed}}))
}

fn word(state: &TaskState) -> &'static str {
    match state {
        TaskState::Working => "working",
        TaskState::Success => "success",
        TaskState::Failed => "failed",
        TaskState::NotFound => "not_found",
    }
}
