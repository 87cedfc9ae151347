//! TLS on the listener: certificates that can be exchanged while connections are open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Validity;

use crate::files::{self, Followed};
use crate::grpc::CertificateName;
use crate::telemetry::metrics;

/// What gRPC is called when TLS agrees on a protocol.
const ALPN: &[u8] = b"h2";

/// Where the certificates are: PEM files, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs of clients. If given, a client must have a certificate by one of them.
    pub client_authorities: Option<PathBuf>,
    /// How often to look whether they changed.
    pub poll_interval: Duration,
}

/// TLS as it is to be spoken on the next connection. Cheap to clone; kept up to date while there is
/// a clone.
#[derive(Clone, Debug)]
pub struct Tls(Followed<Arc<ServerConfig>>);

/// Why there can be no TLS: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl Tls {
    /// Reads the files, and goes on reading them when they change.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub async fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles {
            certificate,
            key,
            client_authorities,
            poll_interval,
        } = files;
        let paths = [certificate, key].into_iter().chain(client_authorities);
        let followed = Followed::open(paths.collect(), poll_interval, config).await;
        followed.map(Self).map_err(TlsError)
    }

    /// What speaks TLS on the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.0.now()).as_ref().clone().into()
    }
}

/// Of the certificate, the key and, if there is a third file, the CAs of clients.
fn config(contents: &[Vec<u8>]) -> Result<Arc<ServerConfig>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents[0]).collect();
    let chain = chain.map_err(|error| format!("the first file: {error}"))?;
    let own = chain
        .first()
        .ok_or("the first file has no certificate in it")?;
    let key = PrivateKeyDer::from_pem_slice(&contents[1]);
    let key = key.map_err(|error| {
        format!("the second file has no private key in it, or an encrypted one: {error}")
    })?;
    if let Some(problem) = validity_problem(own, UnixTime::now()) {
        tracing::warn!(
            problem,
            "clients will refuse the certificate of this server: renew it"
        );
    }
    let leaf = expiry(own);
    let intermediate = chain.iter().skip(1).filter_map(expiry).min();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match contents.get(2) {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = Arc::new(files::authorities(pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    // Refuses a key that is not the certificate's: of two files that change, one is first.
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            "the key in the second file is not that of the certificate in the first".to_owned()
        } else {
            error.to_string()
        }
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    metrics::certificates_expire(leaf, intermediate);
    Ok(Arc::new(config))
}

/// From when until when the certificate is valid; `None` if it cannot be read.
fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity)
}

/// When the certificate expires, after the Unix epoch.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    Some(validity(certificate)?.not_after.to_unix_duration())
}

/// What is wrong with the time at which the certificate is to be used, if anything is.
fn validity_problem(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let validity = validity(certificate)?;
    let (begin, end) = (validity.not_before, validity.not_after);
    if now.as_secs() > end.to_unix_duration().as_secs() {
        Some(format!("it expired at {end}"))
    } else if now.as_secs() < begin.to_unix_duration().as_secs() {
        Some(format!("it is not valid before {begin}"))
    } else {
        None
    }
}

/// The name in the client's certificate: its first URI, as SPIFFE has it, else its first DNS name.
/// Not the common name, which nothing says the meaning of.
pub(super) fn client_name(connection: &ServerConnection) -> Option<CertificateName> {
    let certificate = connection.peer_certificates()?.first()?;
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, names) = certificate
        .tbs_certificate
        .get::<SubjectAltName>()
        .ok()
        .flatten()?;
    let uri = names.0.iter().find_map(|name| {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            Some(uri.as_str())
        } else {
            None
        }
    });
    let dns = names.0.iter().find_map(|name| {
        if let GeneralName::DnsName(dns) = name {
            Some(dns.as_str())
        } else {
            None
        }
    });
    uri.or(dns).map(|name| CertificateName(name.into()))
}
