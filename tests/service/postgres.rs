//! PostgreSQL itself: one server a test run, a database a test, and a way to get in between.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use booking_service::db::{Database, Pool, PoolOptions, Target, postgres};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

#[path = "../support/mod.rs"]
pub(crate) mod support;

/// A database, and its name.
pub(crate) struct FreshDatabase {
    pub(crate) name: String,
    pub(crate) database: Database,
}

/// An empty database of its own.
pub(crate) async fn fresh_database() -> FreshDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("service_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let server = support::server().await;
    server.create_database(&name).await.expect("a database");
    let database = Database::open(&server.target(&name))
        .await
        .expect("it lets us in");
    FreshDatabase { name, database }
}

/// A pool as `serve` has it.
pub(crate) fn pool(database: &Database, statements: &'static [&'static str]) -> Pool {
    database.pool(PoolOptions { size: 16 }, statements)
}

/// A way to a database of this run that counts what goes through it, and can break: for good, or just
/// when the answer to a COMMIT is on its way, so that the transaction went through and nobody hears
/// of it.
pub(crate) struct Wire {
    pub(crate) database: Database,
    /// How many more answers to a COMMIT get lost.
    pub(crate) to_lose: Arc<AtomicU32>,
    pub(crate) traffic: Arc<Traffic>,
    broken: CancellationToken,
    _at_the_end: DropGuard,
    _socket_dir: TempDir,
}

/// What went through a wire.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// How often a client, with nothing left to wait for, has sent something: its round trips.
    pub(crate) flights: AtomicU32,
    /// Statements that were sent to be parsed.
    pub(crate) parsed: AtomicU32,
    /// How long answers are on their way, in milliseconds. Whatever is sent without waiting for them
    /// is on its way by then.
    pub(crate) delay_ms: AtomicU32,
}

impl Wire {
    /// A wire to the database of this name.
    pub(crate) async fn to(name: &str) -> Self {
        let socket_dir = tempfile::tempdir().expect("a directory");
        let near = UnixListener::bind(socket_dir.path().join(".s.PGSQL.5432")).expect("bound");
        let far = support::server().await.socket_dir().join(".s.PGSQL.5432");
        let (to_lose, broken) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let traffic = Arc::new(Traffic::default());
        tokio::spawn(broken.clone().run_until_cancelled_owned({
            let (to_lose, broken, traffic) = (to_lose.clone(), broken.clone(), traffic.clone());
            async move {
                while let Ok((stream, _)) = near.accept().await {
                    let passing = pass_on(stream, far.clone(), to_lose.clone(), traffic.clone());
                    tokio::spawn(broken.clone().run_until_cancelled_owned(passing));
                }
            }
        }));
        let options = postgres::Options::on_socket(socket_dir.path(), "postgres", name);
        let database = Database::open(&Target::Postgres(options))
            .await
            .expect("it lets us in");
        Self {
            database,
            to_lose,
            traffic,
            _at_the_end: broken.clone().drop_guard(),
            broken,
            _socket_dir: socket_dir,
        }
    }

    /// Breaks it for good.
    pub(crate) fn cut(&self) {
        self.broken.cancel();
    }
}

/// Passes everything on, message by message, up to an answer that is to get lost.
async fn pass_on(
    near: UnixStream,
    far: PathBuf,
    to_lose: Arc<AtomicU32>,
    traffic: Arc<Traffic>,
) -> io::Result<()> {
    let far = UnixStream::connect(far).await.expect("PostgreSQL is there");
    let (mut from_client, mut to_client) = near.into_split();
    let (mut from_server, mut to_server) = far.into_split();
    // Messages that the server ends with "ready for query", less those that it has.
    let unanswered = AtomicU32::new(0);
    let upwards = async {
        // The first message has a length only.
        let length = from_client.read_u32().await?;
        let mut body = vec![0; body_length(length)];
        from_client.read_exact(&mut body).await?;
        traffic.flights.fetch_add(1, Ordering::SeqCst);
        unanswered.store(1, Ordering::SeqCst);
        let first = [&length.to_be_bytes()[..], &body].concat();
        to_server.write_all(&first).await?;
        let mut sending = false;
        loop {
            let (kind, message) = message(&mut from_client).await?;
            if !sending && unanswered.load(Ordering::SeqCst) == 0 {
                traffic.flights.fetch_add(1, Ordering::SeqCst);
            }
            // Query and Sync are answered; what comes before a Sync belongs to it.
            sending = !matches!(kind, b'Q' | b'S');
            unanswered.fetch_add(u32::from(!sending), Ordering::SeqCst);
            traffic
                .parsed
                .fetch_add(u32::from(kind == b'P'), Ordering::SeqCst);
            to_server.write_all(&message).await?;
        }
    };
    let downwards = async {
        loop {
            let (kind, message) = message(&mut from_server).await?;
            let one_less = |left: u32| left.checked_sub(1);
            let committed = kind == b'C' && message.ends_with(b"COMMIT\0");
            if committed
                && to_lose
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                    .is_ok()
            {
                return Ok(());
            }
            if kind == b'Z' {
                let delay_ms = traffic.delay_ms.load(Ordering::SeqCst);
                if delay_ms > 0 {
                    sleep(Duration::from_millis(delay_ms.into())).await;
                }
                unanswered.fetch_sub(1, Ordering::SeqCst);
            }
            to_client.write_all(&message).await?;
        }
    };
    tokio::select! {
        ended = upwards => ended,
        ended = downwards => ended,
    }
}

/// The next message, and its kind.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[1..].try_into().expect("four bytes"));
    message.resize(5 + body_length(length), 0);
    from.read_exact(&mut message[5..]).await?;
    Ok((message[0], message))
}

/// The length in a message counts itself.
fn body_length(length: u32) -> usize {
    usize::try_from(length).expect("fits") - 4
}
