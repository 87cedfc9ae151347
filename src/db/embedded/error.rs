//! Why the private PostgreSQL does not run, each in one line that names the remedy.

use std::io;
use std::path::{Path, PathBuf};

use crate::db::Unavailable;

/// Why the private PostgreSQL does not run.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is and what its fields are"
)]
pub enum Error {
    #[error(
        "another booking-service uses the data directory {}: stop it, or give this one another \
         --data-dir", dir.display()
    )]
    InUse { dir: PathBuf },
    #[error(
        "the previous PostgreSQL (process {pid}) in {} has not ended yet: wait for it, or end it \
         with SIGINT", dir.display()
    )]
    StillRunning { dir: PathBuf, pid: i32 },
    #[error("no place for the database: set HOME, or give --data-dir")]
    NoDataDir,
    #[error(
        "no database is configured, and no PostgreSQL {} found{}: set DATABASE_URL or \
         CLUSTER_ENDPOINT, or install PostgreSQL 14 or later, or name its directory with --pg-bin-dir",
        wanted.map_or("14 or later".to_owned(), |major| format!("{major}, which the data directory was made with,")),
        within.as_ref().map_or(String::new(), |dir| format!(" in {}", dir.display()))
    )]
    NoBinaries {
        wanted: Option<u32>,
        within: Option<PathBuf>,
    },
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`: add one"
    )]
    NoAccount,
    #[error(
        "PostgreSQL runs as user {user}, who cannot enter {}: give another --data-dir, or open the \
         directories above it with chmod o+x", dir.display()
    )]
    NotReachable { user: String, dir: PathBuf },
    #[error(
        "{program} failed ({outcome}): see its last words, and whether the disk is full\n{output}"
    )]
    Failed {
        program: &'static str,
        outcome: String,
        output: String,
    },
    #[error("PostgreSQL is not ready after {seconds} s: see {}", log.display())]
    NotReady {
        seconds: u64,
        log: PathBuf,
        #[source]
        last: Option<Unavailable>,
    },
    #[error("PostgreSQL does not stop within {seconds} s; it has been told to, and goes on trying")]
    NotStopping { seconds: u64 },
    #[error("cannot {action} {}: check the directory's owner, its mode and the disk", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the private PostgreSQL refuses the service: see the cause")]
    Refused(#[from] Unavailable),
}

impl Error {
    /// Turns an I/O error at `path` into one of ours, for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
