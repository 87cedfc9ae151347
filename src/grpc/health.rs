//! Health, as load balancers and orchestrators ask for it: what serves, and what is ready to.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::pb::booking_service_server::SERVICE_NAME;
use crate::store;
use crate::telemetry::metrics;

/// How long the store gets to answer a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after a check that went well the next one comes.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long after a check that failed the next one comes.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The names that say that the process serves: no reason to restart it, whatever the database does.
const LIVE: [&str; 2] = ["", "liveness"];
/// The names that say that calls can succeed: the database answers, with the schema expected.
const READY: [&str; 2] = ["readiness", SERVICE_NAME];

/// The state of health of this process.
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Alive and not ready, with every name registered from the start: a watch for a name that is
    /// not would be refused.
    pub async fn new() -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
        };
        health.set(&LIVE, ServingStatus::Serving).await;
        health.set_ready(false).await;
        health
    }

    /// `grpc.health.v1.Health`, which answers with this state.
    #[must_use]
    pub fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Keeps readiness in step with the store, for ever.
    pub async fn follow<C, F>(&self, check: C) -> Infallible
    where
        C: Fn(Instant) -> F,
        F: Future<Output = Result<(), store::Error>>,
    {
        let mut was_ready = None;
        loop {
            let checked = check(Instant::now() + CHECK_TIMEOUT).await;
            let ready = checked.is_ok();
            if was_ready.replace(ready) != Some(ready) {
                log(checked);
                self.set_ready(ready).await;
            }
            sleep(if ready {
                CHECK_INTERVAL
            } else {
                RECHECK_INTERVAL
            })
            .await;
        }
    }

    /// Sends no more calls here, please. Nothing may follow the store any more.
    pub async fn retire(&self) {
        self.set_ready(false).await;
    }

    /// Ends every open watch: one that stays open keeps its connection open.
    pub async fn end(mut self) {
        for name in LIVE.into_iter().chain(READY) {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn set_ready(&self, ready: bool) {
        metrics::ready(ready);
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.set(&READY, status).await;
    }

    async fn set(&self, names: &[&str], status: ServingStatus) {
        for name in names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

fn log(checked: Result<(), store::Error>) {
    match checked {
        Ok(()) => tracing::info!("ready: the database answers, with the schema expected"),
        Err(error) => tracing::warn!(
            source = super::status::chain(&error),
            "not ready: check that the database runs, its address, credentials and schema"
        ),
    }
}
