//! Aurora DSQL: a freshly signed token as the password of every new connection.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use bb8::ManageConnection;
use bb8_postgres::PostgresConnectionManager;
use tokio::time::{Instant, sleep};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, Verification};
use super::token::Signer;
use super::{CONNECT_TIMEOUT, Error, Unavailable};

/// A cluster has one database, of this name.
const DATABASE: &str = "postgres";

const DEFAULT_PORT: u16 = 5432;

/// How long a cluster that scaled to zero may take to wake up, and how often it is asked meanwhile.
const WAKE_UP_LIMIT: Duration = Duration::from_secs(20);
const WAKE_UP_INTERVAL: Duration = Duration::from_millis(500);

/// An Aurora DSQL cluster to connect to.
#[derive(Clone, Debug)]
pub struct Options {
    host: String,
    port: u16,
    user: String,
    region: Region,
    ca_file: Option<PathBuf>,
    aws: Option<SdkConfig>,
}

impl Options {
    /// The cluster at `endpoint`, a host name with an optional port, as the database role `user`;
    /// `region` is for a host name that does not tell it. Where it tells, it is right: AWS's
    /// runtimes set their own region in the environment, and the cluster may lie in another.
    ///
    /// # Errors
    /// [`Error::Configuration`] where the endpoint is no host name, or no region is to be found.
    pub fn new(endpoint: &str, user: &str, region: Option<&str>) -> Result<Self, Error> {
        let (host, port) = match endpoint.split_once(':') {
            None => (endpoint, Some(DEFAULT_PORT)),
            Some((host, port)) => (host, port.parse().ok()),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let (Some(port), false, true) = (port, host.is_empty(), host.chars().all(is_host)) else {
            return Err(Error::Configuration(
                "--cluster-endpoint (CLUSTER_ENDPOINT) must be a host name with an optional :port, \
                 such as <cluster>.dsql.us-east-1.on.aws"
                    .to_owned(),
            ));
        };
        let Some(region) = region_of(host).or(region) else {
            return Err(Error::Configuration(format!(
                "the host name {host} does not tell the AWS region: give it with --cluster-region \
                 (AWS_REGION)"
            )));
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            region: Region::new(region.to_owned()),
            ca_file: None,
            aws: None,
        })
    }

    /// Trusts the CAs in this PEM file instead of the public ones.
    #[must_use]
    pub fn with_ca_file(mut self, ca_file: Option<PathBuf>) -> Self {
        self.ca_file = ca_file;
        self
    }

    /// Signs with this configuration instead of the process's default credential chain, for callers
    /// with an AWS configuration of their own. It must carry credentials and a time source.
    #[must_use]
    pub fn with_aws_config(mut self, aws: SdkConfig) -> Self {
        self.aws = Some(aws);
        self
    }

    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) async fn connector(&self) -> Result<Connector, Error> {
        let aws = if let Some(own) = &self.aws {
            own.clone()
        } else {
            let defaults = aws_config::defaults(BehaviorVersion::latest());
            defaults.region(self.region.clone()).load().await
        };
        let mut config = Config::new();
        // No `options`, and no settings: DSQL refuses the ones it does not know.
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(DATABASE)
            .application_name("booking-service")
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct)
            .connect_timeout(CONNECT_TIMEOUT);
        Ok(Connector {
            place: self.place(),
            config,
            tls: tls::connector(Verification::ChainAndName, self.ca_file.as_deref())?,
            signer: Signer::new(&self.host, &self.user, self.region.clone(), aws),
        })
    }
}

/// The region in `{cluster}.dsql{suffix}.{region}.on.aws`.
fn region_of(host: &str) -> Option<&str> {
    let mut labels = host.strip_suffix(".on.aws")?.split('.');
    let (cluster, service, region) = (labels.next()?, labels.next()?, labels.next()?);
    let is_dsql = !cluster.is_empty() && service.starts_with("dsql") && labels.next().is_none();
    (is_dsql && !region.is_empty()).then_some(region)
}

/// Makes connections to one cluster.
pub(super) struct Connector {
    place: String,
    config: Config,
    tls: MakeRustlsConnect,
    signer: Signer,
}

/// What to do about a refused connection.
enum Refusal {
    /// The cluster scaled to zero and comes back: wait and ask again.
    WakingUp,
    /// The token was too old when it arrived, by DSQL's clock: one fresh one may do.
    Expired,
    /// The token is not good, and another would not be better.
    Denied,
    Other,
}

impl Connector {
    /// One connection, with a token signed for it.
    pub(super) async fn connect(&self) -> Result<Client, Unavailable> {
        let waking_up_until = Instant::now() + WAKE_UP_LIMIT;
        let mut signed_again = false;
        loop {
            let error = match self.attempt().await? {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            let refusal = classify(&error);
            match refusal {
                Refusal::WakingUp if Instant::now() < waking_up_until => {
                    sleep(WAKE_UP_INTERVAL).await;
                }
                Refusal::Expired if !signed_again => {
                    signed_again = true;
                    self.signer.forget_credentials().await;
                }
                Refusal::WakingUp | Refusal::Expired | Refusal::Denied | Refusal::Other => {
                    return Err(self.explain(&refusal, error).await);
                }
            }
        }
    }

    /// Signs and connects once; the outer error is that there was nothing to sign with.
    async fn attempt(&self) -> Result<Result<Client, tokio_postgres::Error>, Unavailable> {
        let mut config = self.config.clone();
        config.password(self.signer.token().await?.as_str());
        Ok(PostgresConnectionManager::new(config, self.tls.clone())
            .connect()
            .await)
    }

    async fn explain(&self, refusal: &Refusal, error: tokio_postgres::Error) -> Unavailable {
        let place = &self.place;
        let problem = match refusal {
            Refusal::Denied => {
                // Whoever mended the credentials should not wait for ours to expire.
                self.signer.forget_credentials().await;
                format!(
                    "the cluster {place} denied access: check that the AWS credentials may {} it, \
                     that the role is granted to them, and the region",
                    self.signer.action()
                )
            }
            Refusal::Expired => format!(
                "the cluster {place} says the signature expired: set this machine's clock, or renew \
                 the AWS credentials"
            ),
            Refusal::WakingUp => {
                format!("the cluster {place} is still waking up: try again soon")
            }
            Refusal::Other => return Unavailable::from_driver(place, error),
        };
        Unavailable::new(problem, error)
    }
}

/// By text, since DSQL documents no SQLSTATE of its own for these.
fn classify(error: &tokio_postgres::Error) -> Refusal {
    let Some(error) = error.as_db_error() else {
        return Refusal::Other;
    };
    if error.message().contains("waking up cluster") {
        Refusal::WakingUp
    } else if !error.message().contains("access denied") {
        Refusal::Other
    } else if error
        .hint()
        .is_some_and(|hint| hint.contains("Signature expired"))
    {
        Refusal::Expired
    } else {
        Refusal::Denied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_off_the_host_name() {
        assert_eq!(region_of("abc.dsql.us-east-1.on.aws"), Some("us-east-1"));
        assert_eq!(region_of("abc.dsql-x1.eu-west-2.on.aws"), Some("eu-west-2"));
        for other in [
            "localhost",
            "dsql.us-east-1.on.aws",
            "a.b.dsql.us-east-1.on.aws",
            "a.rds.us-east-1.on.aws",
        ] {
            assert_eq!(region_of(other), None, "{other}");
        }
    }

    /// Pods with an IAM role have `AWS_REGION` set to where they run.
    #[test]
    fn the_host_name_knows_better_than_the_environment() {
        let host = "abc.dsql.us-east-1.on.aws";
        let options = Options::new(host, "admin", Some("eu-west-2")).unwrap();
        assert_eq!(options.region.as_ref(), "us-east-1");
    }

    #[test]
    fn a_missing_region_names_its_option() {
        let error = Options::new("db.example", "admin", None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--cluster-region") && error.contains("AWS_REGION"),
            "{error}"
        );
        assert!(Options::new("db.example", "admin", Some("eu-west-1")).is_ok());
    }

    #[test]
    fn an_endpoint_is_a_host_name_with_an_optional_port() {
        let place = |endpoint| Options::new(endpoint, "admin", Some("r")).map(|o| o.place());
        assert_eq!(place("a.example").unwrap(), "a.example:5432");
        assert_eq!(place("a.example:6000").unwrap(), "a.example:6000");
        for wrong in ["", ":1", "https://a.example", "a.example:x", "a b", "a/b"] {
            let error = place(wrong).unwrap_err().to_string();
            assert!(error.contains("--cluster-endpoint"), "{error}");
        }
    }
}
