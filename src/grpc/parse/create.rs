//! `CreateBooking` and `BatchCreateBookings`.

use std::collections::{HashMap, HashSet};

use crate::booking::limits::BATCH_RESOURCE_DAYS_MAX;
use crate::booking::{
    Booker, BookingId, Draft, HoldTtl, InvalidHoldTtl, NewBooking, Note, RequestId, Resource,
};
use crate::pb;
use crate::store::Mode;

use super::super::violations::Violations;
use super::{interval, length, members_allowed, mode};

/// A booking to create.
#[derive(Debug)]
pub(in super::super) struct Create {
    pub(in super::super) new: NewBooking,
    pub(in super::super) mode: Mode,
    /// The client's own id of the request, if it gave one.
    pub(in super::super) request_id: Option<RequestId>,
}

impl Create {
    /// The same, asked for by this person: people do not share request ids.
    #[must_use]
    pub(in super::super) fn by(mut self, subject: Option<&Booker>) -> Self {
        if let (Some(request_id), Some(subject)) = (self.request_id, subject) {
            let id = BookingId::of_request_by(&request_id, subject);
            self.new = self.new.under(id);
        }
        self
    }
}

/// `CreateBooking`.
pub(in super::super) fn create(request: pb::CreateBookingRequest) -> Result<Create, Violations> {
    let mut violations = Violations::default();
    let create = member(&mut violations, request);
    violations.finish(create)
}

/// `BatchCreateBookings`: valid members, no two of them rivals or under the same id.
pub(in super::super) fn create_batch(
    request: pb::BatchCreateBookingsRequest,
) -> Result<Vec<Create>, Violations> {
    let mut violations = Violations::default();
    if !members_allowed(&mut violations, "requests", request.requests.len()) {
        return violations.finish(None);
    }
    let mut members: Vec<Option<Create>> = Vec::with_capacity(request.requests.len());
    let validate_only = request.requests.first().map(|first| first.validate_only);
    for (index, request) in request.requests.into_iter().enumerate() {
        violations.enter_request(index);
        if Some(request.validate_only) != validate_only {
            violations.add("validate_only", "must be the same in all requests");
        }
        members.push(member(&mut violations, request));
    }
    check_rivals(&mut violations, &members);
    check_request_ids(&mut violations, &members);
    violations.leave_request();
    check_size(&mut violations, &members);
    violations.finish(members.into_iter().collect())
}

fn member(violations: &mut Violations, request: pb::CreateBookingRequest) -> Option<Create> {
    let request_id = (!request.request_id.is_empty()).then_some(request.request_id);
    let request_id =
        request_id.and_then(|text| violations.check("request_id", text.parse::<RequestId>()));
    let draft = draft(violations, request.booking, request.hold_ttl)?;
    let id = request_id.map_or_else(BookingId::random, |id| BookingId::of_request(&id));
    Some(Create {
        new: NewBooking::new(id, draft),
        mode: mode(request.validate_only),
        request_id,
    })
}

fn draft(
    violations: &mut Violations,
    booking: Option<pb::Booking>,
    hold_ttl: Option<prost_types::Duration>,
) -> Option<Draft> {
    let hold_ttl = hold_ttl.and_then(|ttl| violations.check("hold_ttl", hold(ttl)));
    let booking = violations.require("booking", booking)?;
    let resource = violations.check("booking.resource", Resource::parse(booking.resource));
    let interval = interval(violations, "booking.", booking.start_time, booking.end_time);
    let booked_by = violations.check("booking.booked_by", Booker::parse(booking.booked_by));
    let note = violations.check("booking.note", Note::parse(booking.note));
    Some(Draft {
        resource: resource?,
        interval: interval?,
        booked_by: booked_by?,
        note: note?,
        hold_ttl,
    })
}

fn hold(ttl: prost_types::Duration) -> Result<HoldTtl, InvalidHoldTtl> {
    HoldTtl::new(length(ttl).ok_or(InvalidHoldTtl)?)
}

/// Members that overlap each other: the later one is at fault, the first in its way is named.
fn check_rivals(violations: &mut Violations, members: &[Option<Create>]) {
    for (index, member) in members.iter().enumerate() {
        let rivals = |other: &Create| member.as_ref().is_some_and(|it| it.new.rivals(&other.new));
        let earlier = members.iter().take(index);
        let rival = earlier
            .enumerate()
            .find(|(_, other)| other.as_ref().is_some_and(rivals));
        if let Some((other, _)) = rival {
            violations.enter_request(index);
            violations.add(
                "booking",
                format_args!("overlaps requests[{other}].booking"),
            );
        }
    }
}

fn check_request_ids(violations: &mut Violations, members: &[Option<Create>]) {
    let mut seen = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        let Some(id) = member.as_ref().and_then(|member| member.request_id) else {
            continue;
        };
        let first = *seen.entry(id).or_insert(index);
        if first != index {
            violations.enter_request(index);
            violations.add(
                "request_id",
                format_args!("is that of requests[{first}] already"),
            );
        }
    }
}

fn check_size(violations: &mut Violations, members: &[Option<Create>]) {
    let drafts = members.iter().flatten().map(|member| member.new.draft());
    let days: HashSet<_> = drafts
        .flat_map(|draft| draft.interval.days().map(|day| (&draft.resource, day)))
        .collect();
    if days.len() > BATCH_RESOURCE_DAYS_MAX {
        violations.add(
            "requests",
            format_args!(
                "must together touch at most {BATCH_RESOURCE_DAYS_MAX} resource-days, not {}",
                days.len()
            ),
        );
    }
}
