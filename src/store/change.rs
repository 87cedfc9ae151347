//! Changing a booking: rescheduled or edited, all of it decided in SQL, sent in one flight.

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Mode;
use super::create::taken_by;
use super::error::Error;
use super::flight::fly;
use super::retry::{self, Attempt, Before};
use super::row::{booking_at, booking_columns, owned};
use super::slot::{blocker, guarded, in_slot};
use super::statements::Prepared;
use crate::booking::limits::BOOKING_DAYS_MAX;
use crate::booking::{Booker, Booking, BookingId, Change, Note, Resource, Revision};
use crate::db::{Connection, Pool};

/// The booking as it is to be, as a table `n` of one row; of none where it may not be changed, or
/// has been already: the revision it is to have is fixed before the first attempt.
///
/// `IS TRUE` keeps the planner from the indexes of what blocks: while there are few, it would as soon
/// go through one of those as by the id.
macro_rules! target {
    () => {
        "(SELECT t.id, coalesce($2::text, t.resource) AS resource, \
         coalesce($3::timestamptz, t.start_time) AS start_time, \
         coalesce($4::timestamptz, t.end_time) AS end_time, \
         (coalesce($2, t.resource), coalesce($3, t.start_time), coalesce($4, t.end_time)) \
         IS DISTINCT FROM (t.resource, t.start_time, t.end_time) AS moves \
         FROM bookings t WHERE t.id = $1 \
         AND (t.state = 2 OR t.state = 1 AND t.hold_expire_time > now()) IS TRUE \
         AND t.revision <> $5 AND ($6::int8 IS NULL OR t.revision = $6) \
         AND ($7::text IS NULL OR t.booked_by = $7)) AS n"
    };
}

/// That `n` is a valid interval: 8,784 hours are 366 days, whatever the session's time zone does.
macro_rules! valid {
    () => {
        "n.end_time > n.start_time AND n.end_time <= n.start_time + interval '8784 hours'"
    };
}

/// `$8`: 0, 1, 2 … for as many days as the new interval can touch.
pub(super) const GUARDS: &str = concat!(
    "-- update_guards\n",
    "INSERT INTO booking_guards AS g (resource, day, touch_time) ",
    "SELECT n.resource, (n.start_time AT TIME ZONE 'UTC')::date + d.day, now() ",
    "FROM ",
    target!(),
    " CROSS JOIN unnest($8::int4[]) AS d(day) ",
    "WHERE n.moves AND ",
    valid!(),
    " AND ",
    blocker!(),
    " IS NULL ",
    "AND (n.start_time AT TIME ZONE 'UTC')::date + d.day ",
    "<= ((n.end_time - interval '1 microsecond') AT TIME ZONE 'UTC')::date ",
    "ORDER BY 2 ",
    "ON CONFLICT (resource, day) DO UPDATE SET touch_time = excluded.touch_time"
);

/// Beginning with the booking and not with its rivals, as in `create_clear`.
pub(super) const CLEAR: &str = concat!(
    "-- update_clear\n",
    "UPDATE bookings x SET state = 4 WHERE x.id = ANY (ARRAY(SELECT h.id FROM ",
    target!(),
    " CROSS JOIN LATERAL (SELECT h.id FROM bookings h WHERE n.moves AND ",
    valid!(),
    " AND ",
    in_slot!("h"),
    " AND h.state = 1 AND (h.hold_expire_time > now()) IS NOT TRUE AND ",
    blocker!("h"),
    " IS NULL ORDER BY h.start_time OFFSET 0) h))"
);

pub(super) const APPLY: &str = concat!(
    "-- update_apply\n",
    "UPDATE bookings u SET resource = n.resource, start_time = n.start_time, \
     end_time = n.end_time, booked_by = coalesce($8::text, u.booked_by), \
     note = coalesce($9::text, u.note), revision = $5, update_time = now() FROM ",
    target!(),
    " WHERE u.id = $1 AND u.id = n.id AND ",
    valid!(),
    " AND (NOT n.moves OR ",
    blocker!(),
    " IS NULL AND ",
    guarded!(),
    ")"
);

/// The booking, and if it was not changed, the one that has the slot.
pub(super) const OUTCOME: &str = concat!(
    "-- update_outcome\n",
    "SELECT ",
    booking_columns!(),
    " FROM bookings b ",
    "WHERE b.id = ANY (ARRAY[$1, (SELECT ",
    blocker!(),
    " FROM ",
    target!(),
    ")])"
);

/// Changes one booking.
pub(super) async fn change(
    pool: Pool,
    id: BookingId,
    change: Change,
    expected: Option<Revision>,
    mode: Mode,
    owner: Option<Booker>,
    deadline: Instant,
) -> Result<Booking, Error> {
    let update = Update {
        id,
        change,
        expected,
        revision: Revision::random(),
        mode,
        owner,
    };
    retry::run(&pool, &update, deadline).await
}

struct Update {
    id: BookingId,
    change: Change,
    expected: Option<Revision>,
    revision: Revision,
    mode: Mode,
    /// Whose bookings the caller is confined to.
    owner: Option<Booker>,
}

impl Attempt for Update {
    type Answer = Booking;

    fn name(&self) -> &'static str {
        "update"
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    async fn attempt(
        &self,
        connection: &Connection,
        _: Before,
    ) -> Result<Result<Booking, Error>, tokio_postgres::Error> {
        self.flight(connection)
            .await
            .map(|rows| self.outcome(&rows))
    }
}

impl Update {
    /// The whole transaction.
    async fn flight(&self, connection: &Connection) -> Result<Vec<Row>, tokio_postgres::Error> {
        let Change {
            resource,
            start_time,
            end_time,
            booked_by,
            note,
        } = &self.change;
        let resource = resource.as_ref().map(Resource::as_str);
        let booked_by = booked_by.as_ref().map(Booker::as_str);
        let note = note.as_ref().map(Note::as_str);
        let (revision, expected) = (self.revision.number(), self.expected.map(Revision::number));
        let day_offsets = day_offsets(&self.change);
        let owner = self.owner.as_ref().map(Booker::as_str);
        let target: [&(dyn ToSql + Sync); 7] = [
            self.id.as_uuid(),
            &resource,
            start_time,
            end_time,
            &revision,
            &expected,
            &owner,
        ];
        let guards = [target.as_slice(), &[&day_offsets]].concat();
        let apply = [target.as_slice(), &[&booked_by, &note]].concat();
        let statements = [
            (Prepared::UpdateGuards, guards.as_slice()),
            (Prepared::UpdateClear, &target),
            (Prepared::UpdateApply, &apply),
            (Prepared::UpdateOutcome, &target),
        ];
        let [_, _, _, rows] = fly(connection, statements, self.mode).await?;
        Ok(rows)
    }

    /// Applied, or the first reason why not, in the order in which a caller can mend them.
    fn outcome(&self, rows: &[Row]) -> Result<Booking, Error> {
        let id = self.id;
        let mut own = None;
        let mut blocker = None;
        for row in rows {
            let booking = booking_at(row, 0)?;
            if booking.id == id {
                own = Some(row);
            } else {
                blocker = Some(booking);
            }
        }
        let own = owned(own, id, self.owner.as_ref())?;
        if own.revision == self.revision {
            return Ok(own);
        }
        if self
            .expected
            .is_some_and(|expected| expected != own.revision)
        {
            return Err(Error::EtagMismatch(id));
        }
        if !own.state.blocks() {
            return Err(Error::InvalidState {
                id,
                state: own.state,
            });
        }
        self.change
            .interval_of(&own)
            .map_err(Error::InvalidInterval)?;
        Err(blocker.map_or_else(
            || Error::Internal {
                source: format!("{id}: neither changed nor refused").into(),
            },
            taken_by,
        ))
    }
}

/// As many days as the new interval can touch, counted from its first; none if it stays where it is.
fn day_offsets(change: &Change) -> Vec<i32> {
    let days = match (change.start_time, change.end_time) {
        (None, None) if change.resource.is_none() => 0,
        (Some(start), Some(end)) => (end.day().days() - start.day().days()).max(0) + 1,
        // From an instant of one day to the same instant 366 days later.
        _ => i32::try_from(BOOKING_DAYS_MAX).expect("a small constant") + 1,
    };
    (0..days).collect()
}
