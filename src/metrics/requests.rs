//! What is counted of HTTP requests: by route, which stands in a list of its own, so that nobody looks up a label.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::tally::{Histogram, Observed};

/// From half a millisecond to ten seconds, in microseconds.
const DURATIONS: [u64; 10] =
    [500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000];

/// The classes of statuses. The service gives no other.
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];
/// What stands for a path that is no route's, or a method that it does not take.
const OTHER: &str = "other";

/// What is counted of requests, by route.
#[derive(Debug)]
pub struct Requests {
    /// In the order of the routes.
    routes: Vec<OfRoute>,
    other: OfRoute,
}

/// What is counted of one route.
#[derive(Debug)]
pub(super) struct OfRoute {
    pub(super) method: String,
    pub(super) path: &'static str,
    by_class: [AtomicU64; CLASSES.len()],
    durations: Histogram,
}

impl Requests {
    /// For routes with these methods and path templates.
    #[must_use]
    pub fn new<M: ToString>(routes: impl IntoIterator<Item = (M, &'static str)>) -> Self {
        let routes = routes.into_iter().map(|(method, path)| OfRoute::new(method.to_string(), path));
        Self { routes: routes.collect(), other: OfRoute::new(OTHER.to_owned(), OTHER) }
    }

    /// Counts a request to the route with this number; none is a request to no route.
    pub fn count(&self, route: Option<usize>, status: u16, duration: Duration) {
        let of_route = route.and_then(|number| self.routes.get(number)).unwrap_or(&self.other);
        let [fine, refused, failed] = &of_route.by_class;
        let class = match status {
            500.. => failed,
            400.. => refused,
            _ => fine,
        };
        class.fetch_add(1, Ordering::Relaxed);
        of_route.durations.observe_duration(duration);
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &OfRoute> {
        self.routes.iter().chain([&self.other])
    }
}

impl OfRoute {
    fn new(method: String, path: &'static str) -> Self {
        Self { method, path, by_class: Default::default(), durations: Histogram::new(&DURATIONS) }
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.into_iter().zip(self.by_class.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// In microseconds.
    pub(super) fn durations(&self) -> Observed {
        self.durations.observed()
    }
}
