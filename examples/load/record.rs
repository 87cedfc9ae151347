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

/// Latencies are those of every answer, refusals included, in microseconds.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) latencies: BTreeMap<Kind, Histogram<u64>>,
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
        let micros = u64::try_from(latency.as_micros()).expect("not a million years");
        let mut seen = self.seen();
        seen.recent += 1;
        match reason.as_deref() {
            None => seen.done += 1,
            Some("SLOT_UNAVAILABLE") => seen.refused += 1,
            Some(reason) => *seen.errors.entry(reason.to_owned()).or_default() += 1,
        }
        let latencies = seen.latencies.entry(kind).or_insert_with(empty);
        latencies.record(micros.max(1)).expect("it grows");
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
        self.latencies.values().map(Histogram::len).sum()
    }
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
