//! Unpacks the PostgreSQL that this program carries, once for each version of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::home::cache_dir;

/// PostgreSQL's `bin`, `lib` and `share`, which find each other by relative paths.
static ARCHIVE: &[u8] = include_bytes!(env!("BOOKING_CARRIED_POSTGRES"));

/// The version of the archive, so that another one is unpacked beside it.
const VERSION: &str = env!("BOOKING_CARRIED_POSTGRES_VERSION");

/// The `bin` directory of the unpacked archive.
pub(super) fn unpack() -> Result<PathBuf, Error> {
    let cache = cache_dir()?;
    let home = cache.join(format!("postgresql-{VERSION}"));
    if !home.exists() {
        // Unpacked elsewhere and renamed, so that the place is complete as soon as it exists.
        let unfinished = cache.join(format!("unpacking-{}", uuid::Uuid::new_v4().simple()));
        unpack_into(&unfinished)?;
        let renamed = fs::rename(&unfinished, &home);
        if renamed.is_err() {
            // Another process was faster; its copy is as good.
            fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))?;
        }
        if !home.exists() {
            renamed.map_err(Error::io("create", &home))?;
        }
    }
    Ok(home.join("bin"))
}

fn unpack_into(dir: &Path) -> Result<(), Error> {
    let failed = || Error::io("unpack PostgreSQL into", dir);
    fs::create_dir_all(dir).map_err(failed())?;
    let decoder = ruzstd::decoding::StreamingDecoder::new(ARCHIVE)
        .map_err(|error| failed()(std::io::Error::other(error)))?;
    tar::Archive::new(decoder).unpack(dir).map_err(failed())?;
    // The server may run as another user, whatever our umask is.
    for part in ["..", ".", "bin", "lib", "share"] {
        let readable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.join(part), readable).map_err(failed())?;
    }
    Ok(())
}
