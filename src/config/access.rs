//! Options about who gets in: TLS, sign-in, and how much one caller may ask for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{duration, positive_duration};

/// Longest leeway that can be asked for.
const LEEWAY_MAX: Duration = Duration::from_mins(5);

/// How connections are secured.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// PEM file of the server's certificate chain; read again when it changes.
    #[arg(
        long,
        env = "BOOKING_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "tls_key_file"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// PEM file of its private key; read again when it changes.
    #[arg(
        long,
        env = "BOOKING_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_key_file: Option<PathBuf>,

    /// PEM file of the CAs of clients: then every client needs a certificate by one of them.
    #[arg(
        long,
        env = "BOOKING_TLS_CLIENT_CA_FILE",
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_client_ca_file: Option<PathBuf>,

    /// Serve without TLS on an address that other machines can reach. For where something in front
    /// does TLS, and nothing else can connect.
    #[arg(long, env = "BOOKING_ALLOW_PLAINTEXT", value_parser = BoolishValueParser::new())]
    pub allow_plaintext: bool,

    /// Another address, always without TLS, that answers nothing but grpc.health.v1: for probes,
    /// which have no certificate.
    #[arg(long, env = "BOOKING_HEALTH_LISTEN", value_name = "ADDRESS")]
    pub health_listen: Option<SocketAddr>,
}

/// Who may call. Given nothing, everybody may do everything.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sign-in")]
pub struct SignInArgs {
    /// File with the JWKS of the tokens' issuer; read again when it changes.
    #[arg(long, env = "BOOKING_JWKS_FILE", value_name = "FILE", group = "jwks", requires_all = ["jwt_issuer", "jwt_audience"])]
    pub jwks_file: Option<PathBuf>,

    /// HTTPS address of the JWKS of the tokens' issuer; asked again every few minutes, and when a
    /// token names a key that is not known.
    #[arg(long, env = "BOOKING_JWKS_URL", value_name = "URL", group = "jwks", requires_all = ["jwt_issuer", "jwt_audience"])]
    pub jwks_url: Option<String>,

    /// PEM file of the CAs to trust for the JWKS URL, instead of the public ones.
    #[arg(
        long,
        env = "BOOKING_JWKS_CA_FILE",
        value_name = "FILE",
        requires = "jwks_url"
    )]
    pub jwks_ca_file: Option<PathBuf>,

    /// What the claim `iss` of a token must be.
    #[arg(
        long,
        env = "BOOKING_JWT_ISSUER",
        value_name = "ISSUER",
        requires = "jwks"
    )]
    pub jwt_issuer: Option<String>,

    /// What the claim `aud` of a token must be, or have among others.
    #[arg(
        long,
        env = "BOOKING_JWT_AUDIENCE",
        value_name = "AUDIENCE",
        requires = "jwks"
    )]
    pub jwt_audience: Option<String>,

    /// By how much the issuer's clock may differ from this one, at most 5m.
    #[arg(long, env = "BOOKING_JWT_LEEWAY", value_name = "DURATION", default_value = "30s", value_parser = leeway)]
    pub jwt_leeway: Duration,

    /// JSON object that gives client certificates, by their first URI or else DNS name, each an
    /// array of scopes. With it, callers sign in by certificate. Read again when it changes.
    #[arg(long, env = "BOOKING_MTLS_SCOPES_FILE", value_name = "FILE", requires = "tls_client_ca_file", conflicts_with_all = ["jwks_file", "jwks_url"])]
    pub mtls_scopes_file: Option<PathBuf>,

    /// The scope that lets a caller see its bookings, and when resources are free.
    #[arg(
        long,
        env = "BOOKING_SCOPE_READ",
        value_name = "SCOPE",
        default_value = "bookings.read"
    )]
    pub scope_read: String,

    /// The scope that lets a caller make, change and remove its bookings.
    #[arg(
        long,
        env = "BOOKING_SCOPE_WRITE",
        value_name = "SCOPE",
        default_value = "bookings.write"
    )]
    pub scope_write: String,

    /// The scope that, beside those, lets a caller act for others.
    #[arg(
        long,
        env = "BOOKING_SCOPE_ADMIN",
        value_name = "SCOPE",
        default_value = "bookings.admin"
    )]
    pub scope_admin: String,
}

/// How much one client may ask for.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct CallerLimitArgs {
    /// Most requests a second of one caller, by who signed in or else by IP address; the ones beyond
    /// are answered `RESOURCE_EXHAUSTED`. 0: no limit.
    #[arg(long, env = "BOOKING_RATE_LIMIT", value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_limit: u32,

    /// Most requests of one caller at once, after a pause; by default as many as in two seconds.
    #[arg(long, env = "BOOKING_RATE_LIMIT_BURST", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate_limit_burst: Option<u32>,

    /// Most requests at a time on one connection; more wait with their client, at no cost to the service.
    #[arg(long, env = "BOOKING_MAX_STREAMS_PER_CONNECTION", value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_streams_per_connection: u32,

    /// How long a connection takes new requests, so that clients spread over new replicas.
    #[arg(long, env = "BOOKING_CONNECTION_AGE", value_name = "DURATION", default_value = "30m", value_parser = positive_duration)]
    pub connection_age: Duration,
}

fn leeway(text: &str) -> Result<Duration, String> {
    let leeway = duration(text)?;
    if leeway > LEEWAY_MAX {
        return Err("must be at most 5m: tokens would outlive their end by so much".to_owned());
    }
    Ok(leeway)
}
