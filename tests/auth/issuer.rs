//! An issuer of tokens: keys of every kind, a JWKS of them, and tokens, honest or not.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use booking_service::grpc::{KeySource, ScopeNames, SignIn, TokenOptions};
use booking_service::server;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

pub(crate) const ISSUER: &str = "https://issuer.test/";
pub(crate) const AUDIENCE: &str = "bookings";

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of the issuer, known by its id.
pub(crate) struct Key {
    pub(crate) kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn new(kid: &str, pair: Pair) -> Self {
        let kid = kid.to_owned();
        Self { kid, pair }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self::new(kid, Pair::Rsa(Box::new(pair)))
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::new(kid, Pair::P256(pair))
    }

    pub(crate) fn p384(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self::new(kid, Pair::P384(pair))
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self::new(kid, Pair::Ed(Ed25519KeyPair::generate().unwrap()))
    }

    /// What a JWKS has of it.
    pub(crate) fn jwk(&self) -> Value {
        let point = |public: &[u8], curve: &str| {
            let (x, y) = public[1..].split_at(public.len() / 2);
            json!({"kid": self.kid, "use": "sig", "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)})
        };
        match &self.pair {
            Pair::Rsa(_) => {
                json!({"kid": self.kid, "use": "sig", "kty": "RSA", "n": base64(self.modulus()), "e": "AQAB"})
            }
            Pair::P256(pair) => point(pair.public_key().as_ref(), "P-256"),
            Pair::P384(pair) => point(pair.public_key().as_ref(), "P-384"),
            Pair::Ed(pair) => {
                let x = base64(pair.public_key().as_ref());
                json!({"kid": self.kid, "kty": "OKP", "crv": "Ed25519", "x": x})
            }
        }
    }

    /// The public key of an RSA pair, in DER.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// Of an RSA pair of 2,048 bits, in DER: a sequence of the modulus, with a zero before it, and
    /// the exponent 65,537.
    pub(crate) fn modulus(&self) -> Vec<u8> {
        self.public()[9..265].to_vec()
    }

    /// Signs as the algorithm of this name does.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let padding: &dyn RsaEncoding = match algorithm {
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            "PS384" => &RSA_PSS_SHA384,
            "PS512" => &RSA_PSS_SHA512,
            _ => &RSA_PKCS1_SHA256,
        };
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The algorithm that a key of this kind is commonly used with.
    pub(crate) fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed(_) => "EdDSA",
        }
    }

    /// An honest token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"});
        self.token_with(&header, claims)
    }

    /// A token with this header, signed as it says.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signed = unsigned(header, claims);
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64(signature))
    }
}

/// The part of a token that is signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}",
        base64(header.to_string()),
        base64(claims.to_string())
    )
}

pub(crate) fn jwks(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({"keys": keys}).to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a token counts by the clock on the wall"
)]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// What an honest token of `subject` says.
pub(crate) fn claims(subject: &str, scope: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope,
        "iat": now(), "exp": now() + 600,
    })
}

pub(crate) const USER: &str = "bookings.read bookings.write";
pub(crate) const ADMIN: &str = "bookings.read bookings.write bookings.admin";

/// How to check the tokens of these keys: looking often, so that a test need not wait.
pub(crate) fn options(keys: KeySource) -> TokenOptions {
    TokenOptions {
        keys,
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        leeway: Duration::from_secs(30),
        refresh_interval: Duration::from_millis(50),
        refresh_pause: Duration::from_millis(20),
    }
}

pub(crate) async fn sign_in(keys: KeySource) -> SignIn {
    SignIn::by_token(options(keys), ScopeNames::default())
        .await
        .unwrap()
}

/// A server that trusts the JWKS in this file.
pub(crate) async fn trusting(file: &Path) -> server::Options {
    server::Options {
        sign_in: Some(sign_in(KeySource::file(file.to_owned())).await),
        ..server::Options::default()
    }
}
