//! Puts the service together: serves on a socket until it is told to stop, then drains.

mod connections;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyStream, StreamBody};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tonic::service::LayerExt;
use tonic::transport::Server;
use tower::util::MapRequestLayer;

use crate::grpc::{
    EdgeLayer, GateLayer, Health, Limits, RateLimit, Service, SignIn, stamp_arrival,
};
use crate::pb;
use crate::pb::booking_service_server::{BookingService, BookingServiceServer};
use crate::store::{self, Store};

pub use tls::{Tls, TlsError, TlsFiles};

/// How long an HTTP/2 connection may be silent before it is asked whether it is alive.
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
/// How long it has to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How many calls one connection may have in flight: as few as RFC 9113 (section 6.5.2) advises, since
/// those that wait with their client are the ones that cost the service nothing.
const STREAMS_PER_CONNECTION_MAX: u32 = 100;

/// How many connections to the health port may be open at once.
const HEALTH_CONNECTIONS_MAX: usize = 256;

/// How the server serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// TLS for every connection; none without.
    pub tls: Option<Tls>,
    /// How callers of the service sign in; without, everybody may do everything.
    pub sign_in: Option<SignIn>,
    /// How often one caller may call.
    pub rate_limit: Option<RateLimit>,
    /// How much the service takes on, and for how long.
    pub limits: Limits,
    /// How many connections may be open at once; more wait to be accepted.
    pub connections_max: usize,
    /// How many calls one connection may have in flight; more wait with their client.
    pub streams_per_connection_max: u32,
    /// How long a connection is used for new calls, so that clients spread over new replicas.
    pub connection_age_max: Duration,
    /// How long calls are still taken after readiness is withdrawn, for load balancers to notice.
    pub drain_delay: Duration,
    /// How long the calls in flight then get to finish.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            sign_in: None,
            rate_limit: None,
            limits: Limits::default(),
            connections_max: 10_000,
            streams_per_connection_max: STREAMS_PER_CONNECTION_MAX,
            connection_age_max: Duration::from_mins(30),
            drain_delay: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Why the server is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// An orchestrator wants it: load balancers are given time to send calls elsewhere.
    Terminated,
    /// A person at a terminal wants it: there is nobody to wait for.
    Interrupted,
}

/// Why the server did not serve, or did not stop as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be served on.
    #[error("cannot serve on the socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The descriptors of the protos do not fit together.
    #[error("cannot describe the service for reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport gave up.
    #[error("the transport failed")]
    Transport(#[from] tonic::transport::Error),
    /// Calls were still in flight when the time was up.
    #[error(
        "calls were still in flight {0:?} after the stop: if they may take that long, raise the drain timeout"
    )]
    DrainTimeout(Duration),
}

/// Where the server listens.
#[derive(Debug)]
pub struct Listeners {
    /// For everything.
    pub main: TcpListener,
    /// For health alone, always in the clear: orchestrators ask without certificate or token.
    pub health: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(main: TcpListener) -> Self {
        Self { main, health: None }
    }
}

/// Serves the store on this socket until `shutdown`, then finishes the calls in flight.
///
/// # Errors
/// [`Error`], of which [`Error::DrainTimeout`] means that calls were cut off.
pub async fn run(
    listeners: impl Into<Listeners>,
    store: Store,
    options: Options,
    shutdown: impl Future<Output = Shutdown>,
) -> Result<(), Error> {
    let service = Service::server(store.clone());
    let check = |deadline| {
        let store = store.clone();
        async move { store.check(deadline).await }
    };
    serve(listeners, service, check, store.drain(), options, shutdown).await
}

/// [`run`], whatever the handler: `check` tells if it is ready, `drain` ends what calls left behind.
async fn serve<S, C, F>(
    listeners: impl Into<Listeners>,
    service: BookingServiceServer<S>,
    check: C,
    drain: impl Future<Output = ()>,
    options: Options,
    shutdown: impl Future<Output = Shutdown>,
) -> Result<(), Error>
where
    S: BookingService,
    C: Fn(Instant) -> F,
    F: Future<Output = Result<(), store::Error>>,
{
    let Listeners { main, health: side } = listeners.into();
    let address = main.local_addr()?;
    let (stop, stopped) = oneshot::channel::<Infallible>();
    let stopped = stopped.map(drop).shared();
    let ended = end_requests(stopped.clone());
    let health = Health::new().await;
    let secured = options.tls.is_some();
    let gate = GateLayer::new(options.sign_in.clone(), options.rate_limit);
    let router = transport(&options)
        .layer(MapRequestLayer::new(connections::introduce::<Body>))
        .layer(MapRequestLayer::new(stamp_arrival::<Body>))
        .add_service(EdgeLayer::new(options.limits).named_layer(gate.named_layer(service)))
        .add_service(health.server())
        .add_service(ended.named_layer(reflection().build_v1()?))
        .add_service(ended.named_layer(reflection().build_v1alpha()?));
    let incoming = connections::accept(main, options.connections_max, options.tls.clone());
    let main = router.serve_with_incoming_shutdown(incoming, stopped.clone());
    let side = side.map(|listener| {
        let incoming = connections::accept(listener, HEALTH_CONNECTIONS_MAX, None);
        let router = transport(&options).add_service(health.server());
        router.serve_with_incoming_shutdown(incoming, stopped)
    });
    let side = async {
        match side {
            Some(side) => side.await,
            None => Ok(()),
        }
    };
    let mut serving = Box::pin(async { tokio::try_join!(main, side).map(|_| ()) });
    tracing::info!(%address, secured, "listening");

    let reason = tokio::select! {
        ended = &mut serving => return Ok(ended?),
        never = health.follow(check) => match never {},
        reason = shutdown => reason,
    };
    tracing::info!(
        ?reason,
        "stopping: readiness is withdrawn, calls in flight are finished"
    );
    health.retire().await;
    if reason == Shutdown::Terminated {
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            () = sleep(options.drain_delay) => {}
        }
    }
    let finish = async {
        health.end().await;
        drop(stop);
        serving.await?;
        drain.await;
        tracing::info!("stopped: every call was answered");
        Ok(())
    };
    let finished = timeout(options.drain_timeout, finish).await;
    finished.unwrap_or(Err(Error::DrainTimeout(options.drain_timeout)))
}

/// A server that is careful with its connections.
fn transport(options: &Options) -> Server {
    Server::builder()
        // A connection that has not said a word yet can only be let go in this mode.
        .accept_http1(true)
        .max_concurrent_streams(options.streams_per_connection_max)
        // No grace: it would cut off calls in flight.
        .max_connection_age(options.connection_age_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Ends the stream of requests of a call, and so the call, once it is time to stop.
///
/// For reflection, whose stream is as long as its client likes, and would hold up the stop.
fn end_requests<F>(
    stopped: F,
) -> MapRequestLayer<impl Fn(http::Request<Body>) -> http::Request<Body> + Clone>
where
    F: Future<Output = ()> + Clone + Send + 'static,
{
    MapRequestLayer::new(move |request: http::Request<Body>| {
        let stopped = stopped.clone();
        request.map(|body| Body::new(StreamBody::new(BodyStream::new(body).take_until(stopped))))
    })
}

/// Everything that a client may want described, the details of errors included.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

#[cfg(test)]
mod tests;
