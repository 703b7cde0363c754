//! How often each address has failed with a token lately, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::task::Rate;

/// The most addresses that are remembered. Beyond them the one that is free soonest is forgotten.
pub const ADDRESSES_MAX: usize = 4_096;

/// Counts failures by address: so many at once, then so many in a time, evenly.
#[derive(Debug)]
pub struct Failures {
    rate: Rate,
    by_address: Mutex<HashMap<IpAddr, Counted>>,
}

#[derive(Debug)]
struct Counted {
    /// When all its failures are forgotten; each one adds an interval.
    free_at: Instant,
    is_told: bool,
}

/// A failure beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// After which time the next failure is within the limit.
    pub retry_after: Duration,
    /// Whether it is the first one beyond it.
    pub is_news: bool,
}

impl Failures {
    /// With this limit for each address.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, by_address: Mutex::default() }
    }

    /// Counts a failure of an address.
    ///
    /// # Errors
    /// [`TooMany`] where it is beyond the limit.
    pub fn count(&self, address: IpAddr) -> Result<(), TooMany> {
        let now = Instant::now();
        let address = subscriber(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(&address) {
            by_address.retain(|_, counted| counted.free_at > now);
            if by_address.len() >= ADDRESSES_MAX
                && let Some(soonest) =
                    by_address.iter().min_by_key(|(_, one)| one.free_at).map(|(own, _)| *own)
            {
                by_address.remove(&soonest);
            }
        }
        let counted = by_address.entry(address).or_insert(Counted { free_at: now, is_told: false });
        let free_at = counted.free_at.max(now) + self.rate.interval();
        let ahead = free_at - now;
        if ahead <= self.rate.per {
            *counted = Counted { free_at, is_told: false };
            return Ok(());
        }
        let is_news = !std::mem::replace(&mut counted.is_told, true);
        Err(TooMany { retry_after: ahead.saturating_sub(self.rate.per), is_news })
    }
}

/// Whoever has one address of IPv6 mostly has all of its /64.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments.iter_mut().skip(4).for_each(|segment| *segment = 0);
            Ipv6Addr::from(segments).into()
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten_a_minute() -> Failures {
        Failures::new(Rate { starts: 10, per: Duration::from_mins(1) })
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_then_one_in_each_interval() {
        let (failures, one) = (ten_a_minute(), "10.0.0.1".parse().unwrap());
        for _ in 0..10 {
            assert_eq!(failures.count(one), Ok(()));
        }
        let retry_after = Duration::from_secs(6);
        assert_eq!(failures.count(one), Err(TooMany { retry_after, is_news: true }));
        assert_eq!(failures.count(one), Err(TooMany { retry_after, is_news: false }));
        assert_eq!(failures.count("10.0.0.2".parse().unwrap()), Ok(()), "another address is another matter");
        tokio::time::advance(retry_after).await;
        assert_eq!(failures.count(one), Ok(()));
        assert!(failures.count(one).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_addresses_fail_so_many_are_remembered() {
        let failures = ten_a_minute();
        for number in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            let _ = failures.count(std::net::Ipv4Addr::from(number).into());
        }
        assert_eq!(failures.by_address.lock().unwrap().len(), ADDRESSES_MAX);
    }

    #[test]
    fn an_address_of_ipv6_counts_for_its_network() {
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
