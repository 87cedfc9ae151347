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

/// Runs the statements in their order, and ends the transaction as `mode` says. Returns the rows that
/// each of them answered.
pub(super) async fn fly<const STATEMENTS: usize>(
    connection: &Connection,
    statements: [(Prepared, Params<'_>); STATEMENTS],
    mode: Mode,
) -> Result<[Vec<Row>; STATEMENTS], tokio_postgres::Error> {
    let end = match mode {
        Mode::Commit => "COMMIT",
        Mode::Validate => "ROLLBACK",
    };
    let query =
        |(prepared, params)| connection.query(connection.statement(prepared as usize), params);
    let (begin, answers, end) = tokio::join!(
        biased;
        connection.batch_execute(BEGIN),
        join_all(statements.map(query)),
        connection.batch_execute(end),
    );
    // The first error is the cause of the others.
    begin?;
    let mut rows = [const { Vec::new() }; STATEMENTS];
    for (rows, answer) in rows.iter_mut().zip(answers) {
        *rows = answer?;
    }
    end?;
    Ok(rows)
}
