//! How many series there are does not depend on how many ids there are.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use task_recorder::api::routes;
use task_recorder::metrics::{self, Format, Requests};
use task_recorder::recorder::{LaneSpec, NoticeSpec, Recorder};
use task_recorder::store::{MemoryStore, Store};
use task_recorder::task::{Outcome, Policy};

use super::Metrics;
use crate::stores::{attempt, claim, done, handler, id, launch, success};
use crate::support::server::TestServer;
use crate::tokens::HANDLERS;

const MANY: usize = 100_000;
const OVER_HTTP: usize = 3_000;

#[tokio::test]
async fn a_hundred_thousand_ids_add_no_series() {
    let store = Arc::new(MemoryStore::new());
    let lane = LaneSpec {
        handler: handler("h"),
        policy: Policy::default(),
        work: Arc::new(|_, _, _| async { Outcome::success() }.boxed()),
        undo: None,
        notices: NoticeSpec::default(),
    };
    let recorder = Recorder::with_lanes(Arc::clone(&store) as Arc<dyn Store>, [lane]);
    let requests = Arc::new(Requests::new(routes().into_iter().map(|route| (route.method, route.path))));
    let told = || Metrics::parse(&metrics::text(&recorder, &requests, Format::Prometheus).unwrap());
    let before = told();
    for number in 0..MANY {
        let claim = claim(&*store, &id(&format!("id-{number}")), launch("in")).await;
        let attempt = attempt(claim.task().run, &success());
        done(store.settle(claim, attempt, None).await.unwrap());
    }
    let after = told();
    assert_eq!(after.count("tasks{handler=\"h\",state=\"success\"}"), MANY);
    assert_eq!(before.series(), after.series());
    eprintln!("{MANY} ids: {} series", after.series().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_launches_over_http_add_no_series() {
    let server = TestServer::start(&format!("{HANDLERS}\n[store]\nhot_tasks = 100\n"));
    let client = server.client();
    let before = Metrics::of(&client).await;
    stream::iter(0..OVER_HTTP)
        .for_each_concurrent(64, |number| {
            let client = client.clone();
            async move {
                // A handler that is paused queues them: no processes.
                let path = match number % 3 {
                    0 => format!("/tasks/id-{number}?handler=b"),
                    1 => format!("/tasks/id-{number}/status"),
                    _ => format!("/tasks/id-{number}/no-such-thing"),
                };
                let answer =
                    if number % 3 == 0 { client.post(&path, "").await } else { client.get(&path).await };
                assert!(answer.status.as_u16() < 500, "{path}: {}", answer.text());
            }
        })
        .await;
    let after = Metrics::of(&client).await;
    let third = OVER_HTTP / 3;
    assert_eq!(after.count("launches_total{result=\"started\"}"), third);
    assert_eq!(after.count("http_requests_total{method=\"other\",route=\"other\",status=\"4xx\"}"), third);
    assert_eq!(before.series(), after.series());
    eprintln!("{OVER_HTTP} requests with as many ids: {} series", after.series().len());
}
