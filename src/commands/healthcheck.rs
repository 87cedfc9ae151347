//! `healthcheck`: asks a running service for its health, as container runtimes do.

use std::error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::config::HealthcheckOptions;

#[cfg(test)]
mod tests;

/// How long connecting and the answer may take together: what orchestrators allow a probe.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why the service does not count as healthy: one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It answered, and not that it is serving.
    #[error("{service} at {address} is {status}")]
    NotServing {
        /// What was asked about.
        service: String,
        /// Where.
        address: String,
        /// The answer.
        status: &'static str,
    },
    /// There was no answer.
    #[error("no answer from {address}: {reason}")]
    NoAnswer {
        /// Where it was looked for.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The CA file is no help.
    #[error("cannot read --tls-ca-file {}: {source}", .path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Succeeds only if the service says in time that it is serving.
pub(super) async fn run(options: &HealthcheckOptions) -> Result<(), Error> {
    let address = address(options);
    let endpoint = endpoint(&address, options).await?;
    let no_answer = |reason| Error::NoAnswer {
        address: address.clone(),
        reason,
    };
    let answer = timeout(TIMEOUT, ask(endpoint, &options.service)).await;
    match answer.map_err(|_| no_answer(format!("{TIMEOUT:?} have passed")))? {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(status) => Err(Error::NotServing {
            service: options.service.clone(),
            address,
            status: status.as_str_name(),
        }),
        Err(reason) => Err(no_answer(reason)),
    }
}

async fn ask(endpoint: Endpoint, service: &str) -> Result<ServingStatus, String> {
    let channel = endpoint.connect().await.map_err(|error| root(&error))?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    match HealthClient::new(channel).check(request).await {
        Ok(answer) => Ok(answer.into_inner().status()),
        Err(status) => Err(format!("{:?}, {}", status.code(), status.message())),
    }
}

/// The error at the bottom: the ones above it say that a transport error occurred.
fn root(error: &dyn error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

async fn endpoint(address: &str, options: &HealthcheckOptions) -> Result<Endpoint, Error> {
    let scheme = if options.tls_ca_file.is_some() {
        "https"
    } else {
        "http"
    };
    let unusable = |error| Error::NoAnswer {
        address: address.to_owned(),
        reason: root(&error),
    };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(unusable)?;
    let Some(path) = &options.tls_ca_file else {
        return Ok(endpoint);
    };
    let ca = tokio::fs::read(path).await;
    let ca = ca.map_err(|source| Error::CaFile {
        path: path.clone(),
        source,
    })?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(name) = &options.tls_server_name {
        tls = tls.domain_name(name);
    }
    endpoint.tls_config(tls).map_err(unusable)
}

/// The address to ask. The health port is plaintext always, so TLS means the main one.
fn address(options: &HealthcheckOptions) -> String {
    let health = options.health_listen;
    let health = health.filter(|_| options.tls_ca_file.is_none());
    options
        .address
        .clone()
        .unwrap_or_else(|| reachable(health.unwrap_or(options.listen)).to_string())
}

/// Who listens on every address is asked on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}
