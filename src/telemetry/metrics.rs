//! Every metric there is: its name, unit, labels and meaning; and what counts into it.
//!
//! Names follow OpenTelemetry's semantic conventions (1.45, as Prometheus writes them) where there
//! is one, else they begin with `booking_`. Labels are words of the code's own: never a resource, a
//! person, a note or anything else that a client sent. Until [`start`] nothing is counted.

mod table;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use table::Metrics;
pub use table::{Kind, METRICS, Metric};

static METRICS_ON: OnceLock<Metrics> = OnceLock::new();

/// Begins to count, for the whole process. Calling it again changes nothing.
pub fn start() {
    METRICS_ON.get_or_init(|| {
        let metrics = Metrics::new();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        metrics.build.get_or_create(&version).set(1);
        // What may never happen is shown as 0, so that its first time is a rise.
        for outcome in ["signed", "failed"] {
            let _ = metrics
                .token_signings
                .get_or_create(&[("outcome", outcome)]);
        }
        for outcome in ["done", "skipped", "failed"] {
            let _ = metrics.purges.get_or_create(&[("outcome", outcome)]);
        }
        for kind in ["guards", "expired_holds"] {
            let _ = metrics.purged.get_or_create(&[("kind", kind)]);
        }
        metrics
    });
}

/// Everything counted until now, in the text format of Prometheus, in its stricter dialect,
/// `OpenMetrics`. Empty before [`start`].
#[must_use]
pub fn render() -> String {
    let mut rendered = String::new();
    if let Some(metrics) = METRICS_ON.get() {
        text::encode(&mut rendered, &metrics.registry).expect("a string takes everything");
    }
    rendered
}

/// Counts, if anything is counted at all.
fn count(into: impl FnOnce(&Metrics)) {
    if let Some(metrics) = METRICS_ON.get() {
        into(metrics);
    }
}

/// One more for as long as this lives.
pub(crate) struct OneMore(Option<Gauge>);

impl OneMore {
    fn of(gauge: impl FnOnce(&Metrics) -> &Gauge<i64, AtomicI64>) -> Self {
        let gauge = METRICS_ON.get().map(|metrics| gauge(metrics).clone());
        if let Some(gauge) = &gauge {
            gauge.inc();
        }
        Self(gauge)
    }

    /// A call that is being handled.
    pub(crate) fn call() -> Self {
        Self::of(|metrics| &metrics.calls_in_flight)
    }

    /// A create in a lane.
    pub(crate) fn in_queue() -> Self {
        Self::of(|metrics| &metrics.queue_length)
    }

    /// A wait for a connection.
    pub(crate) fn wanting_connection() -> Self {
        Self::of(|metrics| &metrics.connections_wanted)
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.dec();
        }
    }
}

/// A call was answered; `error` is empty if all was well.
pub(crate) fn call_ended(
    method: &'static str,
    code: &'static str,
    error: &'static str,
    time: Duration,
) {
    count(|metrics| {
        let labels = [
            ("rpc_method", method),
            ("rpc_response_status_code", code),
            ("error_type", error),
        ];
        let calls = metrics.calls.get_or_create(&labels);
        calls.observe(time.as_secs_f64());
    });
}

/// Readiness changed.
pub(crate) fn ready(ready: bool) {
    count(|metrics| {
        metrics.ready.set(ready.into());
    });
}

/// An attempt at a transaction ended; `error` is empty if it came to an answer.
pub(crate) fn attempted(operation: &'static str, error: &'static str, time: Duration) {
    count(|metrics| {
        let labels = [("db_operation_name", operation), ("error_type", error)];
        let attempts = metrics.attempts.get_or_create(&labels);
        attempts.observe(time.as_secs_f64());
        if error == "conflict" {
            let labels = [("db_operation_name", operation)];
            metrics.conflicts.get_or_create(&labels).inc();
        }
    });
}

/// A failed attempt is made again.
pub(crate) fn retried(operation: &'static str, cause: &'static str) {
    count(|metrics| {
        let labels = [("db_operation_name", operation), ("cause", cause)];
        metrics.retries.get_or_create(&labels).inc();
    });
}

/// A transaction ended, after so many attempts.
pub(crate) fn transaction_ended(
    operation: &'static str,
    outcome: &'static str,
    attempts: u32,
    time: Duration,
) {
    count(|metrics| {
        let labels = [("db_operation_name", operation), ("outcome", outcome)];
        let transactions = metrics.transactions.get_or_create(&labels);
        transactions.observe(time.as_secs_f64());
        let labels = [("db_operation_name", operation)];
        let needed = metrics.attempts_needed.get_or_create(&labels);
        needed.observe(attempts.into());
    });
}

/// A batch begins, whose members have waited so long.
pub(crate) fn batch_begins(waits: impl ExactSizeIterator<Item = Duration>) {
    count(|metrics| {
        // A batch has at most hundreds of members.
        let size = u32::try_from(waits.len()).unwrap_or(u32::MAX);
        metrics.batch_sizes.observe(size.into());
        waits.for_each(|wait| metrics.queue_waits.observe(wait.as_secs_f64()));
    });
}

/// A queue was full.
pub(crate) fn queue_refused() {
    count(|metrics| {
        metrics.queue_refusals.inc();
    });
}

/// A create was too late before it began.
pub(crate) fn queue_expired() {
    count(|metrics| {
        metrics.queue_expiries.inc();
    });
}

/// A connection of the pool was waited for; in vain, if the deadline passed.
pub(crate) fn connection_waited(time: Duration, timed_out: bool) {
    count(|metrics| {
        metrics.connection_waits.observe(time.as_secs_f64());
        if timed_out {
            metrics.connection_timeouts.inc();
        }
    });
}

/// A connection was made, or not.
pub(crate) fn connection_made(time: Duration, made: bool) {
    count(|metrics| {
        let error = if made { "" } else { "unavailable" };
        let connections = metrics
            .connections_made
            .get_or_create(&[("error_type", error)]);
        connections.observe(time.as_secs_f64());
    });
}

/// The connections that the pool has, and may have.
pub(crate) fn pool(idle: u32, used: u32, max: u32) {
    count(|metrics| {
        for (state, connections) in [("idle", idle), ("used", used)] {
            let labels = [("db_client_connection_state", state)];
            let gauge = metrics.connections.get_or_create(&labels);
            gauge.set(connections.into());
        }
        metrics.connections_max.set(max.into());
    });
}

/// A sign-in token was signed, or not.
pub(crate) fn token_signed(signed: bool) {
    count(|metrics| {
        let outcome = if signed { "signed" } else { "failed" };
        let signings = metrics
            .token_signings
            .get_or_create(&[("outcome", outcome)]);
        signings.inc();
    });
}

/// The keys for sign-in tokens were read, just now.
#[expect(
    clippy::disallowed_methods,
    reason = "for Prometheus, which compares it with its own clock"
)]
pub(crate) fn keys_read(source: &'static str) {
    count(|metrics| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let labels = [("source", source)];
        let read = metrics.keys_read.get_or_create(&labels);
        read.set(seconds(now.unwrap_or_default()));
    });
}

/// The server has new certificates, which expire so long after the Unix epoch: its own, and the first
/// to do so of those behind it.
pub(crate) fn certificates_expire(leaf: Option<Duration>, intermediate: Option<Duration>) {
    count(|metrics| {
        for (certificate, after) in [("leaf", leaf), ("intermediate", intermediate)] {
            let labels = [("certificate", certificate)];
            match after {
                Some(after) => {
                    let expiry = metrics.certificate_expiry.get_or_create(&labels);
                    expiry.set(seconds(after));
                }
                None => {
                    metrics.certificate_expiry.remove(&labels);
                }
            }
        }
    });
}

fn seconds(after_epoch: Duration) -> i64 {
    i64::try_from(after_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// What a run of the maintenance came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purge {
    /// So many rows are gone.
    Done { guards: u64, expired_holds: u64 },
    /// Another replica is at it.
    Skipped,
    /// It broke off.
    Failed,
}

/// The maintenance ran.
pub(crate) fn purged(purge: Purge) {
    count(|metrics| {
        let outcome = match purge {
            Purge::Done {
                guards,
                expired_holds,
            } => {
                for (kind, rows) in [("guards", guards), ("expired_holds", expired_holds)] {
                    let purged: &Family<_, Counter<u64, AtomicU64>> = &metrics.purged;
                    purged.get_or_create(&[("kind", kind)]).inc_by(rows);
                }
                "done"
            }
            Purge::Skipped => "skipped",
            Purge::Failed => "failed",
        };
        let runs = metrics.purges.get_or_create(&[("outcome", outcome)]);
        runs.inc();
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_metric_is_listed_once_and_explained() {
        let names: HashSet<_> = METRICS.iter().map(Metric::exposed).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(
                !metric.help.is_empty() && !metric.help.ends_with('.'),
                "{metric:?}"
            );
        }
    }
}
