//! A PostgreSQL for a program to be run against.

use booking_service::db::embedded::{Options, Server};
use booking_service::pb;
use prost_types::Timestamp;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::program::run;

/// A PostgreSQL with an empty database, and how to reach it.
pub(crate) struct Postgres {
    server: Server,
    _data: TempDir,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(&Options::new(data.path().join("data")))
            .await
            .expect("started");
        server
            .create_database("bookings")
            .await
            .expect("a database");
        Self {
            server,
            _data: data,
        }
    }

    pub(crate) fn url(&self, role: &str) -> String {
        format!(
            "host={} user={role} dbname=bookings",
            self.server.socket_dir().display()
        )
    }

    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.url("postgres"), NoTls).await;
        let (client, connection) = connected.expect("connected");
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let client = self.client().await;
        client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await
            .unwrap()
            .get(0)
    }
}

/// Runs the program to its end, which has to be a good one.
pub(crate) async fn assert_done(arguments: &[&str]) {
    let ended = run(arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
}

/// A booking of this resource, always at the same time.
pub(crate) fn request(resource: &str) -> pb::CreateBookingRequest {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let booking = pb::Booking {
        resource: resource.to_owned(),
        start_time: at(1_798_761_600),
        end_time: at(1_798_765_200),
        booked_by: "ada".to_owned(),
        ..pb::Booking::default()
    };
    pb::CreateBookingRequest {
        booking: Some(booking),
        ..pb::CreateBookingRequest::default()
    }
}
