//! `serve`: from the options to a running server, and to its end.

use std::convert::Infallible;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::ServeOptions;
use crate::db::{Database, PoolOptions};
use crate::grpc::Limits;
use crate::server::{self, Shutdown};
use crate::store::{LaneOptions, STATEMENTS, Store, maintain, schema};

use super::{Error, open};

/// How often what nobody needs any more is purged.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(options: ServeOptions) -> Result<(), Error> {
    // First, since it fails at once where the address is taken; a start takes longer.
    let address = options.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Error::Listen { address, source })?;
    let database = open(&options.database).await?;
    let served = serve_from(&database, listener, &options).await;
    let closed = database.close().await;
    served?;
    Ok(closed?)
}

async fn serve_from(
    database: &Database,
    listener: TcpListener,
    options: &ServeOptions,
) -> Result<(), Error> {
    if database.is_embedded() {
        schema::migrate(database, &schema::Options::default()).await?;
    } else {
        schema::check(database).await?;
    }
    let pool_options = PoolOptions {
        size: options.pool_size,
    };
    let pool = database.pool(pool_options, STATEMENTS);
    let store = Store::new(pool, LaneOptions::default());
    // Until here a signal simply ends the process.
    let mut signals = Signals::new()?;
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(Shutdown::Interrupted) };
    let second_signal = async {
        let _ = stop.send(signals.next().await);
        signals.next().await
    };
    tokio::select! {
        served = server::run(listener, store, server_options(options), shutdown) => Ok(served?),
        _ = second_signal => Err(Error::SecondSignal),
        never = purge_now_and_then(database) => match never {},
    }
}

fn server_options(options: &ServeOptions) -> server::Options {
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    server::Options {
        limits: Limits {
            request_timeout: options.request_timeout,
            request_timeout_max: options.request_timeout_max,
            requests_in_flight_max: count(options.max_concurrent_requests),
        },
        connections_max: count(options.max_connections),
        drain_delay: options.drain_delay,
        drain_timeout: options.drain_timeout,
        ..server::Options::default()
    }
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, std::io::Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Shutdown {
        tokio::select! {
            _ = self.terminate.recv() => Shutdown::Terminated,
            _ = self.interrupt.recv() => Shutdown::Interrupted,
        }
    }
}

/// Purges what nobody needs any more, for ever. Nothing depends on it.
async fn purge_now_and_then(database: &Database) -> Infallible {
    let mut ticks = interval(PURGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let client = match database.connect().await {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "cannot purge now: it is tried again in an hour");
                continue;
            }
        };
        match maintain::run(&client, &maintain::Options::default()).await {
            Ok(Some(purged)) => tracing::debug!(?purged, "purged"),
            Ok(None) => tracing::debug!("another replica purges"),
            Err(error) => tracing::warn!(%error, "cannot purge now: it is tried again in an hour"),
        }
    }
}
