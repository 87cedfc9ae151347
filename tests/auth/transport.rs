//! TLS: certificates that change under open connections, clients with and without one, and a health
//! port in the clear.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use booking_service::grpc::{CertificateOptions, ScopeNames, SignIn};
use booking_service::pb;
use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::server::{self, Listeners, Shutdown, Tls, TlsFiles};
use booking_service::store::{LaneOptions, STATEMENTS, Store};
use hyper_util::rt::TokioIo;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{House, block_on, booking, create, fresh};
use crate::postgres;
use crate::secured::{assert_denied, assert_unknown};

/// A CA of its own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn server(&self, name: &str) -> Identity {
        self.issue(vec![dns(name)])
    }

    fn issue(&self, names: Vec<SanType>) -> Identity {
        self.issue_until(names, 4_000)
    }

    /// Valid until this year begins.
    pub(crate) fn issue_until(&self, names: Vec<SanType>, year: i32) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(name).unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(Ia5String::try_from(name).unwrap())
}

impl Identity {
    pub(crate) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("tls.crt"), &self.certificate).unwrap();
        std::fs::write(dir.join("tls.key"), &self.key).unwrap();
    }
}

/// A server with TLS, whose files can be changed.
struct Secured {
    address: SocketAddr,
    health: SocketAddr,
    authority: Authority,
    dir: TempDir,
    _stop: oneshot::Sender<Shutdown>,
}

impl Secured {
    async fn start(client_authorities: Option<&Authority>, options: server::Options) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.server("localhost").write(dir.path());
        let client_file = dir.path().join("clients.crt");
        if let Some(clients) = client_authorities {
            std::fs::write(&client_file, clients.pem()).unwrap();
        }
        let tls = Tls::open(files(dir.path(), client_authorities.map(|_| client_file)));
        let options = server::Options {
            tls: Some(tls.await.unwrap()),
            ..options
        };
        let pool = postgres::pool(House::shared().await.database(), STATEMENTS);
        let store = Store::new(pool, LaneOptions::default());
        let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let health = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = main.local_addr().unwrap();
        let health_address = health.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or(Shutdown::Interrupted) };
        let listeners = Listeners {
            main,
            health: Some(health),
        };
        tokio::spawn(server::run(listeners, store, options, shutdown));
        Self {
            address,
            health: health_address,
            authority,
            dir,
            _stop: stop,
        }
    }

    /// Connects, trusting the server's CA of now, with a certificate if there is one.
    async fn connect(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Channel, tonic::transport::Error> {
        connect(self.address, &self.authority, identity, b"h2").await
    }
}

fn files(dir: &Path, client_authorities: Option<PathBuf>) -> TlsFiles {
    TlsFiles {
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        client_authorities,
        poll_interval: Duration::from_millis(30),
    }
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<&Identity>,
    alpn: &[u8],
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let secured = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(secured).await
}

async fn is_alive(channel: Channel) -> bool {
    let mut client = HealthClient::new(channel);
    let asked = client.check(HealthCheckRequest::default());
    let answer = timeout(Duration::from_secs(5), asked).await;
    answer.is_ok_and(|answer| answer.is_ok())
}

async fn is_served(connecting: Result<Channel, tonic::transport::Error>) -> bool {
    match connecting {
        Ok(channel) => is_alive(channel).await,
        Err(_) => false,
    }
}

#[test]
fn a_call_goes_over_tls_and_not_without() {
    block_on(async {
        let secured = Secured::start(None, server::Options::default()).await;
        let channel = secured.connect(None).await.unwrap();
        let room = fresh("room");
        let mut client = BookingServiceClient::new(channel);
        let made = client.create_booking(create(booking(&room, 0, 60))).await;
        assert_eq!(made.unwrap().into_inner().resource, room);
        let plain = Channel::from_shared(format!("http://{}", secured.address)).unwrap();
        assert!(!is_served(plain.connect().await).await);
        let stranger = Authority::new();
        let distrusting = connect(secured.address, &stranger, None, b"h2").await;
        assert!(!is_served(distrusting).await);
        let other = connect(secured.address, &secured.authority, None, b"http/1.1").await;
        assert!(!is_served(other).await, "another protocol than h2");
    });
}

#[test]
fn certificates_change_under_open_connections() {
    block_on(async {
        let mut secured = Secured::start(None, server::Options::default()).await;
        let open = secured.connect(None).await.unwrap();
        assert!(is_alive(open.clone()).await);
        let old = std::mem::replace(&mut secured.authority, Authority::new());
        secured
            .authority
            .server("localhost")
            .write(secured.dir.path());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_served(secured.connect(None).await).await {
            assert!(
                Instant::now() < deadline,
                "the new certificate is not served"
            );
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!is_served(connect(secured.address, &old, None, b"h2").await).await);
        assert!(is_alive(open.clone()).await, "an open connection was cut");
        // A certificate without its key, or none at all: the last good ones stay.
        for (file, content) in [
            ("tls.crt", secured.authority.server("localhost").certificate),
            ("tls.crt", "nothing".to_owned()),
            ("tls.key", String::new()),
        ] {
            std::fs::write(secured.dir.path().join(file), content).unwrap();
            sleep(Duration::from_millis(200)).await;
            assert!(is_served(secured.connect(None).await).await, "{file}");
        }
        std::fs::remove_file(secured.dir.path().join("tls.key")).unwrap();
        sleep(Duration::from_millis(200)).await;
        assert!(is_served(secured.connect(None).await).await);
        assert!(is_alive(open).await);
        // And those at the start have to be good.
        assert!(Tls::open(files(secured.dir.path(), None)).await.is_err());
    });
}

#[test]
fn a_client_needs_a_certificate_of_its_ca() {
    block_on(async {
        let (clients, strangers) = (Authority::new(), Authority::new());
        let secured = Secured::start(Some(&clients), server::Options::default()).await;
        let good = clients.issue(vec![dns("desk.test")]);
        assert!(is_served(secured.connect(Some(&good)).await).await);
        assert!(!is_served(secured.connect(None).await).await);
        let expired = clients.issue_until(vec![dns("desk.test")], 2020);
        assert!(!is_served(secured.connect(Some(&expired)).await).await);
        let bad = strangers.issue(vec![dns("desk.test")]);
        assert!(!is_served(secured.connect(Some(&bad)).await).await);
        // Whom to trust changes as the certificates do.
        std::fs::write(secured.dir.path().join("clients.crt"), strangers.pem()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_served(secured.connect(Some(&bad)).await).await {
            assert!(Instant::now() < deadline, "the new CA is not trusted");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!is_served(secured.connect(Some(&good)).await).await);
    });
}

#[test]
fn a_certificate_s_name_is_who_calls() {
    block_on(async {
        let clients = Authority::new();
        let (_dir, scopes_file) = crate::secured::written(
            r#"{"spiffe://test/desk": ["bookings.read", "bookings.write"],
                "reader.test": ["bookings.read"],
                "root.test": ["bookings.read", "bookings.write", "bookings.admin"]}"#,
        );
        let options = CertificateOptions {
            scopes_file: scopes_file.clone(),
            poll_interval: Duration::from_millis(30),
        };
        let sign_in = SignIn::by_certificate(options, ScopeNames::default()).await;
        let options = server::Options {
            sign_in: Some(sign_in.unwrap()),
            ..server::Options::default()
        };
        let secured = Secured::start(Some(&clients), options).await;
        let named = async |names: Vec<SanType>| {
            let identity = clients.issue(names);
            BookingServiceClient::new(secured.connect(Some(&identity)).await.unwrap())
        };
        let room = fresh("room");
        let nameless = pb::Booking {
            booked_by: String::new(),
            ..booking(&room, 0, 60)
        };
        // A URI comes before a DNS name, wherever they stand.
        let mut desk = named(vec![dns("root.test"), uri("spiffe://test/desk")]).await;
        let made = desk
            .create_booking(create(nameless))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(made.booked_by, "spiffe://test/desk");
        let get = || pb::GetBookingRequest {
            name: made.name.clone(),
        };
        assert!(desk.get_booking(get()).await.is_ok());
        let mut reader = named(vec![dns("reader.test")]).await;
        assert_denied(reader.get_booking(get()).await, "another's booking");
        let create_one = || create(booking(&room, 60, 120));
        assert_denied(reader.create_booking(create_one()).await, "a reader");
        let mut root = named(vec![dns("root.test")]).await;
        assert!(root.get_booking(get()).await.is_ok());
        let mut unknown = named(vec![dns("unknown.test")]).await;
        assert_denied(unknown.get_booking(get()).await, "a name without scopes");
        let mut nobody = named(vec![]).await;
        assert_unknown(nobody.get_booking(get()).await, "no name at all");
        // A token is no way in here, and a certificate's scopes change with the file.
        std::fs::write(
            &scopes_file,
            r#"{"reader.test": ["bookings.read", "bookings.admin"]}"#,
        )
        .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while reader.get_booking(get()).await.is_err() {
            assert!(Instant::now() < deadline, "the new scopes do not count");
            sleep(Duration::from_millis(20)).await;
        }
        assert_denied(root.get_booking(get()).await, "not in the file any more");
    });
}

#[test]
fn health_has_a_port_of_its_own_in_the_clear() {
    block_on(async {
        let clients = Authority::new();
        let secured = Secured::start(Some(&clients), server::Options::default()).await;
        let endpoint = Channel::from_shared(format!("http://{}", secured.health)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        assert!(is_alive(channel.clone()).await);
        let mut client = BookingServiceClient::new(channel.clone());
        let name = format!("bookings/{}", uuid::Uuid::new_v4());
        let status = client.get_booking(pb::GetBookingRequest { name }).await;
        assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
        let reflection =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
                channel,
            )
            .server_reflection_info(tokio_stream())
            .await;
        assert_eq!(reflection.unwrap_err().code(), Code::Unimplemented);
    });
}

fn tokio_stream()
-> impl futures_util::Stream<Item = tonic_reflection::pb::v1::ServerReflectionRequest> {
    futures_util::stream::empty()
}

#[test]
fn a_handshake_that_never_ends_holds_up_nobody() {
    block_on(async {
        let secured = Secured::start(None, server::Options::default()).await;
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(secured.address).await.unwrap());
        }
        let begin = Instant::now();
        assert!(is_served(secured.connect(None).await).await);
        assert!(begin.elapsed() < Duration::from_secs(5));
        // And is itself ended in the end.
        let mut byte = [0];
        let ended = timeout(Duration::from_secs(15), silent[0].read(&mut byte)).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "still open");
    });
}

#[test]
fn connections_at_their_handshake_count() {
    block_on(async {
        let options = server::Options {
            connections_max: 2,
            ..server::Options::default()
        };
        let secured = Secured::start(None, options).await;
        let first = TcpStream::connect(secured.address).await.unwrap();
        let second = TcpStream::connect(secured.address).await.unwrap();
        let third = timeout(Duration::from_millis(500), secured.connect(None)).await;
        assert!(third.is_err(), "one too many");
        drop((first, second));
        assert!(is_served(secured.connect(None).await).await);
    });
}
