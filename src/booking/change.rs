//! A change of a booking: the fields that get new values, and what that makes of it.

use super::interval::{Interval, InvalidInterval};
use super::record::Booking;
use super::text::{Booker, Note, Resource};
use super::time::Timestamp;

/// New values for some fields of a booking; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What is booked.
    pub resource: Option<Resource>,
    /// The first instant.
    pub start_time: Option<Timestamp>,
    /// The first instant after.
    pub end_time: Option<Timestamp>,
    /// By whom.
    pub booked_by: Option<Booker>,
    /// What else there is to say.
    pub note: Option<Note>,
}

impl Change {
    /// The interval that `booking` would have.
    ///
    /// # Errors
    /// [`InvalidInterval`] if a new start or end does not go with what is kept of the old one.
    pub fn interval_of(&self, booking: &Booking) -> Result<Interval, InvalidInterval> {
        Interval::new(
            self.start_time.unwrap_or(booking.interval.start()),
            self.end_time.unwrap_or(booking.interval.end()),
        )
    }
}
