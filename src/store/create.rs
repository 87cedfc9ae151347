//! Making bookings: any number of them in one transaction, sent in one flight.

use std::collections::HashMap;

use opentelemetry::trace::SpanContext;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Mode;
use super::error::{BatchError, Error};
use super::flight::fly;
use super::plan::clash;
use super::retry::{self, Attempt, Before};
use super::row::{behind, booking_at, booking_columns};
use super::slot::{blocker, guarded, in_slot};
use super::statements::Prepared;
use crate::booking::{Booking, HoldTtl, NewBooking, Timestamp, UtcDay};
use crate::db::{Connection, Pool};

/// The members of a batch, as a table `n`.
macro_rules! members {
    () => {
        "unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[]) \
         AS n(id, resource, start_time, end_time)"
    };
}

/// That `n` was made before: this is a repeat. No `EXISTS`, which is planned as a join: on a table that
/// is small at that moment, one that reads all of it.
macro_rules! repeated {
    () => {
        "((SELECT o.id FROM bookings o WHERE o.id = n.id) IS NOT NULL)"
    };
}

/// In key order, so that two batches cannot wait for each other in a circle.
pub(super) const GUARDS: &str = concat!(
    "-- create_guards\n",
    "INSERT INTO booking_guards AS g (resource, day, touch_time) ",
    "SELECT DISTINCT n.resource, d.day, now() FROM ",
    members!(),
    " JOIN unnest($5::uuid[], $6::date[]) AS d(id, day) ON d.id = n.id ",
    "WHERE NOT ",
    repeated!(),
    " AND ",
    blocker!(),
    " IS NULL ",
    "ORDER BY n.resource, d.day ",
    "ON CONFLICT (resource, day) DO UPDATE SET touch_time = excluded.touch_time"
);

/// Member by member: `OFFSET 0` keeps the planner from beginning with all bookings instead, which it
/// likes to do while there are few, and a statement is planned once for many. That a hold is in the
/// slot is looked at first, since there hardly ever is one. The order makes it take the index that has
/// that order: on a table that is empty when it is planned, it would as soon take one by person.
///
/// `IS NOT TRUE` keeps the planner from going through all expired holds there are, by the index on
/// their time, instead of the few rows in the slot.
pub(super) const CLEAR: &str = concat!(
    "-- create_clear\n",
    "UPDATE bookings x SET state = 4 WHERE x.id = ANY (ARRAY(SELECT h.id FROM ",
    members!(),
    " CROSS JOIN LATERAL (SELECT h.id FROM bookings h WHERE ",
    in_slot!("h"),
    " AND h.state = 1 AND (h.hold_expire_time > now()) IS NOT TRUE AND NOT ",
    repeated!(),
    " AND ",
    blocker!("h"),
    " IS NULL ORDER BY h.start_time OFFSET 0) h))"
);

/// `$10`: all or none.
pub(super) const INSERT: &str = concat!(
    "-- create_insert\n",
    "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, \
     hold_expire_time, create_time, update_time, revision, fingerprint) ",
    "SELECT n.id, n.resource, n.start_time, n.end_time, n.booked_by, n.note, ",
    "CASE WHEN n.hold_micros IS NULL THEN 2 ELSE 1 END, ",
    "now() + n.hold_micros * interval '1 microsecond', now(), now(), n.revision, n.fingerprint ",
    "FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], \
     $6::text[], $7::int8[], $8::int8[], $9::uuid[]) ",
    "AS n(id, resource, start_time, end_time, booked_by, note, hold_micros, revision, fingerprint) ",
    "WHERE ",
    blocker!(),
    " IS NULL AND ",
    guarded!(),
    " AND (NOT $10::bool OR ",
    "(SELECT bool_and(coalesce((SELECT o.fingerprint = n.fingerprint FROM bookings o \
     WHERE o.id = n.id), ",
    blocker!(),
    " IS NULL)) ",
    "FROM unnest($1, $2, $3, $4, $9) AS n(id, resource, start_time, end_time, fingerprint))) ",
    "ON CONFLICT (id) DO NOTHING"
);

/// For each member its own row, be it new or from an earlier attempt, else the row in its way. One by
/// one, which `LIMIT` makes sure of.
pub(super) const OUTCOME: &str = concat!(
    "-- create_outcome\n",
    "SELECT n.id, ",
    booking_columns!(),
    ", b.fingerprint FROM ",
    members!(),
    " CROSS JOIN LATERAL (SELECT * FROM bookings b WHERE ",
    "b.id = coalesce((SELECT o.id FROM bookings o WHERE o.id = n.id), ",
    blocker!(),
    ") LIMIT 1) b"
);

/// Whether the members of a batch stand or fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Each for itself.
    Separate,
    /// All or none.
    Shared,
}

/// What became of each member of a batch, in its order; `None` if there is no row to tell.
type Outcomes = Vec<Option<Result<Booking, Error>>>;

/// Makes a batch of bookings, each for itself; none of them rivals, no two with one id. `others` wait
/// for it besides the caller.
pub(super) async fn create(
    pool: Pool,
    batch: Vec<NewBooking>,
    mode: Mode,
    deadline: Instant,
    others: Vec<SpanContext>,
) -> Result<Vec<Result<Booking, Error>>, Error> {
    let create = Create {
        others,
        ..Create::new(batch, Fate::Separate, mode)
    };
    let found = retry::run(&pool, &create, deadline).await?;
    Ok(found
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| Err(lost_track())))
        .collect())
}

/// Makes a batch of bookings, all or none; none of them rivals, no two with one id.
pub(super) async fn create_all(
    pool: Pool,
    batch: Vec<NewBooking>,
    mode: Mode,
    deadline: Instant,
) -> Result<Vec<Booking>, BatchError> {
    let create = Create::new(batch, Fate::Shared, mode);
    let found = retry::run(&pool, &create, deadline).await?;
    let mut bookings = Vec::with_capacity(found.len());
    // A member that could have been made has no row if another was refused: look for that one.
    for (index, outcome) in found.into_iter().enumerate() {
        match outcome {
            Some(Ok(booking)) => bookings.push(booking),
            Some(Err(error)) => {
                return Err(BatchError {
                    index: Some(index),
                    error,
                });
            }
            None => {}
        }
    }
    if bookings.len() == create.batch.len() {
        Ok(bookings)
    } else {
        Err(lost_track().into())
    }
}

fn lost_track() -> Error {
    Error::Internal {
        source: "a booking was neither made nor refused".into(),
    }
}

struct Create {
    batch: Vec<NewBooking>,
    fate: Fate,
    mode: Mode,
    others: Vec<SpanContext>,
}

impl Create {
    fn new(batch: Vec<NewBooking>, fate: Fate, mode: Mode) -> Self {
        debug_assert!(
            disjoint(&batch),
            "rivals in one batch would not see each other"
        );
        Self {
            batch,
            fate,
            mode,
            others: Vec::new(),
        }
    }
}

impl Attempt for Create {
    type Answer = Outcomes;

    fn name(&self) -> &'static str {
        match self.fate {
            Fate::Separate => "create",
            Fate::Shared => "create_batch",
        }
    }

    fn others(&self) -> &[SpanContext] {
        &self.others
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    async fn attempt(
        &self,
        connection: &Connection,
        _: Before,
    ) -> Result<Result<Outcomes, Error>, tokio_postgres::Error> {
        let columns = Columns::of(&self.batch);
        let rows = flight(connection, &columns, self.fate, self.mode).await?;
        Ok(Ok(outcomes(&self.batch, &rows)))
    }
}

/// The whole transaction.
async fn flight(
    connection: &Connection,
    batch: &Columns<'_>,
    fate: Fate,
    mode: Mode,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let slot: [&(dyn ToSql + Sync); 4] = [&batch.ids, &batch.resources, &batch.starts, &batch.ends];
    let guards = [slot.as_slice(), &[&batch.day_ids, &batch.days]].concat();
    let all_or_none = fate == Fate::Shared;
    let details: [&(dyn ToSql + Sync); 6] = [
        &batch.bookers,
        &batch.notes,
        &batch.holds,
        &batch.revisions,
        &batch.fingerprints,
        &all_or_none,
    ];
    let insert = [slot.as_slice(), &details].concat();
    let writes = [
        (Prepared::CreateGuards, guards.as_slice()),
        (Prepared::CreateClear, &slot),
        (Prepared::CreateInsert, &insert),
    ];
    let (_, rows) = fly(connection, writes, (Prepared::CreateOutcome, &slot), mode).await?;
    Ok(rows)
}

/// A batch turned by ninety degrees: one array for each column.
struct Columns<'a> {
    ids: Vec<Uuid>,
    resources: Vec<&'a str>,
    starts: Vec<Timestamp>,
    ends: Vec<Timestamp>,
    bookers: Vec<&'a str>,
    notes: Vec<&'a str>,
    holds: Vec<Option<i64>>,
    revisions: Vec<i64>,
    fingerprints: Vec<Uuid>,
    /// The days that each member touches, and beside them the member's id.
    days: Vec<UtcDay>,
    day_ids: Vec<Uuid>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [NewBooking]) -> Self {
        let days = |new: &NewBooking| {
            let id = *new.id().as_uuid();
            new.draft().interval.days().map(move |day| (id, day))
        };
        let (day_ids, days) = batch.iter().flat_map(days).unzip();
        Self {
            ids: batch.iter().map(|new| *new.id().as_uuid()).collect(),
            resources: batch
                .iter()
                .map(|new| new.draft().resource.as_str())
                .collect(),
            starts: batch
                .iter()
                .map(|new| new.draft().interval.start())
                .collect(),
            ends: batch.iter().map(|new| new.draft().interval.end()).collect(),
            bookers: batch
                .iter()
                .map(|new| new.draft().booked_by.as_str())
                .collect(),
            notes: batch.iter().map(|new| new.draft().note.as_str()).collect(),
            holds: batch
                .iter()
                .map(|new| new.draft().hold_ttl.map(HoldTtl::micros))
                .collect(),
            revisions: batch.iter().map(|new| new.revision().number()).collect(),
            fingerprints: batch.iter().map(NewBooking::fingerprint).collect(),
            days,
            day_ids,
        }
    }
}

fn outcomes(batch: &[NewBooking], rows: &[Row]) -> Outcomes {
    let found: HashMap<Uuid, &Row> = rows.iter().map(|row| (row.get(0), row)).collect();
    batch
        .iter()
        .map(|new| Some(outcome(new, found.get(new.id().as_uuid())?)))
        .collect()
}

/// Its own row, with what was asked for: made, now or before. Its own row, made for another
/// request: the id was reused. Another row: that one has the slot.
fn outcome(new: &NewBooking, row: &Row) -> Result<Booking, Error> {
    let booking = booking_at(row, 1)?;
    if booking.id != new.id() {
        Err(taken_by(booking))
    } else if behind::<Uuid>(row, 1, 0)? == new.fingerprint() {
        Ok(booking)
    } else {
        Err(Error::RequestIdReused(booking.id))
    }
}

/// The refusal of a slot that this booking has.
pub(super) fn taken_by(
    Booking {
        id,
        resource,
        interval,
        ..
    }: Booking,
) -> Error {
    Error::SlotTaken {
        resource,
        by: id,
        interval,
    }
}

fn disjoint(batch: &[NewBooking]) -> bool {
    batch
        .iter()
        .enumerate()
        .all(|(at, a)| batch[..at].iter().all(|b| !clash(a, b)))
}
