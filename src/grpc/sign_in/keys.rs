//! The issuer's public keys: which of them a token may be checked with, and how they are renewed.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::fetch::KeySource;
use crate::telemetry::metrics;

/// Most keys that are kept.
const KEYS_MAX: usize = 100;

/// Shortest RSA key that is trusted, in bytes of its modulus: 2,048 bits.
const RSA_BYTES_MIN: usize = 256;

/// How long a call waits for new keys because its token names one that nobody knows.
const RENEWAL_WAIT_MAX: Duration = Duration::from_secs(3);

/// Keys to check tokens with.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} for {:?}", self.id, self.algorithms)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// The usable keys of a JWKS; the others are left out, as RFC 7517 has it.
    fn parse(document: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|error| format!("not a JWKS: {error}"))?;
        let given = document.keys.len();
        if given > KEYS_MAX {
            tracing::warn!(
                given,
                KEYS_MAX,
                "the JWKS has too many keys: the last ones are left out"
            );
        }
        let keys: Vec<Key> = document
            .keys
            .into_iter()
            .take(KEYS_MAX)
            .filter_map(|value| Key::parse(value).inspect_err(leave_out).ok())
            .collect();
        if keys.is_empty() {
            return Err("no key in it can check a token".to_owned());
        }
        Ok(Self(keys))
    }

    /// Whether there is a key of this id.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(kid))
    }

    /// The keys that may have signed a token of this header: those of the id it names; if it names
    /// none, the only one there is for its algorithm.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            key.algorithms.contains(&algorithm) && (kid.is_none() || key.id.as_deref() == kid)
        };
        let ambiguous = kid.is_none() && self.0.iter().filter(fits).count() > 1;
        let fitting = self.0.iter().filter(fits).map(|key| &key.public);
        fitting.take(if ambiguous { 0 } else { KEYS_MAX })
    }
}

impl Key {
    fn parse(value: serde_json::Value) -> Result<Self, String> {
        let named = value.get("alg").cloned();
        let jwk: Jwk = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if !for_signatures(&jwk) {
            return Err("it is not for signatures".to_owned());
        }
        let mut algorithms = algorithms_of(&jwk.algorithm)?;
        if let Some(named) = named {
            let named = named.as_str().and_then(|name| name.parse().ok());
            algorithms.retain(|algorithm| Some(*algorithm) == named);
            if algorithms.is_empty() {
                return Err("its `alg` is not one for keys of its type".to_owned());
            }
        }
        let public = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        Ok(Self {
            id: jwk.common.key_id,
            algorithms,
            public,
        })
    }
}

fn leave_out(reason: &String) {
    tracing::warn!(reason, "a key of the JWKS is left out");
}

fn for_signatures(jwk: &Jwk) -> bool {
    let used = jwk.common.public_key_use.as_ref();
    let operations = jwk.common.key_operations.as_ref();
    used.is_none_or(|used| *used == PublicKeyUse::Signature)
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a type of key that is not named here is not trusted"
)]
/// What a key of this type can be used for: never anything with a shared secret, so that no public
/// key is ever taken for one.
fn algorithms_of(parameters: &AlgorithmParameters) -> Result<Vec<Algorithm>, String> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
            if bytes < RSA_BYTES_MIN {
                return Err("an RSA key needs 2,048 bits".to_owned());
            }
            Ok(vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ])
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            Ok(vec![Algorithm::ES256])
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => {
            Ok(vec![Algorithm::ES384])
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            Ok(vec![Algorithm::EdDSA])
        }
        _ => Err("keys of its type are not used here".to_owned()),
    }
}

/// The keys by now, and when they were last looked for.
#[derive(Clone, Debug)]
struct State {
    keys: Arc<KeySet>,
    looked: Instant,
}

/// The issuer's keys, kept up to date in the background while this value lives.
#[derive(Debug)]
pub(super) struct Keys {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    pause: Duration,
}

impl Keys {
    /// Gets the keys, and goes on looking for new ones: every `interval`, and when a token names one
    /// that nobody knows, at most once in a `pause`.
    pub(super) async fn open(
        source: KeySource,
        interval: Duration,
        pause: Duration,
    ) -> Result<Self, String> {
        let no_keys = |error| format!("no keys from {source}: {error}");
        let document = source.read().await.map_err(no_keys)?;
        let keys = KeySet::parse(&document).map_err(no_keys)?;
        metrics::keys_read(source.kind());
        tracing::info!(%source, keys = keys.0.len(), "tokens are checked with these keys");
        let (sender, state) = watch::channel(State {
            keys: Arc::new(keys),
            looked: Instant::now(),
        });
        let wanted = Arc::new(Notify::new());
        let follower = Follower {
            source,
            document,
            state: sender,
            wanted: Arc::clone(&wanted),
            interval,
            pause,
        };
        tokio::spawn(follower.follow());
        Ok(Self {
            state,
            wanted,
            pause,
        })
    }

    /// The keys as they are known.
    pub(super) fn now(&self) -> Arc<KeySet> {
        Arc::clone(&self.state.borrow().keys)
    }

    /// The keys, looked for anew unless that has just been done.
    pub(super) async fn renewed(&self) -> Arc<KeySet> {
        let mut state = self.state.clone();
        let looked = state.borrow_and_update().looked;
        if looked.elapsed() >= self.pause {
            self.wanted.notify_one();
            // With or without an answer, what is known by then decides.
            let _ = timeout(RENEWAL_WAIT_MAX, state.changed()).await;
        }
        self.now()
    }
}

/// Looks for new keys.
struct Follower {
    source: KeySource,
    /// What the keys in use were made of.
    document: Vec<u8>,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
    interval: Duration,
    pause: Duration,
}

impl Follower {
    /// Goes on until nobody needs them any more. What cannot be had leaves the old ones.
    async fn follow(mut self) {
        let mut complaint = None;
        loop {
            tokio::select! {
                () = self.state.closed() => return,
                () = sleep(self.interval) => {}
                () = self.wanted.notified() => {
                    if self.state.borrow().looked.elapsed() < self.pause {
                        continue;
                    }
                }
            }
            let found = self.find().await;
            if found.is_ok() {
                metrics::keys_read(self.source.kind());
            }
            let trouble = found.as_ref().err().cloned();
            if let Some(error) = &trouble
                && trouble != complaint
            {
                tracing::warn!(source = %self.source, error, "no new keys: the old ones stay in use");
            }
            complaint = trouble;
            self.state.send_modify(|state| {
                state.looked = Instant::now();
                if let Ok(Some(keys)) = found {
                    state.keys = Arc::new(keys);
                }
            });
        }
    }

    /// New keys, if there are any: what is said about a document is said once.
    async fn find(&mut self) -> Result<Option<KeySet>, String> {
        let document = self.source.read().await?;
        if document == self.document {
            return Ok(None);
        }
        let keys = KeySet::parse(&document)?;
        self.document = document;
        tracing::info!(source = %self.source, keys = keys.0.len(), "tokens are checked with new keys");
        Ok(Some(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    fn document(kid: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        format!(
            r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{kid}", "x": "{x}"}},
                          {{"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}}]}}"#
        )
    }

    /// Else the key that is left out would be mentioned every few seconds.
    #[tokio::test]
    async fn a_jwks_that_does_not_change_is_read_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), document("a")).expect("written");
        let source = KeySource::file(file.path().to_owned());
        let keys = Keys::open(source, INTERVAL, INTERVAL).await.expect("keys");
        let (first, looked) = (keys.now(), keys.state.borrow().looked);
        sleep(20 * INTERVAL).await;
        assert!(keys.state.borrow().looked > looked, "it was looked for");
        assert!(
            Arc::ptr_eq(&first, &keys.now()),
            "and nothing was made anew"
        );
        std::fs::write(file.path(), document("b")).expect("written");
        while !keys.now().knows("b") {
            sleep(INTERVAL).await;
        }
    }
}
