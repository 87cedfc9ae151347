//! What the micro-benchmarks reach of the edge. No part of its interface.

use super::{encode, parse};
use crate::booking::{Booking, NewBooking};
use crate::pb;

/// Reads a request.
#[must_use]
pub fn parse_create(request: pb::CreateBookingRequest) -> Option<NewBooking> {
    parse::create(request).ok().map(|create| create.new)
}

/// Writes an answer.
#[must_use]
pub fn encode(booking: Booking) -> pb::Booking {
    encode::booking(booking)
}
