//! Reads: one statement, one round trip each.

use std::collections::HashMap;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Mode;
use super::error::Error;
use super::retry::{self, Attempt, Before};
use super::row::{behind, booking_at, booking_columns, seen_by};
use super::schema;
use super::slot::first_neighbour;
use super::statements::Prepared;
use crate::booking::limits::AVAILABILITY_BOOKINGS_MAX;
use crate::booking::{Booker, Booking, BookingId, Interval, Resource};
use crate::db::{Connection, Pool};

/// With the fingerprint of the request that made it.
pub(super) const GET: &str = concat!(
    "-- get\n",
    "SELECT ",
    booking_columns!(),
    ", b.fingerprint FROM bookings b WHERE b.id = ANY ($1::uuid[])"
);

/// The blocking bookings of some resources that overlap a window, which lies between two neighbours
/// of the index. Resource by resource, which the inner `LIMIT` makes sure of.
pub(super) const TAKEN: &str = concat!(
    "-- taken\n",
    "SELECT n.position, b.start_time, b.end_time ",
    "FROM unnest($1::text[], $2::int4[]) AS n(resource, position) ",
    "CROSS JOIN LATERAL (SELECT b.start_time, b.end_time FROM bookings b ",
    "WHERE b.resource = n.resource AND b.state IN (1, 2) AND b.start_time < $4 ",
    "AND b.start_time >= coalesce(",
    first_neighbour!("n.resource", "$3"),
    ", $3) ",
    "AND b.end_time > $3 AND (b.state = 2 OR b.hold_expire_time > now()) ",
    "ORDER BY b.start_time LIMIT $5) b ",
    "ORDER BY n.position, b.start_time LIMIT $5"
);

/// Runs one statement; a read is repeated freely.
pub(super) async fn rows(
    pool: &Pool,
    prepared: Prepared,
    params: &[&(dyn ToSql + Sync)],
    deadline: Instant,
) -> Result<Vec<Row>, Error> {
    retry::run(pool, &Read { prepared, params }, deadline).await
}

struct Read<'a> {
    prepared: Prepared,
    params: &'a [&'a (dyn ToSql + Sync)],
}

impl Attempt for Read<'_> {
    type Answer = Vec<Row>;

    fn name(&self) -> &'static str {
        self.prepared.name()
    }

    fn mode(&self) -> Mode {
        Mode::Validate
    }

    async fn attempt(
        &self,
        connection: &Connection,
        _: Before,
    ) -> Result<Result<Vec<Row>, Error>, tokio_postgres::Error> {
        connection
            .query(connection.statement(self.prepared as usize), self.params)
            .await
            .map(Ok)
    }
}

/// Returns these bookings, in this order, all of them bookings of `owner` if there is one.
pub(super) async fn get(
    pool: &Pool,
    ids: &[BookingId],
    owner: Option<&Booker>,
    deadline: Instant,
) -> Result<Vec<Booking>, Error> {
    let made = made(pool, ids, deadline).await?;
    let booking = |id: &BookingId| {
        let found = made.get(id).map(|(booking, _)| booking.clone());
        seen_by(owner, found.ok_or(Error::NotFound(*id)))
    };
    ids.iter().map(booking).collect()
}

/// Returns those of these bookings that there are, each with the fingerprint of its request.
pub(super) async fn made(
    pool: &Pool,
    ids: &[BookingId],
    deadline: Instant,
) -> Result<HashMap<BookingId, (Booking, Uuid)>, Error> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| *id.as_uuid()).collect();
    let rows = rows(pool, Prepared::Get, &[&uuids], deadline).await?;
    let made = |row: &Row| {
        let booking = booking_at(row, 0)?;
        Ok((booking.id, (booking, behind(row, 0, 0)?)))
    };
    rows.iter().map(made).collect()
}

/// For each resource, when blocking bookings overlap the window, in order.
pub(super) async fn taken(
    pool: &Pool,
    resources: &[Resource],
    window: Interval,
    deadline: Instant,
) -> Result<Vec<Vec<Interval>>, Error> {
    let names: Vec<&str> = resources.iter().map(Resource::as_str).collect();
    let positions: Vec<i32> = (0..).take(names.len()).collect();
    let limit = i64::try_from(AVAILABILITY_BOOKINGS_MAX + 1).expect("a small constant");
    let params: [&(dyn ToSql + Sync); 5] =
        [&names, &positions, &window.start(), &window.end(), &limit];
    let rows = rows(pool, Prepared::Taken, &params, deadline).await?;
    if rows.len() > AVAILABILITY_BOOKINGS_MAX {
        return Err(Error::TooMany {
            max: AVAILABILITY_BOOKINGS_MAX,
        });
    }
    let mut taken = vec![Vec::new(); names.len()];
    for row in &rows {
        let (position, interval) = placed(row).map_err(|source| Error::Internal { source })?;
        taken[position].push(interval);
    }
    Ok(taken)
}

/// Whether the database answers, with a schema that serves this code.
pub(super) async fn check(pool: &Pool, deadline: Instant) -> Result<(), Error> {
    let rows = rows(pool, Prepared::SchemaVersion, &[], deadline).await?;
    schema::check_rows(&rows).map_err(|error| Error::Internal {
        source: error.into(),
    })
}

fn placed(row: &Row) -> Result<(usize, Interval), super::error::Cause> {
    let position = usize::try_from(row.try_get::<_, i32>(0)?)?;
    Ok((position, Interval::new(row.try_get(1)?, row.try_get(2)?)?))
}
