//! Wire requests to domain values: parsed once, all violations at once.

mod create;
mod query;
mod update;

pub(super) use create::{create, create_batch};
pub(super) use query::{Availability, availability, listing};
pub(super) use update::{Update, half_interval, update};

use std::time::Duration;

use crate::booking::limits::BATCH_MEMBERS_MAX;
use crate::booking::{BookingId, CancelReason, Interval, InvalidId, Revision, Timestamp};
use crate::pb;
use crate::store::Mode;

use super::violations::Violations;

/// Which booking a call is about, and which version of it, if the caller cares.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: BookingId,
    pub(super) expected: Option<Revision>,
}

/// GetBooking.
pub(super) fn get(request: &pb::GetBookingRequest) -> Result<BookingId, Violations> {
    let mut violations = Violations::default();
    let id = name(&mut violations, "name", &request.name);
    violations.finish(id)
}

/// BatchGetBookings. A name may come twice.
pub(super) fn get_batch(
    request: &pb::BatchGetBookingsRequest,
) -> Result<Vec<BookingId>, Violations> {
    let mut violations = Violations::default();
    if !members_allowed(&mut violations, "names", request.names.len()) {
        return violations.finish(None);
    }
    let ids = request.names.iter().enumerate();
    let ids: Vec<_> = ids
        .filter_map(|(index, text)| name(&mut violations, &format!("names[{index}]"), text))
        .collect();
    violations.finish(Some(ids))
}

/// DeleteBooking.
pub(super) fn delete(request: &pb::DeleteBookingRequest) -> Result<Target, Violations> {
    target(&request.name, &request.etag)
}

/// ConfirmBooking.
pub(super) fn confirm(request: &pb::ConfirmBookingRequest) -> Result<Target, Violations> {
    target(&request.name, &request.etag)
}

/// CancelBooking.
pub(super) fn cancel(
    request: pb::CancelBookingRequest,
) -> Result<(Target, CancelReason), Violations> {
    let mut violations = Violations::default();
    let id = name(&mut violations, "name", &request.name);
    let reason = violations.check("reason", CancelReason::parse(request.reason));
    let expected = revision(&request.etag);
    let target = id.map(|id| Target { id, expected });
    violations.finish(target.zip(reason))
}

fn target(text: &str, etag: &str) -> Result<Target, Violations> {
    let mut violations = Violations::default();
    let id = name(&mut violations, "name", text);
    let expected = revision(etag);
    violations.finish(id.map(|id| Target { id, expected }))
}

fn name(violations: &mut Violations, field: &str, text: &str) -> Option<BookingId> {
    let given = violations.require(field, (!text.is_empty()).then_some(text))?;
    violations.check(field, given.parse::<BookingId>())
}

/// The version an etag stands for; `None` for an empty one.
///
/// A text that this service never made is a version that no booking has: it is answered like any
/// other etag that is not the current one, and only once it is known that the booking exists.
fn revision(etag: &str) -> Option<Revision> {
    let known = |_: InvalidId| Revision::random();
    (!etag.is_empty()).then(|| etag.parse().unwrap_or_else(known))
}

fn mode(validate_only: bool) -> Mode {
    if validate_only {
        Mode::Validate
    } else {
        Mode::Commit
    }
}

/// An instant, if there is one.
fn instant(
    violations: &mut Violations,
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Option<Timestamp> {
    let time = time?;
    violations.check(field, Timestamp::from_unix(time.seconds, time.nanos))
}

/// An instant that must be there.
fn required_instant(
    violations: &mut Violations,
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Option<Timestamp> {
    let time = violations.require(field, time);
    instant(violations, field, time)
}

/// The interval between `start_time` and `end_time`, whose paths begin with `at`.
fn interval(
    violations: &mut Violations,
    at: &str,
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
) -> Option<Interval> {
    let [start_field, end_field] = ["start_time", "end_time"].map(|field| format!("{at}{field}"));
    let start = required_instant(violations, &start_field, start);
    let end = required_instant(violations, &end_field, end);
    violations.check(&end_field, Interval::new(start?, end?))
}

/// A length of time as the standard library has it: not negative, its nanoseconds within a second.
fn length(duration: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// Whether a batch has a size that is worth looking into.
fn members_allowed(violations: &mut Violations, field: &str, members: usize) -> bool {
    let allowed = (1..=BATCH_MEMBERS_MAX).contains(&members);
    if !allowed {
        violations.add(
            field,
            format_args!("must have 1 to {BATCH_MEMBERS_MAX} members"),
        );
    }
    allowed
}

#[cfg(test)]
mod tests;
