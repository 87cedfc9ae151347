//! What the program can be asked to do: serve, and look after the schema.

mod access;
mod healthcheck;
mod serve;
mod signals;

use std::io::{self, Write, stdout};
use std::net::SocketAddr;

use tokio::runtime::Runtime;

use crate::config::{
    Command, DatabaseOptions, LogOptions, MaintainOptions, MigrateOptions, RetentionOptions,
    SchemaCommand, SqlDialect,
};
use crate::db::{self, Database, Dialect, Target};
use crate::store::maintain::{self, Purged};
use crate::store::schema;
use crate::telemetry::metrics;
use crate::{server, telemetry};

pub use access::AccessError;
use signals::Signals;

/// Why a command failed: one line, which says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is not one.
    #[error("--log: {0}")]
    LogFilter(#[from] tracing_subscriber::filter::ParseError),
    /// There is no database to work with.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The schema is not as it should be.
    #[error(transparent)]
    Schema(#[from] schema::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with {option}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that it comes from.
        option: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Traces cannot be sent.
    #[error(
        "cannot send traces: {0}; check --otlp-endpoint, --otlp-ca-file and the \
         OTEL_EXPORTER_OTLP_ variables"
    )]
    Traces(#[from] telemetry::traces::Error),
    /// Nobody can be let in as the options say.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Purging failed.
    #[error("could not purge: {0}; run it again, what was purged stays so")]
    Maintain(#[from] tokio_postgres::Error),
    /// The server failed, or did not stop as it should.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The service is not serving, or nobody knows.
    #[error(transparent)]
    Healthcheck(#[from] healthcheck::Error),
    /// A signal came before the command was done.
    #[error("a signal ended it before it was done: run it again")]
    Interrupted,
    /// A second signal came before the calls in flight were finished.
    #[error("a second signal: calls in flight were cut off")]
    SecondSignal,
    /// The operating system would not do something.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Error {
    /// The exit code of the process: 2 if it was asked for something impossible, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::LogFilter(_)
            | Self::Database(db::Error::Configuration(_))
            | Self::Access(AccessError::Plaintext(_) | AccessError::JwksUrl(_)) => 2,
            Self::Database(_)
            | Self::Schema(_)
            | Self::Listen { .. }
            | Self::Traces(_)
            | Self::Access(AccessError::Tls(_) | AccessError::SignIn(_))
            | Self::Maintain(_)
            | Self::Server(_)
            | Self::Healthcheck(_)
            | Self::Interrupted
            | Self::SecondSignal
            | Self::System(_) => 1,
        }
    }
}

/// Does what the command says, to its end.
///
/// # Errors
/// [`Error`], to be shown to whoever started the program.
pub fn run(command: Command) -> Result<(), Error> {
    telemetry::init(log_options(&command))?;
    let runtime = Runtime::new()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        match command {
            Command::Serve(options) => serve::serve(options, signals).await,
            Command::Migrate(options) => signals.interrupt(migrate(options)).await,
            Command::Maintain(options) => signals.interrupt(maintain(&options)).await,
            Command::Schema(SchemaCommand::Drop(options)) => {
                signals.interrupt(drop_all(&options.database)).await
            }
            Command::Healthcheck(options) => Ok(healthcheck::run(&options).await?),
        }
    });
    // Whatever still runs was cut off already, or matters to nobody.
    runtime.shutdown_background();
    result
}

fn log_options(command: &Command) -> &LogOptions {
    match command {
        Command::Serve(options) => &options.log,
        Command::Migrate(options) => &options.log,
        Command::Maintain(options) => &options.log,
        Command::Schema(SchemaCommand::Drop(options)) => &options.log,
        Command::Healthcheck(options) => &options.log,
    }
}

async fn migrate(options: MigrateOptions) -> Result<(), Error> {
    let schema_options = schema::Options {
        serve_role: Some(options.serve_role),
        iam_roles: options.iam_roles,
    };
    if let Some(dialect) = options.print {
        let dialect = match dialect {
            SqlDialect::Dsql => Dialect::Dsql,
            SqlDialect::Postgresql => Dialect::Postgres,
        };
        let script = schema::script(dialect, &schema_options);
        return Ok(stdout().write_all(script.as_bytes())?);
    }
    let database = open(&options.database).await?;
    let migrated = schema::migrate(&database, &schema_options).await;
    database.close().await?;
    migrated?;
    tracing::info!("the schema serves this program");
    Ok(())
}

async fn maintain(options: &MaintainOptions) -> Result<(), Error> {
    let database = open(&options.database).await?;
    let maintained = maintain_once(&database, &options.retention).await;
    database.close().await?;
    maintained
}

async fn maintain_once(database: &Database, retention: &RetentionOptions) -> Result<(), Error> {
    schema::check(database).await?;
    let client = database.connect().await?;
    match maintain::run(&client, &purge_options(retention)).await? {
        Some(Purged {
            guards,
            expired_holds,
        }) => {
            metrics::purged(metrics::Purge::Done {
                guards,
                expired_holds,
            });
            tracing::info!(guards, expired_holds, "purged");
        }
        None => {
            metrics::purged(metrics::Purge::Skipped);
            tracing::info!("somebody else is purging: there is nothing to do");
        }
    }
    Ok(())
}

fn purge_options(retention: &RetentionOptions) -> maintain::Options {
    maintain::Options {
        expired_holds_kept: retention.expired_holds_kept,
    }
}

async fn drop_all(options: &DatabaseOptions) -> Result<(), Error> {
    let database = open(options).await?;
    let dropped = schema::drop_all(&database).await;
    database.close().await?;
    dropped?;
    tracing::info!("the schema and all bookings are gone");
    Ok(())
}

async fn open(options: &DatabaseOptions) -> Result<Database, Error> {
    let target = Target::from_options(options)?;
    // It has the AWS SDK's way to credentials in it, 25 KB of state that only a start needs.
    let database = Box::pin(Database::open(&target)).await?;
    tracing::info!(database = database.describe(), "connected");
    Ok(database)
}
