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
cancel_time = now(), cancel_reason = $4
WHERE id = $1 AND ($2::int8 IS NULL OR revision = $2)
AND (state = 2 OR state = 1 AND hold_expire_time > now()) IS TRUE
AND ($5::text IS NULL OR booked_by = $5)";

pub(super) const DELETE: &str = "-- delete
DELETE FROM bookings WHERE id = $1 AND ($2::int8 IS NULL OR revision = $2)
AND ($3::text IS NULL OR booked_by = $3)
RETURNING id";

/// Confirms a hold.
pub(super) async fn confirm(
    pool: Pool,
    id: BookingId,
    expected: Option<Revision>,
    owner: Option<Booker>,
    deadline: Instant,
) -> Result<Booking, Error> {
    let confirm = Confirm {
        id,
        expected,
        owner,
        revision: Revision::random(),
    };
    retry::run(&pool, &confirm, deadline).await
}

struct Confirm {
    id: BookingId,
    expected: Option<Revision>,
    owner: Option<Booker>,
    revision: Revision,
}

impl Attempt for Confirm {
    type Answer = Booking;

    fn name(&self) -> &'static str {
        "confirm"
    }

    fn mode(&self) -> Mode {
        Mode::Commit
    }

    async fn attempt(
        &self,
        connection: &Connection,
        _: Before,
    ) -> Result<Result<Booking, Error>, tokio_postgres::Error> {
        let Self {
            id,
            expected,
            ref owner,
            revision,
        } = *self;
        let params: [&(dyn ToSql + Sync); 4] = [
            id.as_uuid(),
            &expected.map(Revision::number),
            &revision.number(),
            &owner.as_ref().map(Booker::as_str),
        ];
        let (_, row) = flight(connection, id, Prepared::Confirm, &params).await?;
        let booking = owned(row.as_ref(), id, owner.as_ref());
        Ok(outcome(booking, expected, revision, |state| {
            matches!(state, State::Confirmed)
        }))
    }
}

/// Cancels a booking.
pub(super) async fn cancel(
    pool: Pool,
    id: BookingId,
    reason: CancelReason,
    expected: Option<Revision>,
    owner: Option<Booker>,
    deadline: Instant,
) -> Result<Booking, Error> {
    let cancel = Cancel {
        id,
        reason,
        expected,
        owner,
        revision: Revision::random(),
    };
    retry::run(&pool, &cancel, deadline).await
}

struct Cancel {
    id: BookingId,
    reason: CancelReason,
    expected: Option<Revision>,
    owner: Option<Booker>,
    revision: Revision,
}

impl Attempt for Cancel {
    type Answer = Booking;

    fn name(&self) -> &'static str {
        "cancel"
    }

    fn mode(&self) -> Mode {
        Mode::Commit
    }

    async fn attempt(
        &self,
        connection: &Connection,
        _: Before,
    ) -> Result<Result<Booking, Error>, tokio_postgres::Error> {
        let Self {
            id,
            ref reason,
            expected,
            ref owner,
            revision,
        } = *self;
        let params: [&(dyn ToSql + Sync); 5] = [
            id.as_uuid(),
            &expected.map(Revision::number),
            &revision.number(),
            &reason.as_str(),
            &owner.as_ref().map(Booker::as_str),
        ];
        let (_, row) = flight(connection, id, Prepared::Cancel, &params).await?;
        let booking = owned(row.as_ref(), id, owner.as_ref());
        Ok(outcome(booking, expected, revision, |state| {
            matches!(state, State::Cancelled { .. })
        }))
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

/// Changed, now or by an earlier attempt; in the state asked for already; or the reason why not.
fn outcome(
    booking: Result<Booking, Error>,
    expected: Option<Revision>,
    revision: Revision,
    done: impl Fn(&State) -> bool,
) -> Result<Booking, Error> {
    let booking = booking?;
    let id = booking.id;
    if booking.revision == revision {
        Ok(booking)
    } else if expected.is_some_and(|expected| expected != booking.revision) {
        Err(Error::EtagMismatch(id))
    } else if done(&booking.state) {
        Ok(booking)
    } else {
        Err(Error::InvalidState {
            id,
            state: booking.state,
        })
    }
}
