//! Connects as the service does, runs queries at once over a pool, and closes cleanly.
//!
//! ```text
//! cargo run --example connect                                        # a private PostgreSQL
//! cargo run --example connect -- --database-url postgres://user:password@host/database
//! cargo run --example connect -- --cluster-endpoint <cluster>.dsql.<region>.on.aws
//! ```
//!
//! The flags and their environment variables are those of `booking-service`. A private PostgreSQL
//! belongs to one process: while the service runs, give this another `--data-dir`.

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;
use std::time::Duration;

use booking_service::config::DatabaseOptions;
use booking_service::db::{Database, Pool, PoolOptions, Target};
use clap::Parser;
use futures_util::future::try_join_all;
use tokio::time::Instant;

/// Connects to the database of booking-service and runs some queries at once.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    database: DatabaseOptions,
}

/// The queries, prepared once on each connection of the pool and named by their place in this list.
///
/// Aurora DSQL and PostgreSQL both take them: values travel as parameters, and lists as arrays.
const STATEMENTS: &[&str] = &[
    "SELECT current_user::text, current_setting('server_version')",
    "SELECT coalesce(sum(n), 0) FROM unnest($1::int4[]) AS n",
];
const WHO_AND_WHAT: usize = 0;
const SUM: usize = 1;

/// How many queries run at once, and how many connections they share at most.
const QUERIES: i32 = 8;
const CONNECTIONS: u32 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();

    // One of three: an Aurora DSQL cluster, a PostgreSQL by URL, or, with neither, a private one.
    let target = Target::from_options(&options.database)?;

    // Starts the private PostgreSQL, or checks that the other one lets us in. On DSQL every
    // connection signs a token of its own with the AWS credentials of this process. What goes wrong
    // here is for a person to mend: the text of the error says how.
    let database = Database::open(&target).await;
    let database = database.map_err(|error| error.to_string())?;
    println!("connected to {}", database.describe());

    let pool = database.pool(PoolOptions { size: CONNECTIONS }, STATEMENTS);
    let queried = run_queries(&pool).await;

    // The pool lets go of its connections; then the private PostgreSQL stops, if there is one.
    drop(pool);
    database.close().await?;
    println!("closed");
    queried
}

async fn run_queries(pool: &Pool) -> Result<(), Box<dyn Error>> {
    // Whoever waits for a connection or an answer says for how long.
    let deadline = Instant::now() + Duration::from_secs(10);

    let connection = pool.get(deadline).await?;
    let row = connection
        .query_one(connection.statement(WHO_AND_WHAT), &[])
        .await?;
    let (user, version): (&str, &str) = (row.get(0), row.get(1));
    println!("signed in as {user}, to a server that speaks PostgreSQL {version}");
    // Dropped, a connection goes back to the pool.
    drop(connection);

    // All at once: each takes a connection as soon as one is free. The pool makes more while there
    // are takers, up to its size.
    let started = Instant::now();
    let sums = try_join_all((1..=QUERIES).map(|n| sum_up_to(pool, n, deadline))).await?;
    let elapsed = started.elapsed();
    println!("sums of 1 to n, for n of 1 to {QUERIES}: {sums:?}, all in {elapsed:?}");
    Ok(())
}

async fn sum_up_to(pool: &Pool, n: i32, deadline: Instant) -> Result<i64, Box<dyn Error>> {
    let connection = pool.get(deadline).await?;
    let numbers: Vec<i32> = (1..=n).collect();
    let row = connection
        .query_one(connection.statement(SUM), &[&numbers])
        .await?;
    Ok(row.get(0))
}
