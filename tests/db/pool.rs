//! The pool: statements, retirement, and what a dead database looks like from it.

use std::error::Error as _;
use std::time::Duration;

use booking_service::db::{Database, Error, PoolOptions, Target, postgres};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::{fresh_database, server, write};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test]
async fn a_connection_carries_its_statements_in_order() {
    let database = fresh_database().await;
    let pool = database.pool(PoolOptions { size: 2 }, &["SELECT 1", "SELECT 2"]);
    let connection = pool.get(soon()).await.unwrap();
    for (index, expected) in [(0, 1), (1, 2)] {
        let row = connection
            .query_one(connection.statement(index), &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i32>(0), expected);
    }
}

#[tokio::test]
async fn a_session_is_named_and_has_its_settings() {
    let client = fresh_database().await.connect().await.unwrap();
    let sql = "SELECT current_setting('application_name'), \
               current_setting('idle_in_transaction_session_timeout')";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("booking-service", "1min"));
}

async fn backend(connection: &tokio_postgres::Client) -> i32 {
    connection
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn a_connection_is_reused_until_it_is_marked_broken() {
    let pool = fresh_database().await.pool(PoolOptions { size: 1 }, &[]);
    let first = backend(&pool.get(soon()).await.unwrap()).await;
    assert_eq!(backend(&pool.get(soon()).await.unwrap()).await, first);
    pool.get(soon()).await.unwrap().mark_broken();
    assert_ne!(backend(&pool.get(soon()).await.unwrap()).await, first);
    assert!(pool.connections() == 1);
}

#[tokio::test]
async fn a_connection_retires_with_age() {
    let pool = fresh_database().await.pool(PoolOptions { size: 1 }, &[]);
    let first = backend(&pool.get(soon()).await.unwrap()).await;
    for (minutes, is_reused) in [(26, true), (8, false)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_mins(minutes)).await;
        tokio::time::resume();
        let now = backend(&pool.get(soon()).await.unwrap()).await;
        assert_eq!(now == first, is_reused, "{minutes}");
    }
}

#[tokio::test]
async fn idle_connections_that_died_are_not_lent() {
    let database = fresh_database().await;
    let pool = database.pool(PoolOptions { size: 4 }, &[]);
    let all: Vec<_> = futures_util::future::join_all((0..4).map(|_| pool.get(soon()))).await;
    drop(all);
    let killer = database.connect().await.unwrap();
    let sql = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    killer.query(sql, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..4 {
        backend(&pool.get(soon()).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_busy_pool_times_out_at_the_deadline() {
    let pool = fresh_database().await.pool(PoolOptions { size: 1 }, &[]);
    let _held = pool.get(soon()).await.unwrap();
    let start = Instant::now();
    let error = pool
        .get(start + Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("--pool-size"));
    assert!(start.elapsed() < Duration::from_millis(400));
}

/// Forwards a TCP port to the shared server's socket until dropped.
struct Proxy {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start() -> Self {
        let socket = server().await.socket_dir().join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = tokio::net::UnixStream::connect(&socket).await.unwrap();
                connections.spawn(async move {
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port, task }
    }
}

#[tokio::test]
async fn a_database_that_goes_down_is_reported_at_once_with_its_cause() {
    let proxy = Proxy::start().await;
    let url = format!(
        "postgres://postgres@127.0.0.1:{}/booking?sslmode=disable",
        proxy.port
    );
    let target = Target::Postgres(postgres::Options::parse(&url, None).unwrap());
    let database = Database::open(&target).await.unwrap();
    let pool = database.pool(PoolOptions { size: 4 }, &[]);
    drop(pool.get(soon()).await.unwrap());

    proxy.task.abort();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    let deadline = start + Duration::from_mins(1);
    let gets = futures_util::future::join_all((0..20).map(|_| pool.get(deadline))).await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    for result in gets {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains("cannot reach"), "{error}");
        let source = error.source().unwrap();
        assert!(source.downcast_ref::<tokio_postgres::Error>().is_some());
    }
}

#[tokio::test]
async fn a_statement_that_cannot_be_prepared_names_the_remedy() {
    let pool = fresh_database()
        .await
        .pool(PoolOptions { size: 1 }, &["SELECT a FROM b"]);
    let error = pool.get(soon()).await.unwrap_err();
    assert!(error.to_string().contains("run `migrate`"), "{error}");
}

#[tokio::test]
async fn an_unreachable_host_is_an_error_within_seconds() {
    // Listens, but nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for (port, expected, limit_seconds) in [(1, "cannot reach", 2), (port, "did not answer", 10)] {
        let url = format!("postgres://app:s3cret@127.0.0.1:{port}/db");
        let target = Target::Postgres(postgres::Options::parse(&url, None).unwrap());
        let start = Instant::now();
        let error = Database::open(&target).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(limit_seconds));
        let text = error.to_string();
        assert!(text.contains(expected) && !text.contains('\n'), "{text}");
        assert!(!format!("{text} {error:?}").contains("s3cret"));
    }
    let dir = crate::support::temp_dir();
    let no_ca = write(dir.path(), "empty.pem", "");
    let url = "postgres://127.0.0.1:1/db";
    let target = Target::Postgres(postgres::Options::parse(url, Some(&no_ca)).unwrap());
    let error = Database::open(&target).await.unwrap_err();
    assert!(error.to_string().contains("--db-ca-file"), "{error}");
}
