//! What the test crates share: a PostgreSQL, certificates, and a front that signs in like DSQL.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "each test crate uses its own part of it, and a test fails by panicking"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use booking_service::db::embedded::{Options, Server};
use booking_service::db::{Database, Target};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

pub mod certificates;
pub mod dsql;

/// The one server of this test process. It ends with the process, and its directory with it.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<(Server, Child)> = OnceCell::const_new();
    let (server, _) = SERVER
        .get_or_init(|| async {
            let dir = temp_dir().keep();
            let server = Server::start(&Options::new(&dir)).await.unwrap();
            (server, remove_at_exit(&dir))
        })
        .await;
    server
}

/// A new and empty database of [`server`].
pub async fn fresh_target() -> Target {
    let name = format!("test_{}", Uuid::new_v4().simple());
    server().await.create_database(&name).await.unwrap();
    server().await.target(&name)
}

/// [`fresh_target`], opened.
pub async fn fresh_database() -> Database {
    Database::open(&fresh_target().await).await.unwrap()
}

/// A temporary directory that a PostgreSQL of another user can enter, too.
pub fn temp_dir() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("booking-test-")
        .tempdir()
        .unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    dir
}

/// Removes `dir` when this process is gone, and the server in it: nothing runs in here then.
fn remove_at_exit(dir: &Path) -> Child {
    let script = r#"read -r _
        while [ -e "$1/cluster/postmaster.pid" ]; do sleep 0.1; done
        rm -rf "$1""#;
    Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(dir)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The process id of the server whose data is in `dir`.
pub fn server_pid(dir: &Path) -> Option<i32> {
    let file = std::fs::read_to_string(dir.join("cluster/postmaster.pid")).ok()?;
    file.lines().next()?.parse().ok()
}

/// The text of an error and of all its sources.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Gives a file to the user that the server with its data in `dir` runs as, and to no other.
pub fn give_to_server(file: &Path, dir: &Path) {
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = std::fs::metadata(dir.join("cluster")).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, private).unwrap();
    chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// Writes a file into `dir` and returns its path.
pub fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
