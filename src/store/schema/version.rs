//! Which schema the database has, and which programs it serves: what lets old and new replicas run
//! side by side during a rollout, and a release be taken back.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::{Error, failed};
use crate::db::Database;

/// The version of the schema that this code makes and expects.
pub const VERSION: i32 = 1;

/// The oldest version of the schema whose programs may go on on ours. Rises only with a change that
/// their statements do not survive.
pub(super) const COMPATIBLE_FROM: i32 = 1;

/// Its version, and the oldest that it still serves.
///
/// Schemas made before there was a column `compatible_from` do without: then the name in the inner
/// query means the outer one, which is null. That is how names are looked up in SQL, and it holds
/// for a statement that was prepared before the column came.
pub(in crate::store) const SCHEMA_VERSION: &str = "-- schema_version
SELECT s.version, (SELECT compatible_from FROM booking_schema WHERE id = 1)
FROM booking_schema s CROSS JOIN (SELECT CAST(NULL AS integer) AS compatible_from) unknown
WHERE s.id = 1";

/// What the database says of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Found {
    pub(super) version: i32,
    pub(super) compatible_from: Option<i32>,
}

impl Found {
    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            version: row.try_get(0)?,
            compatible_from: row.try_get(1)?,
        })
    }

    /// Whether a newer program made it.
    pub(super) fn is_newer(self) -> bool {
        self.version > VERSION
    }

    /// Whether this program can serve on it: on its own version, and on a newer one that says so.
    fn serves(self) -> Result<(), Error> {
        let compatible_from = self.compatible_from.unwrap_or(self.version);
        if self.version < VERSION {
            Err(Error::Outdated {
                found: Some(self.version),
            })
        } else if self.is_newer() && compatible_from > VERSION {
            Err(Error::Newer {
                found: self.version,
                compatible_from,
            })
        } else {
            Ok(())
        }
    }
}

/// Whether this program can serve on the schema that [`SCHEMA_VERSION`] returned these rows of.
pub(in crate::store) fn check_rows(rows: &[Row]) -> Result<(), Error> {
    let found = rows.first().map(Found::of).transpose();
    serves(found.map_err(|error| failed("read the schema's version", error))?)
}

pub(super) fn serves(found: Option<Found>) -> Result<(), Error> {
    found.map_or(Err(Error::Outdated { found: None }), Found::serves)
}

/// The schema that the database has, if it has one.
pub(super) async fn find(client: &Client) -> Result<Option<Found>, Error> {
    let found = client.query_opt(SCHEMA_VERSION, &[]).await;
    match found.and_then(|row| row.as_ref().map(Found::of).transpose()) {
        Ok(found) => Ok(found),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(Error::NotGranted)
        }
        Err(error) => Err(failed("read the schema's version", error)),
    }
}

/// Checks that this program can serve on the schema that the database has.
///
/// # Errors
/// [`Error::Outdated`] and [`Error::Newer`] say what to run.
pub async fn check(database: &Database) -> Result<(), Error> {
    serves(find(&database.connect().await?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(version: i32, compatible_from: Option<i32>) -> Result<(), Error> {
        serves(Some(Found {
            version,
            compatible_from,
        }))
    }

    #[test]
    fn a_program_serves_on_its_own_schema_and_on_newer_ones_that_still_serve_it() {
        assert!(on(VERSION, None).is_ok());
        assert!(on(VERSION, Some(VERSION)).is_ok());
        assert!(on(VERSION + 1, Some(VERSION)).is_ok());
        assert!(on(VERSION + 7, Some(VERSION - 1)).is_ok());
    }

    #[test]
    fn a_newer_schema_that_does_not_say_so_serves_none_but_its_own() {
        for compatible_from in [None, Some(VERSION + 1)] {
            let error = on(VERSION + 1, compatible_from).unwrap_err();
            assert!(matches!(error, Error::Newer { .. }), "{error}");
        }
    }

    #[test]
    fn an_older_schema_or_none_is_to_be_migrated() {
        for error in [on(VERSION - 1, Some(0)), serves(None)] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("run `booking-service migrate`"), "{error}");
        }
    }
}
