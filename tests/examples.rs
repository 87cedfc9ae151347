//! The examples do what they say, against a service that was just started.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::PathBuf;

use booking_service::server::{self, Shutdown};
use booking_service::store::{LaneOptions, STATEMENTS, Store, schema};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::oneshot;

/// Runs an example, which `cargo test` has built beside this test, and returns what it printed.
async fn run(example: &str, arguments: &[&str]) -> String {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name("examples");
    path.push(example);
    let ran = Command::new(&path)
        .args(arguments)
        .env_remove("DATABASE_URL")
        .env_remove("CLUSTER_ENDPOINT")
        .kill_on_drop(true)
        .output()
        .await;
    let ran = ran.unwrap_or_else(|error| {
        panic!("{}: {error}: run cargo build --examples", path.display());
    });
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "{example}: {}\n{printed}{complaint}",
        ran.status
    );
    printed
}

/// A service on a database of its own, for as long as the sender lives, and its address.
async fn serve() -> (String, oneshot::Sender<Shutdown>) {
    let database = support::fresh_database().await;
    let options = schema::Options::default();
    schema::migrate(&database, &options).await.unwrap();
    let pool = database.pool(booking_service::db::PoolOptions { size: 4 }, STATEMENTS);
    let store = Store::new(pool, LaneOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(Shutdown::Interrupted) };
    let options = server::Options::default();
    tokio::spawn(server::run(listener, store, options, shutdown));
    (address, stop)
}

fn assert_has(printed: &str, lines: &[&str]) {
    for line in lines {
        assert!(printed.contains(line), "no {line:?} in:\n{printed}");
    }
}

#[tokio::test]
async fn book_books_and_reads_why_it_is_refused() {
    let (address, _stop) = serve().await;
    let printed = run("book", &[&address]).await;
    let lines = [
        "sent again, it is the same: true",
        "bob is refused: FailedPrecondition, SLOT_UNAVAILABLE",
        "in the way is bookings/",
        "listed: 2030-01-07T10:30:00Z to 2030-01-07T11:30:00Z, by bob",
        "listed: 2030-01-07T11:30:00Z to 2030-01-07T12:30:00Z, by ada",
        "deleted both",
    ];
    assert_has(&printed, &lines);
}

#[tokio::test]
async fn hold_confirms_in_time_and_is_refused_when_late() {
    let (address, _stop) = serve().await;
    let printed = run("hold", &[&address]).await;
    let lines = [
        "ada: HELD, until ",
        "bob: SLOT_UNAVAILABLE",
        "ada: CONFIRMED",
        "eve: HOLD_EXPIRED",
        "bob: HELD, since the seat is free",
    ];
    assert_has(&printed, &lines);
}

#[tokio::test]
async fn connect_finds_a_database_and_leaves_none_running() {
    let dir = support::temp_dir();
    let data_dir = dir.path().join("data");
    let printed = run("connect", &["--data-dir", data_dir.to_str().unwrap()]).await;
    let lines = [
        "connected to private PostgreSQL",
        "signed in as postgres",
        "[1, 3, 6, 10, 15, 21, 28, 36]",
        "closed",
    ];
    assert_has(&printed, &lines);
    assert_eq!(support::server_pid(&data_dir), None);
}
