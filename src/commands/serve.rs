//! `serve`: from the options to a running server, and to its end.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{LaneArgs, MonitoringArgs, ServeOptions};
use crate::db::{Database, Dialect, Pool, PoolOptions};
use crate::grpc::Limits;
use crate::server::{self, Listeners, Shutdown};
use crate::store::{LaneOptions, STATEMENTS, Store, schema};
use crate::telemetry::traces::{self, Traces};
use crate::telemetry::{exposition, metrics};

use super::access::{self, Access};
use super::signals::Signals;
use super::{Error, open};

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(options: ServeOptions, signals: Signals) -> Result<(), Error> {
    match start_and_serve(options, signals).await {
        Err(Error::Interrupted) => {
            tracing::info!("stopped before it served");
            Ok(())
        }
        result => result,
    }
}

async fn start_and_serve(options: ServeOptions, mut signals: Signals) -> Result<(), Error> {
    access::check(&options)?;
    // Early, since it fails at once where the address is taken; a start takes longer.
    let listeners = Listeners {
        main: listen(options.listen, "--listen").await?,
        health: match options.tls.health_listen {
            Some(address) => Some(listen(address, "--health-listen").await?),
            None => None,
        },
    };
    let monitoring = Monitoring::start(&options.monitoring).await?;
    let access = async { Ok(access::open(&options).await?) };
    let access = signals.interrupt(access).await?;
    let database = signals.interrupt(open(&options.database)).await?;
    let metrics = monitoring.metrics;
    let served = serve_from(&database, listeners, access, metrics, &options, signals).await;
    let closed = database.close().await;
    // A second signal means at once, and the collector may take its time.
    if let Some(traces) = monitoring.traces
        && !matches!(served, Err(Error::SecondSignal))
    {
        traces.end().await;
    }
    served?;
    Ok(closed?)
}

async fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| Error::Listen {
        address,
        source,
        option,
    })
}

/// What watches the service, as far as it is wanted.
struct Monitoring {
    metrics: Option<TcpListener>,
    traces: Option<Traces>,
}

impl Monitoring {
    async fn start(options: &MonitoringArgs) -> Result<Self, Error> {
        let metrics = match options.metrics_listen {
            Some(address) => {
                metrics::start();
                Some(listen(address, "--metrics-listen").await?)
            }
            None => None,
        };
        let traces = match &options.otlp_endpoint {
            Some(endpoint) => {
                let options = traces::Options {
                    endpoint: endpoint.clone(),
                    ca_file: options.otlp_ca_file.clone(),
                    ratio: options.trace_ratio,
                    service_name: options.trace_service_name.clone(),
                };
                Some(traces::start(&options).await?)
            }
            None => None,
        };
        Ok(Self { metrics, traces })
    }
}

/// Serves the metrics, for ever, if they are wanted.
async fn expose(listener: Option<TcpListener>, pool: Pool) -> Infallible {
    match listener {
        Some(listener) => exposition::serve(listener, move || pool.measure()).await,
        None => pending().await,
    }
}

async fn serve_from(
    database: &Database,
    listeners: Listeners,
    access: Access,
    metrics: Option<TcpListener>,
    options: &ServeOptions,
    mut signals: Signals,
) -> Result<(), Error> {
    signals.interrupt(ensure_schema(database)).await?;
    let pool_options = PoolOptions {
        size: options.pool_size,
    };
    let pool = database.pool(pool_options, STATEMENTS);
    let store = Store::new(
        pool.clone(),
        lane_options(&options.lanes, database.dialect()),
    );
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(Shutdown::Interrupted) };
    let second_signal = async {
        let _ = stop.send(signals.next().await);
        signals.next().await
    };
    tokio::select! {
        served = server::run(listeners, store, server_options(options, access), shutdown) => {
            Ok(served?)
        }
        _ = second_signal => Err(Error::SecondSignal),
        never = purge_now_and_then(database, options) => match never {},
        never = expose(metrics, pool) => match never {},
    }
}

async fn ensure_schema(database: &Database) -> Result<(), Error> {
    if database.is_embedded() {
        schema::migrate(database, &schema::Options::default()).await?;
    } else {
        schema::check(database).await?;
    }
    Ok(())
}

fn server_options(options: &ServeOptions, access: Access) -> server::Options {
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let limits = &options.caller_limits;
    server::Options {
        tls: access.tls,
        sign_in: access.sign_in,
        rate_limit: access::rate_limit(limits),
        streams_per_connection_max: limits.max_streams_per_connection,
        connection_age_max: limits.connection_age,
        limits: Limits {
            request_timeout: options.request_timeout,
            request_timeout_max: options.request_timeout_max,
            requests_in_flight_max: count(options.max_concurrent_requests),
        },
        connections_max: count(options.max_connections),
        drain_delay: options.drain_delay,
        drain_timeout: options.drain_timeout,
    }
}

/// Lanes by default. Few, for larger batches and less work for each booking, where a commit takes a
/// millisecond or two; half of the pool where it takes 20, so that fewer find their lane busy.
const LANES_POSTGRES: u16 = 2;
const LANES_DSQL: u16 = 8;

fn lane_options(lanes: &LaneArgs, dialect: Dialect) -> LaneOptions {
    let by_default = match dialect {
        Dialect::Postgres => LANES_POSTGRES,
        Dialect::Dsql => LANES_DSQL,
    };
    LaneOptions {
        lanes: lanes.lanes.unwrap_or(by_default).into(),
        batch_max: lanes.batch_size.into(),
        queue_max: lanes.queue_length.into(),
    }
}

/// Purges what nobody needs any more, for ever. Nothing depends on it.
async fn purge_now_and_then(database: &Database, options: &ServeOptions) -> Infallible {
    if options.purge_interval.is_zero() {
        return pending().await;
    }
    let mut ticks = interval(options.purge_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = super::maintain_once(database, &options.retention).await {
            metrics::purged(metrics::Purge::Failed);
            tracing::warn!(%error, "cannot purge now: it is tried again in a while");
        }
    }
}
