//! Where the issuer's keys come from: a file, or a URL.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::files;

/// Largest JWKS that is read, in bytes.
const JWKS_BYTES_MAX: usize = 256 * 1_024;

/// How long an issuer may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the issuer's keys come from.
#[derive(Clone)]
pub struct KeySource(Source);

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Url(Uri, Option<TlsConnector>),
}

impl KeySource {
    /// A file with the JWKS in it.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self(Source::File(path))
    }

    /// A URL that answers with the JWKS: over HTTPS, trusting the CAs of the PEM file, or the public
    /// ones without it. Plain HTTP is for this machine only.
    ///
    /// # Errors
    /// What is wrong with the URL or the file.
    pub async fn url(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let host = host_of(&uri).ok_or_else(|| format!("{url} has no host"))?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(connector(ca_file).await?),
            Some("http") if is_loopback(host) => None,
            _ => {
                return Err(format!(
                    "{url}: keys that come in the clear can be exchanged on the way, so it must be \
                     https:// (or http:// on this machine)"
                ));
            }
        };
        Ok(Self(Source::Url(uri, tls)))
    }

    /// A word for what it is, for metrics.
    pub(super) fn kind(&self) -> &'static str {
        match &self.0 {
            Source::File(_) => "file",
            Source::Url(..) => "url",
        }
    }

    /// What is there now.
    pub(super) async fn read(&self) -> Result<Vec<u8>, String> {
        match &self.0 {
            Source::File(path) => files::read(path).await,
            Source::Url(uri, tls) => {
                let fetched = timeout(FETCH_TIMEOUT, fetch(uri, tls.as_ref())).await;
                fetched.unwrap_or_else(|_| Err(format!("no answer within {FETCH_TIMEOUT:?}")))
            }
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => path.display().fmt(f),
            Source::Url(uri, _) => uri.fmt(f),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({self})")
    }
}

/// The host, an IPv6 address without its brackets.
fn host_of(uri: &Uri) -> Option<&str> {
    let host = uri.host()?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    Some(bare.unwrap_or(host))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

async fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let roots: RootCertStore = match ca_file {
        Some(path) => files::authorities(&files::read(path).await?)
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
    };
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// One request on a connection of its own: it happens every few minutes.
async fn fetch(uri: &Uri, tls: Option<&TlsConnector>) -> Result<Vec<u8>, String> {
    let host = host_of(uri).ok_or("no host")?;
    let port = if tls.is_some() { 443 } else { 80 };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(port)))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    match tls {
        None => get(stream, uri).await,
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let stream = tls.connect(name, stream).await;
            get(stream.map_err(|error| format!("TLS: {error}"))?, uri).await
        }
    }
}

/// Follows no redirect: whoever configured the URL meant this one.
async fn get<S>(stream: S, uri: &Uri) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        // Some that guard an issuer turn away whoever does not say what it is.
        .header(
            header::USER_AGENT,
            concat!("booking-service/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(text)?;
    if response.status() != StatusCode::OK {
        return Err(format!("answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), JWKS_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes().to_vec())
}
