//! One transaction in one flight: all its statements are sent at once, and nothing in between waits
//! for an answer.
//!
//! `tokio-postgres` puts on the wire what is polled together, in the order of the first poll. An
//! error in the middle makes the COMMIT a ROLLBACK. The one that this does not cover, a BEGIN that
//! fails while the rest goes through, is what `slot::guarded` is for.

use futures_util::future::join_all;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Mode;
use super::statements::Prepared;
use crate::db::Connection;

/// Aurora DSQL knows this level only, and it has to be said here: `SET TRANSACTION` is an error
/// there.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

/// What a statement is given.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Runs the `writes` in their order and then the `read`, and ends the transaction as `mode` says.
/// Returns how many rows each of the writes changed, and what was read.
pub(super) async fn fly<const WRITES: usize>(
    connection: &Connection,
    writes: [(Prepared, Params<'_>); WRITES],
    read: (Prepared, Params<'_>),
    mode: Mode,
) -> Result<([u64; WRITES], Vec<Row>), tokio_postgres::Error> {
    let end = match mode {
        Mode::Commit => "COMMIT",
        Mode::Validate => "ROLLBACK",
    };
    let statement = |prepared: Prepared| connection.statement(prepared as usize);
    let write = |(prepared, params)| connection.execute(statement(prepared), params);
    let (begin, written, read, end) = tokio::join!(
        biased;
        connection.batch_execute(BEGIN),
        join_all(writes.map(write)),
        connection.query(statement(read.0), read.1),
        connection.batch_execute(end),
    );
    // The first error is the cause of the others.
    begin?;
    let mut changed = [0; WRITES];
    for (count, rows) in changed.iter_mut().zip(written) {
        *count = rows?;
    }
    let rows = read?;
    end?;
    Ok((changed, rows))
}
