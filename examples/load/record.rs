//! What has been seen: latencies, refusals and errors by their reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tonic::Status;
use tonic_types::StatusExt;

/// Digits of a latency that are kept.
const SIGNIFICANT_DIGITS: u8 = 3;

/// The kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Create,
    Get,
    List,
    Update,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CreateBooking",
            Self::Get => "GetBooking",
            Self::List => "ListBookings",
            Self::Update => "UpdateBooking",
        }
    }
}

/// What has been seen so far, by all workers.
#[derive(Default)]
pub(crate) struct Record(Mutex<Seen>);

/// Latencies are in microseconds.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Of what was done, or refused because the slot is taken.
    pub(crate) latencies: BTreeMap<Kind, Histogram<u64>>,
    /// Of what ended in an error.
    pub(crate) error_latencies: Option<Histogram<u64>>,
    /// Of health checks that answered SERVING.
    pub(crate) health: Option<Histogram<u64>>,
    /// Health checks that did not, or not in time.
    pub(crate) unhealthy: u64,
    pub(crate) done: u64,
    /// The slot was taken, as it should be.
    pub(crate) refused: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers since the progress was last looked at.
    recent: u64,
}

impl Record {
    /// Notes an answer.
    pub(crate) fn add(&self, kind: Kind, latency: Duration, outcome: Result<(), &Status>) {
        let reason = outcome.err().map(reason);
        let mut seen = self.seen();
        seen.recent += 1;
        let latencies = match reason.as_deref() {
            None => {
                seen.done += 1;
                seen.latencies.entry(kind).or_insert_with(empty)
            }
            Some("SLOT_UNAVAILABLE") => {
                seen.refused += 1;
                seen.latencies.entry(kind).or_insert_with(empty)
            }
            Some(reason) => {
                *seen.errors.entry(reason.to_owned()).or_default() += 1;
                seen.error_latencies.get_or_insert_with(empty)
            }
        };
        note(latencies, latency);
    }

    /// Notes a health check.
    pub(crate) fn add_health(&self, latency: Duration, serving: bool) {
        let mut seen = self.seen();
        if serving {
            note(seen.health.get_or_insert_with(empty), latency);
        } else {
            seen.unhealthy += 1;
        }
    }

    /// Forgets everything: the warm-up is over.
    pub(crate) fn clear(&self) {
        *self.seen() = Seen::default();
    }

    /// Everything so far.
    pub(crate) fn snapshot(&self) -> Seen {
        self.seen().clone()
    }

    /// For the progress bar: answers since the last time, and errors in all.
    pub(crate) fn tick(&self) -> (u64, u64) {
        let mut seen = self.seen();
        (std::mem::take(&mut seen.recent), seen.errors.values().sum())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    pub(crate) fn answers(&self) -> u64 {
        let errors = self.error_latencies.as_ref().map_or(0, Histogram::len);
        self.latencies.values().map(Histogram::len).sum::<u64>() + errors
    }
}

fn note(latencies: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).expect("not a million years");
    latencies.record(micros.max(1)).expect("it grows");
}

fn empty() -> Histogram<u64> {
    // It grows as it has to.
    let mut histogram = Histogram::new(SIGNIFICANT_DIGITS).expect("at most 5 digits");
    histogram.auto(true);
    histogram
}

/// The reason in the error's details, else its code.
pub(crate) fn reason(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", status.code()),
    }
}
