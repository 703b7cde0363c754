//! Finds the addresses of names. The system's resolver blocks a thread for as long as it likes, and cannot be called off,
//! neither by a call that is out of time nor by a stop.
//!
//! Invariant: a name of which nobody says anything takes nothing away from others. Its lookups have threads of their own,
//! few at once, and each counts until it has ended, also where nobody waits for it any more.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How often one name is looked up at once at most.
const AT_ONCE: usize = 4;
/// How long after its beginning a lookup is still shared by those who come. Then it is tried beside it once more, since
/// the question, or the answer, may be lost.
const SHARED: Duration = Duration::from_secs(1);

/// Finds the addresses of a name. It may block.
pub(super) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The addresses, or why there are none.
type Found = Result<Vec<IpAddr>, String>;

/// The lookups of one webhook.
pub(super) struct Lookups {
    lookup: Lookup,
    /// The latest last.
    under_way: Mutex<Vec<UnderWay>>,
}

struct UnderWay {
    name: String,
    began: Instant,
    found: watch::Receiver<Option<Found>>,
}

/// By the system's own rules.
pub(super) fn by_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

impl Lookups {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, under_way: Mutex::default() }
    }

    /// The addresses of a name, by a lookup that is under way or a new one. Dropping the future ends only the waiting.
    ///
    /// # Errors
    /// For people: why there are none.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let mut found = self.join_or_begin(name).map_err(|error| error.to_string())?;
        let found = found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err("the lookup has panicked".to_owned()))
    }

    fn join_or_begin(&self, name: &str) -> io::Result<watch::Receiver<Option<Found>>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(UnderWay::is_so);
        let mut same = under_way.iter().filter(|one| one.name == name).rev();
        if let Some(latest) = same.next()
            && (latest.began.elapsed() < SHARED || same.count() + 1 >= AT_ONCE)
        {
            return Ok(latest.found.clone());
        }
        let (tell, found) = watch::channel(None);
        let (lookup, asked) = (Arc::clone(&self.lookup), name.to_owned());
        // Not in the pool of the runtime: others have to get through it, and its end waits for what blocks there.
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let found = lookup(&asked).map_err(|error| error.to_string());
            tell.send_replace(Some(found));
        })?;
        under_way.push(UnderWay { name: name.to_owned(), began: Instant::now(), found: found.clone() });
        Ok(found)
    }
}

impl UnderWay {
    fn is_so(&self) -> bool {
        // An error says that its thread has panicked.
        self.found.has_changed().is_ok() && self.found.borrow().is_none()
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::future::{join_all, poll_immediate};

    use super::*;

    /// Each lookup says that it has begun, and waits for its answer.
    struct Held {
        lookups: Lookups,
        begun: tokio::sync::mpsc::UnboundedReceiver<mpsc::Sender<Vec<IpAddr>>>,
    }

    fn held() -> Held {
        let (tell, begun) = tokio::sync::mpsc::unbounded_channel();
        let lookup = move |_: &str| {
            let (answer, answered) = mpsc::channel();
            tell.send(answer).unwrap();
            answered.recv().map_err(|_dropped| io::Error::other("nobody answers"))
        };
        Held { lookups: Lookups::new(Arc::new(lookup)), begun }
    }

    fn address(last: u8) -> Vec<IpAddr> {
        vec![IpAddr::from([127, 0, 0, last])]
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_moment_shares_one_lookup_and_who_comes_after_it_has_another() {
        let Held { lookups, mut begun } = held();
        for round in 1..3 {
            let asking = join_all((0..100).map(|_| lookups.addresses("shop.example")));
            let answering = async { begun.recv().await.unwrap().send(address(round)).unwrap() };
            let (found, ()) = tokio::join!(asking, answering);
            assert!(found.iter().all(|found| *found == Ok(address(round))), "{found:?}");
            assert!(begun.try_recv().is_err(), "there was a second one");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_of_which_nobody_says_anything_is_looked_up_a_few_times_at_once_also_where_nobody_waits() {
        let Held { lookups, mut begun } = held();
        let mut answers = Vec::new();
        for number in 0..100 {
            // It is out of time at once.
            assert_eq!(poll_immediate(lookups.addresses("dead.example")).await, None);
            if number < AT_ONCE {
                answers.push(begun.recv().await.unwrap());
            }
            tokio::time::advance(SHARED).await;
        }
        assert!(begun.try_recv().is_err(), "more were begun");
        let other = async { begun.recv().await.unwrap().send(address(9)).unwrap() };
        assert_eq!(tokio::join!(lookups.addresses("shop.example"), other).0, Ok(address(9)));

        // Who waits has the answer of the latest, and whatever ends makes room.
        let latest = answers.pop().unwrap();
        let (found, ()) =
            tokio::join!(lookups.addresses("dead.example"), async { latest.send(address(2)).unwrap() });
        assert_eq!(found, Ok(address(2)));
        let failing = async { drop(begun.recv().await.unwrap()) };
        let (found, ()) = tokio::join!(lookups.addresses("dead.example"), failing);
        assert_eq!(found, Err("nobody answers".to_owned()));
    }

    #[tokio::test]
    async fn a_lookup_that_panics_finds_nothing_and_is_not_waited_for() {
        let lookups = Lookups::new(Arc::new(|_: &str| panic!("on purpose")));
        for _ in 0..2 {
            assert!(lookups.addresses("shop.example").await.is_err());
        }
    }

    #[test]
    fn the_system_knows_this_machine() {
        assert!(by_system("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
