//! The command line and its environment variables, parsed into typed options.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

mod access;
#[cfg(test)]
mod tests;

pub use access::{CallerLimitArgs, SignInArgs, TlsArgs};

/// Books named resources over gRPC, on Amazon Aurora DSQL or PostgreSQL, and never double-books.
///
/// Without a command it serves; without a database configured it starts a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "booking-service",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeOptions,
}

/// What the process is asked to do.
#[derive(Clone, Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Command {
    /// Serve requests until SIGTERM or SIGINT (the default).
    Serve(ServeOptions),
    /// Create or update the schema, and the role that `serve` needs.
    Migrate(MigrateOptions),
    /// Purge what nobody needs any more, once: old guards, and holds that ran out long ago.
    Maintain(MaintainOptions),
    /// Work on the schema as a whole.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Ask a running service for its health: exit code 0 if it is serving, else 1.
    Healthcheck(HealthcheckOptions),
}

/// Commands that concern the schema as a whole.
#[derive(Clone, Debug, Subcommand)]
pub enum SchemaCommand {
    /// Drop every table of this service, and all bookings with them.
    Drop(DropOptions),
}

impl Cli {
    /// Parses the process's arguments and environment; prints help or the error and exits where
    /// there is nothing to run.
    #[must_use]
    pub fn from_process() -> Command {
        Self::try_parse_from_args(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Parses `args`, of which the first is the program's name, and the environment.
    ///
    /// # Errors
    /// What `clap` makes of a wrong option, or of `--help` and `--version`.
    pub fn try_parse_from_args<T: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = T>,
    ) -> Result<Command, clap::Error> {
        let matches = without_empty_variables(Self::command()).try_get_matches_from(args)?;
        let cli = Self::from_arg_matches(&matches)?;
        Ok(cli.command.unwrap_or(Command::Serve(cli.serve)))
    }
}

/// An empty environment variable counts as unset: that is how deployments blank one out.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| {
        arg.get_env()
            .and_then(std::env::var_os)
            .is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// Where the database is. Given nothing, a private PostgreSQL is started.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Database")]
pub struct DatabaseOptions {
    /// Directory of the private PostgreSQL; by default in the user's data directory.
    #[arg(long, env = "BOOKING_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory with the `postgres` and `initdb` to use; by default looked for.
    #[arg(long, env = "BOOKING_PG_BIN_DIR", value_name = "DIR")]
    pub pg_bin_dir: Option<PathBuf>,

    /// PostgreSQL to connect to: `postgres://user:password@host:port/database?sslmode=verify-full`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,

    /// Aurora DSQL cluster to connect to, signing in with AWS credentials.
    #[arg(long, env = "CLUSTER_ENDPOINT", value_name = "HOST[:PORT]")]
    pub cluster_endpoint: Option<String>,

    /// Database role on the cluster; every one but `admin` needs only `dsql:DbConnect`.
    #[arg(
        long,
        env = "CLUSTER_USER",
        value_name = "ROLE",
        default_value = "admin"
    )]
    pub cluster_user: String,

    /// AWS region of the cluster, where its host name does not tell it; one that does comes first.
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    pub cluster_region: Option<String>,

    /// PEM file of the CAs to trust for the database, instead of the public ones.
    #[arg(long, env = "BOOKING_DB_CA_FILE", value_name = "FILE")]
    pub db_ca_file: Option<PathBuf>,
}

/// How to log, with every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct LogOptions {
    /// What to log: a level, or `tracing` directives such as `info,booking_service=debug`.
    #[arg(
        long,
        env = "BOOKING_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// Form of the log lines.
    #[arg(
        long,
        env = "BOOKING_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto"
    )]
    pub log_format: LogFormat,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

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

/// Options of `maintain`.
#[derive(Args, Clone, Debug)]
pub struct MaintainOptions {
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
    pub database: DatabaseOptions,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub log: LogOptions,
}

/// Options of `migrate`.
#[derive(Args, Clone, Debug)]
pub struct MigrateOptions {
    /// Print the SQL for this database and do nothing; needs no database.
    #[arg(long, value_name = "DATABASE")]
    pub print: Option<SqlDialect>,

    /// The role that `serve` is to use, granted no more than it needs.
    #[arg(long, value_name = "ROLE", default_value = "booking_service")]
    pub serve_role: String,

    /// IAM role that may sign in as the serve role on Aurora DSQL; may be given several times.
    #[arg(long = "iam-role", value_name = "ARN")]
    pub iam_roles: Vec<String>,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub database: DatabaseOptions,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub log: LogOptions,
}

/// The database that `migrate --print` writes SQL for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum SqlDialect {
    /// Amazon Aurora DSQL.
    Dsql,
    /// PostgreSQL.
    Postgresql,
}

/// Options of `schema drop`.
#[derive(Args, Clone, Debug)]
pub struct DropOptions {
    /// Confirms that all bookings are to be deleted.
    #[arg(long, required = true)]
    pub yes: bool,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub database: DatabaseOptions,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub log: LogOptions,
}

/// Options of `healthcheck`.
#[derive(Args, Clone, Debug)]
pub struct HealthcheckOptions {
    /// Address to ask, by default the one that this environment has `serve` listen on
    /// (`BOOKING_HEALTH_LISTEN`, `BOOKING_LISTEN`), or 127.0.0.1:50051.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,

    /// What to ask about: `readiness` (calls can succeed) or `liveness` (the process serves).
    #[arg(long, value_name = "NAME", default_value = "readiness")]
    pub service: String,

    /// Ask over TLS, trusting the CAs in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,

    /// Name that the service's certificate is for; by default the host of the address.
    #[arg(long, value_name = "NAME", requires = "tls_ca_file")]
    pub tls_server_name: Option<String>,

    #[arg(long, env = "BOOKING_HEALTH_LISTEN", hide = true)]
    #[expect(missing_docs, reason = "what `serve` was given, see `address`")]
    pub health_listen: Option<SocketAddr>,

    #[arg(
        long,
        env = "BOOKING_LISTEN",
        default_value = "127.0.0.1:50051",
        hide = true
    )]
    #[expect(missing_docs, reason = "what `serve` was given, see `address`")]
    pub listen: SocketAddr,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace the command's own help"
    )]
    pub log: LogOptions,
}

/// Text that is never printed: `Debug` shows `***`, and there is no `Display`.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Never fails: a parse error would print the value, so what is in it is checked later.
impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 10s or 500ms"))
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

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".to_owned()),
        positive => Ok(positive),
    }
}
