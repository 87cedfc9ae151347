//! A private PostgreSQL that starts and ends with its owner, on a Unix socket only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bb8::ManageConnection;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Target, Unavailable, postgres};

mod account;
mod binaries;
#[cfg(feature = "carried-postgres")]
mod carried;
mod error;
mod home;
mod process;

use account::Account;
use binaries::Installation;
pub use error::Error;
pub use home::default_data_dir;
use home::{Home, SocketDir};
use process::Process;

/// The database of the service inside the server.
pub const DATABASE: &str = "booking";

/// The server's only role; the socket's directory decides who may use it.
const SUPERUSER: &str = "postgres";

/// How long the server may take to be ready: recovery after a crash can take long.
const START_LIMIT: Duration = Duration::from_mins(1);
const START_POLL: Duration = Duration::from_millis(5);

/// How long it may take to stop: a fast shutdown writes a checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How to run a private PostgreSQL.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its data is, kept from run to run.
    pub data_dir: PathBuf,
    /// Which `postgres` to run.
    pub binaries: Binaries,
    /// Further server settings, as (name, value); they come last and so win.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// Any PostgreSQL there is, with its data in `data_dir` and no further settings.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            binaries: Binaries::Any,
            settings: Vec::new(),
        }
    }
}

/// Which `postgres` to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Binaries {
    /// An installed one, else the one that this program carries.
    Any,
    /// The one in this directory.
    In(PathBuf),
    /// The one that this program carries.
    Carried,
}

/// A running server. It stops when this value is dropped or its process ends, by `kill -9` too;
/// [`Server::stop`] also waits until it is gone.
#[derive(Debug)]
pub struct Server {
    // In this order: the server is told to stop before its directories are given up.
    process: Process,
    socket_dir: SocketDir,
    home: Home,
    major: u32,
}

impl Server {
    /// Starts the server, making its cluster and the database [`DATABASE`] where needed. Waits for
    /// the server of a previous owner to wind down.
    ///
    /// # Errors
    /// See [`Error`]; among them that another process uses the data directory.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        let options = options.clone();
        let mut server = blocking(move || Self::launch(&options)).await?;
        let client = server.await_ready().await?;
        let existing = client
            .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&DATABASE])
            .await
            .map_err(|error| server.refused(error))?;
        if existing.is_none() {
            server.create_database(DATABASE).await?;
        }
        Ok(server)
    }

    /// Everything up to the start of the process; blocks.
    fn launch(options: &Options) -> Result<Self, Error> {
        // First, since it writes nothing: where there is no PostgreSQL there may be no place for its
        // data either, as in a container with a read-only root, and that is not what is amiss.
        let cluster = home::cluster(&options.data_dir);
        let account = Account::choose(&cluster)?;
        let account = account.as_ref();
        let wanted = home::cluster_version(&cluster)?;
        let installation = Installation::find(&options.binaries, wanted, account)?;
        let home = Home::claim(&options.data_dir)?;
        if let Some(user) = account {
            user.check_reach(home.dir())?;
        }
        process::ensure_cluster(&home, &installation, account)?;
        let socket_dir = home.socket_dir(account)?;
        let process = Process::start(
            &home,
            &installation,
            account,
            &socket_dir,
            &options.settings,
        )?;
        Ok(Self {
            process,
            socket_dir,
            home,
            major: installation.major,
        })
    }

    /// Connects as soon as the server lets us.
    async fn await_ready(&mut self) -> Result<Client, Error> {
        let log = self.home.log();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.process.check_running(&log)?;
            match self.connect().await {
                Ok(client) => return Ok(client),
                Err(error) if is_starting(&error) && Instant::now() < deadline => {
                    sleep(START_POLL).await;
                }
                Err(error) if is_starting(&error) => {
                    return Err(Error::NotReady {
                        seconds: START_LIMIT.as_secs(),
                        log,
                        last: Some(self.unavailable(error)),
                    });
                }
                Err(error) => return Err(self.refused(error)),
            }
        }
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let manager = self.options(SUPERUSER).manager();
        manager.expect("a socket needs no CA file").connect().await
    }

    fn refused(&self, error: tokio_postgres::Error) -> Error {
        Error::Refused(self.unavailable(error))
    }

    fn unavailable(&self, error: tokio_postgres::Error) -> Unavailable {
        Unavailable::from_driver(&self.socket_dir().display().to_string(), error)
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// [`Error::Refused`], where there is one of that name for example.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        let client = self.connect().await.map_err(|error| self.refused(error))?;
        let created = client.batch_execute(&statement).await;
        created.map_err(|error| self.refused(error))
    }

    /// How to connect to a database of this server.
    #[must_use]
    pub fn options(&self, database: &str) -> postgres::Options {
        postgres::Options::on_socket(self.socket_dir(), SUPERUSER, database)
    }

    /// A database of this server as a target, which does not own the server.
    #[must_use]
    pub fn target(&self, database: &str) -> Target {
        Target::Postgres(self.options(database))
    }

    /// The directory of its Unix socket, which is named as for port 5432.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.socket_dir.path()
    }

    /// What and where it is, for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        let dir = self.home.dir().display();
        format!("private PostgreSQL {} in {dir}", self.major)
    }

    /// Stops the server and waits until it is gone; transactions in flight are rolled back.
    ///
    /// # Errors
    /// [`Error::NotStopping`] after 30 s; it goes on stopping by itself.
    pub async fn stop(self) -> Result<(), Error> {
        let Self {
            process,
            socket_dir,
            home,
            ..
        } = self;
        let stopped = blocking(move || process.stop(STOP_LIMIT)).await;
        drop((socket_dir, home));
        stopped
    }
}

/// Whether the server may still let us in later: no socket yet, or recovering from a crash.
fn is_starting(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::CANNOT_CONNECT_NOW,
        None => true,
    }
}

/// Runs `work` where it may block; a panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
