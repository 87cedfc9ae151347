//! How a database connection comes about: from configuration to a pool, by one of three ways.

use std::sync::Arc;
use std::time::Duration;

use bb8::ManageConnection;
use bb8_postgres::PostgresConnectionManager;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseOptions;

pub mod dsql;
pub mod embedded;
mod error;
mod pool;
pub mod postgres;
mod tls;
mod token;

pub use error::{Error, Unavailable};
pub use pool::{Connection, Pool, PoolOptions, PooledConnection};

/// Most time that a network connection may take, for each address of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Most time that one connection may take in all: name lookup, network, TLS and sign-in.
const POSTGRES_ATTEMPT_LIMIT: Duration = Duration::from_secs(8);

/// The same with DSQL, where looking up credentials and waking the cluster come on top.
const DSQL_ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// What kind of database answers; decides the dialect of DDL only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// PostgreSQL 14 or later.
    Postgres,
    /// Amazon Aurora DSQL.
    Dsql,
}

/// Where the database is.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Target {
    /// A private PostgreSQL that this process starts.
    Embedded(embedded::Options),
    /// A PostgreSQL that runs elsewhere.
    Postgres(postgres::Options),
    /// An Aurora DSQL cluster.
    Dsql(dsql::Options),
}

impl Target {
    /// Decides by the options which database is meant.
    ///
    /// # Errors
    /// [`Error::Configuration`] where they contradict each other or one is malformed;
    /// [`Error::Embedded`] where the private PostgreSQL has no place for its data.
    pub fn from_options(options: &DatabaseOptions) -> Result<Self, Error> {
        match (&options.database_url, &options.cluster_endpoint) {
            (Some(_), Some(_)) => Err(Error::Configuration(
                "both --database-url (DATABASE_URL) and --cluster-endpoint (CLUSTER_ENDPOINT) are \
                 given: keep one of them"
                    .to_owned(),
            )),
            (Some(url), None) => {
                let ca_file = options.db_ca_file.as_deref();
                postgres::Options::parse(url.expose(), ca_file).map(Self::Postgres)
            }
            (None, Some(endpoint)) => {
                let region = options.cluster_region.as_deref();
                let cluster = dsql::Options::new(endpoint, &options.cluster_user, region)?;
                Ok(Self::Dsql(cluster.with_ca_file(options.db_ca_file.clone())))
            }
            (None, None) => {
                let data_dir = match &options.data_dir {
                    Some(dir) => dir.clone(),
                    None => embedded::default_data_dir()?,
                };
                let mut embedded = embedded::Options::new(data_dir);
                if let Some(dir) = &options.pg_bin_dir {
                    embedded.binaries = embedded::Binaries::In(dir.clone());
                }
                Ok(Self::Embedded(embedded))
            }
        }
    }
}

/// A database that answered. Owns the private PostgreSQL, if there is one, for as long as it lives.
#[derive(Debug)]
pub struct Database {
    connector: Arc<Connector>,
    embedded: Option<embedded::Server>,
}

impl Database {
    /// Starts the private PostgreSQL or finds the configured database, and checks by one connection
    /// that it lets us in.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration or the database, within 8 seconds for PostgreSQL
    /// and 30 for DSQL; a private PostgreSQL gets longer to recover after a crash.
    pub async fn open(target: &Target) -> Result<Self, Error> {
        let (connector, embedded) = match target {
            Target::Embedded(options) => {
                let server = embedded::Server::start(options).await?;
                let own = server.options(embedded::DATABASE);
                (Connector::postgres(&own)?, Some(server))
            }
            Target::Postgres(options) => {
                if options.is_exposed() {
                    tracing::warn!(
                        place = options.place(),
                        "not sure to be the database: its certificate or its name is not checked, so \
                         that somebody in between could read and change everything, unless the network \
                         is trusted; give sslmode=verify-full, and --db-ca-file for a CA of your own"
                    );
                }
                (Connector::postgres(options)?, None)
            }
            Target::Dsql(options) => (Connector::dsql(options).await?, None),
        };
        connector.connect().await?;
        Ok(Self {
            connector: Arc::new(connector),
            embedded,
        })
    }

    /// Which dialect of DDL it takes.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.connector.dialect()
    }

    /// Whether this process started it.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// What and where it is, for the log; no secrets.
    #[must_use]
    pub fn describe(&self) -> String {
        let place = self.connector.place();
        match (&self.embedded, self.dialect()) {
            (Some(server), _) => server.describe(),
            (None, Dialect::Postgres) => format!("PostgreSQL at {place}"),
            (None, Dialect::Dsql) => format!("Aurora DSQL at {place}"),
        }
    }

    /// One connection outside of any pool, for migrations.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn connect(&self) -> Result<Client, Error> {
        Ok(self.connector.connect().await?)
    }

    /// A pool whose connections each carry `statements`, prepared in one flight when the connection
    /// is made. Must be called inside a Tokio runtime, where it opens its first connections.
    ///
    /// # Panics
    /// Where the size is 0.
    #[must_use]
    pub fn pool(&self, options: PoolOptions, statements: &'static [&'static str]) -> Pool {
        Pool::new(self.connector.clone(), options, statements)
    }

    /// Stops the private PostgreSQL, if there is one, and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Embedded`] where it does not stop in time; it goes on stopping by itself.
    pub async fn close(self) -> Result<(), Error> {
        match self.embedded {
            Some(server) => Ok(server.stop().await?),
            None => Ok(()),
        }
    }
}

/// Makes connections, by whichever way the database is reached.
struct Connector {
    place: String,
    way: Way,
}

enum Way {
    Postgres(Box<PostgresConnectionManager<MakeRustlsConnect>>),
    Dsql(Box<dsql::Connector>),
}

impl Connector {
    fn postgres(options: &postgres::Options) -> Result<Self, Error> {
        let way = Way::Postgres(Box::new(options.manager()?));
        Ok(Self {
            place: options.place(),
            way,
        })
    }

    async fn dsql(options: &dsql::Options) -> Result<Self, Error> {
        let way = Way::Dsql(Box::new(options.connector().await?));
        Ok(Self {
            place: options.place(),
            way,
        })
    }

    fn place(&self) -> &str {
        &self.place
    }

    fn dialect(&self) -> Dialect {
        match self.way {
            Way::Postgres(_) => Dialect::Postgres,
            Way::Dsql(_) => Dialect::Dsql,
        }
    }

    async fn connect(&self) -> Result<Client, Unavailable> {
        match &self.way {
            Way::Postgres(manager) => timeout(POSTGRES_ATTEMPT_LIMIT, manager.connect())
                .await
                .map_err(|elapsed| self.too_slow(POSTGRES_ATTEMPT_LIMIT, elapsed))?
                .map_err(|error| Unavailable::from_driver(&self.place, error)),
            Way::Dsql(connector) => timeout(DSQL_ATTEMPT_LIMIT, connector.connect())
                .await
                .map_err(|elapsed| self.too_slow(DSQL_ATTEMPT_LIMIT, elapsed))?,
        }
    }

    fn too_slow(&self, limit: Duration, elapsed: tokio::time::error::Elapsed) -> Unavailable {
        let problem = format!(
            "the database at {} did not answer within {} s: check its host, its port and its load",
            self.place,
            limit.as_secs()
        );
        Unavailable::new(problem, elapsed)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
