//! Signing in by token: a JWT (RFC 7519) that one of the issuer's keys signed, for this audience.

use std::collections::HashSet;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use crate::booking::Booker;
use crate::grpc::status::Error;

use super::Identity;
use super::fetch::KeySource;
use super::keys::{KeySet, Keys};

/// Longest token that is looked at, in bytes: half of all the headers that a request may have.
const TOKEN_BYTES_MAX: usize = 8 * 1_024;

/// The longest leeway there can be: the clocks of two machines differ by less.
const LEEWAY_MAX: Duration = Duration::from_mins(5);

/// Which tokens hold.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// Where the issuer's public keys are: a JWKS (RFC 7517).
    pub keys: KeySource,
    /// The claim `iss` that a token must have.
    pub issuer: String,
    /// The claim `aud` that a token must have, be it among others.
    pub audience: String,
    /// By how much the issuer's clock may differ from ours; at most 5 minutes count.
    pub leeway: Duration,
    /// How often to look for new keys.
    pub refresh_interval: Duration,
    /// How soon to look again, at the earliest, because a token names a key that nobody knows.
    pub refresh_pause: Duration,
}

/// Checks tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: Keys,
    validation: Validation,
}

/// The claims that are read.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Compared already; here it must be one text and no list.
    #[serde(rename = "iss")]
    _issuer: String,
    #[serde(default)]
    scope: Scopes,
    #[serde(default)]
    scp: Scopes,
}

/// Scopes, in either form that issuers give them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    /// Separated by spaces (RFC 8693).
    Text(String),
    /// One by one.
    List(Vec<String>),
}

impl Default for Scopes {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Scopes {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::Text(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            Self::List(list) => list,
        }
    }
}

const NONE: Error = Error::Unauthenticated("send a token: authorization: Bearer …");
const NOT_VALID: Error = Error::Unauthenticated("the token is not valid here");
const EXPIRED: Error = Error::Unauthenticated("the token has expired");
const TOO_EARLY: Error = Error::Unauthenticated("the token is not valid yet");

impl Tokens {
    pub(super) async fn open(options: TokenOptions) -> Result<Self, String> {
        let TokenOptions {
            keys,
            issuer,
            audience,
            leeway,
            refresh_interval,
            refresh_pause,
        } = options;
        let keys = Keys::open(keys, refresh_interval, refresh_pause).await?;
        let mut validation = Validation::default();
        // Set for each token anew, by the key it names.
        validation.algorithms.clear();
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = leeway.min(LEEWAY_MAX).as_secs();
        validation.validate_nbf = true;
        Ok(Self { keys, validation })
    }

    /// Whom the token of a request is about.
    pub(super) async fn identity(&self, headers: &HeaderMap) -> Result<Identity, Error> {
        let token = bearer(headers)?;
        let header = decode_header(token).map_err(|_| NOT_VALID)?;
        // Headers that have to be understood, and none of them is.
        if header.crit.is_some() {
            return Err(NOT_VALID);
        }
        let kid = header.kid.as_deref();
        let mut keys = self.keys.now();
        if kid.is_some_and(|kid| !keys.knows(kid)) {
            keys = self.keys.renewed().await;
        }
        let claims = self.claims(token, kid, header.alg, &keys)?;
        let subject = Booker::parse(claims.sub).map_err(|_| NOT_VALID)?;
        let scopes = [claims.scope, claims.scp];
        let scopes: HashSet<_> = scopes.into_iter().flat_map(Scopes::into_list).collect();
        Ok(Identity { subject, scopes })
    }

    /// What the token says, if a key that is meant for its algorithm signed it.
    fn claims(
        &self,
        token: &str,
        kid: Option<&str>,
        algorithm: jsonwebtoken::Algorithm,
        keys: &KeySet,
    ) -> Result<Claims, Error> {
        let validation = Validation {
            algorithms: vec![algorithm],
            ..self.validation.clone()
        };
        let mut refusal = NOT_VALID;
        for key in keys.candidates(kid, algorithm) {
            match decode::<Claims>(token, key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => {
                    tracing::debug!(%error, "a token does not hold");
                    refusal = told(error.kind());
                }
            }
        }
        Err(refusal)
    }
}

/// The one token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (only, more) = (given.next().ok_or(NONE)?, given.next());
    if more.is_some() || only.len() > TOKEN_BYTES_MAX {
        return Err(NOT_VALID);
    }
    let (scheme, token) = only
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or(NONE)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim_start_matches(' '))
    } else {
        Err(NONE)
    }
}

/// What the client may know: when its token holds, and not what else is wrong with a forged one.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "everything but the times is nobody's business"
)]
fn told(kind: &ErrorKind) -> Error {
    match kind {
        ErrorKind::ExpiredSignature => EXPIRED,
        ErrorKind::ImmatureSignature => TOO_EARLY,
        _ => NOT_VALID,
    }
}
