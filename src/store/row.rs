//! The one place that turns a row into a Booking.

use tokio_postgres::Row;

use super::error::{Cause, Error};
use crate::booking::{
    Booker, Booking, BookingId, CancelReason, Interval, Note, Resource, Revision, State, Timestamp,
};

/// The columns of a booking `b`, in the order that [`booking`] reads them.
///
/// The state is the one in force by the database's clock: a hold that ran out reads as expired
/// whether or not its row has been touched.
macro_rules! booking_columns {
    () => {
        "b.id, b.resource, b.start_time, b.end_time, b.booked_by, b.note, \
         CASE WHEN b.state = 1 AND b.hold_expire_time <= now() THEN 4 ELSE b.state END AS state, \
         b.hold_expire_time, b.create_time, b.update_time, b.cancel_time, b.cancel_reason, b.revision"
    };
}
pub(super) use booking_columns;

/// How many columns [`booking_columns`] names.
const BOOKING_COLUMNS: usize = 13;

/// The columns of a row that blocks, where one of its two names is known and `$other` is the other, in
/// the order that [`blocking_booking`] reads them. A page has many rows: what is known already, and what only
/// past bookings have, is not fetched.
macro_rules! blocking_columns {
    ($other:literal) => {
        concat!(
            "b.id, b.start_time, b.end_time, ",
            $other,
            ", b.note, b.create_time, b.update_time, b.revision, \
             CASE WHEN b.state = 1 AND b.hold_expire_time <= now() THEN 4 ELSE b.state END AS state, \
             b.hold_expire_time"
        )
    };
}
pub(super) use blocking_columns;

/// The name that bookings have in common.
#[derive(Clone, Copy, Debug)]
pub(super) enum Common<'a> {
    /// All are of this resource.
    Resource(&'a Resource),
    /// All are by this person.
    Booker(&'a Booker),
}

/// Reads the booking whose columns begin at `first`.
pub(super) fn booking_at(row: &Row, first: usize) -> Result<Booking, Error> {
    read(row, first).map_err(|source| Error::Internal { source })
}

/// Reads the blocking row, or the expired hold, whose columns are [`blocking_columns`].
pub(super) fn blocking_booking(row: &Row, common: Common<'_>) -> Result<Booking, Error> {
    read_blocking(row, common).map_err(|source| Error::Internal { source })
}

/// The booking `id` as `row` has it, for a caller confined to the bookings of `owner`.
///
/// To such a caller somebody else's booking and none at all look the same.
pub(super) fn owned(
    row: Option<&Row>,
    id: BookingId,
    owner: Option<&Booker>,
) -> Result<Booking, Error> {
    let booking = row.map(|row| booking_at(row, 0)).transpose()?;
    seen_by(owner, booking.ok_or(Error::NotFound(id)))
}

/// What a caller confined to the bookings of `owner` gets to see of what was found.
pub(super) fn seen_by(
    owner: Option<&Booker>,
    found: Result<Booking, Error>,
) -> Result<Booking, Error> {
    match (found, owner) {
        (Ok(booking), owner) => only_own(booking, owner),
        (Err(Error::NotFound(_)), Some(_)) => Err(Error::NotOwned),
        (Err(error), _) => Err(error),
    }
}

/// The booking, unless the caller is confined to the bookings of somebody else.
pub(super) fn only_own(booking: Booking, owner: Option<&Booker>) -> Result<Booking, Error> {
    if owner.is_none_or(|owner| booking.booked_by == *owner) {
        Ok(booking)
    } else {
        Err(Error::NotOwned)
    }
}

/// Reads the column that comes `offset` behind the booking which begins at `first`.
pub(super) fn behind<'a, T>(row: &'a Row, first: usize, offset: usize) -> Result<T, Error>
where
    T: tokio_postgres::types::FromSql<'a>,
{
    let value = row.try_get(first + BOOKING_COLUMNS + offset);
    value.map_err(|error| Error::Internal {
        source: error.into(),
    })
}

fn read(row: &Row, first: usize) -> Result<Booking, Cause> {
    let column = |offset: usize| first + offset;
    Ok(Booking {
        id: BookingId::from(row.try_get::<_, uuid::Uuid>(column(0))?),
        resource: Resource::parse(row.try_get::<_, &str>(column(1))?)?,
        interval: Interval::new(row.try_get(column(2))?, row.try_get(column(3))?)?,
        booked_by: Booker::parse(row.try_get::<_, &str>(column(4))?)?,
        note: Note::parse(row.try_get::<_, &str>(column(5))?)?,
        state: state(row, column(6))?,
        create_time: row.try_get(column(8))?,
        update_time: row.try_get(column(9))?,
        revision: Revision::from(row.try_get::<_, i64>(column(12))?),
    })
}

fn read_blocking(row: &Row, common: Common<'_>) -> Result<Booking, Cause> {
    let other = row.try_get::<_, &str>(3)?;
    let (resource, booked_by) = match common {
        Common::Resource(resource) => (resource.clone(), Booker::parse(other)?),
        Common::Booker(booker) => (Resource::parse(other)?, booker.clone()),
    };
    Ok(Booking {
        id: BookingId::from(row.try_get::<_, uuid::Uuid>(0)?),
        resource,
        interval: Interval::new(row.try_get(1)?, row.try_get(2)?)?,
        booked_by,
        note: Note::parse(row.try_get::<_, &str>(4)?)?,
        state: state(row, 8)?,
        create_time: row.try_get(5)?,
        update_time: row.try_get(6)?,
        revision: Revision::from(row.try_get::<_, i64>(7)?),
    })
}

fn state(row: &Row, at: usize) -> Result<State, Cause> {
    // The CASE makes an integer of the column's smallint.
    match row.try_get::<_, i32>(at)? {
        1 => Ok(State::Held {
            expire_time: row.try_get::<_, Timestamp>(at + 1)?,
        }),
        2 => Ok(State::Confirmed),
        3 => Ok(State::Cancelled {
            time: row.try_get(at + 4)?,
            reason: CancelReason::parse(row.try_get::<_, &str>(at + 5)?)?,
        }),
        4 => Ok(State::Expired),
        other => Err(format!("a booking in a state that does not exist: {other}").into()),
    }
}
