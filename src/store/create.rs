//! Making bookings: any number of them in one transaction, sent in one flight.

mod columns;
mod sql;

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
use super::row::{behind, booking_at};
use super::statements::Prepared;
use crate::booking::{Booking, NewBooking};
use crate::db::{Connection, Pool};

use columns::Columns;
pub(super) use sql::{CLEAR, GUARDS, INSERT, INSERT_ALL, OUTCOME};

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
        let decided = match (self.clear(pool, &undecided, deadline).await, self.fate) {
            (Ok(decided), _) => decided,
            (Err(error), Fate::Shared) => return Err(error),
            (Err(error), Fate::Separate) if undecided.len() == 1 || error.is_of_time_or_place() => {
                let failed = || Some(Err(error.for_another()));
                undecided.iter().map(|_| failed()).collect()
            }
            (Err(_), Fate::Separate) => self.clear_one_by_one(pool, &undecided, deadline).await,
        };
        for (at, outcome) in undecided.into_iter().zip(decided) {
            outcomes[at] = outcome;
        }
        Ok(outcomes)
    }

    /// Makes these members once more, with expired holds cleared.
    async fn clear(
        &self,
        pool: &Pool,
        members: &[usize],
        deadline: Instant,
    ) -> Result<Outcomes, Error> {
        let members = members.iter().map(|at| self.batch[*at]).collect();
        let clearing = Create {
            slots: Slots::ToClear,
            others: self.others.clone(),
            ..Create::new(members, self.fate, self.mode)
        };
        retry::run(pool, &clearing, deadline).await
    }

    /// The same in a transaction for each, so that one that fails harms only itself.
    async fn clear_one_by_one(
        &self,
        pool: &Pool,
        members: &[usize],
        deadline: Instant,
    ) -> Outcomes {
        let mut decided = Outcomes::with_capacity(members.len());
        for member in members.chunks(1) {
            match self.clear(pool, member, deadline).await {
                Ok(outcome) => decided.extend(outcome),
                Err(error) => decided.push(Some(Err(error))),
            }
        }
        decided
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
