//! What the schema is made of, as SQL for either database; and all of it as a script.

use std::fmt::Write as _;

use super::Options;
use super::version::{COMPATIBLE_FROM, VERSION};
use crate::db::Dialect;

/// A table: its name and its columns.
pub(super) const TABLES: [(&str, &str); 4] = [
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
    version integer NOT NULL,
    compatible_from integer",
    ),
];

/// What tables made by earlier programs lack: a name, and the statement. Aurora DSQL adds columns
/// without a default and nullable only.
pub(super) const ADDITIONS: [(&str, &str); 1] = [(
    "booking_schema.compatible_from",
    "ALTER TABLE booking_schema ADD COLUMN IF NOT EXISTS compatible_from integer",
)];

/// An index: whether it is unique, its name, what it covers, and why it is there.
pub(super) const INDEXES: [(&str, &str, &str, &str); 5] = [
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

pub(super) fn create_table((name, columns): (&str, &str)) -> String {
    format!("CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n)")
}

pub(super) fn create_index(
    dialect: Dialect,
    (kind, name, on, _): (&str, &str, &str, &str),
) -> String {
    match dialect {
        Dialect::Postgres => format!("CREATE {kind} IF NOT EXISTS {name} ON {on}"),
        Dialect::Dsql => format!("CREATE {kind} ASYNC IF NOT EXISTS {name} ON {on}"),
    }
}

/// Never back: a program that came too late would take the schema from the replicas of a newer one.
pub(super) fn set_version() -> String {
    format!(
        "INSERT INTO booking_schema (id, version, compatible_from) \
         VALUES (1, {VERSION}, {COMPATIBLE_FROM}) ON CONFLICT (id) DO UPDATE \
         SET version = excluded.version, compatible_from = excluded.compatible_from \
         WHERE booking_schema.version <= excluded.version"
    )
}

pub(super) fn grants(role: &str) -> [String; 3] {
    let role = quote_name(role);
    [
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON bookings, booking_guards TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE ON booking_leases TO {role}"),
        format!("GRANT SELECT ON booking_schema TO {role}"),
    ]
}

pub(super) fn create_role(role: &str) -> String {
    format!("CREATE ROLE {} WITH LOGIN", quote_name(role))
}

pub(super) fn iam_grant(role: &str, arn: &str) -> String {
    format!("AWS IAM GRANT {} TO {}", quote_name(role), quote_text(arn))
}

fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn quote_text(text: &str) -> String {
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
    for (name, statement) in ADDITIONS {
        add(&format!("{name}: for a table that is older"), statement);
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
