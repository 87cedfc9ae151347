//! What can go wrong on the way to a connection, each in one line that names the remedy.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use super::embedded;

/// Why there is no database connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that cannot work, whatever the database does.
    #[error("{0}")]
    Configuration(String),
    /// The database does not let us in, or does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The deadline passed while every connection of the pool was in use or being made.
    #[error(
        "no database connection became free before the deadline: raise --pool-size, or find what \
         keeps the database busy"
    )]
    Timeout {
        /// The last failure to add a connection in the meantime, if there was one.
        #[source]
        last_failure: Option<Unavailable>,
    },
    /// The private PostgreSQL does not run.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
}

/// A connection attempt that failed: one line with the remedy, and the driver's error as source.
///
/// Cheap to clone, since one failed attempt may be the answer to many who wait for it.
#[derive(Clone, Debug)]
pub struct Unavailable {
    problem: String,
    source: Arc<dyn StdError + Send + Sync>,
}

impl Unavailable {
    pub(super) fn new(
        problem: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            problem: problem.into(),
            source: Arc::from(source.into()),
        }
    }

    /// Puts `error`, met while connecting to `place`, in words.
    pub(super) fn from_driver(place: &str, error: tokio_postgres::Error) -> Self {
        Self::new(explain(place, &error), error)
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl StdError for Unavailable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// What failed and what to change. The server's own words stay out of it but for an unknown
/// failure: they are in the source.
fn explain(place: &str, error: &tokio_postgres::Error) -> String {
    if let Some(db_error) = error.as_db_error() {
        return explain_refusal(place, db_error);
    }
    if let Some(tls) = find_source::<rustls::Error>(error) {
        return explain_tls(place, tls);
    }
    if find_source::<io::Error>(error).is_some() {
        return format!(
            "cannot reach the database at {place}: check that it runs, its host and port, and that \
             no firewall is in between"
        );
    }
    let reason = error.source().map(ToString::to_string).unwrap_or_default();
    if reason.contains("does not support TLS") {
        return format!(
            "the database at {place} does not offer TLS: enable it there, or set sslmode=disable \
             where the network is trusted"
        );
    }
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("cannot connect to the database at {place}: {error}{colon}{reason}")
}

fn explain_refusal(place: &str, error: &tokio_postgres::error::DbError) -> String {
    let is_fatal = error.severity() == "FATAL";
    match error.code() {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => format!(
            "the database at {place} refused the sign-in: check the user, the password and what \
             its pg_hba.conf admits"
        ),
        &SqlState::INVALID_CATALOG_NAME => {
            format!("the database at {place} does not exist: create it, or correct its name")
        }
        &SqlState::TOO_MANY_CONNECTIONS => format!(
            "the database at {place} takes no more connections: lower --pool-size, or raise its \
             limit"
        ),
        &SqlState::CANNOT_CONNECT_NOW => {
            format!("the database at {place} is starting or stopping: try again soon")
        }
        &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN => {
            format!("the schema of the database at {place} is missing or old: run `migrate`")
        }
        // How PgBouncer, RDS Proxy and others refuse the settings of a session, and not a statement.
        &SqlState::PROTOCOL_VIOLATION | &SqlState::FEATURE_NOT_SUPPORTED if is_fatal => format!(
            "the database at {place} refused the settings of the session, as connection poolers do: \
             connect to PostgreSQL itself, since the service has a pool of its own ({})",
            error.message().replace('\n', " ")
        ),
        code => format!(
            "the database at {place} refused the connection with {}: {}",
            code.code(),
            error.message().replace('\n', " ")
        ),
    }
}

fn explain_tls(place: &str, error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(problem) = error else {
        return format!("TLS with the database at {place} failed: check sslmode and its TLS setup");
    };
    // Another CA of the same name shows as a bad signature.
    if let CertificateError::UnknownIssuer | CertificateError::BadSignature = problem {
        return format!(
            "no trusted CA signed the certificate of the database at {place}: give its CA with \
             --db-ca-file"
        );
    }
    let text = problem.to_string();
    if text.contains("not valid for name") {
        return format!(
            "the certificate of the database at {place} is for another host name: connect by a \
             name that is in it"
        );
    }
    format!("the certificate of the database at {place} is not acceptable: replace it ({text})")
}

/// The first error of type `E` among `error` and its sources, also where an I/O error wraps it.
pub(super) fn find_source<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
