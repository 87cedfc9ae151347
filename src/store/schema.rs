//! The schema: what `migrate` makes, `serve` expects and `schema drop` removes.
//!
//! The one place with SQL that only one of the two databases takes.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

mod ddl;
mod version;

use super::error::Cause;
use super::lease::{self, Lease};
use crate::db::{self, Database, Dialect};

pub use ddl::script;
use ddl::{
    ADDITIONS, INDEXES, TABLES, create_index, create_role, create_table, grants, iam_grant,
    quote_text, set_version,
};
pub(super) use version::{SCHEMA_VERSION, check_rows};
pub use version::{VERSION, check};

/// Most attempts at one statement: each change of the schema makes Aurora DSQL refuse the next
/// transaction of those that had seen the old one.
const ATTEMPTS_MAX: u32 = 10;

const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);

/// How long a migration waits for another one that is running.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What `migrate` is to make beside the schema itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The role that `serve` signs in with: made if missing, and granted what it needs, no more.
    pub serve_role: Option<String>,
    /// IAM roles (ARNs) that may sign in as `serve_role`; Aurora DSQL only.
    pub iam_roles: Vec<String>,
}

/// Why the schema is not as it should be. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No schema, or an older one.
    #[error("the database has {}, this program needs version {VERSION}: run `booking-service migrate`",
        .found.map_or_else(|| "no booking schema".into(), |v| format!("version {v} of the schema")))]
    Outdated {
        /// What the database has.
        found: Option<i32>,
    },
    /// A schema made by a newer program, in which this one would not find its way.
    #[error(
        "the database has version {found} of the schema, which serves programs from version \
        {compatible_from} of it on, and this one has version {VERSION}: run a newer program"
    )]
    Newer {
        /// What the database has.
        found: i32,
        /// The oldest version whose programs it serves.
        compatible_from: i32,
    },
    /// Another migration is running.
    #[error("another migration is running: wait until it is done, or 5 minutes if it has died")]
    Busy,
    /// The role may not read the schema's version.
    #[error(
        "the role may not read booking_schema: run `booking-service migrate --serve-role` for it"
    )]
    NotGranted,
    /// No connection.
    #[error(transparent)]
    Connect(#[from] db::Error),
    /// A statement failed.
    #[error("could not {step}: {}", first_line(.source))]
    Failed {
        /// What was being done.
        step: String,
        /// The database's own error.
        source: Cause,
    },
}

/// The driver's error, with what the database said behind it.
fn first_line(source: &Cause) -> String {
    let message = source
        .source()
        .map_or_else(|| source.to_string(), ToString::to_string);
    message.lines().next().unwrap_or_default().to_owned()
}

/// Brings the database to the schema that this code expects. Safe to repeat, and to run twice at
/// once: the second waits for the first. A newer schema that serves this program is left as it is,
/// so that a release can be taken back with all that belongs to it.
///
/// # Errors
/// [`Error`] says what failed and what to do.
pub async fn migrate(database: &Database, options: &Options) -> Result<(), Error> {
    let client = database.connect().await?;
    // Before anything is made: it may be something that the newer one has done away with.
    if !leave_alone(&client).await? {
        for table in TABLES {
            let step = format!("create table {}", table.0);
            run(&client, &step, &create_table(table)).await?;
        }
    }
    let lease = acquire(&client).await?;
    let migrated = migrate_alone(&client, database.dialect(), options).await;
    let released = lease::release(&client, &lease).await;
    migrated?;
    released.map_err(|error| failed("release the lease", error))
}

/// Whether a newer program made the schema, in such a way that it serves this one too.
async fn leave_alone(client: &Client) -> Result<bool, Error> {
    let newer = version::find(client).await?.filter(|it| it.is_newer());
    if newer.is_some() {
        version::serves(newer)?;
    }
    Ok(newer.is_some())
}

async fn acquire(client: &Client) -> Result<Lease, Error> {
    let lease = Lease::new("migrate", Duration::from_secs(300));
    let started = tokio::time::Instant::now();
    loop {
        let got = lease::acquire(client, &lease).await;
        if got.map_err(|error| failed("take the lease", error))? {
            return Ok(lease);
        }
        if started.elapsed() > WAIT_MAX {
            return Err(Error::Busy);
        }
        sleep(ATTEMPT_PAUSE).await;
    }
}

async fn migrate_alone(client: &Client, dialect: Dialect, options: &Options) -> Result<(), Error> {
    // Once more, since nobody else can migrate from here on.
    let is_newer = leave_alone(client).await?;
    if is_newer {
        tracing::info!("a newer program's schema, which serves this one too: it stays as it is");
    } else {
        complete(client, dialect).await?;
    }
    if let Some(role) = &options.serve_role {
        make_role(client, dialect, role, &options.iam_roles).await?;
    }
    if !is_newer {
        run(client, "set the schema's version", &set_version()).await?;
    }
    Ok(())
}

/// Adds what the tables lack.
async fn complete(client: &Client, dialect: Dialect) -> Result<(), Error> {
    for (name, statement) in ADDITIONS {
        run(client, &format!("add {name}"), statement).await?;
    }
    for index in INDEXES {
        let step = format!("create index {}", index.1);
        let answer = run(client, &step, &create_index(dialect, index)).await?;
        if dialect == Dialect::Dsql {
            wait_for_index(client, index.1, answer).await?;
        }
    }
    Ok(())
}

/// Aurora DSQL builds an index in the background: `job` names the job, unless there was no need.
async fn wait_for_index(client: &Client, index: &str, job: Option<String>) -> Result<(), Error> {
    let step = format!("build index {index}");
    if let Some(job) = job {
        run(
            client,
            &step,
            &format!("CALL sys.wait_for_job({})", quote_text(&job)),
        )
        .await?;
    }
    let valid = format!(
        "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         WHERE c.relname = {}",
        quote_text(index)
    );
    match run(client, &step, &valid).await?.as_deref() {
        Some("t") => Ok(()),
        _ => Err(Error::Failed {
            step,
            source: format!("{index} is not valid: drop it and run migrate again").into(),
        }),
    }
}

async fn make_role(
    client: &Client,
    dialect: Dialect,
    role: &str,
    arns: &[String],
) -> Result<(), Error> {
    let exists = format!(
        "SELECT 1 FROM pg_roles WHERE rolname = {}",
        quote_text(role)
    );
    if run(client, "look for the role", &exists).await?.is_none() {
        run(client, &format!("create role {role}"), &create_role(role)).await?;
    }
    for grant in grants(role) {
        run(client, &format!("grant to {role}"), &grant).await?;
    }
    if dialect == Dialect::Dsql {
        for arn in arns {
            run(
                client,
                &format!("let {arn} sign in as {role}"),
                &iam_grant(role, arn),
            )
            .await?;
        }
    }
    Ok(())
}

/// Runs one statement in a transaction of its own, again where a change of the schema or a rival got
/// in the way. Returns the first column of its first row.
async fn run(client: &Client, step: &str, statement: &str) -> Result<Option<String>, Error> {
    for attempt in 1.. {
        match client.simple_query(statement).await {
            Ok(answers) => {
                let cell = answers.iter().find_map(|answer| {
                    if let SimpleQueryMessage::Row(row) = answer {
                        row.get(0).map(str::to_owned)
                    } else {
                        None
                    }
                });
                return Ok(cell);
            }
            Err(error) if attempt < ATTEMPTS_MAX && passing(&error) => sleep(ATTEMPT_PAUSE).await,
            Err(error) => return Err(failed(step, error)),
        }
    }
    unreachable!("the loop above returns")
}

/// Two who create the same thing at once meet as conflicts, or as duplicates in the catalogue.
fn passing(error: &tokio_postgres::Error) -> bool {
    let codes = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}

fn failed(step: &str, error: tokio_postgres::Error) -> Error {
    Error::Failed {
        step: step.to_owned(),
        source: error.into(),
    }
}

/// Removes everything that `migrate` made, all bookings included; the role is left.
///
/// # Errors
/// [`Error`] says what failed and what to do.
pub async fn drop_all(database: &Database) -> Result<(), Error> {
    let client = database.connect().await?;
    for (table, _) in TABLES {
        run(
            &client,
            &format!("drop {table}"),
            &format!("DROP TABLE IF EXISTS {table}"),
        )
        .await?;
    }
    Ok(())
}
