//! The interface in this process, without a socket: what is asked goes on only when the test lets it.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use task_recorder::api::{Api, Bodies, Interface, Live, routes};
use task_recorder::metrics::Requests;
use task_recorder::recorder::Recorder;
use task_recorder::reload;
use task_recorder::store::MemoryStore;
use task_recorder::task::Rate;
use tokio::sync::mpsc;

use super::client::Answer;
use super::told;
use crate::config::good;

/// The body of a request.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// An interface over a recorder that forgets.
pub(crate) struct InProcess {
    pub(crate) recorder: Recorder,
    interface: Interface,
    live: Arc<ArcSwap<Live>>,
}

impl InProcess {
    /// With the handlers and tokens of this config.
    pub(crate) fn new(config: &str) -> Self {
        let config = good(config);
        let recorder = Recorder::with_lanes(Arc::new(MemoryStore::new()), reload::lanes(&config));
        let live = Arc::new(ArcSwap::from_pointee(reload::live(&config)));
        let interface = Interface::new(Api {
            recorder: recorder.clone(),
            live: Arc::clone(&live),
            wait_max: Duration::from_hours(1),
            bodies: Bodies::new(Duration::from_hours(1), 1 << 20),
            hosts: None,
            auth_failures: Rate { starts: 1_000, per: Duration::from_secs(1) },
            reload: Arc::new(|| std::future::pending().boxed()),
            requests: Arc::new(Requests::new(routes().into_iter().map(|route| (route.method, route.path)))),
        });
        Self { recorder, interface, live }
    }

    /// Has the tokens of this config from now on, as after a reload.
    pub(crate) fn reconfigure(&self, config: &str) {
        self.live.store(Arc::new(reload::live(&good(config))));
    }

    /// What is answered to who has this secret; it goes on while somebody polls it.
    pub(crate) async fn ask(&self, secret: Option<&str>, method: Method, target: &str, body: Body) -> Answer {
        let mut request = Request::builder().method(method.clone()).uri(target).header("host", "localhost");
        if let Some(secret) = secret {
            request = request.header("authorization", format!("Bearer {secret}"));
        }
        let request = request.body(body).unwrap();
        let response = self.interface.clone().answer(request, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        told::compare(&method, target, &answer);
        answer
    }
}

/// A body that is there as a whole.
pub(crate) fn whole(bytes: &'static str) -> Body {
    BoxBody::new(Full::from(bytes))
}

/// A body that is what is sent, until the sender is dropped.
pub(crate) fn arriving() -> (mpsc::UnboundedSender<&'static str>, Body) {
    let (pieces, coming) = mpsc::unbounded_channel::<&'static str>();
    let coming = stream::unfold(coming, |mut coming| async move {
        let piece = coming.recv().await?;
        Some((Ok(Frame::data(Bytes::from_static(piece.as_bytes()))), coming))
    });
    (pieces, BoxBody::new(StreamBody::new(coming)))
}
