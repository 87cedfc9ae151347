//! The schema: what `migrate` makes, `serve` expects and `schema drop` removes.

use crate::db::{Database, Dialect};

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
    #[error(
        "the schema is not there or out of date (version {found:?}): run `booking-service migrate`"
    )]
    Outdated {
        /// What the database has.
        found: Option<i32>,
    },
}

/// The SQL that `migrate` runs, as a script for a person to read or run.
#[must_use]
pub fn script(dialect: Dialect, options: &Options) -> String {
    format!("{dialect:?} {options:?}")
}

/// Brings the database to the schema that this code expects. Safe to repeat, and to run twice at
/// once.
///
/// # Errors
/// [`Error`] says what failed and what to do.
pub async fn migrate(database: &Database, options: &Options) -> Result<(), Error> {
    let _ = (database, options);
    Ok(())
}

/// Checks that the database has the schema that this code expects.
///
/// # Errors
/// [`Error::Outdated`] says what to run.
pub async fn check(database: &Database) -> Result<(), Error> {
    let _ = database;
    Ok(())
}

/// Removes everything that `migrate` made but the role.
///
/// # Errors
/// [`Error`] says what failed and what to do.
pub async fn drop_all(database: &Database) -> Result<(), Error> {
    let _ = database;
    Ok(())
}
