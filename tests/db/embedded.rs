//! The private PostgreSQL: its data outlives it, and it never outlives its owner.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use booking_service::db::embedded::{Binaries, Error, Options, Server};
use booking_service::db::{Database, Target};
use rustix::process::{Pid, getpgid, test_kill_process};
use tokio_postgres::Client;

use crate::support::{server_pid, temp_dir};

async fn open(options: Options) -> Database {
    Database::open(&Target::Embedded(options)).await.unwrap()
}

async fn count(client: &Client) -> i64 {
    let sql = "SELECT count(*) FROM kept";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn is_alive(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn data_is_kept_from_run_to_run_and_nothing_runs_in_between() {
    let dir = temp_dir();
    let start = Instant::now();
    let database = open(Options::new(dir.path())).await;
    eprintln!("first start: {:?}", start.elapsed());
    assert!(database.is_embedded());
    assert!(database.describe().starts_with("private PostgreSQL "));
    let client = database.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE kept AS SELECT 1")
        .await
        .unwrap();
    let pid = server_pid(dir.path()).unwrap();
    database.close().await.unwrap();
    assert!(!is_alive(pid));

    let start = Instant::now();
    let database = open(Options::new(dir.path())).await;
    eprintln!("later start: {:?}", start.elapsed());
    assert_eq!(count(&database.connect().await.unwrap()).await, 1);
    // Dropped instead of closed: the next start waits for the end of this server.
    drop(database);
    let database = open(Options::new(dir.path())).await;
    assert_eq!(count(&database.connect().await.unwrap()).await, 1);
    let settings = "SELECT current_setting('fsync'), current_setting('listen_addresses'), \
                    current_setting('server_encoding')";
    let client = database.connect().await.unwrap();
    let row = client.query_one(settings, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), ("on", "", "UTF8"));
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_second_start_on_the_same_directory_is_refused_at_once() {
    let dir = temp_dir();
    let database = open(Options::new(dir.path())).await;
    let start = Instant::now();
    let error = Server::start(&Options::new(dir.path())).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(dir.path().to_str().unwrap()) && text.contains("--data-dir"),
        "{text}"
    );
    database.close().await.unwrap();
}

#[tokio::test]
async fn the_server_is_out_of_reach_of_ctrl_c() {
    let dir = temp_dir();
    let database = open(Options::new(dir.path())).await;
    let server = Pid::from_raw(server_pid(dir.path()).unwrap());
    assert_ne!(getpgid(server).unwrap(), getpgid(None).unwrap());
    database.close().await.unwrap();
}

const OWNER_DIR: &str = "BOOKING_TEST_OWNER_DIR";

/// Runs this very test in a process of its own, which owns a server, commits a row and waits.
fn spawn_owner(dir: &Path) -> Child {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "embedded::kill_9_of_the_owner_loses_nothing_and_leaves_nothing",
        ])
        .env(OWNER_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let ready = lines
        .map_while(Result::ok)
        .any(|line| line.contains("committed"));
    assert!(ready);
    owner
}

async fn be_the_owner(dir: PathBuf) {
    let database = open(Options::new(dir)).await;
    let client = database.connect().await.unwrap();
    let sql = "CREATE TABLE IF NOT EXISTS kept (); INSERT INTO kept DEFAULT VALUES";
    client.batch_execute(sql).await.unwrap();
    std::io::stdout().write_all(b"\ncommitted\n").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn kill_9_of_the_owner_loses_nothing_and_leaves_nothing() {
    if let Some(dir) = std::env::var_os(OWNER_DIR) {
        be_the_owner(dir.into()).await;
    }
    let dir = temp_dir();
    let mut owner = spawn_owner(dir.path());
    let server = server_pid(dir.path()).unwrap();
    assert!(is_alive(server));
    owner.kill().unwrap();
    owner.wait().unwrap();
    // The next owner comes before the old server is gone, and waits for it.
    let database = open(Options::new(dir.path())).await;
    assert_eq!(count(&database.connect().await.unwrap()).await, 1);
    assert!(!is_alive(server));
    database.close().await.unwrap();

    let mut owner = spawn_owner(dir.path());
    let server = server_pid(dir.path()).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the server is gone", || !is_alive(server));
}

#[tokio::test]
async fn a_process_id_that_was_reused_does_not_stop_the_start() {
    let dir = temp_dir();
    open(Options::new(dir.path())).await.close().await.unwrap();
    let file = dir.path().join("cluster/postmaster.pid");
    std::fs::write(&file, format!("{}\n", std::process::id())).unwrap();
    open(Options::new(dir.path())).await.close().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let dir = temp_dir();
    let deep = dir.path().join("d".repeat(120));
    let server = Server::start(&Options::new(&deep)).await.unwrap();
    let socket_dir = server.socket_dir().to_owned();
    assert!(!socket_dir.starts_with(&deep) && socket_dir.exists());
    server.stop().await.unwrap();
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn a_failed_start_shows_the_servers_last_words() {
    let dir = temp_dir();
    let mut options = Options::new(dir.path());
    options
        .settings
        .push(("no_such_setting".to_owned(), "1".to_owned()));
    let error = Server::start(&options).await.unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn missing_binaries_are_named_before_anything_is_written() {
    let (dir, empty) = (temp_dir(), temp_dir());
    let data = dir.path().join("data");
    let mut options = Options::new(&data);
    options.binaries = Binaries::In(empty.path().to_owned());
    let error = Server::start(&options).await.unwrap_err().to_string();
    assert!(error.contains(empty.path().to_str().unwrap()), "{error}");
    assert!(
        error.contains("DATABASE_URL") && error.contains("--pg-bin-dir") && !error.contains('\n'),
        "{error}"
    );
    assert!(!data.exists(), "a container's root may be read-only");
}

#[tokio::test]
async fn root_is_told_of_a_directory_that_the_server_cannot_enter() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let closed = temp_dir();
    std::fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    let error = Server::start(&Options::new(closed.path().join("data")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotReachable { .. }), "{error:?}");
}

#[cfg(feature = "carried-postgres")]
#[tokio::test]
async fn the_carried_postgres_serves_and_its_data_asks_for_its_version() {
    let dir = temp_dir();
    let mut options = Options::new(dir.path());
    options.binaries = Binaries::Carried;
    let start = Instant::now();
    let database = open(options.clone()).await;
    eprintln!("first start, carried: {:?}", start.elapsed());
    let client = database.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE kept AS SELECT 1")
        .await
        .unwrap();
    assert!(database.describe().contains("PostgreSQL 17"));
    database.close().await.unwrap();

    // Found again whatever else is installed.
    options.binaries = Binaries::Any;
    let start = Instant::now();
    let database = open(options.clone()).await;
    eprintln!("later start, carried: {:?}", start.elapsed());
    assert_eq!(count(&database.connect().await.unwrap()).await, 1);
    database.close().await.unwrap();

    std::fs::write(dir.path().join("cluster/PG_VERSION"), "13\n").unwrap();
    let error = Server::start(&options).await.unwrap_err().to_string();
    assert!(
        error.contains("PostgreSQL 13, which the data directory"),
        "{error}"
    );
}
