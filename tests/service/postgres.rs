//! PostgreSQL itself: one server a test run, a database a test, and a way to get in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use booking_service::db::embedded::{Options, Server};
use booking_service::db::{Database, Pool, PoolOptions, Target, postgres};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The server of this run. It ends with the process.
struct Running {
    server: Server,
    _data_dir: TempDir,
}

static RUNNING: OnceCell<Running> = OnceCell::const_new();

async fn running() -> &'static Running {
    RUNNING
        .get_or_init(|| async {
            let data_dir = tempfile::tempdir().expect("a directory");
            let mut options = Options::new(data_dir.path().join("data"));
            // Many tests at once, each with replicas and pools.
            options
                .settings
                .push(("max_connections".to_owned(), "500".to_owned()));
            let server = Server::start(&options).await.expect("PostgreSQL starts");
            Running {
                server,
                _data_dir: data_dir,
            }
        })
        .await
}

/// A database, and its name.
pub(crate) struct FreshDatabase {
    pub(crate) name: String,
    pub(crate) database: Database,
}

/// An empty database of its own.
pub(crate) async fn fresh_database() -> FreshDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let server = &running().await.server;
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

/// A way to a database of this run that can break: for good, or just when the answer to a COMMIT is
/// on its way, so that the transaction went through and nobody hears of it.
pub(crate) struct Wire {
    pub(crate) database: Database,
    /// How many more answers to a COMMIT get lost.
    pub(crate) to_lose: Arc<AtomicU32>,
    broken: CancellationToken,
    _at_the_end: DropGuard,
    _socket_dir: TempDir,
}

impl Wire {
    /// A wire to the database of this name.
    pub(crate) async fn to(name: &str) -> Self {
        let socket_dir = tempfile::tempdir().expect("a directory");
        let near = UnixListener::bind(socket_dir.path().join(".s.PGSQL.5432")).expect("bound");
        let far = running().await.server.socket_dir().join(".s.PGSQL.5432");
        let (to_lose, broken) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        tokio::spawn(broken.clone().run_until_cancelled_owned({
            let (to_lose, broken) = (to_lose.clone(), broken.clone());
            async move {
                while let Ok((stream, _)) = near.accept().await {
                    let passing = pass_on(stream, far.clone(), to_lose.clone());
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

/// Passes everything on, the server's messages one by one, up to an answer that is to get lost.
async fn pass_on(near: UnixStream, far: PathBuf, to_lose: Arc<AtomicU32>) {
    let far = UnixStream::connect(far).await.expect("PostgreSQL is there");
    let (mut from_client, mut to_client) = near.into_split();
    let (mut from_server, mut to_server) = far.into_split();
    let upwards = copy(&mut from_client, &mut to_server);
    let downwards = async {
        let mut head = [0; 5];
        while from_server.read_exact(&mut head).await.is_ok() {
            let [kind, length @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes(length)).expect("fits") - 4;
            let mut body = vec![0; length];
            from_server.read_exact(&mut body).await?;
            let one_less = |left: u32| left.checked_sub(1);
            let committed = kind == b'C' && body == b"COMMIT\0";
            if committed
                && to_lose
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                    .is_ok()
            {
                break;
            }
            to_client.write_all(&[&head[..], &body].concat()).await?;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        _ = upwards => {}
        _ = downwards => {}
    }
}
