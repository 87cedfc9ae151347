//! The command line and its environment variables, parsed into typed options.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

mod access;
mod database;
mod serve;
#[cfg(test)]
mod tests;

pub use access::{CallerLimitArgs, SignInArgs, TlsArgs};
pub use database::{DatabaseOptions, Secret};
pub use serve::{LaneArgs, MonitoringArgs, RetentionOptions, ServeOptions};

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

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 10s or 500ms"))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".to_owned()),
        positive => Ok(positive),
    }
}
