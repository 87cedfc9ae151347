//! A front before PostgreSQL that signs clients in as Aurora DSQL does: direct TLS, then a signed
//! token as the password, which it verifies by its own computation.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_lc_rs::{digest, hmac};
use aws_sdk_dsql::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_async::time::{SystemTimeSource, TimeSource};
use booking_service::db::dsql::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::{Authority, Identity};

pub const ACCESS_KEY: &str = "AKIDTEST";
pub const SECRET_KEY: &str = "the-secret-key-of-the-tests";
pub const REGION: &str = "eu-test-1";
const HOST: &str = "localhost";

/// The front; it serves until the test's runtime ends.
pub struct Front {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    socket: PathBuf,
    database: String,
    tokens: Mutex<Vec<String>>,
    refusals_left: AtomicU32,
}

impl State {
    fn is_waking_up(&self) -> bool {
        let left = self.refusals_left.load(Ordering::SeqCst);
        self.refusals_left
            .store(left.saturating_sub(1), Ordering::SeqCst);
        left > 0
    }
}

impl Front {
    /// Serves `database` of the server with this socket directory, as `identity`.
    pub async fn start(identity: &Identity, socket_dir: &Path, database: &str) -> Self {
        let acceptor = TlsAcceptor::from(identity.server_config(b"postgresql"));
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            socket: socket_dir.join(".s.PGSQL.5432"),
            database: database.to_owned(),
            tokens: Mutex::default(),
            refusals_left: AtomicU32::new(0),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), shared.clone());
                // Clients hang up in the middle of things; that is theirs to report.
                tokio::spawn(async move { serve(stream, &acceptor, &state).await });
            }
        });
        Self { port, state }
    }

    /// A front with a certificate of `authority` before a fresh database of the shared server.
    pub async fn with_authority(authority: &Authority) -> Self {
        let server = super::server().await;
        let database = format!("dsql_{}", uuid::Uuid::new_v4().simple());
        server.create_database(&database).await.unwrap();
        Self::start(&authority.issue(HOST), server.socket_dir(), &database).await
    }

    /// The tokens that clients have shown, in order.
    pub fn tokens(&self) -> Vec<String> {
        self.state.tokens.lock().unwrap().clone()
    }

    /// Answers the next `count` sign-ins as a cluster that scaled to zero.
    pub fn wake_up_slowly(&self, count: u32) {
        self.state.refusals_left.store(count, Ordering::SeqCst);
    }

    /// Options to connect here as `user`, trusting the CA in `ca_file`.
    pub fn options(&self, user: &str, ca_file: PathBuf) -> Options {
        let endpoint = format!("{HOST}:{}", self.port);
        Options::new(&endpoint, user, Some(REGION))
            .unwrap()
            .with_ca_file(Some(ca_file))
            .with_aws_config(aws_config(SECRET_KEY, SystemTimeSource::new()))
    }
}

/// AWS configuration with these credentials and this clock.
pub fn aws_config(secret: &str, clock: impl TimeSource + 'static) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, secret, None, None, "tests");
    SdkConfig::builder()
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .time_source(clock)
        .build()
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, state: &State) -> io::Result<()> {
    let mut client = acceptor.accept(stream).await?;
    if client.get_ref().1.alpn_protocol() != Some(b"postgresql") {
        return Ok(());
    }
    let length = client.read_i32().await?;
    let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut startup).await?;
    let parameters = parameters(&startup[4..]);
    if parameters.iter().any(|(name, _)| name == "options") {
        return refuse(
            &mut client,
            "0A000",
            "setting configuration is not supported",
            "",
        )
        .await;
    }
    client.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
    assert_eq!(client.read_u8().await?, b'p');
    let length = client.read_i32().await?;
    let mut password = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut password).await?;
    let token = String::from_utf8_lossy(&password[..password.len() - 1]).into_owned();
    state.tokens.lock().unwrap().push(token.clone());

    if state.is_waking_up() {
        let message = "waking up cluster, please retry later";
        return refuse(&mut client, "57P03", message, "").await;
    }
    let user = parameters.iter().find(|(name, _)| name == "user").unwrap();
    let action = if user.1 == "admin" {
        "DbConnectAdmin"
    } else {
        "DbConnect"
    };
    match verify(&token, action, SystemTime::now()) {
        Ok(()) => splice(&mut client, state).await,
        Err(hint) => {
            let message = "unable to accept connection, access denied";
            refuse(&mut client, "28000", message, hint).await
        }
    }
}

fn parameters(text: &[u8]) -> Vec<(String, String)> {
    let mut words = text
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned());
    let mut parameters = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        parameters.push((name, value));
    }
    parameters
}

async fn refuse(
    client: &mut TlsStream<TcpStream>,
    code: &str,
    message: &str,
    hint: &str,
) -> io::Result<()> {
    let hint = if hint.is_empty() {
        String::new()
    } else {
        format!("H{hint}\0")
    };
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0{hint}\0");
    client.write_u8(b'E').await?;
    client
        .write_i32(i32::try_from(fields.len()).unwrap() + 4)
        .await?;
    client.write_all(fields.as_bytes()).await?;
    client.shutdown().await
}

/// Signs in to the server behind as its superuser, whom it trusts, and steps aside.
async fn splice(client: &mut TlsStream<TcpStream>, state: &State) -> io::Result<()> {
    let mut server = UnixStream::connect(&state.socket).await?;
    let parameters = format!("user\0postgres\0database\0{}\0\0", state.database);
    server
        .write_i32(i32::try_from(parameters.len()).unwrap() + 8)
        .await?;
    server.write_i32(196_608).await?;
    server.write_all(parameters.as_bytes()).await?;
    copy_bidirectional(client, &mut server).await.map(|_| ())
}

/// Checks a token by AWS's description of Signature Version 4; the error is a hint for the client.
fn verify(token: &str, action: &str, now: SystemTime) -> Result<(), &'static str> {
    let (host, query) = token.split_once("/?").ok_or("")?;
    let (signed, signature) = query.rsplit_once("&X-Amz-Signature=").ok_or("")?;
    let value = |name: &str| {
        let pair = signed
            .split('&')
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        pair.ok_or("")
    };
    let date = value("X-Amz-Date")?;
    let day = date.get(..8).ok_or("")?;
    let scope = format!("{day}/{REGION}/dsql/aws4_request");
    let credential = format!("{ACCESS_KEY}/{scope}").replace('/', "%2F");
    let expected = [
        (host, HOST),
        (value("Action")?, action),
        (value("X-Amz-Algorithm")?, "AWS4-HMAC-SHA256"),
        (value("X-Amz-Credential")?, credential.as_str()),
        (value("X-Amz-SignedHeaders")?, "host"),
    ];
    if expected.iter().any(|(is, should_be)| is != should_be) {
        return Err("");
    }
    let mut pairs: Vec<&str> = signed.split('&').collect();
    pairs.sort_unstable();
    let payload = hex(digest::digest(&digest::SHA256, b"").as_ref());
    let request = format!(
        "GET\n/\n{}\nhost:{host}\n\nhost\n{payload}",
        pairs.join("&")
    );
    let hashed = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
    let start = format!("AWS4{SECRET_KEY}").into_bytes();
    let key = [day, REGION, "dsql", "aws4_request"]
        .iter()
        .fold(start, |key, part| mac(&key, part));
    if hex(&mac(&key, &text)) != signature {
        return Err("");
    }
    let lifetime = Duration::from_secs(value("X-Amz-Expires")?.parse().map_err(|_| "")?);
    let signed_at = humantime::parse_rfc3339(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..8],
        &date[9..11],
        &date[11..13],
        &date[13..15]
    ))
    .map_err(|_| "")?;
    if now > signed_at + lifetime {
        return Err("Signature expired");
    }
    Ok(())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
