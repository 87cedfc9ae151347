//! The data directory: where it is, who may use it, and what lies in it.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Error;
use super::account::{Account, create_private_dir};

/// Directory of this service among others' data or caches.
const OWN_NAME: &str = "booking-service";

/// How long a server whose owner was killed may take to wind down.
const WIND_DOWN_LIMIT: Duration = Duration::from_secs(10);
const WIND_DOWN_POLL: Duration = Duration::from_millis(20);

/// Longest path of a Unix socket: 108 bytes on Linux, 104 on macOS, one for the end.
const SOCKET_PATH_MAX: usize = 103;
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The user's data directory, or the system's for root.
///
/// # Errors
/// [`Error::NoDataDir`] where there is no home directory.
pub fn default_data_dir() -> Result<PathBuf, Error> {
    user_dir(
        "/var/lib",
        "XDG_DATA_HOME",
        ".local/share",
        "Library/Application Support",
    )
}

/// Where unpacked binaries are kept; root's can be read by all.
#[cfg(feature = "carried-postgres")]
pub(super) fn cache_dir() -> Result<PathBuf, Error> {
    user_dir("/var/cache", "XDG_CACHE_HOME", ".cache", "Library/Caches")
}

fn user_dir(system: &str, variable: &str, linux: &str, mac: &str) -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(Path::new(system).join(OWN_NAME));
    }
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let under_home = if cfg!(target_os = "macos") {
        mac
    } else {
        linux
    };
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(under_home)))
        .map(|dir| dir.join(OWN_NAME))
        .ok_or(Error::NoDataDir)
}

/// The cluster in the data directory `dir`: what PostgreSQL itself calls its data directory.
pub(super) fn cluster(dir: &Path) -> PathBuf {
    dir.join("cluster")
}

/// The major version that the cluster was made with, if there is one. Where it may not be read,
/// claiming the directory tells that better.
pub(super) fn cluster_version(cluster: &Path) -> Result<Option<u32>, Error> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    let path = cluster.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(version) => Ok(version.trim().parse().ok()),
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => Ok(None),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// A data directory, locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Creates the directory where needed, locks it, and waits until the server of a previous owner
    /// is gone.
    pub(super) fn claim(dir: &Path) -> Result<Self, Error> {
        let mut builder = DirBuilder::new();
        // As root the server's user has to get through; what is in it is private by itself.
        let mode = if rustix::process::geteuid().is_root() {
            0o755
        } else {
            0o700
        };
        let created = builder.recursive(true).mode(mode).create(dir);
        created.map_err(Error::io("create", dir))?;
        let dir = dir.canonicalize().map_err(Error::io("open", dir))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.map_err(Error::io("open", &path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse { dir: dir.clone() },
            TryLockError::Error(source) => Error::io("lock", &path)(source),
        })?;
        let home = Self { dir, _lock: lock };
        home.await_previous_server()?;
        Ok(home)
    }

    pub(super) fn cluster(&self) -> PathBuf {
        cluster(&self.dir)
    }

    /// Where `initdb` works, so that `cluster` is complete as soon as it exists.
    pub(super) fn unfinished_cluster(&self) -> PathBuf {
        self.dir.join(format!("initdb-{}", std::process::id()))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgresql.log")
    }

    /// A private directory for the Unix socket, in the data directory or, where its path is too
    /// long for a socket, in the one for temporary files.
    pub(super) fn socket_dir(&self, account: Option<&Account>) -> Result<SocketDir, Error> {
        let dir = self.dir.join("socket");
        let is_short =
            |dir: &Path| dir.join(SOCKET_NAME).as_os_str().as_bytes().len() <= SOCKET_PATH_MAX;
        if is_short(&dir) {
            create_private_dir(&dir, account)?;
            return Ok(SocketDir {
                dir,
                temporary: false,
            });
        }
        let name = format!("booking-{}", uuid::Uuid::new_v4().simple());
        let dir = env::temp_dir().join(&name);
        let dir = if is_short(&dir) {
            dir
        } else {
            Path::new("/tmp").join(name)
        };
        // Not `create_dir_all`: in a place open to all, the directory must be new.
        let created = DirBuilder::new().mode(0o700).create(&dir);
        created.map_err(Error::io("create", &dir))?;
        create_private_dir(&dir, account)?;
        Ok(SocketDir {
            dir,
            temporary: true,
        })
    }

    /// After a `kill -9` of its owner the server is told to stop, but takes a moment. A process id
    /// that by now belongs to something else leaves a stale file, which PostgreSQL would trip over.
    fn await_previous_server(&self) -> Result<(), Error> {
        let file = self.cluster().join("postmaster.pid");
        let start = Instant::now();
        while let Some(pid) = server_of(&file) {
            if start.elapsed() > WIND_DOWN_LIMIT {
                return Err(Error::StillRunning {
                    dir: self.dir.clone(),
                    pid,
                });
            }
            sleep(WIND_DOWN_POLL);
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &file)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The live PostgreSQL that wrote this `postmaster.pid`.
fn server_of(file: &Path) -> Option<i32> {
    let text = fs::read_to_string(file).ok()?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    let pid = rustix::process::Pid::from_raw(number)?;
    let gone = rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    // Where /proc tells the name, a reused process id is told from a server.
    let other = fs::read_to_string(format!("/proc/{number}/comm"))
        .is_ok_and(|name| name.trim() != "postgres");
    (!gone && !other).then_some(number)
}

/// Where the server's socket is; removed in the end where it was made for this server alone.
#[derive(Debug)]
pub(super) struct SocketDir {
    dir: PathBuf,
    temporary: bool,
}

impl SocketDir {
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing depends on it any more, and whoever cleans up temporary files may be faster.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
