//! Options of `serve`: how much it takes on, how it works, who watches.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{
    CallerLimitArgs, DatabaseOptions, LogOptions, SignInArgs, TlsArgs, duration, positive_duration,
};

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Address to serve on.
    #[arg(
        long,
        env = "BOOKING_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50051"
    )]
    pub listen: SocketAddr,

    /// Deadline of a request whose client gives none.
    #[arg(long, env = "BOOKING_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    pub request_timeout: Duration,

    /// Longest deadline a client gets; a longer one is cut to this.
    #[arg(long, env = "BOOKING_REQUEST_TIMEOUT_MAX", value_name = "DURATION", default_value = "60s", value_parser = positive_duration)]
    pub request_timeout_max: Duration,

    /// Time between reporting `NOT_SERVING` and closing the listener after SIGTERM, for load
    /// balancers to notice.
    #[arg(long, env = "BOOKING_DRAIN_DELAY", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub drain_delay: Duration,

    /// Longest time that requests in flight get to finish at the end.
    #[arg(long, env = "BOOKING_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = positive_duration)]
    pub drain_timeout: Duration,

    /// Most client connections at a time.
    #[arg(long, env = "BOOKING_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Most requests at a time; the ones beyond are answered `RESOURCE_EXHAUSTED`.
    #[arg(long, env = "BOOKING_MAX_CONCURRENT_REQUESTS", value_name = "COUNT", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_requests: u32,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub tls: TlsArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub sign_in: SignInArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub caller_limits: CallerLimitArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub database: DatabaseOptions,

    /// Most database connections at a time.
    #[arg(long, env = "BOOKING_POOL_SIZE", value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pool_size: u32,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub lanes: LaneArgs,

    /// How often to purge what nobody needs any more, one replica at a time; 0s: never.
    #[arg(long, env = "BOOKING_PURGE_INTERVAL", help_heading = "Maintenance", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub purge_interval: Duration,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub retention: RetentionOptions,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub monitoring: MonitoringArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub log: LogOptions,
}

/// Metrics and traces.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Monitoring")]
pub struct MonitoringArgs {
    /// Address to serve Prometheus metrics on, at /metrics, without TLS or sign-in; by default there
    /// are none.
    #[arg(long, env = "BOOKING_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    /// OpenTelemetry collector to send traces to, by OTLP over gRPC: `http://localhost:4317`, or
    /// `https://` for TLS; by default there are none.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = collector)]
    pub otlp_endpoint: Option<String>,

    /// PEM file of the CAs to trust for the collector, instead of the public ones.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_ca_file: Option<PathBuf>,

    /// Share of the calls to trace, from 0 to 1, where the caller has not decided.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,

    /// Name of this service in its traces.
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        value_name = "NAME",
        default_value = "booking-service"
    )]
    pub trace_service_name: String,
}

/// How creates share transactions.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Group commit")]
pub struct LaneArgs {
    /// Lanes that creates pass through; each has one transaction in flight. By default 2, and 8 on
    /// Aurora DSQL, where a commit takes longer.
    #[arg(long, env = "BOOKING_LANES", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub lanes: Option<u16>,

    /// Most bookings in one transaction.
    #[arg(long, env = "BOOKING_BATCH_SIZE", value_name = "COUNT", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub batch_size: u16,

    /// Most creates that wait in one lane; the ones beyond are answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "BOOKING_QUEUE_LENGTH", value_name = "COUNT", default_value_t = 2_048, value_parser = clap::value_parser!(u16).range(1..))]
    pub queue_length: u16,
}

/// How long to keep what can be purged.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Maintenance")]
pub struct RetentionOptions {
    /// How long the record of a hold is kept after it ran out.
    #[arg(long, env = "BOOKING_EXPIRED_HOLDS_KEPT", value_name = "DURATION", default_value = "7d", value_parser = duration)]
    pub expired_holds_kept: Duration,
}

fn collector(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(_)) => Ok(text.to_owned()),
        _ => Err("write it like http://localhost:4317, or https:// for TLS".to_owned()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}
