//! Every kind of day that a service can have, for its metrics to tell of.

use std::future::Future;
use std::net::SocketAddr;

use aws_config::{Region, SdkConfig};
use aws_sdk_dsql::config::{Credentials as AwsCredentials, SharedCredentialsProvider};
use aws_smithy_async::time::SystemTimeSource;
use booking_service::db::{Database, Target, dsql};
use booking_service::pb;
use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::server::{self, Shutdown};
use booking_service::store::{LaneOptions, STATEMENTS, Store};
use booking_service::telemetry::exposition;
use booking_service::telemetry::metrics;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Client, House, booking, create, hold, reason_of, window};
use crate::postgres;
use crate::scrape::scrape;

pub(crate) const NOTE: &str = "the-note-that-nobody-else-reads";
pub(crate) const BOOKER: &str = "somebody-who-books";

/// A service whose metrics are served.
pub(crate) struct Watched {
    pub(crate) client: Client,
    pub(crate) metrics: SocketAddr,
    _stop: oneshot::Sender<Shutdown>,
}

impl Watched {
    pub(crate) async fn start(house: &House, lanes: LaneOptions, options: server::Options) -> Self {
        metrics::start();
        let pool = postgres::pool(house.database(), STATEMENTS);
        let store = Store::new(pool.clone(), lanes);
        let (listener, address) = listen().await;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or(Shutdown::Interrupted) };
        tokio::spawn(server::run(listener, store, options, shutdown));
        let (listener, metrics) = listen().await;
        tokio::spawn(exposition::serve(listener, move || pool.measure()));
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
        Self {
            client: BookingServiceClient::new(endpoint.connect().await.expect("connected")),
            metrics,
            _stop: stop,
        }
    }
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn secretive(resource: &str, from: i64, to: i64) -> pb::Booking {
    pb::Booking {
        note: NOTE.to_owned(),
        booked_by: BOOKER.to_owned(),
        ..booking(resource, from, to)
    }
}

fn refused<T>(answer: Result<T, Status>, code: Code, reason: &str) {
    let status = answer.err().expect("refused");
    assert_eq!((status.code(), &*reason_of(&status)), (code, reason));
}

/// Calls every method, and has some of them refused.
pub(crate) async fn every_call(client: &mut Client, resource: &str) {
    let made = client
        .create_booking(create(secretive(resource, 0, 60)))
        .await
        .unwrap()
        .into_inner();
    let rival = client
        .create_booking(create(secretive(resource, 30, 90)))
        .await;
    refused(rival, Code::FailedPrecondition, "SLOT_UNAVAILABLE");
    let get = pb::GetBookingRequest {
        name: made.name.clone(),
    };
    client.get_booking(get).await.unwrap();
    let get = pb::GetBookingRequest {
        name: format!("bookings/{}", uuid::Uuid::new_v4()),
    };
    refused(
        client.get_booking(get).await,
        Code::NotFound,
        "BOOKING_NOT_FOUND",
    );
    let list = pb::ListBookingsRequest {
        resource: resource.to_owned(),
        ..Default::default()
    };
    client.list_bookings(list).await.unwrap();
    let update = pb::UpdateBookingRequest {
        booking: Some(pb::Booking {
            note: "another".to_owned(),
            ..made.clone()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["note".to_owned()],
        }),
        ..Default::default()
    };
    client.update_booking(update).await.unwrap();
    let held = client
        .create_booking(hold(secretive(resource, 100, 160), 60))
        .await
        .unwrap();
    let confirm = pb::ConfirmBookingRequest {
        name: held.into_inner().name,
        ..Default::default()
    };
    client.confirm_booking(confirm).await.unwrap();
    let names = vec![made.name.clone()];
    client
        .batch_get_bookings(pb::BatchGetBookingsRequest { names })
        .await
        .unwrap();
    let requests = vec![
        create(secretive(resource, 200, 260)),
        create(secretive(resource, 300, 360)),
    ];
    client
        .batch_create_bookings(pb::BatchCreateBookingsRequest { requests })
        .await
        .unwrap();
    let interval = window(&pb::Interval {
        start_time: made.start_time,
        end_time: made.end_time,
    });
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let query = pb::QueryAvailabilityRequest {
        resources: vec![resource.to_owned()],
        start_time: time(interval.start),
        end_time: time(interval.end),
        ..Default::default()
    };
    client.query_availability(query).await.unwrap();
    let cancel = pb::CancelBookingRequest {
        name: made.name.clone(),
        ..Default::default()
    };
    client.cancel_booking(cancel).await.unwrap();
    let delete = pb::DeleteBookingRequest {
        name: made.name,
        ..Default::default()
    };
    client.delete_booking(delete).await.unwrap();
    refused(
        client
            .create_booking(pb::CreateBookingRequest::default())
            .await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
}

/// While nobody can write a guard, creates wait.
async fn while_guards_are_locked<T>(house: &House, meanwhile: impl Future<Output = T>) -> T {
    let locker = house.database().connect().await.expect("connected");
    let lock = "BEGIN; LOCK TABLE booking_guards IN ACCESS EXCLUSIVE MODE";
    locker.batch_execute(lock).await.expect("locked");
    let outcome = meanwhile.await;
    locker.batch_execute("ROLLBACK").await.expect("released");
    outcome
}

/// A call that runs into its deadline, and one more than the queue takes.
pub(crate) async fn bad_day(house: &House, watched: &Watched, resource: &str) {
    while_guards_are_locked(house, async {
        let late = create(secretive(resource, 0, 60));
        let late = watched.client.clone().create_booking(late).await;
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
        // One is in the works, and its place the only one there is.
        refused(
            watched
                .client
                .clone()
                .create_booking(create(secretive(resource, 100, 160)))
                .await,
            Code::ResourceExhausted,
            "OVERLOADED",
        );
    })
    .await;
}

/// Two replicas write the same day, until one has lost to the other.
pub(crate) async fn contend(a: &Watched, b: &Watched, resource: &str) {
    for round in 0..200 {
        let calls = (0..8).map(|number| {
            let mut client = [a, b][number % 2].client.clone();
            let minute = i64::try_from(round * 8 + number).expect("small") * 2;
            let request = create(secretive(resource, minute, minute + 1));
            async move { client.create_booking(request).await }
        });
        for answer in futures_util::future::join_all(calls).await {
            answer.expect("each has a slot of its own");
        }
        let seen = scrape(a.metrics).await;
        if seen.sum(
            "booking_transaction_conflicts_total",
            &[("db_operation_name", "create")],
        ) > 0.0
        {
            return;
        }
    }
    panic!("no conflict in so many rounds");
}

/// A cluster that is not there: only what happens before the connection counts.
pub(crate) async fn sign_in(credentials: Option<AwsCredentials>) {
    let (listener, address) = listen().await;
    drop(listener);
    let mut aws = SdkConfig::builder()
        .region(Region::new("eu-test-1"))
        .time_source(SystemTimeSource::new());
    aws.set_credentials_provider(credentials.map(SharedCredentialsProvider::new));
    let options = dsql::Options::new(&format!("localhost:{}", address.port()), "app", Some("r"));
    let options = options.unwrap().with_aws_config(aws.build());
    Database::open(&Target::Dsql(options))
        .await
        .expect_err("nobody is there");
}
