//! What waits for the writer. It takes many at once, so that a lock is shared by a batch.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Condvar,
    max: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<T>,
    is_closed: bool,
    /// Whether the taker sleeps.
    is_awaited: bool,
}

/// Why nothing was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

impl<T> Queue<T> {
    /// For at most so many.
    pub(super) fn new(max: usize) -> Self {
        let waiting = Waiting { items: VecDeque::new(), is_closed: false, is_awaited: false };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new(), max }
    }

    pub(super) fn push(&self, item: T) -> Result<(), Refused> {
        let waiting = self.lock();
        if waiting.items.len() < self.max { self.add(waiting, item) } else { Err(Refused::Full) }
    }

    /// However many wait.
    pub(super) fn push_always(&self, item: T) -> Result<(), Refused> {
        self.add(self.lock(), item)
    }

    fn add(&self, mut waiting: MutexGuard<'_, Waiting<T>>, item: T) -> Result<(), Refused> {
        if waiting.is_closed {
            return Err(Refused::Closed);
        }
        waiting.items.push_back(item);
        let is_awaited = std::mem::take(&mut waiting.is_awaited);
        drop(waiting);
        if is_awaited {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes at most `max`, at once, the longest waiting first. None is taken where none waits.
    pub(super) fn take(&self, max: usize, taken: &mut VecDeque<T>) {
        let mut waiting = self.lock();
        let count = max.min(waiting.items.len());
        taken.extend(waiting.items.drain(..count));
    }

    /// Waits until there is something to take; at most that long, where a time is given. Returns whether there is.
    pub(super) fn wait(&self, patience: Option<Duration>) -> bool {
        let mut waiting = self.lock();
        waiting.is_awaited = waiting.items.is_empty();
        let is_empty = |waiting: &mut Waiting<T>| waiting.items.is_empty();
        let waiting = match patience {
            Some(patience) => {
                let woken = self.filled.wait_timeout_while(waiting, patience, is_empty);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.filled.wait_while(waiting, is_empty).unwrap_or_else(PoisonError::into_inner),
        };
        !waiting.items.is_empty()
    }

    /// Drops what waits, and takes nothing any more.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let dropped = std::mem::take(&mut waiting.items);
        drop(waiting);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);
    /// Reached only where nobody is woken.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn it_takes_so_many_and_gives_them_in_their_order() {
        let (queue, mut taken) = (Queue::new(2), VecDeque::new());
        assert!(!queue.wait(NOT_AT_ALL));
        queue.take(9, &mut taken);
        assert!(taken.is_empty());
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(Refused::Full)));
        assert_eq!(queue.push_always(4), Ok(()));
        assert!(queue.wait(NOT_AT_ALL) && queue.wait(None));
        queue.take(2, &mut taken);
        assert_eq!(taken, [1, 2]);
        assert_eq!(queue.push(5), Ok(()));
        queue.take(9, &mut taken);
        assert_eq!(taken, [1, 2, 4, 5]);
        assert!(!queue.wait(NOT_AT_ALL));

        queue.push_always(6).unwrap();
        queue.close();
        assert!(!queue.wait(NOT_AT_ALL), "what waited is dropped");
        assert_eq!((queue.push(7), queue.push_always(8)), (Err(Refused::Closed), Err(Refused::Closed)));
    }

    #[test]
    fn who_waits_is_woken_by_what_comes() {
        for patience in [None, Some(PATIENCE * 100)] {
            let queue = Arc::new(Queue::new(1));
            let (woken, is_woken) = mpsc::channel();
            let waiting = Arc::clone(&queue);
            let taker = std::thread::spawn(move || woken.send(waiting.wait(patience)));
            while !queue.lock().is_awaited {
                std::thread::yield_now();
            }
            queue.push(1).unwrap();
            assert_eq!(is_woken.recv_timeout(PATIENCE), Ok(true), "{patience:?}");
            assert!(!queue.lock().is_awaited);
            taker.join().unwrap().unwrap();
        }
    }
}
