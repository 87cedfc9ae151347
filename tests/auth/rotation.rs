//! The issuer changes its keys while the service runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use booking_service::grpc::{KeySource, ScopeNames, SignIn, TokenOptions};
use booking_service::pb::GetBookingRequest;
use booking_service::server;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use crate::harness::{House, Instance, block_on};
use crate::issuer::{Key, USER, claims, jwks, options, sign_in, trusting};
use crate::secured::{client, written};
use crate::transport::Authority;

/// Whether a token of this key is let in.
async fn holds(instance: &Instance, key: &Key) -> bool {
    let mut client = client(instance.channel(), &key.token(&claims("ada", USER)));
    let name = format!("bookings/{}", uuid::Uuid::new_v4());
    let answer = client.get_booking(GetBookingRequest { name }).await;
    let code = answer.unwrap_err().code();
    assert!(
        matches!(code, Code::PermissionDenied | Code::Unauthenticated),
        "{code:?}"
    );
    code == Code::PermissionDenied
}

async fn comes_to_hold(instance: &Instance, key: &Key, hold: bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while holds(instance, key).await != hold {
        assert!(Instant::now() < deadline, "{}: not {hold}", key.kid);
        sleep(Duration::from_millis(10)).await;
    }
}

async fn instance(options: server::Options) -> Instance {
    Instance::start(House::shared().await.database(), options).await
}

#[test]
fn a_file_of_keys_is_read_again_when_it_changes() {
    block_on(async {
        let (old, new) = (Key::p256("old"), Key::ed25519("new"));
        let (_dir, file) = written(&jwks(&[&old]));
        let instance = instance(trusting(&file).await).await;
        assert!(holds(&instance, &old).await);
        assert!(!holds(&instance, &new).await);
        std::fs::write(&file, jwks(&[&old, &new])).unwrap();
        comes_to_hold(&instance, &new, true).await;
        assert!(holds(&instance, &old).await);
        std::fs::write(&file, jwks(&[&new])).unwrap();
        comes_to_hold(&instance, &old, false).await;
        // What cannot be used leaves the keys there were.
        for broken in ["", "not JSON", r#"{"keys": []}"#] {
            std::fs::write(&file, broken).unwrap();
            sleep(Duration::from_millis(200)).await;
            assert!(holds(&instance, &new).await, "{broken}");
        }
        std::fs::remove_file(&file).unwrap();
        sleep(Duration::from_millis(200)).await;
        assert!(holds(&instance, &new).await);
        std::fs::write(&file, jwks(&[&old])).unwrap();
        comes_to_hold(&instance, &old, true).await;
    });
}

/// A web server with one page, which can be changed.
#[derive(Clone)]
struct Website {
    url: String,
    page: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicU32>,
}

impl Website {
    async fn start(page: String, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let site = Self {
            url: format!("{scheme}://localhost:{port}/keys?v=1"),
            page: Arc::new(Mutex::new(Some(page))),
            asked: Arc::default(),
        };
        let serving = site.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => site.answer(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                site.answer(stream).await;
                            }
                        }
                    }
                });
            }
        });
        site
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = vec![0; 4_096];
        let read = stream.read(&mut request).await.unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..read]).into_owned();
        assert!(
            request.starts_with("GET /keys?v=1 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("user-agent: booking-service/"),
            "{request}"
        );
        self.asked.fetch_add(1, Ordering::SeqCst);
        let page = self.page.lock().unwrap().clone();
        let answer = match page {
            Some(page) => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            ),
            None => "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn show(&self, page: Option<String>) {
        *self.page.lock().unwrap() = page;
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A server that asks for keys only when a token names one it does not know.
async fn asking(site: &Website, pause: Duration) -> Instance {
    let keys = KeySource::url(&site.url, None).await.unwrap();
    let options = TokenOptions {
        refresh_interval: Duration::from_hours(1),
        refresh_pause: pause,
        ..options(keys)
    };
    let sign_in = SignIn::by_token(options, ScopeNames::default())
        .await
        .unwrap();
    instance(server::Options {
        sign_in: Some(sign_in),
        ..server::Options::default()
    })
    .await
}

#[test]
fn an_unknown_key_is_asked_for_at_once() {
    block_on(async {
        let (old, new) = (Key::rsa("old"), Key::p384("new"));
        let site = Website::start(jwks(&[&old]), None).await;
        let instance = asking(&site, Duration::from_millis(100)).await;
        assert!(holds(&instance, &old).await);
        assert_eq!(site.asked(), 1);
        site.show(Some(jwks(&[&new])));
        sleep(Duration::from_millis(150)).await;
        // The first call with the new key is let in: it waits for the answer.
        assert!(holds(&instance, &new).await);
        assert!(!holds(&instance, &old).await);
        // An issuer that is down takes nobody's access.
        site.show(None);
        sleep(Duration::from_millis(150)).await;
        assert!(!holds(&instance, &old).await);
        assert!(holds(&instance, &new).await);
    });
}

#[test]
fn made_up_keys_do_not_make_the_service_ask_again_and_again() {
    block_on(async {
        let (good, made_up) = (Key::p256("good"), Key::p256("made-up"));
        let site = Website::start(jwks(&[&good]), None).await;
        let instance = asking(&site, Duration::from_mins(1)).await;
        for _ in 0..50 {
            assert!(!holds(&instance, &made_up).await);
        }
        assert_eq!(site.asked(), 1, "the start was less than a minute ago");
        assert!(holds(&instance, &good).await);
        let instance = asking(&site, Duration::from_millis(200)).await;
        let (before, begin) = (site.asked(), Instant::now());
        while begin.elapsed() < Duration::from_secs(1) {
            assert!(!holds(&instance, &made_up).await);
        }
        let asked = site.asked() - before;
        assert!((2..=6).contains(&asked), "{asked}");
    });
}

#[test]
fn keys_come_over_tls_from_whom_we_trust() {
    block_on(async {
        let key = Key::ed25519("key");
        let authority = Authority::new();
        let identity = authority.server("localhost");
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let private = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .unwrap();
        let site = Website::start(jwks(&[&key]), Some(Arc::new(config).into())).await;
        let (_dir, ca_file) = written(&authority.pem());
        let trusted = KeySource::url(&site.url, Some(&ca_file)).await.unwrap();
        let instance = instance(server::Options {
            sign_in: Some(sign_in(trusted).await),
            ..server::Options::default()
        })
        .await;
        assert!(holds(&instance, &key).await);
        let (_dir, other) = written(&Authority::new().pem());
        for ca_file in [None, Some(&*other)] {
            let keys = KeySource::url(&site.url, ca_file).await.unwrap();
            let opened = SignIn::by_token(options(keys), ScopeNames::default()).await;
            assert!(opened.unwrap_err().to_string().contains("TLS"));
        }
    });
}

#[test]
fn keys_do_not_come_in_the_clear_from_another_machine() {
    block_on(async {
        for url in [
            "http://issuer.test/keys",
            "http://192.0.2.1/keys",
            "ftp://localhost/keys",
            "/keys",
            "localhost",
            "",
        ] {
            assert!(KeySource::url(url, None).await.is_err(), "{url}");
        }
        for url in [
            "https://issuer.test/keys",
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
        ] {
            assert!(KeySource::url(url, None).await.is_ok(), "{url}");
        }
        // A page without end, or none, is no JWKS either.
        let site = Website::start("x".repeat(300_000), None).await;
        let keys = KeySource::url(&site.url, None).await.unwrap();
        let opened = SignIn::by_token(options(keys.clone()), ScopeNames::default()).await;
        assert!(opened.is_err());
        site.show(None);
        let opened = SignIn::by_token(options(keys), ScopeNames::default()).await;
        assert!(opened.unwrap_err().to_string().contains("503"));
    });
}
