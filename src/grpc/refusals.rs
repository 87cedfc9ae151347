//! Calls that are refused for want of room, in the log: how many, now and then, and not each of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// While calls are being refused, a warning this often is enough.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

static REFUSALS: Mutex<Refusals> = Mutex::new(Refusals {
    untold: 0,
    told: None,
});

/// A call is refused. Tells the log, unless that was told a moment ago.
///
/// A service that has more to do than it can must not spend its time on writing so.
pub(super) fn add() {
    let mut refusals = REFUSALS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(refused) = refusals.add(Instant::now()) {
        drop(refusals);
        tracing::warn!(
            refused,
            "calls are refused as OVERLOADED, with nothing executed: add replicas, or look for what is \
             slow; --max-concurrent-requests and --queue-length say how much is taken on"
        );
    }
}

struct Refusals {
    /// Since the last warning.
    untold: u64,
    told: Option<Instant>,
}

impl Refusals {
    /// Counts one more. How many there were, if it is time to say so.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now - told < WARNING_INTERVAL) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let mut refusals = Refusals {
            untold: 0,
            told: None,
        };
        let now = Instant::now();
        assert_eq!(refusals.add(now), Some(1));
        assert_eq!(refusals.add(now), None);
        assert_eq!(refusals.add(now + WARNING_INTERVAL / 2), None);
        assert_eq!(refusals.add(now + WARNING_INTERVAL), Some(3));
        assert_eq!(refusals.add(now + WARNING_INTERVAL), None);
    }
}
