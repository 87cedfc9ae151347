//! The connection pool: `bb8`, with prepared statements kept beside each connection.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection, QueueStrategy};
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::{Client, Statement};

use super::{Connector, Dialect, Error, Unavailable};
use crate::telemetry::metrics::{self, OneMore};

/// Connections kept ready however idle the service is.
const WARM_CONNECTIONS: u32 = 2;

/// An idle connection beyond the warm ones is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);

/// A connection retires at a random time in this range, so that a fleet does not reconnect at once.
/// DSQL cuts every connection at 60 minutes.
const DSQL_LIFETIME_SECONDS: (u64, u64) = (45 * 60, 55 * 60);
const POSTGRES_LIFETIME_SECONDS: (u64, u64) = (27 * 60, 33 * 60);

/// Most time that preparing the statements of a new connection may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Waiting in `bb8` has no limit of its own: the caller's deadline is the limit.
const NO_LIMIT: Duration = Duration::from_hours(24);

/// While connections keep failing, a warning this often is enough.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// How large a pool may grow.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Most connections at a time, at least 1.
    pub size: u32,
}

/// A pool of connections with prepared statements. Clones share the same connections.
#[derive(Clone)]
pub struct Pool {
    inner: bb8::Pool<Manager>,
    connections_max: u32,
    failures: watch::Sender<Option<Unavailable>>,
}

impl Pool {
    pub(super) fn new(
        connector: Arc<Connector>,
        options: PoolOptions,
        statements: &'static [&'static str],
    ) -> Self {
        let (_, longest_lifetime) = lifetime_seconds(connector.dialect());
        let failures = watch::Sender::new(None);
        let inner = bb8::Pool::builder()
            .max_size(options.size)
            .min_idle(WARM_CONNECTIONS.min(options.size))
            // It would cost a round trip; `is_usable` and the caller's retry do its work.
            .test_on_check_out(false)
            // A failed attempt is reported at once; the next `get` makes the next attempt.
            .retry_connection(false)
            .connection_timeout(NO_LIMIT)
            .idle_timeout(IDLE_TIMEOUT)
            .max_lifetime(Duration::from_secs(longest_lifetime))
            // The most recently used first, so that surplus connections get to idle out.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(Failures {
                sender: failures.clone(),
                warned: Arc::default(),
            }))
            .build_unchecked(Manager {
                connector,
                statements,
            });
        Self {
            inner,
            connections_max: options.size,
            failures,
        }
    }

    /// A connection to use until it is dropped.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as soon as an attempt to connect has failed and there is no other
    /// connection to wait for; [`Error::Timeout`] at the deadline.
    pub async fn get(&self, deadline: Instant) -> Result<PooledConnection, Error> {
        let _waiting = OneMore::wanting_connection();
        let begin = Instant::now();
        let connection = self.get_usable(deadline).await;
        let timed_out = matches!(connection, Err(Error::Timeout { .. }));
        metrics::connection_waited(begin.elapsed(), timed_out);
        connection
    }

    async fn get_usable(&self, deadline: Instant) -> Result<PooledConnection, Error> {
        let mut failures = self.failures.subscribe();
        loop {
            let connection = tokio::select! {
                biased;
                connection = self.inner.get_owned() => connection.map_err(|_| timed_out(&failures))?,
                failure = self.no_connection_left(&mut failures) => return Err(failure.into()),
                () = sleep_until(deadline) => return Err(timed_out(&failures)),
            };
            if connection.is_usable() {
                return Ok(PooledConnection(connection));
            }
        }
    }

    /// Waits for a failed attempt that leaves the pool without any connection.
    async fn no_connection_left(
        &self,
        failures: &mut watch::Receiver<Option<Unavailable>>,
    ) -> Unavailable {
        loop {
            failures.changed().await.expect("the pool holds the sender");
            let failure = failures.borrow_and_update().clone();
            if let (Some(failure), 0) = (failure, self.connections()) {
                return failure;
            }
        }
    }

    /// Connections there are, idle or in use.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.inner.state().connections
    }

    /// Tells the metrics what the pool is like now.
    pub fn measure(&self) {
        let state = self.inner.state();
        let used = state.connections.saturating_sub(state.idle_connections);
        metrics::pool(state.idle_connections, used, self.connections_max);
    }

    /// Connections that wait for work.
    #[must_use]
    pub fn idle(&self) -> u32 {
        self.inner.state().idle_connections
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("state", &self.inner.state())
            .finish_non_exhaustive()
    }
}

fn timed_out(failures: &watch::Receiver<Option<Unavailable>>) -> Error {
    let last_failure = failures.borrow().clone();
    Error::Timeout { last_failure }
}

/// A [`Connection`] on loan from its [`Pool`].
#[derive(Debug)]
pub struct PooledConnection(bb8::PooledConnection<'static, Manager>);

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

/// A database connection and the statements prepared on it.
pub struct Connection {
    client: Client,
    statements: Vec<Statement>,
    retire_at: Instant,
    broken: AtomicBool,
}

impl Connection {
    /// The prepared statement at this place of the list that the pool was made with.
    ///
    /// # Panics
    /// Where the list is shorter.
    #[must_use]
    pub fn statement(&self, index: usize) -> &Statement {
        &self.statements[index]
    }

    /// Has the pool drop this connection instead of lending it again, for example after a
    /// transaction that was given up half way.
    pub fn mark_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn is_usable(&self) -> bool {
        !self.client.is_closed()
            && !self.broken.load(Ordering::Relaxed)
            && Instant::now() < self.retire_at
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Makes the pool's connections, by whichever way the database is reached.
struct Manager {
    connector: Arc<Connector>,
    statements: &'static [&'static str],
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Unavailable;

    async fn connect(&self) -> Result<Connection, Unavailable> {
        let begin = Instant::now();
        let made = self.make().await;
        metrics::connection_made(begin.elapsed(), made.is_ok());
        made
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Unavailable> {
        let answer = connection.client.check_connection().await;
        answer.map_err(|error| Unavailable::from_driver(self.connector.place(), error))
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_usable()
    }
}

impl Manager {
    async fn make(&self) -> Result<Connection, Unavailable> {
        let client = self.connector.connect().await?;
        // Polled together, so they travel in one flight.
        let prepared = try_join_all(self.statements.iter().map(|sql| client.prepare(sql)));
        let statements = timeout(PREPARE_TIMEOUT, prepared)
            .await
            .map_err(|elapsed| self.connector.too_slow(PREPARE_TIMEOUT, elapsed))?
            .map_err(|error| Unavailable::from_driver(self.connector.place(), error))?;
        let (min, max) = lifetime_seconds(self.connector.dialect());
        Ok(Connection {
            client,
            statements,
            retire_at: Instant::now() + Duration::from_secs(rand::random_range(min..=max)),
            broken: AtomicBool::new(false),
        })
    }
}

fn lifetime_seconds(dialect: Dialect) -> (u64, u64) {
    match dialect {
        Dialect::Dsql => DSQL_LIFETIME_SECONDS,
        Dialect::Postgres => POSTGRES_LIFETIME_SECONDS,
    }
}

/// Tells everyone who waits for a connection that an attempt failed; `bb8` itself would not.
#[derive(Clone, Debug)]
struct Failures {
    sender: watch::Sender<Option<Unavailable>>,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl ErrorSink<Unavailable> for Failures {
    fn sink(&self, failure: Unavailable) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() > WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            let cause: &dyn std::error::Error = &failure;
            tracing::warn!(error = cause, "no new database connection");
        }
        self.sender.send_replace(Some(failure));
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<Unavailable>> {
        Box::new(self.clone())
    }
}
