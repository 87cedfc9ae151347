//! Confirming, cancelling and deleting: changes that take no time, and so need no guard.

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Mode;
use super::error::Error;
use super::flight::{Params, fly};
use super::retry::{self, Attempt, Before};
use super::row::owned;
use super::statements::Prepared;
use crate::booking::{Booker, Booking, BookingId, CancelReason, Revision, State};
use crate::db::{Connection, Pool};

/// `IS TRUE`, here and below: by the id, and not through an index of what blocks.
///
/// Only while the hold lasts. Whoever takes the slot of an expired hold writes its row too, so of
/// the two only one can commit.
pub(super) const CONFIRM: &str = "-- confirm
UPDATE bookings SET state = 2, hold_expire_time = NULL, update_time = now(), revision = $3
WHERE id = $1 AND ($2::int8 IS NULL OR revision = $2) AND (state = 1 AND hold_expire_time > now()) IS TRUE
AND ($4::text IS NULL OR booked_by = $4)";

pub(super) const CANCEL: &str = "-- cancel
UPDATE bookings SET state = 3, hold_expire_time = NULL, update_time = now(), revision = $3,
cancel_time = now(), cancel_reason = $5
WHERE id = $1 AND ($2::int8 IS NULL OR revision = $2)
AND (state = 2 OR state = 1 AND hold_expire_time > now()) IS TRUE
AND ($4::text IS NULL OR booked_by = $4)";

pub(super) const DELETE: &str = "-- delete
DELETE FROM bookings WHERE id = $1 AND ($2::int8 IS NULL OR revision = $2)
AND ($3::text IS NULL OR booked_by = $3)
RETURNING id";

/// The state to bring a booking to.
pub(super) enum To {
    /// From a hold.
    Confirmed,
    /// From a hold, or from a confirmed booking.
    Cancelled(CancelReason),
}

/// Brings a booking to another state, and changes nothing else about it.
pub(super) async fn bring(
    pool: Pool,
    id: BookingId,
    to: To,
    expected: Option<Revision>,
    owner: Option<Booker>,
    deadline: Instant,
) -> Result<Booking, Error> {
    let transition = Transition {
        id,
        to,
        expected,
        owner,
        revision: Revision::random(),
    };
    retry::run(&pool, &transition, deadline).await
}

struct Transition {
    id: BookingId,
    to: To,
    expected: Option<Revision>,
    owner: Option<Booker>,
    revision: Revision,
}

impl Attempt for Transition {
    type Answer = Booking;

    fn name(&self) -> &'static str {
        match self.to {
            To::Confirmed => "confirm",
            To::Cancelled(_) => "cancel",
        }
    }

    fn mode(&self) -> Mode {
        Mode::Commit
    }

    async fn attempt(
        &self,
        connection: &Connection,
        _: Before,
    ) -> Result<Result<Booking, Error>, tokio_postgres::Error> {
        let expected = self.expected.map(Revision::number);
        let (revision, owner) = (
            self.revision.number(),
            self.owner.as_ref().map(Booker::as_str),
        );
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![self.id.as_uuid(), &expected, &revision, &owner];
        let (prepared, reason) = match &self.to {
            To::Confirmed => (Prepared::Confirm, None),
            To::Cancelled(reason) => (Prepared::Cancel, Some(reason.as_str())),
        };
        if let Some(reason) = &reason {
            params.push(reason);
        }
        let (_, row) = flight(connection, self.id, prepared, &params).await?;
        let booking = owned(row.as_ref(), self.id, self.owner.as_ref());
        Ok(booking.and_then(|booking| self.outcome(booking)))
    }
}

impl Transition {
    /// Changed, now or by an earlier attempt; in the state asked for already; or the reason why not.
    fn outcome(&self, booking: Booking) -> Result<Booking, Error> {
        let id = booking.id;
        let is_there = match self.to {
            To::Confirmed => matches!(booking.state, State::Confirmed),
            To::Cancelled(_) => matches!(booking.state, State::Cancelled { .. }),
        };
        if booking.revision == self.revision {
            Ok(booking)
        } else if self.expected.is_some_and(|it| it != booking.revision) {
            Err(Error::EtagMismatch(id))
        } else if is_there {
            Ok(booking)
        } else {
            Err(Error::InvalidState {
                id,
                state: booking.state,
            })
        }
    }
}

/// Removes the record of a booking.
pub(super) async fn delete(
    pool: Pool,
    id: BookingId,
    expected: Option<Revision>,
    owner: Option<Booker>,
    deadline: Instant,
) -> Result<(), Error> {
    retry::run(
        &pool,
        &Delete {
            id,
            expected,
            owner,
        },
        deadline,
    )
    .await
}

struct Delete {
    id: BookingId,
    expected: Option<Revision>,
    owner: Option<Booker>,
}

impl Attempt for Delete {
    type Answer = ();

    fn name(&self) -> &'static str {
        "delete"
    }

    fn mode(&self) -> Mode {
        Mode::Commit
    }

    async fn attempt(
        &self,
        connection: &Connection,
        before: Before,
    ) -> Result<Result<(), Error>, tokio_postgres::Error> {
        let Self {
            id,
            expected,
            ref owner,
        } = *self;
        let params: [&(dyn ToSql + Sync); 3] = [
            id.as_uuid(),
            &expected.map(Revision::number),
            &owner.as_ref().map(Booker::as_str),
        ];
        let (deleted, row) = flight(connection, id, Prepared::Delete, &params).await?;
        Ok(match (deleted, row) {
            (true, _) => Ok(()),
            // Gone already: perhaps by the attempt whose answer was lost.
            (false, None) if before == Before::PerhapsDone => Ok(()),
            (false, row) => {
                let kept = owned(row.as_ref(), id, owner.as_ref());
                kept.and_then(|_| Err(Error::EtagMismatch(id)))
            }
        })
    }
}

/// The whole transaction: whether its statement returned a row, and the booking's row as it is after.
async fn flight(
    connection: &Connection,
    id: BookingId,
    prepared: Prepared,
    params: Params<'_>,
) -> Result<(bool, Option<Row>), tokio_postgres::Error> {
    let ids = [*id.as_uuid()];
    let get: [&(dyn ToSql + Sync); 1] = [&ids.as_slice()];
    let statements = [(prepared, params), (Prepared::Get, &get)];
    let [changed, rows] = fly(connection, statements, Mode::Commit).await?;
    Ok((!changed.is_empty(), rows.into_iter().next()))
}
