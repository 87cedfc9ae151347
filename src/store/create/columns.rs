//! What a batch is to the database.

use uuid::Uuid;

use crate::booking::{HoldTtl, NewBooking, Timestamp, UtcDay};

/// A batch turned by ninety degrees: one array for each column.
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) resources: Vec<&'a str>,
    pub(super) starts: Vec<Timestamp>,
    pub(super) ends: Vec<Timestamp>,
    pub(super) bookers: Vec<&'a str>,
    pub(super) notes: Vec<&'a str>,
    pub(super) holds: Vec<Option<i64>>,
    pub(super) revisions: Vec<i64>,
    pub(super) fingerprints: Vec<Uuid>,
    pub(super) first_days: Vec<UtcDay>,
    pub(super) last_days: Vec<UtcDay>,
    /// As many as the longest member touches days.
    pub(super) day_offsets: Vec<i32>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(batch: &[&'a NewBooking]) -> Self {
        fn column<'a, T>(batch: &[&'a NewBooking], value: impl Fn(&'a NewBooking) -> T) -> Vec<T> {
            batch.iter().map(|new| value(new)).collect()
        }
        let days = batch.iter().map(|new| new.draft().interval.days_touched());
        let days_max = days.max().unwrap_or_default();
        Self {
            ids: column(batch, |new| *new.id().as_uuid()),
            resources: column(batch, |new| new.draft().resource.as_str()),
            starts: column(batch, |new| new.draft().interval.start()),
            ends: column(batch, |new| new.draft().interval.end()),
            bookers: column(batch, |new| new.draft().booked_by.as_str()),
            notes: column(batch, |new| new.draft().note.as_str()),
            holds: column(batch, |new| new.draft().hold_ttl.map(HoldTtl::micros)),
            revisions: column(batch, |new| new.revision().number()),
            fingerprints: column(batch, NewBooking::fingerprint),
            first_days: column(batch, |new| new.draft().interval.first_day()),
            last_days: column(batch, |new| new.draft().interval.last_day()),
            day_offsets: (0..).take(days_max).collect(),
        }
    }
}
