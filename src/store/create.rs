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
use super::slot::{blocker, in_slot, vacant};
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
///
/// `$6`: 0, 1, 2 … for as many days as the longest member touches.
pub(super) const GUARDS: &str = concat!(
    "-- create_guards\n",
    "INSERT INTO booking_guards AS g (resource, day, touch_time) ",
    "SELECT DISTINCT n.resource, n.first_day + d.day, now() ",
    "FROM (SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::date[], \
     $5::date[]) AS n(resource, start_time, end_time, first_day, last_day) WHERE ",
    vacant!(),
    " OFFSET 0) n JOIN unnest($6::int4[]) AS d(day) ON d.day <= n.last_day - n.first_day ",
    "ORDER BY 1, 2 ",
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

/// That a guard of the batch was written by this very transaction: then all are that had to be, since
/// one statement writes them. Asked once, and of a few members, until one of them has its guard.
///
/// The statements of a flight are sent without waiting for each other. Should BEGIN itself fail, the
/// others would run each in a transaction of its own, and guard nothing; then this does not hold,
/// because `now()` is the time at which the transaction began.
macro_rules! batch_guarded {
    () => {
        "(SELECT true FROM unnest($2::text[], $10::date[]) AS d(resource, day) \
         CROSS JOIN LATERAL (SELECT g.day FROM booking_guards g WHERE g.resource = d.resource \
         AND g.day = d.day AND g.touch_time = now() OFFSET 0) g LIMIT 1)"
    };
}

/// Makes the members that `$which` lets be made, and returns them.
///
/// A repeat is left out beforehand. `ON CONFLICT` would do that too, at the price of a second look at
/// the key and a second record in the log for each row; two requests with one id that run at once meet
/// as a conflict, and the one that is tried again finds itself a repeat.
macro_rules! insert {
    ($name:literal, $which:expr) => {
        concat!(
            "-- ",
            $name,
            "\n",
            "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, \
             hold_expire_time, create_time, update_time, revision, fingerprint) ",
            "SELECT n.id, n.resource, n.start_time, n.end_time, n.booked_by, n.note, ",
            "CASE WHEN n.hold_micros IS NULL THEN 2 ELSE 1 END, ",
            "now() + n.hold_micros * interval '1 microsecond', now(), now(), n.revision, \
             n.fingerprint ",
            "FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], \
             $6::text[], $7::int8[], $8::int8[], $9::uuid[]) ",
            "AS n(id, resource, start_time, end_time, booked_by, note, hold_micros, revision, \
             fingerprint) ",
            "WHERE ",
            batch_guarded!(),
            " AND ",
            $which,
            " AND NOT ",
            repeated!(),
            " RETURNING id, create_time, hold_expire_time"
        )
    };
}

/// Each for itself.
pub(super) const INSERT: &str = insert!("create_insert", vacant!());

/// All or none. Of its own, since the other one is run for every single booking, and what a statement
/// never asks it still has to set up.
pub(super) const INSERT_ALL: &str = insert!(
    "create_insert_all",
    concat!(
        "(SELECT bool_and(coalesce((SELECT o.fingerprint = n.fingerprint FROM bookings o \
         WHERE o.id = n.id), ",
        vacant!(),
        ")) FROM unnest($1, $2, $3, $4, $9) AS n(id, resource, start_time, end_time, fingerprint)) \
         AND ",
        vacant!()
    )
);

/// For each member that was not made just now: its own row from an earlier attempt, else the row in
/// its way. One by one, which `LIMIT` makes sure of. None for a member in whose way there are only
/// expired holds.
pub(super) const OUTCOME: &str = concat!(
    "-- create_outcome\n",
    "SELECT n.id, ",
    booking_columns!(),
    ", b.fingerprint FROM (SELECT * FROM ",
    members!(),
    " WHERE (SELECT o.create_time FROM bookings o WHERE o.id = n.id) IS DISTINCT FROM now() \
     OFFSET 0) n",
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
    pool: &Pool,
    batch: Vec<&NewBooking>,
    mode: Mode,
    deadline: Instant,
    others: Vec<SpanContext>,
) -> Result<Vec<Result<Booking, Error>>, Error> {
    let create = Create {
        others,
        ..Create::new(batch, Fate::Separate, mode)
    };
    let found = create.run(pool, deadline).await?;
    Ok(found
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| Err(lost_track())))
        .collect())
}

/// Makes one booking.
pub(super) async fn create_one(
    pool: &Pool,
    new: &NewBooking,
    mode: Mode,
    deadline: Instant,
) -> Result<Booking, Error> {
    let made = create(pool, vec![new], mode, deadline, Vec::new()).await?;
    made.into_iter().next().unwrap_or_else(|| Err(lost_track()))
}

/// Makes a batch of bookings, all or none; none of them rivals, no two with one id.
pub(super) async fn create_all(
    pool: &Pool,
    batch: &[NewBooking],
    mode: Mode,
    deadline: Instant,
) -> Result<Vec<Booking>, BatchError> {
    let create = Create::new(batch.iter().collect(), Fate::Shared, mode);
    let found = create.run(pool, deadline).await?;
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
    if bookings.len() == batch.len() {
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

struct Create<'a> {
    batch: Vec<&'a NewBooking>,
    fate: Fate,
    slots: Slots,
    mode: Mode,
    others: Vec<SpanContext>,
}

impl<'a> Create<'a> {
    fn new(batch: Vec<&'a NewBooking>, fate: Fate, mode: Mode) -> Self {
        debug_assert!(
            disjoint(&batch),
            "rivals in one batch would not see each other"
        );
        Self {
            batch,
            fate,
            slots: Slots::Vacant,
            mode,
            others: Vec::new(),
        }
    }
}

impl Attempt for Create<'_> {
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
        self.flight(connection).await.map(Ok)
    }
}

/// What there is to be done about expired holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slots {
    /// Nothing: slots are taken that have not even an expired hold in them.
    Vacant,
    /// They are cleared out of the slots that can be had but for them.
    ToClear,
}

impl Create<'_> {
    /// Makes the batch, and what is undecided then once more, with expired holds cleared. That is a
    /// call of its own, whose failure says nothing of the members that were made by the first.
    async fn run(&self, pool: &Pool, deadline: Instant) -> Result<Outcomes, Error> {
        let mut outcomes = retry::run(pool, self, deadline).await?;
        let undecided = self.undecided(&outcomes);
        if undecided.is_empty() {
            return Ok(outcomes);
        }
        let members = undecided.iter().map(|at| self.batch[*at]).collect();
        let clearing = Create {
            slots: Slots::ToClear,
            others: self.others.clone(),
            ..Create::new(members, self.fate, self.mode)
        };
        match (retry::run(pool, &clearing, deadline).await, self.fate) {
            (Ok(decided), _) => {
                for (at, outcome) in undecided.into_iter().zip(decided) {
                    outcomes[at] = outcome;
                }
            }
            (Err(error), Fate::Separate) => {
                for at in undecided {
                    outcomes[at] = Some(Err(error.for_another()));
                }
            }
            (Err(error), Fate::Shared) => return Err(error),
        }
        Ok(outcomes)
    }

    /// A whole transaction.
    async fn flight(&self, connection: &Connection) -> Result<Outcomes, tokio_postgres::Error> {
        let batch = Columns::of(&self.batch);
        let slot: [&(dyn ToSql + Sync); 4] =
            [&batch.ids, &batch.resources, &batch.starts, &batch.ends];
        let guards: [&(dyn ToSql + Sync); 6] = [
            &batch.resources,
            &batch.starts,
            &batch.ends,
            &batch.first_days,
            &batch.last_days,
            &batch.day_offsets,
        ];
        let insert: [&(dyn ToSql + Sync); 10] = [
            &batch.ids,
            &batch.resources,
            &batch.starts,
            &batch.ends,
            &batch.bookers,
            &batch.notes,
            &batch.holds,
            &batch.revisions,
            &batch.fingerprints,
            &batch.first_days,
        ];
        let clear = (Prepared::CreateClear, slot.as_slice());
        let guards = (Prepared::CreateGuards, guards.as_slice());
        let insert = match self.fate {
            Fate::Separate => (Prepared::CreateInsert, insert.as_slice()),
            Fate::Shared => (Prepared::CreateInsertAll, insert.as_slice()),
        };
        let outcome = (Prepared::CreateOutcome, slot.as_slice());
        let [made, found] = match self.slots {
            Slots::Vacant => {
                let statements = [guards, insert, outcome];
                let [_, made, found] = fly(connection, statements, self.mode).await?;
                [made, found]
            }
            Slots::ToClear => {
                let statements = [clear, guards, insert, outcome];
                let [_, _, made, found] = fly(connection, statements, self.mode).await?;
                [made, found]
            }
        };
        Ok(outcomes(&self.batch, &made, &found))
    }

    /// The members that neither were made nor have anything in their way but expired holds.
    ///
    /// Hardly ever are there any, so only then they are cleared, in a second flight. Of a batch that
    /// stands or falls together these are all members, unless one of them was refused.
    fn undecided(&self, outcomes: &Outcomes) -> Vec<usize> {
        let open = |outcome: &Option<_>| outcome.is_none();
        let refused = |outcome: &Option<Result<_, _>>| matches!(outcome, Some(Err(_)));
        match self.fate {
            Fate::Shared if outcomes.iter().any(refused) => Vec::new(),
            Fate::Shared if outcomes.iter().any(open) => (0..outcomes.len()).collect(),
            Fate::Shared => Vec::new(),
            Fate::Separate => (0..outcomes.len())
                .filter(|at| open(&outcomes[*at]))
                .collect(),
        }
    }
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
    first_days: Vec<UtcDay>,
    last_days: Vec<UtcDay>,
    /// As many as the longest member touches days.
    day_offsets: Vec<i32>,
}

impl<'a> Columns<'a> {
    fn of(batch: &[&'a NewBooking]) -> Self {
        fn column<'a, T>(batch: &[&'a NewBooking], value: impl Fn(&'a NewBooking) -> T) -> Vec<T> {
            batch.iter().map(|new| value(new)).collect()
        }
        let days = batch.iter().map(|new| new.draft().interval.days_touched());
        let days_max = days.max().unwrap_or_default();
        Self {
            ids: column(batch, |new| *new.id().as_uuid()),
            resources: column(batch, |new| new.draft().resource.as_str()),
            starts: column(batch, |new| new.draft().interval.start()),
            ends: column(batch, |new| new.draft().interval.end()),
            bookers: column(batch, |new| new.draft().booked_by.as_str()),
            notes: column(batch, |new| new.draft().note.as_str()),
            holds: column(batch, |new| new.draft().hold_ttl.map(HoldTtl::micros)),
            revisions: column(batch, |new| new.revision().number()),
            fingerprints: column(batch, NewBooking::fingerprint),
            first_days: column(batch, |new| new.draft().interval.first_day()),
            last_days: column(batch, |new| new.draft().interval.last_day()),
            day_offsets: (0..).take(days_max).collect(),
        }
    }
}

fn outcomes(members: &[&NewBooking], made: &[Row], found: &[Row]) -> Outcomes {
    fn by_id(rows: &[Row]) -> HashMap<Uuid, &Row> {
        rows.iter().map(|row| (row.get(0), row)).collect()
    }
    let (made, found) = (by_id(made), by_id(found));
    members
        .iter()
        .map(|new| {
            let id = *new.id().as_uuid();
            match made.get(&id) {
                Some(row) => Some(just_made(new, row)),
                None => found.get(&id).map(|row| outcome(new, row)),
            }
        })
        .collect()
}

/// As it stands in the row that was just written, of which only the times are news.
fn just_made(new: &NewBooking, row: &Row) -> Result<Booking, Error> {
    let times = || Ok((row.try_get(1)?, row.try_get(2)?));
    let times: Result<_, tokio_postgres::Error> = times();
    let (create_time, hold_expire_time) = times.map_err(|error| Error::Internal {
        source: error.into(),
    })?;
    Ok(new.made(create_time, hold_expire_time))
}

/// Its own row, with what was asked for: made before. Its own row, made for another request: the id
/// was reused. Another row: that one has the slot.
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

fn disjoint(batch: &[&NewBooking]) -> bool {
    batch
        .iter()
        .enumerate()
        .all(|(at, a)| batch[..at].iter().all(|b| !clash(a, b)))
}
