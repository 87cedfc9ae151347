//! Options about the database.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

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
