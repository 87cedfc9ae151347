//! Every metric that is promised, seen in a scrape of a service that had every kind of day.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dsql::config::Credentials as AwsCredentials;
use booking_service::grpc::Limits;
use booking_service::server;
use booking_service::store::LaneOptions;
use booking_service::telemetry::exposition;
use booking_service::telemetry::metrics::{Kind, METRICS};

use crate::credentials::{Credentials, age};
use crate::days::{BOOKER, NOTE, Watched, bad_day, contend, every_call, listen, sign_in};
use crate::files;
use crate::harness::{House, block_on, fresh};
use crate::scrape::{Scrape, ask, scrape};

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
