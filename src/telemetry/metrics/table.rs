//! The table of the metrics: name, unit, labels and meaning of each, once.

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
/// A point in time. There is none where what it speaks of is not in use.
type Moments = Family<Labels<1>, Gauge>;

/// Makes a histogram with these upper bounds.
#[derive(Clone, Copy)]
pub(super) struct Buckets(&'static [f64]);

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

        /// Them all, as they are counted in.
        pub(super) struct Metrics { pub(super) registry: Registry, $(pub(super) $field: $type,)* }

        impl Metrics {
            pub(super) fn new() -> Self {
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

    #[seconds]
    keys_read: Moments = Family::default(),
    "booking_jwks_last_read_timestamp" Gauge
        ["source"]
        "Unix time at which the keys for sign-in tokens could last be read, changed or not; source is file or url";

    #[seconds]
    certificate_expiry: Moments = Family::default(),
    "booking_certificate_expiry_timestamp" Gauge
        ["certificate"]
        "Unix time at which a certificate that clients are shown expires; certificate is leaf, the server's own, or intermediate, the first to expire of those up to its CA";

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
