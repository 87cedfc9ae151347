//! How often one caller may call.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use crate::booking::Booker;

use super::status::Error;

/// How many calls are let through between two sweeps of the callers who have been quiet since.
const CALLS_BETWEEN_SWEEPS: u32 = 4_096;

/// How often one caller may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls a second, in the long run.
    pub per_second: NonZeroU32,
    /// Calls at once, after a pause.
    pub burst: NonZeroU32,
}

/// Whose calls are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Those of one person, wherever they come from.
    Subject(Booker),
    /// Those from one address; in IPv6 from one network of 64 bits, all of which one host can use.
    Address(IpAddr),
}

impl Key {
    /// The person who signed in, else the address; `None` where neither is known.
    pub(super) fn of(subject: Option<&Booker>, address: Option<SocketAddr>) -> Option<Self> {
        if let Some(subject) = subject {
            return Some(Self::Subject(subject.clone()));
        }
        Some(Self::Address(match address?.ip().to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
            address @ IpAddr::V4(_) => address,
        }))
    }
}

/// Counts the calls of each caller.
#[derive(Debug)]
pub(super) struct Limiter {
    buckets: DefaultKeyedRateLimiter<Key>,
    calls: AtomicU32,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        Self {
            buckets: DefaultKeyedRateLimiter::keyed(quota),
            calls: AtomicU32::new(0),
        }
    }

    /// Counts a call, unless it is one too many.
    pub(super) fn check(&self, key: &Key) -> Result<(), Error> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls % CALLS_BETWEEN_SWEEPS == CALLS_BETWEEN_SWEEPS - 1 {
            // Whoever could make a full burst again needs no bucket: so their number stays bounded.
            self.buckets.retain_recent();
        }
        let refused = |until: governor::NotUntil<_>| {
            Error::TooFast(until.wait_time_from(DefaultClock::default().now()))
        };
        self.buckets.check_key(key).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subject: Option<&Booker>, address: &str) -> Option<Key> {
        Key::of(subject, Some(address.parse().expect("an address")))
    }

    #[test]
    fn a_person_counts_once_from_wherever_and_a_host_from_its_whole_network() {
        let ada = Booker::parse("ada").expect("valid");
        let (here, there) = ("10.0.0.1:1", "[2001:db8::1]:2");
        assert_eq!(key(Some(&ada), here), key(Some(&ada), there));
        assert_eq!(key(None, there), key(None, "[2001:db8::ffff]:3"));
        assert_ne!(key(None, there), key(None, here));
        assert_eq!(key(None, here), key(None, "[::ffff:10.0.0.1]:9"));
    }

    #[test]
    fn callers_who_went_quiet_are_forgotten() {
        let one = NonZeroU32::new(1_000).expect("not zero");
        let limiter = Limiter::new(RateLimit {
            per_second: one,
            burst: NonZeroU32::MIN,
        });
        for host in 0..3 * CALLS_BETWEEN_SWEEPS {
            let key = Key::Address(std::net::Ipv4Addr::from_bits(host).into());
            assert!(limiter.check(&key).is_ok());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        limiter.buckets.retain_recent();
        assert_eq!(limiter.buckets.len(), 0);
    }
}
