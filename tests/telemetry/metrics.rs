//! Every metric that is promised, seen in a scrape of a service that had every kind of day.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_dsql::config::{Credentials as AwsCredentials, SharedCredentialsProvider};
use aws_smithy_async::time::SystemTimeSource;
use booking_service::db::{Database, Target, dsql};
use booking_service::grpc::Limits;
use booking_service::pb;
use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::server::{self, Shutdown};
use booking_service::store::{LaneOptions, STATEMENTS, Store};
use booking_service::telemetry::exposition;
use booking_service::telemetry::metrics::{self, Kind, METRICS};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::credentials::{Credentials, age};
use crate::files;
use crate::harness::{Client, House, block_on, booking, create, fresh, hold, reason_of, window};
use crate::postgres;
use crate::scrape::{Scrape, ask, scrape};

const NOTE: &str = "the-note-that-nobody-else-reads";
const BOOKER: &str = "somebody-who-books";

/// A service whose metrics are served.
struct Watched {
    client: Client,
    metrics: SocketAddr,
    _stop: oneshot::Sender<Shutdown>,
}

impl Watched {
    async fn start(house: &House, lanes: LaneOptions, options: server::Options) -> Self {
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

async fn listen() -> (TcpListener, SocketAddr) {
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
async fn every_call(client: &mut Client, resource: &str) {
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
async fn bad_day(house: &House, watched: &Watched, resource: &str) {
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
async fn contend(a: &Watched, b: &Watched, resource: &str) {
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
async fn sign_in(credentials: Option<AwsCredentials>) {
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

fn assert_as_listed(seen: &Scrape) {
    let listed: BTreeSet<_> = METRICS
        .iter()
        .map(|metric| {
            if metric.is_time {
                format!("{}_seconds", metric.name)
            } else {
                metric.name.to_owned()
            }
        })
        .collect();
    assert_eq!(
        seen.families.keys().cloned().collect::<BTreeSet<_>>(),
        listed
    );
    for metric in METRICS {
        let unit = if metric.is_time { "_seconds" } else { "" };
        let name = format!("{}{unit}", metric.name);
        let family = &seen.families[&name];
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(family.kind, kind, "{name}");
        assert_eq!(family.help.trim_end_matches('.'), metric.help, "{name}");
        assert_eq!(
            family.unit.as_deref(),
            metric.is_time.then_some("seconds"),
            "{name}"
        );
        let samples: Vec<_> = seen
            .samples
            .iter()
            .filter(|sample| sample.family == name)
            .collect();
        assert!(!samples.is_empty(), "{name} was never counted");
        for sample in samples {
            let labels: Vec<_> = sample
                .labels
                .keys()
                .filter(|label| *label != "le")
                .collect();
            let mut listed = metric.labels.to_vec();
            listed.sort_unstable();
            assert_eq!(labels, listed, "{name}");
        }
    }
}

fn assert_files_ask_for_what_there_is(seen: &Scrape) {
    let series: BTreeSet<_> = seen.samples.iter().map(|sample| &*sample.name).collect();
    for asked in files::selected() {
        assert!(
            series.contains(&*asked.series),
            "there is no {}",
            asked.series
        );
        let sample = seen
            .samples
            .iter()
            .find(|sample| sample.name == asked.series)
            .unwrap();
        for label in asked.labels {
            let is_known =
                sample.labels.contains_key(&label) || ["job", "instance"].contains(&&*label);
            assert!(is_known, "{} has no label {label}", asked.series);
        }
    }
}

fn assert_the_calls_are_there(seen: &Scrape) {
    let calls = |method: &str, code: &str, error: &str| {
        let method = format!("booking.v1.BookingService/{method}");
        let labels = [
            ("rpc_method", &*method),
            ("rpc_response_status_code", code),
            ("error_type", error),
        ];
        seen.sum("rpc_server_call_duration_seconds_count", &labels)
    };
    for method in [
        "CreateBooking",
        "GetBooking",
        "ListBookings",
        "UpdateBooking",
        "DeleteBooking",
        "ConfirmBooking",
        "CancelBooking",
        "BatchCreateBookings",
        "BatchGetBookings",
        "QueryAvailability",
    ] {
        assert!(calls(method, "OK", "") >= 1.0, "{method}");
    }
    for (method, code, error) in [
        ("CreateBooking", "FAILED_PRECONDITION", "SLOT_UNAVAILABLE"),
        ("CreateBooking", "INVALID_ARGUMENT", "INVALID_FIELDS"),
        ("CreateBooking", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        ("CreateBooking", "RESOURCE_EXHAUSTED", "OVERLOADED"),
        ("GetBooking", "NOT_FOUND", "BOOKING_NOT_FOUND"),
    ] {
        assert!(calls(method, code, error) >= 1.0, "{method} {error}");
    }
}

fn assert_what_happened_is_there(seen: &Scrape) {
    let conflicts = seen.sum("booking_transaction_conflicts_total", &[]);
    let lost = seen.sum(
        "db_client_operation_duration_seconds_count",
        &[("error_type", "conflict")],
    );
    let retries = seen.sum(
        "booking_transaction_retries_total",
        &[("cause", "conflict")],
    );
    assert!(conflicts >= 1.0 && lost >= 1.0 && retries >= 1.0);
    assert!(seen.sum("booking_queue_refusals_total", &[]) >= 1.0);
    for operation in [
        "create",
        "create_batch",
        "update",
        "confirm",
        "cancel",
        "delete",
        "get",
        "taken",
        "list_by_resource",
        "schema_version",
    ] {
        let labels = [("db_operation_name", operation), ("outcome", "answered")];
        assert!(
            seen.sum("booking_transaction_duration_seconds_count", &labels) >= 1.0,
            "{operation}"
        );
    }
    for outcome in ["signed", "failed"] {
        let labels = [("outcome", outcome)];
        assert!(
            seen.sum("booking_token_signings_total", &labels) >= 1.0,
            "{outcome}"
        );
    }
    assert!(seen.sum("db_client_connection_count", &[]) >= 1.0);
    assert!(seen.sum("db_client_connection_max", &[]) > 1.0);
    assert!(seen.sum("booking_ready", &[]) > 0.0);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert!((seen.sum("booking_build_info", &version) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_scrape_shows_what_happened_and_nothing_that_is_private() {
    block_on(async {
        let house = House::new().await;
        let narrow = LaneOptions {
            lanes: 1,
            queue_max: 1,
            ..LaneOptions::default()
        };
        let limits = Limits {
            request_timeout: Duration::from_millis(500),
            ..Limits::default()
        };
        let impatient = server::Options {
            limits,
            ..server::Options::default()
        };
        let (a, b) = (
            Watched::start(&house, LaneOptions::default(), server::Options::default()).await,
            Watched::start(&house, LaneOptions::default(), server::Options::default()).await,
        );
        let tight = Watched::start(&house, narrow, impatient).await;
        let resource = fresh("a-resource-with-a-name");
        let credentials = Credentials::open().await;
        every_call(&mut a.client.clone(), &resource).await;
        contend(&a, &b, &fresh("contended")).await;
        bad_day(&house, &tight, &fresh("overloaded")).await;
        sign_in(Some(AwsCredentials::new(
            "id", "secret", None, None, "tests",
        )))
        .await;
        sign_in(None).await;

        let seen = scrape(a.metrics).await;
        assert_as_listed(&seen);
        assert_files_ask_for_what_there_is(&seen);
        for private in [
            NOTE,
            BOOKER,
            "a-resource-with-a-name",
            "bookings/",
            "secret",
        ] {
            assert!(!seen.text.contains(private), "{private}");
        }

        assert_the_calls_are_there(&seen);
        assert_what_happened_is_there(&seen);
        age(&credentials, async || scrape(a.metrics).await).await;
    });
}

#[test]
fn only_a_get_of_metrics_is_answered() {
    block_on(async {
        let (listener, address) = listen().await;
        tokio::spawn(exposition::serve(listener, || ()));
        let status = async |request: &str| {
            let (head, body) = ask(address, request, "*/*").await;
            (head.lines().next().unwrap().to_owned(), head, body)
        };
        assert!(status("GET / HTTP/1.1").await.0.contains(" 404 "));
        assert!(status("GET /metrics/ HTTP/1.1").await.0.contains(" 404 "));
        assert!(status("POST /metrics HTTP/1.1").await.0.contains(" 405 "));
        let (line, head, body) = status("GET /metrics HTTP/1.1").await;
        assert!(line.contains(" 200 "), "{line}");
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(body.contains("booking_build_info{version=") && !body.contains(" info\n"));
    });
}
