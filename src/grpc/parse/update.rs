//! UpdateBooking, with the field mask rules of AIP-134.

use crate::booking::{
    Booker, BookingId, Change, Interval, InvalidInterval, Note, Resource, Revision,
};
use crate::pb;
use crate::store::Mode;

use super::super::violations::Violations;
use super::{mode, name, required_instant, revision};

/// The paths that a mask may have.
const PATHS: [&str; 5] = ["resource", "start_time", "end_time", "booked_by", "note"];

/// A change to make.
#[derive(Debug)]
pub(in super::super) struct Update {
    pub(in super::super) id: BookingId,
    pub(in super::super) change: Change,
    pub(in super::super) expected: Option<Revision>,
    pub(in super::super) mode: Mode,
}

/// UpdateBooking.
pub(in super::super) fn update(request: pb::UpdateBookingRequest) -> Result<Update, Violations> {
    let mut violations = Violations::default();
    let mask = Mask::parse(&mut violations, request.update_mask);
    let Some(booking) = violations.require("booking", request.booking) else {
        return violations.finish(None);
    };
    let id = name(&mut violations, "booking.name", &booking.name);
    let expected = revision(&booking.etag);
    let change = change(&mut violations, &mask, booking);
    violations.finish(id.map(|id| Update {
        id,
        change,
        expected,
        mode: mode(request.validate_only),
    }))
}

/// A new start or end that does not go with what is kept of the old interval.
///
/// Only one of the two was given, or it would have been found out before: that one is at fault.
pub(in super::super) fn half_interval(start_given: bool, reason: InvalidInterval) -> Violations {
    match (start_given, reason) {
        (false, reason) => Violations::of("booking.end_time", reason),
        (true, InvalidInterval::Empty) => Violations::of(
            "booking.start_time",
            "must be before the booking's end_time",
        ),
        (true, InvalidInterval::TooLong) => Violations::of(
            "booking.start_time",
            "is too long before the booking's end_time",
        ),
    }
}

fn change(violations: &mut Violations, mask: &Mask, booking: pb::Booking) -> Change {
    let (has_start, has_end) = (booking.start_time.is_some(), booking.end_time.is_some());
    let change = Change {
        resource: mask
            .pick("resource", !booking.resource.is_empty(), booking.resource)
            .and_then(|text| violations.check("booking.resource", Resource::parse(text))),
        start_time: mask
            .pick("start_time", has_start, booking.start_time)
            .and_then(|time| required_instant(violations, "booking.start_time", time)),
        end_time: mask
            .pick("end_time", has_end, booking.end_time)
            .and_then(|time| required_instant(violations, "booking.end_time", time)),
        booked_by: mask
            .pick(
                "booked_by",
                !booking.booked_by.is_empty(),
                booking.booked_by,
            )
            .and_then(|text| violations.check("booking.booked_by", Booker::parse(text))),
        note: mask
            .pick("note", !booking.note.is_empty(), booking.note)
            .and_then(|text| violations.check("booking.note", Note::parse(text))),
    };
    if let (Some(start), Some(end)) = (change.start_time, change.end_time) {
        violations.check("booking.end_time", Interval::new(start, end));
    }
    change
}

/// Which fields get the values of the request.
enum Mask {
    /// Those that have one.
    Populated,
    /// All of them.
    All,
    /// These.
    Only(Vec<String>),
}

impl Mask {
    fn parse(violations: &mut Violations, mask: Option<prost_types::FieldMask>) -> Self {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Self::Populated;
        }
        if paths == ["*"] {
            return Self::All;
        }
        if let Some(path) = paths.iter().find(|path| !PATHS.contains(&path.as_str())) {
            // Cut: a path can be as long as a request.
            violations.add(
                "update_mask",
                format_args!(
                    "has `{path:.64}`; it may have {}, or `*` alone",
                    PATHS.join(", ")
                ),
            );
        }
        Self::Only(paths)
    }

    /// The value, if the field gets it.
    fn pick<T>(&self, path: &str, populated: bool, value: T) -> Option<T> {
        let named = match self {
            Self::Populated => populated,
            Self::All => true,
            Self::Only(paths) => paths.iter().any(|listed| listed == path),
        };
        named.then_some(value)
    }
}
