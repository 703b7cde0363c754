//! The places for connections: how many there are, and who gives up theirs when all are taken.
//!
//! Invariant: a connection that answers a request keeps its place. Of those that wait for one, those go first that have
//! never sent any, and of these the one that has waited longest (tests/it/hostile).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One of so many connections goes at once, because each look at all of them costs something; a few at least.
const SHARE: usize = 50;
const GOING_MIN: usize = 4;
/// How long to wait before looking again for somebody who can go.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one that goes may take to find that a request has come after all.
const LAST_LOOK: Duration = Duration::from_millis(2);
/// Stands for "it answers a request".
const BUSY: u64 = u64::MAX;
/// Stands in the time since when a connection waits, where it has sent requests before.
const KNOWN: u64 = 1 << 62;

/// All places of a server.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    taken: Mutex<HashMap<u64, Arc<Seat>, foldhash::fast::RandomState>>,
    next: AtomicU64,
    is_stopping: AtomicBool,
    began: Instant,
}

/// The place of one connection, as its parts share it.
#[derive(Debug)]
pub(super) struct Seat {
    began: Instant,
    /// Since when it waits for a request, in milliseconds since the server began, perhaps with [`KNOWN`]; or [`BUSY`].
    idle_since: AtomicU64,
    /// How many answers hyper has taken in whole. It may still have bytes of them in its buffer.
    answers: AtomicU64,
    told: Notify,
}

/// A place that is taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) seat: Arc<Seat>,
    number: u64,
    seats: Arc<Seats>,
    _permit: OwnedSemaphorePermit,
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The server stops: after this request, no other.
    Stop,
    /// Others need the place.
    Leave,
}

impl Seats {
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(number)),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
            began: Instant::now(),
        })
    }

    /// A place, for which another connection may have to go. Waits while all of them answer requests.
    pub(super) async fn take(self: &Arc<Self>) -> Taken {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            self.make_room();
            let free = Arc::clone(&self.free).acquire_owned();
            // The semaphore is never closed.
            if let Ok(Ok(permit)) = tokio::time::timeout(PAUSE, free).await {
                break permit;
            }
        };
        let seat = Arc::new(Seat {
            began: self.began,
            idle_since: AtomicU64::new(since(self.began)),
            answers: AtomicU64::new(0),
            told: Notify::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.taken().insert(number, Arc::clone(&seat));
        Taken { seat, number, seats: Arc::clone(self), _permit: permit }
    }

    /// Tells those that have waited longest for a request to go.
    fn make_room(&self) {
        let taken = self.taken();
        let mut waiting: Vec<_> = taken
            .iter()
            .map(|(number, seat)| (seat.idle_since.load(Ordering::Relaxed), *number))
            .filter(|(since, _)| *since != BUSY)
            .collect();
        let going = (taken.len() / SHARE).max(GOING_MIN).min(waiting.len());
        if let Some(last) = going.checked_sub(1) {
            waiting.select_nth_unstable(last);
        }
        for (_, number) in waiting.into_iter().take(going) {
            if let Some(seat) = taken.get(&number) {
                seat.told.notify_one();
            }
        }
        tracing::debug!(connections = taken.len(), going, "all connections are taken");
    }

    /// Tells everybody that the server stops.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        for seat in self.taken().values() {
            seat.told.notify_one();
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seat>, foldhash::fast::RandomState>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Returns when this connection is told something.
    pub(super) async fn told(&self) -> Told {
        loop {
            self.seat.told.notified().await;
            if self.seats.is_stopping.load(Ordering::Acquire) {
                return Told::Stop;
            }
            // What has arrived by now is read first.
            let idle_since = self.seat.idle_since.load(Ordering::Relaxed);
            tokio::time::sleep(LAST_LOOK).await;
            if idle_since != BUSY && self.seat.idle_since.load(Ordering::Relaxed) == idle_since {
                return Told::Leave;
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
    }
}

impl Seat {
    /// From now on it answers a request.
    pub(super) fn busy(&self) {
        self.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// From now on it waits for the next one.
    pub(super) fn idle(&self) {
        self.idle_since.store(KNOWN | since(self.began), Ordering::Relaxed);
    }

    /// hyper has taken a whole answer.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}

/// In milliseconds, less than [`KNOWN`].
fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(KNOWN - 1).min(KNOWN - 1)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use tokio::time::{Instant, advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_to_go_has_a_last_look() {
        let seats = Seats::new(1);
        let taken = seats.take().await;
        seats.make_room();
        let begun = Instant::now();
        assert_eq!(taken.told().await, Told::Leave);
        assert_eq!(begun.elapsed(), LAST_LOOK);

        // What has a request at the last moment stays.
        seats.make_room();
        let mut told = pin!(taken.told());
        assert!(poll!(told.as_mut()).is_pending());
        advance(LAST_LOOK / 2).await;
        taken.seat.busy();
        assert!(timeout(Duration::from_hours(1), told).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_place_looks_again_for_one_who_can_go() {
        let seats = Seats::new(1);
        let taken = seats.take().await;
        taken.seat.busy();
        let mut next = pin!(seats.take());
        let begun = Instant::now();
        assert!(poll!(next.as_mut()).is_pending());
        taken.seat.idle();
        tokio::select! {
            told = taken.told() => assert_eq!(told, Told::Leave),
            _ = &mut next => unreachable!("its place is taken"),
        }
        assert_eq!(begun.elapsed(), PAUSE + LAST_LOOK);
        drop(taken);
        drop(next.await);
        assert_eq!(begun.elapsed(), PAUSE + LAST_LOOK);
    }
}
