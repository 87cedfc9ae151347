//! Connections to Aurora DSQL: signed tokens, checked by a front that computes them anew.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::time::{StaticTimeSource, SystemTimeSource, TimeSource};
use booking_service::db::{Database, Dialect, PoolOptions, Target};
use tokio::time::Instant;

use crate::support::certificates::Authority;
use crate::support::dsql::{Front, SECRET_KEY, aws_config};
use crate::support::{chain, temp_dir};

/// A clock that is 16 minutes behind, more than a token lives.
fn slow_clock() -> StaticTimeSource {
    StaticTimeSource::new(SystemTime::now() - Duration::from_mins(16))
}

/// A clock that moves on by a second with every look, so that no two signatures are alike.
#[derive(Debug, Default)]
struct TickingClock(AtomicU64);

impl TimeSource for TickingClock {
    fn now(&self) -> SystemTime {
        let ticks = self.0.fetch_add(1, Ordering::SeqCst);
        SystemTime::now() - Duration::from_mins(1) + Duration::from_secs(ticks)
    }
}

#[tokio::test]
async fn every_new_connection_brings_a_fresh_token() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    let options = front
        .options("app", authority.write(dir.path(), "ca.pem"))
        .with_aws_config(aws_config(SECRET_KEY, TickingClock::default()));
    let database = Database::open(&Target::Dsql(options)).await.unwrap();
    assert_eq!(database.dialect(), Dialect::Dsql);
    assert!(database.describe().starts_with("Aurora DSQL at localhost:"));

    let pool = database.pool(PoolOptions { size: 3 }, &["SELECT 41 + $1::int4"]);
    let soon = Instant::now() + Duration::from_secs(5);
    let connections = futures_util::future::join_all((0..3).map(|_| pool.get(soon))).await;
    for connection in connections {
        let connection = connection.unwrap();
        let statement = connection.statement(0);
        let row = connection.query_one(statement, &[&1]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 42);
    }
    pool.get(soon).await.unwrap();
    let tokens = front.tokens();
    assert_eq!(
        tokens.len(),
        4,
        "one to open, three for the pool, none for reuse"
    );
    assert!(
        tokens
            .iter()
            .all(|token| token.contains("Action=DbConnect&"))
    );
    let distinct: HashSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), 4, "a token was used twice");
}

#[tokio::test]
async fn admin_signs_in_with_an_action_of_its_own() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    let options = front.options("admin", authority.write(dir.path(), "ca.pem"));
    Database::open(&Target::Dsql(options)).await.unwrap();
    assert!(front.tokens()[0].contains("Action=DbConnectAdmin&"));
}

#[tokio::test]
async fn a_forged_token_is_denied_clearly_and_not_tried_again() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    let options = front
        .options("app", authority.write(dir.path(), "ca.pem"))
        .with_aws_config(aws_config("another-secret", SystemTimeSource::new()));
    let error = Database::open(&Target::Dsql(options)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("denied access") && text.contains("dsql:DbConnect "),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
    let everything = format!("{} {error:?}", chain(&error));
    assert!(!everything.contains("X-Amz-Signature"), "{everything}");
    assert!(!everything.contains("another-secret"), "{everything}");
    assert_eq!(front.tokens().len(), 1);
}

#[tokio::test]
async fn an_expired_token_is_signed_again_once() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    let options = front
        .options("app", authority.write(dir.path(), "ca.pem"))
        .with_aws_config(aws_config(SECRET_KEY, slow_clock()));
    let error = Database::open(&Target::Dsql(options)).await.unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
    assert_eq!(front.tokens().len(), 2);
}

/// Slow while the first token is made, which takes two looks, and right from then on.
#[derive(Debug, Default)]
struct MendedClock(AtomicU64);

impl TimeSource for MendedClock {
    fn now(&self) -> SystemTime {
        if self.0.fetch_add(1, Ordering::SeqCst) < 2 {
            slow_clock().now()
        } else {
            SystemTime::now()
        }
    }
}

#[tokio::test]
async fn a_fresh_token_after_an_expired_one_gets_in() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    let options = front
        .options("app", authority.write(dir.path(), "ca.pem"))
        .with_aws_config(aws_config(SECRET_KEY, MendedClock::default()));
    Database::open(&Target::Dsql(options)).await.unwrap();
    assert_eq!(front.tokens().len(), 2);
}

#[tokio::test]
async fn a_cluster_that_wakes_up_is_waited_for() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    front.wake_up_slowly(2);
    let options = front.options("app", authority.write(dir.path(), "ca.pem"));
    Database::open(&Target::Dsql(options)).await.unwrap();
    assert_eq!(front.tokens().len(), 3);
}

#[tokio::test]
async fn a_cluster_of_another_ca_or_name_gets_no_token() {
    let (dir, authority) = (temp_dir(), Authority::new());
    let front = Front::with_authority(&authority).await;
    let stranger = Authority::new().write(dir.path(), "stranger.pem");
    let error = Database::open(&Target::Dsql(front.options("app", stranger)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--db-ca-file"), "{error}");
    assert!(front.tokens().is_empty());

    let server = crate::support::server().await;
    let elsewhere = authority.issue("elsewhere.example");
    let front = Front::start(&elsewhere, server.socket_dir(), "booking").await;
    let options = front.options("app", authority.write(dir.path(), "ca.pem"));
    let error = Database::open(&Target::Dsql(options)).await.unwrap_err();
    assert!(error.to_string().contains("another host name"), "{error}");
    assert!(front.tokens().is_empty());
}
