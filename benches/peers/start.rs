//! How long a service takes to be ready.

use std::error::Error;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const POLL: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn measure(address: SocketAddr, command: &[String]) -> Result<(), Box<dyn Error>> {
    let [program, arguments @ ..] = command else {
        return Err("no command".into());
    };
    let begin = Instant::now();
    let mut service = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let ready = timeout(LIMIT, until_serving(address)).await;
    let taken = begin.elapsed();
    service.kill().await?;
    ready??;
    #[expect(clippy::print_stdout, reason = "the result")]
    {
        println!("{:.1}", taken.as_secs_f64() * 1_000.0);
    }
    Ok(())
}

async fn until_serving(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    loop {
        if let Ok(channel) = endpoint.connect().await {
            let mut client = HealthClient::new(channel);
            loop {
                let service = "readiness".to_owned();
                match client.check(HealthCheckRequest { service }).await {
                    Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => {
                        return Ok(());
                    }
                    Ok(_) => sleep(POLL).await,
                    Err(_) => break,
                }
            }
        }
        sleep(POLL).await;
    }
}
