//! Maintenance: purges what nobody needs any more. Nothing depends on its being done.
//!
//! Safe to run at any time, on any replica: a lease keeps it to one at a time, and each transaction
//! is small.

use std::time::Duration;

use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::lease::{self, Lease};

/// Most rows in one transaction; Aurora DSQL allows 3,000, index entries not counted.
const ROWS_MAX: i64 = 1_000;

/// How long a guard is kept after the last transaction that wrote it.
///
/// A guard must outlive every transaction that began before its last writer committed, or that
/// transaction would meet no conflict. None lasts longer than 5 minutes on Aurora DSQL, and this
/// service gives up on one after 15 seconds.
const GUARD_KEPT: Duration = Duration::from_secs(3_600);

/// How long the lease is held without a sign of life.
const LEASE: Duration = Duration::from_secs(300);

/// What to purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the record of an expired hold is kept after it ran out.
    pub expired_holds_kept: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            expired_holds_kept: Duration::from_secs(7 * 86_400),
        }
    }
}

/// How many rows were purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Guards of days that nobody has touched for a while.
    pub guards: u64,
    /// Holds that ran out long ago.
    pub expired_holds: u64,
}

const OLD_GUARDS: &str = "-- old_guards
SELECT resource, day::text, touch_time < now() - $3::float8 * interval '1 second' AS old
FROM booking_guards WHERE (resource, day) > ($1, $2::text::date) ORDER BY resource, day LIMIT $4";

/// Looks at the time once more: a guard that was written meanwhile stays.
const PURGE_GUARDS: &str = "-- purge_guards
DELETE FROM booking_guards g USING unnest($1::text[], $2::text[]) AS n(resource, day)
WHERE g.resource = n.resource AND g.day = n.day::date
AND g.touch_time < now() - $3::float8 * interval '1 second'";

const OLD_HOLDS: &str = "-- old_holds
SELECT id FROM bookings WHERE hold_expire_time IS NOT NULL
AND hold_expire_time < now() - $1::float8 * interval '1 second'
ORDER BY hold_expire_time LIMIT $2";

const PURGE_HOLDS: &str = "-- purge_holds
DELETE FROM bookings WHERE id = ANY ($1) AND state IN (1, 4)
AND hold_expire_time < now() - $2::float8 * interval '1 second'";

/// Purges once. `None` if somebody else is at it.
///
/// # Errors
/// The database's; what was purged until then stays purged.
pub async fn run(
    client: &Client,
    options: &Options,
) -> Result<Option<Purged>, tokio_postgres::Error> {
    let lease = Lease::new("maintain", LEASE);
    if !lease::acquire(client, &lease).await? {
        return Ok(None);
    }
    let purged = purge(client, options, &lease).await;
    let released = lease::release(client, &lease).await;
    let purged = purged?;
    released?;
    Ok(Some(purged))
}

async fn purge(
    client: &Client,
    options: &Options,
    lease: &Lease,
) -> Result<Purged, tokio_postgres::Error> {
    let guards = purge_guards(client, lease).await?;
    let expired_holds = purge_holds(client, options.expired_holds_kept, lease).await?;
    Ok(Purged {
        guards,
        expired_holds,
    })
}

/// Walks through the guards by their key, a transaction's worth at a time.
async fn purge_guards(client: &Client, lease: &Lease) -> Result<u64, tokio_postgres::Error> {
    let kept = GUARD_KEPT.as_secs_f64();
    let mut purged = 0;
    let mut behind = (String::new(), "0001-01-01".to_owned());
    loop {
        let rows = client
            .query(OLD_GUARDS, &[&behind.0, &behind.1, &kept, &ROWS_MAX])
            .await?;
        let Some(last) = rows.last() else {
            return Ok(purged);
        };
        behind = (last.get(0), last.get(1));
        let old = || rows.iter().filter(|row| row.get(2));
        let resources: Vec<&str> = old().map(|row| row.get(0)).collect();
        let days: Vec<&str> = old().map(|row| row.get(1)).collect();
        if !days.is_empty() {
            purged += client
                .execute(PURGE_GUARDS, &[&resources, &days, &kept])
                .await?;
        }
        lease::acquire(client, lease).await?;
    }
}

/// Takes the oldest first, a transaction's worth at a time.
async fn purge_holds(
    client: &Client,
    kept: Duration,
    lease: &Lease,
) -> Result<u64, tokio_postgres::Error> {
    let kept = kept.as_secs_f64();
    let mut purged = 0;
    loop {
        let rows = client.query(OLD_HOLDS, &[&kept, &ROWS_MAX]).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row: &Row| row.get(0)).collect();
        let deleted = client.execute(PURGE_HOLDS, &[&ids, &kept]).await?;
        purged += deleted;
        if deleted == 0 {
            return Ok(purged);
        }
        lease::acquire(client, lease).await?;
    }
}
