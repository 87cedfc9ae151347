//! The domain: what a booking is, and which ones are valid. Pure: no clock, no I/O, no wire types.
//!
//! Values are parsed once, at the edge, into types with private fields: an invalid one cannot be
//! built.

mod availability;
mod change;
mod id;
mod interval;
pub mod limits;
mod record;
mod text;
mod time;

pub use availability::{Availability, SlotSearch};
pub use change::Change;
pub use id::{BookingId, InvalidId, RequestId, Revision};
pub use interval::{Interval, InvalidInterval};
pub use record::{Booking, Draft, HoldTtl, InvalidHoldTtl, NewBooking, State};
pub use text::{Booker, CancelReason, InvalidText, Note, Resource};
pub use time::{OutOfRange, Timestamp, UtcDay};
