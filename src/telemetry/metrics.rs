//! Every metric there is: its name, unit, labels and meaning; and what counts into it.
//!
//! Names follow OpenTelemetry's semantic conventions (1.45, as Prometheus writes them) where there
//! is one, else they begin with `booking_`. Labels are words of the code's own: never a resource, a
//! person, a note or anything else that a client sent. Until [`start`] nothing is counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric as Registered, Registry, Unit};

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; Prometheus sees its name with `_total` behind it.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values fell into which range.
    Histogram,
}

/// One metric, as it is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without the suffixes of its unit and its kind.
    pub name: &'static str,
    /// What it counts in.
    pub kind: Kind,
    /// Whether it is a time; then it is in seconds, and so its name ends.
    pub is_time: bool,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

impl Metric {
    /// The name that it has in the exposition: with its unit, and `_total` for a counter.
    #[must_use]
    pub fn exposed(&self) -> String {
        let unit = if self.is_time { "_seconds" } else { "" };
        let total = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{unit}{total}", self.name)
    }
}

/// From a fast read within a data centre to the longest deadlines that clients use, in seconds.
const LATENCY_BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Up to the largest batch that can be configured.
const SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 500.0];

/// Up to the most attempts that a transaction gets.
const ATTEMPT_BUCKETS: [f64; 7] = [1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 24.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, Buckets>;

/// Makes a histogram with these upper bounds.
#[derive(Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

macro_rules! metrics {
    ($($(#[$of:ident])? $field:ident: $type:ty = $make:expr,
        $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        /// Every metric, in the order of the exposition.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            is_time: metrics!(@is_time $($of)?),
            labels: &[$($label),*],
            help: $help,
        },)*];

        struct Metrics { registry: Registry, $($field: $type,)* }

        impl Metrics {
            fn new() -> Self {
                let mut registry = Registry::default();
                $(let $field: $type = $make;)*
                let mut listed = METRICS.iter();
                $(register(&mut registry, &mut listed, $field.clone());)*
                Self { registry, $($field,)* }
            }
        }
    };
    (@is_time) => { false };
    (@is_time seconds) => { true };
}

metrics! {
    #[seconds]
    calls: Histograms<3> = Family::new_with_constructor(Buckets(&LATENCY_BUCKETS)),
    "rpc_server_call_duration" Histogram
        ["rpc_method", "rpc_response_status_code", "error_type"]
        "Time from a call's arrival to its answer; error_type is the ErrorInfo's reason, or the code where there is none";

    calls_in_flight: Gauge = Gauge::default(),
    "booking_calls_in_flight" Gauge []
        "Calls that are being handled";

    ready: Gauge = Gauge::default(),
    "booking_ready" Gauge []
        "1 while calls are wanted: the database answers with the schema expected, and no stop has begun";

    #[seconds]
    attempts: Histograms<2> = Family::new_with_constructor(Buckets(&LATENCY_BUCKETS)),
    "db_client_operation_duration" Histogram
        ["db_operation_name", "error_type"]
        "Time of one attempt at a transaction or read, without the wait for a connection; error_type is conflict, lost, timeout or fatal";

    #[seconds]
    transactions: Histograms<2> = Family::new_with_constructor(Buckets(&LATENCY_BUCKETS)),
    "booking_transaction_duration" Histogram
        ["db_operation_name", "outcome"]
        "Time of a transaction or read with all attempts, pauses and waits; outcome is answered, contention, unavailable, deadline_exceeded, internal or abandoned";

    attempts_needed: Histograms<1> = Family::new_with_constructor(Buckets(&ATTEMPT_BUCKETS)),
    "booking_transaction_attempts" Histogram
        ["db_operation_name"]
        "Attempts that a transaction or read took, whatever came of it";

    conflicts: Counters<1> = Family::default(),
    "booking_transaction_conflicts" Counter
        ["db_operation_name"]
        "Attempts lost to another transaction (optimistic concurrency control)";

    retries: Counters<2> = Family::default(),
    "booking_transaction_retries" Counter
        ["db_operation_name", "cause"]
        "Attempts made again; cause is conflict or lost";

    batch_sizes: Histogram = Histogram::new(SIZE_BUCKETS),
    "booking_batch_size" Histogram []
        "Creates that shared a transaction";

    #[seconds]
    queue_waits: Histogram = Histogram::new(LATENCY_BUCKETS),
    "booking_queue_wait" Histogram []
        "Time that a create waited before its batch began";

    queue_length: Gauge = Gauge::default(),
    "booking_queue_length" Gauge []
        "Creates that wait in a lane, or are in its transaction";

    queue_refusals: Counter = Counter::default(),
    "booking_queue_refusals" Counter []
        "Creates refused because their lane's queue was full";

    queue_expiries: Counter = Counter::default(),
    "booking_queue_expiries" Counter []
        "Creates dropped unexecuted: their deadline passed, or their caller left, while they waited";

    connections: Family<Labels<1>, Gauge> = Family::default(),
    "db_client_connection_count" Gauge
        ["db_client_connection_state"]
        "Database connections of the pool; db_client_connection_state is idle or used";

    connections_max: Gauge = Gauge::default(),
    "db_client_connection_max" Gauge []
        "Most database connections that the pool may have";

    connections_wanted: Gauge = Gauge::default(),
    "db_client_connection_pending_requests" Gauge []
        "Transactions and reads that wait for a connection";

    #[seconds]
    connection_waits: Histogram = Histogram::new(LATENCY_BUCKETS),
    "db_client_connection_wait_time" Histogram []
        "Time that a connection of the pool was waited for";

    #[seconds]
    connections_made: Histograms<1> = Family::new_with_constructor(Buckets(&LATENCY_BUCKETS)),
    "db_client_connection_create_time" Histogram
        ["error_type"]
        "Time to make a connection and prepare its statements; error_type is unavailable where that failed";

    connection_timeouts: Counter = Counter::default(),
    "db_client_connection_timeouts" Counter []
        "Waits for a connection that ended with the deadline of the call";

    token_signings: Counters<1> = Family::default(),
    "booking_token_signings" Counter
        ["outcome"]
        "Sign-in tokens for Aurora DSQL; outcome is signed or failed";

    purges: Counters<1> = Family::default(),
    "booking_purge_runs" Counter
        ["outcome"]
        "Runs of the maintenance; outcome is done, skipped (another replica is at it) or failed";

    purged: Counters<1> = Family::default(),
    "booking_purged_rows" Counter
        ["kind"]
        "Rows purged by the maintenance; kind is guards or expired_holds";

    build: Family<Labels<1>, Gauge> = Family::default(),
    "booking_build_info" Gauge
        ["version"]
        "Always 1; version is the program's";
}

fn register<'a>(
    registry: &mut Registry,
    listed: &mut impl Iterator<Item = &'a Metric>,
    metric: impl Registered,
) {
    let listed = listed.next().expect("one for each field");
    if listed.is_time {
        registry.register_with_unit(listed.name, listed.help, Unit::Seconds, metric);
    } else {
        registry.register(listed.name, listed.help, metric);
    }
}

static METRICS_ON: OnceLock<Metrics> = OnceLock::new();

/// Begins to count, for the whole process. Calling it again changes nothing.
pub fn start() {
    let metrics = METRICS_ON.get_or_init(Metrics::new);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    metrics.build.get_or_create(&version).set(1);
    metrics.ready.set(0);
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
