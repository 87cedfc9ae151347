//! Deadlines: the client's `grpc-timeout`, within the service's own limits, bounds the whole call.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::edge::Limits;

/// When a call must have been answered. In the extensions of every request that a handler sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// When a request came in.
#[derive(Clone, Copy)]
struct Arrival(Instant);

/// Notes when a request came in: a layer for the whole server.
///
/// tonic sets a timer of its own by the same header, and would answer CANCELLED when it fires. It
/// sets it right after this, so a deadline that counts from here has always passed by then.
#[must_use]
pub fn stamp_arrival<B>(mut request: http::Request<B>) -> http::Request<B> {
    request.extensions_mut().insert(Arrival(Instant::now()));
    request
}

impl Deadline {
    /// The deadline of a request: the client's, at most the longest allowed; else the default.
    pub(super) fn of<B>(request: &http::Request<B>, limits: &Limits) -> Self {
        let arrival = request.extensions().get::<Arrival>();
        let arrival = arrival.map_or_else(Instant::now, |arrival| arrival.0);
        let header = request.headers().get("grpc-timeout");
        let timeout = header
            .and_then(|header| parse_timeout(header.to_str().ok()?))
            .unwrap_or(limits.request_timeout);
        Self(arrival + timeout.min(limits.request_timeout_max))
    }

    /// The deadline that the edge gave to a request.
    pub(super) fn given<T>(request: &tonic::Request<T>) -> Instant {
        let given = request.extensions().get::<Self>();
        // Nobody waits for a call that nobody set a deadline: the edge always does.
        given.map_or_else(Instant::now, |deadline| deadline.0)
    }

    /// What the future gives, or `None` once the deadline has passed.
    ///
    /// The clock is asked at every poll, not only the timer: the poll that tonic's timer causes can
    /// come before this timer is marked as fired.
    pub(super) async fn bound<F: Future>(self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut timer = pin!(sleep_until(self.0));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            let fired = timer.as_mut().poll(context).is_ready();
            if fired || Instant::now() >= self.0 {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }
}

/// A timeout as gRPC writes it: at most 8 digits and a unit. `None` for anything else, which counts
/// as no timeout at all, as it does for tonic.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = &text[..unit_at];
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3_600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn deadline_after(header: Option<&str>) -> Duration {
        let mut request = stamp_arrival(http::Request::new(()));
        if let Some(header) = header {
            let value = header.parse().expect("a header value");
            request.headers_mut().insert("grpc-timeout", value);
        }
        let arrival = request.extensions().get::<Arrival>().expect("stamped").0;
        Deadline::of(&request, &Limits::default()).0 - arrival
    }

    #[test]
    fn the_client_sets_it_within_the_limits() {
        let limits = Limits::default();
        assert_eq!(deadline_after(Some("250m")), Duration::from_millis(250));
        assert_eq!(deadline_after(Some("0S")), Duration::ZERO);
        assert_eq!(
            deadline_after(Some("99999999H")),
            limits.request_timeout_max
        );
        assert_eq!(deadline_after(None), limits.request_timeout);
        for malformed in [
            "",
            "S",
            "5",
            "5s",
            "123456789S",
            "-5S",
            "5.0S",
            " 5S",
            "5 S",
        ] {
            let after = deadline_after(Some(malformed));
            assert_eq!(after, limits.request_timeout, "{malformed:?}");
        }
    }

    quickcheck! {
        fn every_unit_is_read(value: u32) -> bool {
            let value = value % 100_000_000;
            let read = |unit: char| parse_timeout(&format!("{value}{unit}"));
            let seconds = u64::from(value);
            read('H') == Some(Duration::from_secs(seconds * 3_600))
                && read('M') == Some(Duration::from_secs(seconds * 60))
                && read('S') == Some(Duration::from_secs(seconds))
                && read('m') == Some(Duration::from_millis(seconds))
                && read('u') == Some(Duration::from_micros(seconds))
                && read('n') == Some(Duration::from_nanos(seconds))
        }

        fn no_header_breaks_it(text: String) -> bool {
            parse_timeout(&text).is_none_or(|timeout| timeout.as_secs() <= 99_999_999 * 3_600)
        }
    }

    #[tokio::test]
    async fn a_call_ends_with_its_deadline() {
        let soon = Deadline(Instant::now() + Duration::from_millis(20));
        assert_eq!(soon.bound(async { 1 }).await, Some(1));
        assert_eq!(soon.bound(std::future::pending::<()>()).await, None);
        // What is ready counts, however late.
        assert_eq!(soon.bound(async { 2 }).await, Some(2));
    }
}
