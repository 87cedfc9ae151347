//! Who gets in, from the options: refuses what nobody should do by mistake, and warns of the rest.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use crate::config::{CallerLimitArgs, ServeOptions, SignInArgs, TlsArgs};
use crate::grpc::{
    CertificateOptions, KeySource, RateLimit, ScopeNames, SignIn, SignInError, TokenOptions,
};
use crate::server::{Tls, TlsError, TlsFiles};

/// How often to look whether a file of keys or certificates changed.
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often to ask the issuer for its keys.
const JWKS_REFRESH_INTERVAL: Duration = Duration::from_mins(5);

/// How soon to ask again, at the earliest, because a token names a key that nobody knows.
const JWKS_REFRESH_PAUSE: Duration = Duration::from_secs(10);

/// The same for a file.
const JWKS_FILE_PAUSE: Duration = Duration::from_secs(1);

/// Why nobody is let in: one line, which says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Other machines could read along, and nobody said that they may.
    #[error(
        "{0} can be reached from other machines, and there is no TLS: give --tls-cert-file and \
         --tls-key-file, or listen on 127.0.0.1, or say --allow-plaintext where something in front \
         does TLS"
    )]
    Plaintext(SocketAddr),
    /// The certificates cannot be used.
    #[error("TLS: {0}; check --tls-cert-file, --tls-key-file and --tls-client-ca-file")]
    Tls(#[from] TlsError),
    /// The scopes of certificates, or the keys of tokens, cannot be had.
    #[error("sign-in: {0}; check --jwks-file, --jwks-url or --mtls-scopes-file")]
    SignIn(#[from] SignInError),
    /// The JWKS URL is none that can be used.
    #[error("--jwks-url: {0}")]
    JwksUrl(String),
}

/// Who gets in.
pub(super) struct Access {
    pub(super) tls: Option<Tls>,
    pub(super) sign_in: Option<SignIn>,
}

/// Whether other machines can connect to the address.
fn reachable(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Refuses to serve in the clear where others can read along, unless that is what was asked for.
pub(super) fn check(options: &ServeOptions) -> Result<(), AccessError> {
    let address = options.listen;
    if reachable(address) && options.tls.tls_cert_file.is_none() {
        if !options.tls.allow_plaintext {
            return Err(AccessError::Plaintext(address));
        }
        tracing::warn!(
            %address,
            "serving without TLS where other machines can connect: bookings and tokens can be read \
             and changed on the way, unless something in front does TLS and nothing else connects"
        );
    }
    Ok(())
}

/// Opens the doors that the options ask for, and no others.
pub(super) async fn open(options: &ServeOptions) -> Result<Access, AccessError> {
    let address = options.listen;
    let access = Access {
        tls: tls(&options.tls).await?,
        sign_in: sign_in(&options.sign_in).await?,
    };
    if reachable(address) && access.sign_in.is_none() {
        let who = options.tls.tls_client_ca_file.as_ref();
        let who = who.map_or("whoever can connect", |_| "every client with a certificate");
        tracing::warn!(
            %address,
            who,
            "serving without sign-in: they may see, change and delete every booking; give --jwks-url, \
             --jwks-file or --mtls-scopes-file"
        );
    }
    Ok(access)
}

async fn tls(args: &TlsArgs) -> Result<Option<Tls>, AccessError> {
    let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_key_file) else {
        return Ok(None);
    };
    let files = TlsFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        client_authorities: args.tls_client_ca_file.clone(),
        poll_interval: FILE_POLL_INTERVAL,
    };
    Ok(Some(Tls::open(files).await?))
}

async fn sign_in(args: &SignInArgs) -> Result<Option<SignIn>, AccessError> {
    let names = ScopeNames {
        read: args.scope_read.as_str().into(),
        write: args.scope_write.as_str().into(),
        admin: args.scope_admin.as_str().into(),
    };
    if let Some(scopes_file) = args.mtls_scopes_file.clone() {
        let options = CertificateOptions {
            scopes_file,
            poll_interval: FILE_POLL_INTERVAL,
        };
        return Ok(Some(SignIn::by_certificate(options, names).await?));
    }
    let (keys, refresh_interval, refresh_pause) = match (&args.jwks_file, &args.jwks_url) {
        (Some(path), _) => {
            let keys = KeySource::file(path.clone());
            (keys, FILE_POLL_INTERVAL, JWKS_FILE_PAUSE)
        }
        (None, Some(url)) => {
            let ca_file = args.jwks_ca_file.as_deref().map(Path::new);
            let keys = KeySource::url(url, ca_file).await;
            let keys = keys.map_err(AccessError::JwksUrl)?;
            (keys, JWKS_REFRESH_INTERVAL, JWKS_REFRESH_PAUSE)
        }
        (None, None) => return Ok(None),
    };
    let options = TokenOptions {
        keys,
        // The command line requires both.
        issuer: args.jwt_issuer.clone().unwrap_or_default(),
        audience: args.jwt_audience.clone().unwrap_or_default(),
        leeway: args.jwt_leeway,
        refresh_interval,
        refresh_pause,
    };
    Ok(Some(SignIn::by_token(options, names).await?))
}

/// How often one caller may call; `None` for as often as it likes.
pub(super) fn rate_limit(args: &CallerLimitArgs) -> Option<RateLimit> {
    let per_second = NonZeroU32::new(args.rate_limit)?;
    let burst = args.rate_limit_burst.and_then(NonZeroU32::new);
    Some(RateLimit {
        per_second,
        burst: burst
            .unwrap_or_else(|| per_second.saturating_mul(const { NonZeroU32::new(2).unwrap() })),
    })
}
