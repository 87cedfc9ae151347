//! The connections that the server accepts: at most so many, and none that never says a word.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::tls::{self, Tls};
use crate::grpc::CertificateName;

/// How long to wait after a connection could not be accepted: out of files, most likely, and trying
/// again at once would only burn a processor.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// How long a new connection may stay silent. gRPC clients speak first, and at once.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the two sides may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts connections for ever, each as soon as fewer than `max` are open; with TLS, those that are
/// still at their handshake count too, and hold up no other.
pub(super) fn accept(
    listener: TcpListener,
    max: usize,
    tls: Option<Tls>,
) -> impl futures_util::Stream<Item = io::Result<Connection>> {
    let acceptor = Acceptor {
        listener,
        permits: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
        tls,
        handshakes: JoinSet::new(),
    };
    stream::unfold(acceptor, async |mut acceptor| {
        let connection = acceptor.next().await;
        Some((Ok(connection), acceptor))
    })
}

struct Acceptor {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    tls: Option<Tls>,
    /// Each gives a connection, or nothing.
    handshakes: JoinSet<Option<Connection>>,
}

impl Acceptor {
    /// The next connection that calls can come on.
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                (stream, permit) = accept_one_of(&self.listener, &self.permits) => match &self.tls {
                    None => return Connection::new(Stream::Plain(stream), None, permit),
                    Some(tls) => {
                        self.handshakes.spawn(shake_hands(stream, tls.clone(), permit));
                    }
                },
                // A handshake that came to nothing must not end the wait for the others.
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
            }
        }
    }
}

async fn accept_one_of(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await;
    let permit = permit.expect("nobody closes the semaphore");
    (accept_one(listener).await, permit)
}

async fn shake_hands(
    stream: TcpStream,
    tls: Tls,
    permit: OwnedSemaphorePermit,
) -> Option<Connection> {
    let peer = stream.peer_addr().ok();
    match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let name = tls::client_name(stream.get_ref().1);
            Some(Connection::new(
                Stream::Secured(Box::new(stream)),
                name,
                permit,
            ))
        }
        // What rustls itself objects to. All else are probes, and peers that went away.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::info!(?peer, %error, "no TLS with this client: check its certificate and CAs");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "a connection ended before TLS was agreed on");
            None
        }
        Err(_) => {
            tracing::debug!(?peer, "a TLS handshake took too long");
            None
        }
    }
}

async fn accept_one(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Else small answers would be held back. It fails where the client is gone already.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: check the limit on open files");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// An accepted connection, which counts until it is dropped.
pub(super) struct Connection {
    stream: Stream,
    /// The name in the client's certificate.
    name: Option<CertificateName>,
    /// Runs until the first byte has come.
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

/// What the bytes of a connection go through.
enum Stream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Has the same done by either kind of stream.
macro_rules! either {
    ($stream:expr, $it:ident => $done:expr) => {
        match $stream {
            Stream::Plain($it) => $done,
            Stream::Secured($it) => $done,
        }
    };
}

impl Connection {
    fn new(stream: Stream, name: Option<CertificateName>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            name,
            silence: Some(Box::pin(sleep(FIRST_BYTE_TIMEOUT))),
            _permit: permit,
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    address: TcpConnectInfo,
    name: Option<CertificateName>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let address = match &self.stream {
            Stream::Plain(stream) => stream.connect_info(),
            Stream::Secured(stream) => stream.get_ref().0.connect_info(),
        };
        Peer {
            address,
            name: self.name.clone(),
        }
    }
}

/// Tells every request of a connection where it comes from: a layer for the whole server.
pub(super) fn introduce<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Some(Peer { address, name }) = request.extensions_mut().remove::<Peer>() {
        request.extensions_mut().insert(address);
        if let Some(name) = name {
            request.extensions_mut().insert(name);
        }
    }
    request
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = either!(&mut self.stream, it => Pin::new(it).poll_read(context, buffer));
        if read.is_ready() {
            self.silence = None;
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.stream, it => Pin::new(it).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.stream, it => Pin::new(it).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.stream, it => it.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.stream, it => Pin::new(it).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.stream, it => Pin::new(it).poll_shutdown(context))
    }
}
