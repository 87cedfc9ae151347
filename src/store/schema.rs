//! The schema: what `migrate` makes, `serve` expects and `schema drop` removes.
//!
//! The one place with SQL that only one of the two databases takes.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::Cause;
use super::lease::{self, Lease};
use crate::db::{self, Database, Dialect};

/// The version of the schema that this code expects.
pub const VERSION: i32 = 1;

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
    /// A schema made by a newer program.
    #[error(
        "the database has version {found} of the schema, this program knows {VERSION}: run a newer one"
    )]
    Newer {
        /// What the database has.
        found: i32,
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

/// A table: its name and its columns.
const TABLES: [(&str, &str); 4] = [
    (
        "bookings",
        "\
    id uuid PRIMARY KEY,
    resource text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    booked_by text NOT NULL,
    note text NOT NULL,
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
    hold_expire_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    cancel_time timestamptz,
    cancel_reason text,
    revision bigint NOT NULL,
    fingerprint uuid NOT NULL,
    CHECK (end_time > start_time),
    CHECK (state <> 1 OR hold_expire_time IS NOT NULL),
    CHECK (state <> 3 OR cancel_time IS NOT NULL AND cancel_reason IS NOT NULL)",
    ),
    (
        "booking_guards",
        "\
    resource text NOT NULL,
    day date NOT NULL,
    touch_time timestamptz NOT NULL,
    PRIMARY KEY (resource, day)",
    ),
    (
        "booking_leases",
        "\
    name text PRIMARY KEY,
    holder uuid NOT NULL,
    end_time timestamptz NOT NULL",
    ),
    (
        "booking_schema",
        "\
    id smallint PRIMARY KEY CHECK (id = 1),
    version integer NOT NULL",
    ),
];

/// An index: whether it is unique, its name, what it covers, and why it is there.
const INDEXES: [(&str, &str, &str, &str); 5] = [
    (
        "UNIQUE INDEX",
        "bookings_blocking",
        "bookings (resource, start_time) WHERE state IN (1, 2)",
        "finds the neighbour of a slot, and keeps two blocking bookings from sharing a start",
    ),
    (
        "INDEX",
        "bookings_blocking_by_booker",
        "bookings (booked_by, start_time, id) WHERE state IN (1, 2)",
        "lists one person's bookings",
    ),
    (
        "INDEX",
        "bookings_past",
        "bookings (resource, start_time, id) WHERE state IN (3, 4)",
        "lists what is cancelled or expired; a booking that blocks has no entry",
    ),
    (
        "INDEX",
        "bookings_past_by_booker",
        "bookings (booked_by, start_time, id) WHERE state IN (3, 4)",
        "the same by person",
    ),
    (
        "INDEX",
        "bookings_hold_expire_time",
        "bookings (hold_expire_time) WHERE hold_expire_time IS NOT NULL",
        "finds the expired holds to purge; only holds have an entry",
    ),
];

fn create_table((name, columns): (&str, &str)) -> String {
    format!("CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n)")
}

fn create_index(dialect: Dialect, (kind, name, on, _): (&str, &str, &str, &str)) -> String {
    match dialect {
        Dialect::Postgres => format!("CREATE {kind} IF NOT EXISTS {name} ON {on}"),
        Dialect::Dsql => format!("CREATE {kind} ASYNC IF NOT EXISTS {name} ON {on}"),
    }
}

fn set_version() -> String {
    format!(
        "INSERT INTO booking_schema (id, version) VALUES (1, {VERSION}) \
         ON CONFLICT (id) DO UPDATE SET version = excluded.version"
    )
}

fn grants(role: &str) -> [String; 3] {
    let role = quote_name(role);
    [
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON bookings, booking_guards TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE ON booking_leases TO {role}"),
        format!("GRANT SELECT ON booking_schema TO {role}"),
    ]
}

fn create_role(role: &str) -> String {
    format!("CREATE ROLE {} WITH LOGIN", quote_name(role))
}

fn iam_grant(role: &str, arn: &str) -> String {
    format!("AWS IAM GRANT {} TO {}", quote_name(role), quote_text(arn))
}

fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The SQL that `migrate` runs, as a script for a person to read or run.
#[must_use]
pub fn script(dialect: Dialect, options: &Options) -> String {
    let mut script = format!("-- Version {VERSION} of the booking schema. Safe to repeat.\n");
    let mut add = |comment: &str, statement: &str| {
        let comment = if comment.is_empty() {
            String::new()
        } else {
            format!("-- {comment}\n")
        };
        write!(script, "\n{comment}{statement};\n").expect("a String takes everything");
    };
    for table in TABLES {
        add("", &create_table(table));
    }
    for index in INDEXES {
        add(
            &format!("{}: {}", index.1, index.3),
            &create_index(dialect, index),
        );
    }
    if dialect == Dialect::Dsql {
        add(
            "Each index is built by a job: wait for it with the job_id it returned.",
            "SELECT * FROM sys.jobs",
        );
    }
    if let Some(role) = &options.serve_role {
        add(
            "The role that serve signs in with. Leave this out if it exists.",
            &create_role(role),
        );
        for grant in grants(role) {
            add("", &grant);
        }
        if dialect == Dialect::Dsql {
            for arn in &options.iam_roles {
                add("", &iam_grant(role, arn));
            }
        }
    }
    add("", &set_version());
    script
}

/// Brings the database to the schema that this code expects. Safe to repeat, and to run twice at
/// once: the second waits for the first.
///
/// # Errors
/// [`Error`] says what failed and what to do.
pub async fn migrate(database: &Database, options: &Options) -> Result<(), Error> {
    let client = database.connect().await?;
    for table in TABLES {
        run(
            &client,
            &format!("create table {}", table.0),
            &create_table(table),
        )
        .await?;
    }
    let lease = acquire(&client).await?;
    let migrated = migrate_alone(&client, database.dialect(), options).await;
    let released = lease::release(&client, &lease).await;
    migrated?;
    released.map_err(|error| failed("release the lease", error))
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
    if let Some(found) = version(client).await?.filter(|found| *found > VERSION) {
        return Err(Error::Newer { found });
    }
    for index in INDEXES {
        let step = format!("create index {}", index.1);
        let answer = run(client, &step, &create_index(dialect, index)).await?;
        if dialect == Dialect::Dsql {
            wait_for_index(client, index.1, answer).await?;
        }
    }
    if let Some(role) = &options.serve_role {
        make_role(client, dialect, role, &options.iam_roles).await?;
    }
    run(client, "set the schema's version", &set_version()).await?;
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

/// The version that the database has; `None` if it has no schema.
async fn version(client: &Client) -> Result<Option<i32>, Error> {
    match client
        .query_opt("SELECT version FROM booking_schema", &[])
        .await
    {
        Ok(row) => Ok(row.map(|row| row.get(0))),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(Error::NotGranted)
        }
        Err(error) => Err(failed("read the schema's version", error)),
    }
}

/// Checks that the database has the schema that this code expects.
///
/// # Errors
/// [`Error::Outdated`] and [`Error::Newer`] say what to run.
pub async fn check(database: &Database) -> Result<(), Error> {
    match version(&database.connect().await?).await? {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => Err(Error::Newer { found }),
        found => Err(Error::Outdated { found }),
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
