//! What the service is compared with, and what the comparison needs besides. See `compare.sh`.

mod baseline;
mod delay;
mod peer;
mod start;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use booking_service::pb::booking_service_server::BookingServiceServer;
use clap::Parser;
use tonic::transport::Server;

use baseline::Baseline;
use peer::Peer;

/// As many calls on a connection as the service allows.
const STREAMS_PER_CONNECTION_MAX: u32 = 100;

#[derive(Debug, Parser)]
enum Command {
    /// Serves the usual way: a transaction for each booking, which looks first and inserts then.
    Baseline {
        #[arg(long)]
        listen: SocketAddr,
        /// Connection string of a database with the tables of `usual.sql`.
        #[arg(long)]
        database: String,
        /// Connections to it.
        #[arg(long, default_value_t = 16)]
        pool_size: u32,
    },
    /// Answers at once and does nothing: what gRPC itself costs.
    Empty {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Passes on what comes to one Unix socket to another, late.
    Delay {
        #[arg(long)]
        listen: PathBuf,
        #[arg(long)]
        to: PathBuf,
        /// Each way.
        #[arg(long, value_parser = humantime::parse_duration)]
        by: Duration,
    },
    /// Starts a service and prints after how many milliseconds it was ready; then ends it.
    Start {
        /// Where it will serve.
        #[arg(long)]
        address: SocketAddr,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// As the service has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Command::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "to whoever started it")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Baseline {
            listen,
            database,
            pool_size,
        } => {
            serve(
                listen,
                Peer::Baseline(Baseline::connect(&database, pool_size).await?),
            )
            .await
        }
        Command::Empty { listen } => serve(listen, Peer::Empty).await,
        Command::Delay { listen, to, by } => Ok(delay::pass_on_late(&listen, &to, by)?),
        Command::Start { address, command } => start::measure(address, &command).await,
    }
}

async fn serve(listen: SocketAddr, peer: Peer) -> Result<(), Box<dyn Error>> {
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(BookingServiceServer::new(peer))
        .serve(listen)
        .await?;
    Ok(())
}
