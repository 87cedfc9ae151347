//! Each row of the table of errors: code, reason, details, trailers.

use super::super::answer::{ForTheLog, PUSHBACK};
use super::*;
use crate::booking::{CancelReason, Interval, InvalidInterval, Resource, Timestamp};
use crate::store::BatchError;
use std::collections::HashMap;
use tonic_types::{ErrorDetail, StatusExt};

fn id() -> BookingId {
    Uuid::from_u128(7).into()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).expect("in range")
}

fn cause() -> store::Cause {
    "password=hunter2 at 10.0.0.7".into()
}

/// The parts of a status that clients act on, as they come over the wire.
struct Seen {
    code: Code,
    reason: String,
    metadata: HashMap<String, String>,
    details: Vec<ErrorDetail>,
    pushback: Option<String>,
    status: Status,
}

fn seen(error: impl Into<Error>) -> Seen {
    let response = Status::from(error.into()).into_http::<()>();
    let status = Status::from_header_map(response.headers()).expect("a status");
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!(info.domain, "booking.v1");
    let details = status.get_error_details_vec();
    let kinds: std::collections::HashSet<_> = details.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), details.len(), "each detail at most once");
    let text = format!("{status:?} {:?}", response.headers());
    assert!(
        !text.contains("hunter2") && !text.contains("10.0.0.7"),
        "{text}"
    );
    let pushback = status.metadata().get(PUSHBACK);
    Seen {
        code: status.code(),
        reason: info.reason,
        metadata: info.metadata,
        details,
        pushback: pushback.map(|value| value.to_str().expect("text").to_owned()),
        status,
    }
}

fn metadata<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn assert_plain(error: impl Into<Error>, code: Code, reason: &str) -> Seen {
    let seen = seen(error);
    assert_eq!((seen.code, &*seen.reason), (code, reason));
    assert_eq!(seen.pushback, None);
    seen
}

/// With advice for clients of either kind, and both the same.
fn assert_retry(error: store::Error, code: Code, reason: &str) {
    let seen = seen(error);
    assert_eq!((seen.code, &*seen.reason), (code, reason));
    let info = seen.status.get_details_retry_info().expect("RetryInfo");
    let delay_ms = info.retry_delay.expect("a delay").as_millis();
    assert_eq!(seen.pushback, Some(delay_ms.to_string()));
    assert!(delay_ms > 0);
    assert_eq!(seen.details.len(), 2);
}

#[test]
fn a_taken_slot_names_what_is_in_the_way() {
    let interval = Interval::new(at(0), at(1_500_000)).expect("valid");
    let resource = Resource::parse("room-101").expect("valid");
    let taken = store::Error::SlotTaken {
        resource,
        by: id(),
        interval,
    };
    let seen = assert_plain(taken, Code::FailedPrecondition, "SLOT_UNAVAILABLE");
    assert_eq!(
        seen.metadata,
        metadata([
            ("resource", "room-101"),
            ("conflict", "bookings/00000000-0000-0000-0000-000000000007"),
            ("conflict_start_time", "1970-01-01T00:00:00Z"),
            ("conflict_end_time", "1970-01-01T00:00:01.500Z"),
        ])
    );
    let failure = seen.status.get_details_precondition_failure();
    assert_eq!(
        failure.expect("PreconditionFailure").violations[0].subject,
        "room-101"
    );
}

#[test]
fn a_missing_booking_is_not_found() {
    let seen = assert_plain(
        store::Error::NotFound(id()),
        Code::NotFound,
        "BOOKING_NOT_FOUND",
    );
    assert_eq!(
        seen.metadata,
        HashMap::from([("name".to_owned(), id().to_string())])
    );
    let info = seen
        .status
        .get_details_resource_info()
        .expect("ResourceInfo");
    assert_eq!(info.resource_name, id().to_string());
}

#[test]
fn a_final_state_is_a_failed_precondition() {
    let reason = CancelReason::parse("").expect("valid");
    let cancelled = State::Cancelled {
        time: at(0),
        reason,
    };
    for (state, reason, name) in [
        (State::Expired, "HOLD_EXPIRED", "EXPIRED"),
        (cancelled, "INVALID_STATE", "CANCELLED"),
    ] {
        let error = store::Error::InvalidState { id: id(), state };
        let seen = assert_plain(error, Code::FailedPrecondition, reason);
        assert_eq!(seen.metadata["state"], name);
        assert_eq!(seen.metadata["name"], id().to_string());
        assert!(seen.status.get_details_precondition_failure().is_some());
    }
}

#[test]
fn an_etag_out_of_date_is_not_to_be_retried() {
    let seen = seen(store::Error::EtagMismatch(id()));
    assert_eq!((seen.code, &*seen.reason), (Code::Aborted, "ETAG_MISMATCH"));
    assert_eq!(seen.pushback.as_deref(), Some("-1"));
    assert!(seen.status.get_details_retry_info().is_none());
}

#[test]
fn invalid_fields_come_with_a_violation_each() {
    let mut violations = Violations::of("booking.resource", "is required");
    violations.add("hold_ttl", "must be between 1 and 3600 seconds");
    let seen = assert_plain(violations, Code::InvalidArgument, "INVALID_FIELDS");
    let request = seen.status.get_details_bad_request().expect("BadRequest");
    let fields: Vec<_> = request
        .field_violations
        .iter()
        .map(|it| &*it.field)
        .collect();
    assert_eq!(fields, ["booking.resource", "hold_ttl"]);
}

#[test]
fn what_only_the_store_finds_invalid_names_the_field_that_was_given() {
    for (start_given, field) in [(true, "booking.start_time"), (false, "booking.end_time")] {
        for reason in [InvalidInterval::Empty, InvalidInterval::TooLong] {
            let context = Context {
                start_given,
                ..Context::default()
            };
            let error = Error::Store(store::Error::InvalidInterval(reason), context);
            let seen = assert_plain(error, Code::InvalidArgument, "INVALID_FIELDS");
            let request = seen.status.get_details_bad_request().expect("BadRequest");
            assert_eq!(request.field_violations[0].field, field);
        }
    }
    let seen = assert_plain(
        store::Error::TooMany { max: 5 },
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
    assert!(seen.status.get_details_bad_request().is_some());
}

#[test]
fn a_request_id_used_twice_is_named() {
    let request_id: RequestId = Uuid::from_u128(9).to_string().parse().expect("a UUID");
    let refusal = BatchError {
        index: Some(1),
        error: store::Error::RequestIdReused(id()),
    };
    let error = Error::of_member(refusal, &[None, Some(request_id)]);
    let seen = assert_plain(error, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let request_id = request_id.to_string();
    assert_eq!(
        seen.metadata,
        metadata([("request_id", &*request_id), ("index", "1")])
    );
}

#[test]
fn a_page_token_is_invalid_on_its_own() {
    let seen = assert_plain(
        Error::PageToken,
        Code::InvalidArgument,
        "PAGE_TOKEN_INVALID",
    );
    assert_eq!(seen.details.len(), 1);
}

#[test]
fn what_may_work_later_says_when() {
    let contention = store::Error::Contention {
        attempts: 5,
        source: cause(),
    };
    assert_retry(contention, Code::Aborted, "CONTENTION");
    assert_retry(
        store::Error::Overloaded,
        Code::ResourceExhausted,
        "OVERLOADED",
    );
    let unavailable = store::Error::Unavailable { source: cause() };
    assert_retry(unavailable, Code::Unavailable, "DATABASE_UNAVAILABLE");
}

#[test]
fn a_deadline_that_passed_says_what_to_do() {
    let seen = assert_plain(
        store::Error::DeadlineExceeded,
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
    );
    assert!(seen.status.message().contains("request_id"));
}

#[test]
fn the_unforeseen_has_an_id_and_nothing_else() {
    let error = store::Error::Internal { source: cause() };
    let seen = assert_plain(error, Code::Internal, "INTERNAL");
    assert!(Uuid::try_parse(&seen.metadata["incident"]).is_ok());
    assert!(seen.status.message().contains(&seen.metadata["incident"]));
}

#[test]
fn the_log_has_the_incident_and_its_cause() {
    let error = store::Error::Internal { source: cause() };
    let status = Status::from(error);
    let told = status.get_details_error_info().expect("ErrorInfo");
    let log = ForTheLog::of(&status).expect("something for the log");
    let incident = log.incident.map(|id| id.to_string());
    assert_eq!(incident.as_ref(), told.metadata.get("incident"));
    let cause = log.cause.as_deref().expect("a cause");
    assert!(cause.ends_with("password=hunter2 at 10.0.0.7"), "{cause}");
}

#[test]
fn a_chain_goes_down_to_the_root() {
    let error = store::Error::Unavailable { source: cause() };
    let text = chain(&error);
    assert_eq!(
        text,
        "the database is out of reach: password=hunter2 at 10.0.0.7"
    );
}

#[test]
fn a_credential_that_does_not_do_is_told_why_and_nothing_of_the_booking() {
    let why = "the token has expired";
    let seen = assert_plain(
        Error::Unauthenticated(why),
        Code::Unauthenticated,
        "UNAUTHENTICATED",
    );
    assert_eq!(seen.status.message(), why);
    let error = Error::ScopeMissing("bookings.write".into());
    let seen = assert_plain(error, Code::PermissionDenied, "PERMISSION_DENIED");
    assert_eq!(seen.metadata, metadata([("scope", "bookings.write")]));
    let seen = assert_plain(
        store::Error::NotOwned,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    assert_eq!(seen.metadata, metadata([]));
    assert_eq!(seen.details.len(), 1);
}
