//! TLS to the database: rustls with aws-lc-rs, in the three strengths that `sslmode` knows.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Error;

/// The protocol name that direct TLS negotiation requires; servers before PostgreSQL 17 ignore it.
const ALPN: &[u8] = b"postgresql";

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verification {
    /// Nothing: encryption against eavesdroppers only (`prefer`, `require`).
    None,
    /// That a trusted CA signed it (`verify-ca`).
    Chain,
    /// That, and that it is for the host we asked for (`verify-full`).
    ChainAndName,
}

/// A connector that trusts the CAs in `ca_file`, or the public ones without it.
pub(super) fn connector(
    verification: Verification,
    ca_file: Option<&Path>,
) -> Result<MakeRustlsConnect, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verification {
        Verification::ChainAndName => {
            WebPkiServerVerifier::builder_with_provider(roots(ca_file)?.into(), provider.clone())
                .build()
                .map_err(|error| unusable(ca_file, &error))?
        }
        Verification::Chain => Arc::new(LenientVerifier {
            roots: Some(roots(ca_file)?),
            provider: provider.clone(),
        }),
        Verification::None => Arc::new(LenientVerifier {
            roots: None,
            provider: provider.clone(),
        }),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Error> {
    let Some(path) = ca_file else {
        return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(ca_file, &e))? {
        let certificate = certificate.map_err(|e| unusable(ca_file, &e))?;
        roots.add(certificate).map_err(|e| unusable(ca_file, &e))?;
    }
    if roots.is_empty() {
        return Err(unusable(ca_file, &"there is no certificate in it"));
    }
    Ok(roots)
}

fn unusable(ca_file: Option<&Path>, reason: &dyn std::fmt::Display) -> Error {
    let path = ca_file.unwrap_or(Path::new("(public CAs)")).display();
    Error::Configuration(format!(
        "the CA file {path} cannot be used ({reason}): --db-ca-file takes a readable PEM file of \
         certificates"
    ))
}

/// Checks the chain to `roots` where there are any, and never the name; the handshake's signature
/// always.
#[derive(Debug)]
struct LenientVerifier {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for LenientVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
