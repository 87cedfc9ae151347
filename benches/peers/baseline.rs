//! The usual way to book: begin, look for an overlap, insert, commit; again after a conflict.
//!
//! Four round trips, a transaction for each booking, and under snapshot isolation it double-books.

use std::time::Duration;

use bb8::{Pool, PooledConnection};
use bb8_postgres::PostgresConnectionManager;
use booking_service::pb;
use prost_types::Timestamp;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row, Statement};
use tonic::Status;
use uuid::Uuid;

/// As often as the service itself tries.
const ATTEMPTS_MAX: u32 = 24;
const BACKOFF_BASE: Duration = Duration::from_millis(4);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

const OVERLAP: &str = "SELECT id FROM usual_bookings
WHERE resource = $1 AND start_time < to_timestamp($3) AND end_time > to_timestamp($2) LIMIT 1";

const INSERT: &str = "INSERT INTO usual_bookings
(id, resource, start_time, end_time, booked_by, note, create_time, update_time)
VALUES ($1, $2, to_timestamp($3), to_timestamp($4), $5, $6, now(), now())";

const GET: &str = "SELECT id, resource, extract(epoch FROM start_time)::float8,
extract(epoch FROM end_time)::float8, booked_by, note FROM usual_bookings WHERE id = $1";

const LIST: &str = "SELECT id, resource, extract(epoch FROM start_time)::float8,
extract(epoch FROM end_time)::float8, booked_by, note FROM usual_bookings
ORDER BY start_time LIMIT 1000";

/// A connection and its statements, prepared once.
struct Connection {
    client: Client,
    overlap: Statement,
    insert: Statement,
    get: Statement,
    list: Statement,
}

struct Manager(PostgresConnectionManager<NoTls>);

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let client = self.0.connect().await?;
        Ok(Connection {
            overlap: client.prepare(OVERLAP).await?,
            insert: client.prepare(INSERT).await?,
            get: client.prepare(GET).await?,
            list: client.prepare(LIST).await?,
            client,
        })
    }

    async fn is_valid(&self, _: &mut Connection) -> Result<(), tokio_postgres::Error> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.client.is_closed()
    }
}

/// The usual service on a pool of connections.
pub(crate) struct Baseline {
    pool: Pool<Manager>,
}

impl Baseline {
    pub(crate) async fn connect(
        database: &str,
        pool_size: u32,
    ) -> Result<Self, tokio_postgres::Error> {
        let manager = Manager(PostgresConnectionManager::new(database.parse()?, NoTls));
        let pool = Pool::builder()
            .max_size(pool_size)
            .min_idle(pool_size)
            // A round trip less than the usual pool has.
            .test_on_check_out(false)
            .connection_timeout(Duration::from_secs(30));
        Ok(Self {
            pool: pool.build(manager).await?,
        })
    }

    async fn connection(&self) -> Result<PooledConnection<'_, Manager>, Status> {
        let connection = self.pool.get().await;
        connection.map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(crate) async fn create(&self, booking: pb::Booking) -> Result<pb::Booking, Status> {
        let id = Uuid::new_v4();
        for attempt in 0..ATTEMPTS_MAX {
            let connection = self.connection().await?;
            match transaction(&connection, id, &booking).await {
                Ok(true) => {
                    return Ok(pb::Booking {
                        name: format!("bookings/{id}"),
                        ..booking
                    });
                }
                Ok(false) => return Err(Status::failed_precondition("the slot is taken")),
                Err(error) => {
                    let _ = connection.client.batch_execute("ROLLBACK").await;
                    if error.code() != Some(&SqlState::T_R_SERIALIZATION_FAILURE) {
                        return Err(internal(&error));
                    }
                }
            }
            drop(connection);
            let longest = BACKOFF_BASE.saturating_mul(1 << attempt).min(BACKOFF_MAX);
            sleep(longest.mul_f64(rand::random())).await;
        }
        Err(Status::aborted("too many conflicts"))
    }

    pub(crate) async fn get(&self, name: &str) -> Result<pb::Booking, Status> {
        let id = name.strip_prefix("bookings/");
        let id: Option<Uuid> = id.and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("not a name"))?;
        let connection = self.connection().await?;
        let row = connection
            .client
            .query_opt(&connection.get, &[&id])
            .await
            .map_err(|error| internal(&error))?;
        row.map(|row| encode(&row))
            .ok_or_else(|| Status::not_found("no such booking"))
    }

    pub(crate) async fn list(&self) -> Result<Vec<pb::Booking>, Status> {
        let connection = self.connection().await?;
        let rows = connection.client.query(&connection.list, &[]).await;
        let rows = rows.map_err(|error| internal(&error))?;
        Ok(rows.iter().map(encode).collect())
    }
}

/// Whether the slot was free.
async fn transaction(
    connection: &Connection,
    id: Uuid,
    booking: &pb::Booking,
) -> Result<bool, tokio_postgres::Error> {
    let client = &connection.client;
    let (start, end) = (epoch(booking.start_time), epoch(booking.end_time));
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    let overlap = client
        .query_opt(&connection.overlap, &[&booking.resource, &start, &end])
        .await?;
    if overlap.is_some() {
        client.batch_execute("ROLLBACK").await?;
        return Ok(false);
    }
    client
        .execute(
            &connection.insert,
            &[
                &id,
                &booking.resource,
                &start,
                &end,
                &booking.booked_by,
                &booking.note,
            ],
        )
        .await?;
    client.batch_execute("COMMIT").await?;
    Ok(true)
}

/// Whole seconds: all that the comparison books.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 seconds")]
fn epoch(time: Option<Timestamp>) -> f64 {
    time.map_or(0.0, |time| time.seconds as f64)
}

#[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
fn encode(row: &Row) -> pb::Booking {
    let time = |at: usize| {
        Some(Timestamp {
            seconds: row.get::<_, f64>(at) as i64,
            nanos: 0,
        })
    };
    pb::Booking {
        name: format!("bookings/{}", row.get::<_, Uuid>(0)),
        resource: row.get(1),
        start_time: time(2),
        end_time: time(3),
        booked_by: row.get(4),
        note: row.get(5),
        ..pb::Booking::default()
    }
}

fn internal(error: &tokio_postgres::Error) -> Status {
    Status::internal(error.to_string())
}
