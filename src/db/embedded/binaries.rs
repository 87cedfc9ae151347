//! Finds a `postgres` and its `initdb`: where told, installed, or carried.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::{self, Account};
use super::{Binaries, Error};

/// The oldest version whose SQL suffices.
const OLDEST_MAJOR: u32 = 14;

/// Where distributions put versions side by side, as (parent, prefix, suffix) of the version.
const VERSIONED: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

const UNVERSIONED: [&str; 2] = ["/usr/local/pgsql/bin", "/opt/pgsql/bin"];

/// A directory with `postgres` and `initdb` that the server's user can run.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) bin_dir: PathBuf,
    pub(super) major: u32,
}

impl Installation {
    /// The first that there is, and of version `wanted` where a cluster of that version exists.
    pub(super) fn find(
        binaries: &Binaries,
        wanted: Option<u32>,
        account: Option<&Account>,
    ) -> Result<Self, Error> {
        let fits = |bin_dir: PathBuf| {
            let major = major_version(&bin_dir, account)?;
            let fits = wanted.map_or(major >= OLDEST_MAJOR, |wanted| major == wanted);
            fits.then_some(Self { bin_dir, major })
        };
        let found = match binaries {
            Binaries::In(dir) => fits(dir.clone()),
            Binaries::Carried => carried()?.and_then(fits),
            Binaries::Any => match installed().into_iter().find_map(fits) {
                None => carried()?.and_then(fits),
                found => found,
            },
        };
        let within = match binaries {
            Binaries::In(dir) => Some(dir.clone()),
            Binaries::Any | Binaries::Carried => None,
        };
        found.ok_or(Error::NoBinaries { wanted, within })
    }
}

#[cfg(feature = "carried-postgres")]
fn carried() -> Result<Option<PathBuf>, Error> {
    super::carried::unpack().map(Some)
}

#[cfg(not(feature = "carried-postgres"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build of it can fail")]
fn carried() -> Result<Option<PathBuf>, Error> {
    Ok(None)
}

/// Directories that may hold an installation, the likeliest first.
fn installed() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    for (parent, prefix, suffix) in VERSIONED {
        dirs.extend(newest_first(Path::new(parent), prefix).map(|dir| dir.join(suffix)));
    }
    dirs.extend(UNVERSIONED.map(PathBuf::from));
    dirs
}

fn newest_first(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry
                .file_name()
                .to_str()?
                .strip_prefix(prefix)?
                .parse()
                .ok()?;
            Some((version, entry.path()))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path)
}

/// The version of the `postgres` in `bin_dir`, if that is complete and `account` can run it.
fn major_version(bin_dir: &Path, account: Option<&Account>) -> Option<u32> {
    let postgres = bin_dir.join("postgres");
    if !bin_dir.is_absolute() || !postgres.is_file() || !bin_dir.join("initdb").is_file() {
        return None;
    }
    let output = account::command(&postgres, account)
        .arg("--version")
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `postgres (PostgreSQL) 17.5 (some distribution)`; beta versions say `18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_off_the_version_line() {
        assert_eq!(parse_major("postgres (PostgreSQL) 17.5\n"), Some(17));
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.10 (Debian 15.10-0)\n"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("no such thing"), None);
    }

    #[test]
    fn the_newest_installed_version_comes_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "16", "15", "common"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names: Vec<_> = newest_first(parent.path(), "")
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["16", "15", "9"]);
    }
}
