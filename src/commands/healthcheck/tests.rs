//! Who counts as healthy, over real sockets: only a service that says so, in time.

use futures_util::stream;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;

use super::*;
use crate::config::{Cli, Command};

fn options(line: &str) -> HealthcheckOptions {
    let words = ["booking-service", "healthcheck"];
    let words = words.into_iter().chain(line.split_whitespace());
    let command = Cli::try_parse_from_args(words).unwrap();
    let Command::Healthcheck(options) = command else {
        panic!("not healthcheck: {command:?}")
    };
    options
}

async fn outcome(line: &str) -> Result<(), String> {
    run(&options(line)).await.map_err(|error| error.to_string())
}

/// The same where somebody answers: on a machine that is busy with other tests a second may be short.
async fn answer(line: &str) -> Result<(), String> {
    for _ in 0..20 {
        match outcome(line).await {
            Err(error) if error.ends_with("have passed") => {}
            answer => return answer,
        }
    }
    panic!("no answer in so many seconds")
}

/// A server of nothing but health: `readiness` is not serving, `liveness` is.
async fn serve(tls: Option<ServerTlsConfig>) -> SocketAddr {
    let reporter = HealthReporter::new();
    for (name, status) in [
        ("liveness", tonic_health::ServingStatus::Serving),
        ("readiness", tonic_health::ServingStatus::NotServing),
    ] {
        reporter.set_service_status(name, status).await;
    }
    let health = tonic_health::server::HealthService::from_health_reporter(reporter);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let router = server.add_service(tonic_health::pb::health_server::HealthServer::new(health));
    let incoming = stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _)| stream), listener))
    });
    tokio::spawn(router.serve_with_incoming(incoming));
    address
}

#[tokio::test]
async fn only_serving_is_healthy() {
    let address = serve(None).await;
    let ask = async |name: &str| answer(&format!("--address {address} --service {name}")).await;
    assert_eq!(ask("liveness").await, Ok(()));
    let readiness = format!("readiness at {address} is NOT_SERVING");
    assert_eq!(ask("readiness").await, Err(readiness.clone()));
    assert_eq!(
        answer(&format!("--address {address}")).await,
        Err(readiness)
    );
    let unknown = ask("unknown").await.unwrap_err();
    assert!(
        unknown.starts_with(&format!("no answer from {address}: NotFound")),
        "{unknown}"
    );
}

#[tokio::test]
async fn nobody_there_is_said_at_once_and_silence_after_a_second() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = outcome(&format!("--address {address}")).await;
    assert_eq!(
        silent,
        Err(format!("no answer from {address}: 1s have passed"))
    );
    drop(listener);
    let refused = outcome(&format!("--address {address}")).await.unwrap_err();
    assert!(
        refused.starts_with(&format!("no answer from {address}: ")),
        "{refused}"
    );
    assert!(refused.contains("refused"), "{refused}");
    assert!(!refused.contains('\n'), "{refused}");
}

#[tokio::test]
async fn with_a_ca_it_asks_over_tls_and_checks_the_name() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["bookings.example".to_owned()]).unwrap();
    let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
    let address = serve(Some(ServerTlsConfig::new().identity(identity))).await;
    let dir = TempDir::new().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let line = format!(
        "--address {address} --service liveness --tls-ca-file {}",
        ca.display()
    );

    let named = answer(&format!("{line} --tls-server-name bookings.example")).await;
    assert_eq!(named, Ok(()));
    let other_name = answer(&line).await.unwrap_err();
    assert!(other_name.contains("certificate"), "{other_name}");
    let plaintext = answer(&format!("--address {address} --service liveness")).await;
    assert!(plaintext.is_err());
    let missing = answer("--tls-ca-file /none").await.unwrap_err();
    assert!(
        missing.starts_with("cannot read --tls-ca-file /none: "),
        "{missing}"
    );
}

#[test]
fn it_asks_where_the_environment_has_the_service_listen() {
    let asked = |line: &str| address(&options(line));
    assert_eq!(asked(""), "127.0.0.1:50051");
    assert_eq!(asked("--listen 0.0.0.0:1"), "127.0.0.1:1");
    assert_eq!(asked("--listen [::]:1"), "[::1]:1");
    assert_eq!(
        asked("--listen 10.0.0.7:1 --health-listen 0.0.0.0:2"),
        "127.0.0.1:2"
    );
    assert_eq!(asked("--listen 10.0.0.7:1"), "10.0.0.7:1");
    let tls = "--listen 0.0.0.0:1 --health-listen 0.0.0.0:2 --tls-ca-file ca.pem";
    assert_eq!(asked(tls), "127.0.0.1:1");
    assert_eq!(asked("--listen 0.0.0.0:1 --address booking:3"), "booking:3");
}
