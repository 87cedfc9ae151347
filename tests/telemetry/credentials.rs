//! What the service lets callers in by, as operators see it age: its certificate, and the issuer's keys.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use booking_service::grpc::{KeySource, ScopeNames, SignIn, TokenOptions};
use booking_service::server::{Tls, TlsFiles};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::scrape::Scrape;

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// 2039-01-01 and 2040-01-01, both at midnight UTC.
const YEAR_2039: Duration = Duration::from_secs(2_177_452_800);
const YEAR_2040: Duration = Duration::from_secs(2_208_988_800);

const JWKS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one",
    "x": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;

/// Both, in files of their own, as they are while this lives.
pub(crate) struct Credentials {
    dir: tempfile::TempDir,
    _tls: Tls,
    _sign_in: SignIn,
}

impl Credentials {
    /// A certificate until 2040, behind it others until 2041 and 2039; and keys.
    pub(crate) async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: dir.path().join("chain.pem"),
            key: dir.path().join("key.pem"),
            client_authorities: None,
            poll_interval: POLL_INTERVAL,
        };
        certify(dir.path(), &[2040, 2041, 2039]);
        let keys = dir.path().join("jwks.json");
        std::fs::write(&keys, JWKS).unwrap();
        let options = TokenOptions {
            keys: KeySource::file(keys),
            issuer: "https://issuer.test".to_owned(),
            audience: "bookings".to_owned(),
            leeway: Duration::ZERO,
            refresh_interval: POLL_INTERVAL,
            refresh_pause: POLL_INTERVAL,
        };
        let sign_in = SignIn::by_token(options, ScopeNames::default()).await;
        Self {
            _tls: Tls::open(files).await.unwrap(),
            _sign_in: sign_in.unwrap(),
            dir,
        }
    }

    /// Replaces the chain by one of certificates that expire at the beginnings of these years.
    pub(crate) fn certify(&self, years: &[i32]) {
        certify(self.dir.path(), years);
    }

    /// Replaces the keys by something else.
    pub(crate) fn lose_keys(&self) {
        std::fs::write(self.keys(), "none").unwrap();
    }

    /// Undoes that.
    pub(crate) fn find_keys(&self) {
        std::fs::write(self.keys(), JWKS).unwrap();
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("jwks.json")
    }
}

/// The first one is the server's own.
fn certify(dir: &Path, years: &[i32]) {
    let key = KeyPair::generate().unwrap();
    let mut chain = String::new();
    for year in years {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(*year, 1, 1);
        chain += &params.self_signed(&key).unwrap().pem();
    }
    // For a moment the key may not be the certificate's, which leaves what there was.
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("chain.pem"), chain).unwrap();
}

/// Watches both change; `scrape` is what the metrics are by now.
#[expect(
    clippy::disallowed_methods,
    reason = "what is told is the time on the clock"
)]
pub(crate) async fn age(credentials: &Credentials, scrape: impl AsyncFn() -> Scrape) {
    let expiry = async |which| {
        let labels = [("certificate", which)];
        value(
            &scrape().await,
            "booking_certificate_expiry_timestamp_seconds",
            &labels,
        )
    };
    let read = async || {
        let labels = [("source", "file")];
        let read = value(
            &scrape().await,
            "booking_jwks_last_read_timestamp_seconds",
            &labels,
        );
        read.expect("there are keys")
    };

    assert_eq!(expiry("leaf").await, Some(YEAR_2040));
    assert_eq!(expiry("intermediate").await, Some(YEAR_2039), "the first");
    credentials.certify(&[2039]);
    until(async || expiry("leaf").await == Some(YEAR_2039)).await;
    assert_eq!(expiry("intermediate").await, None, "there is none any more");

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let age = now.unwrap().abs_diff(read().await);
    assert!(age < Duration::from_mins(1), "{age:?}");
    let before = read().await;
    until(async || read().await > before).await;
    // It may have been read once more, just before.
    credentials.lose_keys();
    tokio::time::sleep(4 * POLL_INTERVAL).await;
    let before = read().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(read().await, before, "what cannot be used was not read");
    credentials.find_keys();
    until(async || read().await > before).await;
}

/// After the Unix epoch.
fn value(seen: &Scrape, name: &str, labels: &[(&str, &str)]) -> Option<Duration> {
    let value = seen.sum(name, labels);
    (value != 0.0).then(|| Duration::from_secs_f64(value))
}

async fn until(met: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !met().await {
        assert!(tokio::time::Instant::now() < deadline, "nothing changes");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
