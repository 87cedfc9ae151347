//! Leases: what only one process may do at a time, for as long as it lives and a little longer.
//!
//! Aurora DSQL has no advisory locks. A lease is a row; by the database's clock it ends by itself, so
//! a holder that died blocks nobody for long.

use std::time::Duration;

use tokio_postgres::{Client, Error};
use uuid::Uuid;

/// A right that one process at a time can have.
pub(super) struct Lease {
    name: &'static str,
    holder: Uuid,
    length: Duration,
}

impl Lease {
    /// A lease of this name that, once acquired, ends after `length` unless it is acquired again.
    pub(super) fn new(name: &'static str, length: Duration) -> Self {
        Self {
            name,
            holder: Uuid::new_v4(),
            length,
        }
    }
}

const ACQUIRE: &str = "-- lease_acquire
INSERT INTO booking_leases AS l (name, holder, end_time)
VALUES ($1, $2, now() + $3::float8 * interval '1 second')
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, end_time = excluded.end_time
WHERE l.holder = excluded.holder OR l.end_time <= now()";

const RELEASE: &str = "-- lease_release
UPDATE booking_leases SET end_time = now() WHERE name = $1 AND holder = $2";

/// Takes or prolongs the lease; `false` if somebody else has it.
pub(super) async fn acquire(client: &Client, lease: &Lease) -> Result<bool, Error> {
    let seconds = lease.length.as_secs_f64();
    match client
        .execute(ACQUIRE, &[&lease.name, &lease.holder, &seconds])
        .await
    {
        Ok(rows) => Ok(rows == 1),
        // Another transaction took it at the same moment.
        Err(error) if error.code().is_some_and(|code| code.code() == "40001") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the lease back.
pub(super) async fn release(client: &Client, lease: &Lease) -> Result<(), Error> {
    client
        .execute(RELEASE, &[&lease.name, &lease.holder])
        .await
        .map(drop)
}
