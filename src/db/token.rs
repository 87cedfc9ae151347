//! Signs DSQL's sign-in tokens with AWS credentials that are looked up by one task at a time.

use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_sdk_dsql::auth_token::{AuthToken, AuthTokenGenerator, Config};
use aws_sdk_dsql::config::{Credentials, ProvideCredentials};
use tokio::sync::Mutex;

use super::Unavailable;
use crate::telemetry::metrics;

/// How long a token may take to arrive; DSQL checks it only when a connection is made.
const TOKEN_VALID_SECONDS: u64 = 900;

/// Credentials are renewed this long before they expire, so that no token outlives them.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(TOKEN_VALID_SECONDS);

/// Credentials that tell no expiry are looked up again after this time, in case they were rotated.
const RENEW_UNDATED_AFTER: Duration = Duration::from_mins(15);

/// The one role that signs in with an action of its own.
const ADMIN: &str = "admin";

/// Signs tokens for one role on one cluster.
pub(super) struct Signer {
    host: String,
    is_admin: bool,
    region: Region,
    aws: SdkConfig,
    /// The lock makes the lookup single-flight: concurrent first lookups have failed.
    credentials: Mutex<Option<Cached>>,
}

struct Cached {
    credentials: Credentials,
    renew_at: SystemTime,
}

impl Signer {
    pub(super) fn new(host: &str, user: &str, region: Region, aws: SdkConfig) -> Self {
        Self {
            host: host.to_owned(),
            is_admin: user == ADMIN,
            region,
            aws,
            credentials: Mutex::new(None),
        }
    }

    /// The IAM action that the token asks for.
    pub(super) fn action(&self) -> &'static str {
        if self.is_admin {
            "dsql:DbConnectAdmin"
        } else {
            "dsql:DbConnect"
        }
    }

    /// A fresh token, the password of one connection.
    pub(super) async fn token(&self) -> Result<AuthToken, Unavailable> {
        let token = self.sign().await;
        metrics::token_signed(token.is_ok());
        token
    }

    async fn sign(&self) -> Result<AuthToken, Unavailable> {
        let config = Config::builder()
            .hostname(&self.host)
            .region(self.region.clone())
            .credentials(self.credentials().await?)
            .expires_in(TOKEN_VALID_SECONDS)
            .build()
            .expect("a configuration with a host name is complete");
        let generator = AuthTokenGenerator::new(config);
        let token = if self.is_admin {
            generator.db_connect_admin_auth_token(&self.aws).await
        } else {
            generator.db_connect_auth_token(&self.aws).await
        };
        token.map_err(|source| {
            let problem = "cannot sign the cluster's token: check the AWS configuration";
            Unavailable::new(problem, source)
        })
    }

    /// Has the next token look its credentials up anew.
    pub(super) async fn forget_credentials(&self) {
        *self.credentials.lock().await = None;
    }

    async fn credentials(&self) -> Result<Credentials, Unavailable> {
        let mut cached = self.credentials.lock().await;
        let clock = self.aws.time_source().ok_or_else(|| {
            Unavailable::new(NO_CREDENTIALS, "the AWS configuration has no time source")
        })?;
        let now = clock.now();
        if let Some(fresh) = cached.as_ref().filter(|cached| now < cached.renew_at) {
            return Ok(fresh.credentials.clone());
        }
        let provider = self.aws.credentials_provider().ok_or_else(|| {
            Unavailable::new(
                NO_CREDENTIALS,
                "the AWS configuration has no credentials provider",
            )
        })?;
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|error| Unavailable::new(NO_CREDENTIALS, error))?;
        let renew_at = match credentials.expiry() {
            Some(expiry) => expiry - RENEW_BEFORE_EXPIRY,
            None => now + RENEW_UNDATED_AFTER,
        };
        *cached = Some(Cached {
            credentials: credentials.clone(),
            renew_at,
        });
        Ok(credentials)
    }
}

const NO_CREDENTIALS: &str = "no AWS credentials to sign in to the cluster with: give the process a \
    role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
