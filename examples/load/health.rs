//! Asks for the service's health while it is under load, as an orchestrator does.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::record::Record;

const INTERVAL: Duration = Duration::from_millis(100);

/// What a probe of Kubernetes waits by default.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Asks, for ever; a server that knows no health is not asked again.
pub(crate) async fn watch(channel: Channel, record: Arc<Record>) -> Infallible {
    let mut client = HealthClient::new(channel);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut request = Request::new(HealthCheckRequest {
            service: "readiness".to_owned(),
        });
        request.set_timeout(TIMEOUT);
        let begin = Instant::now();
        let serving = match client.check(request).await {
            Ok(answer) => answer.get_ref().status() == ServingStatus::Serving,
            Err(status) if status.code() == Code::Unimplemented => return pending().await,
            Err(_) => false,
        };
        record.add_health(begin.elapsed(), serving);
    }
}
