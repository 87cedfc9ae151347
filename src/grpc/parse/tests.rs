//! Requests, broken in every way at once, and the violations that come of it.

use std::collections::BTreeSet;

use quickcheck::quickcheck;

use super::super::service::REQUEST_BYTES_MAX;
use super::super::status::Error;
use super::*;
use crate::booking::limits::{CANCEL_REASON_BYTES_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX};
use crate::booking::{HoldTtl, Note, Resource};

const NAME: &str = "bookings/0a1b2c3d-0000-4000-8000-00000000000f";
const DAY: i64 = 86_400;

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn lasting(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn wire(resource: &str, start: i64, end: i64) -> pb::Booking {
    pb::Booking {
        name: NAME.to_owned(),
        resource: resource.to_owned(),
        start_time: at(start),
        end_time: at(end),
        booked_by: "ada".to_owned(),
        note: "by the window".to_owned(),
        ..pb::Booking::default()
    }
}

fn creating(resource: &str, start: i64, end: i64) -> pb::CreateBookingRequest {
    pb::CreateBookingRequest {
        booking: Some(wire(resource, start, end)),
        hold_ttl: lasting(60, 0),
        ..pb::CreateBookingRequest::default()
    }
}

fn masked(paths: &[&str]) -> Option<prost_types::FieldMask> {
    let paths = paths.iter().map(ToString::to_string).collect();
    Some(prost_types::FieldMask { paths })
}

fn updating(booking: pb::Booking, paths: &[&str]) -> pb::UpdateBookingRequest {
    pb::UpdateBookingRequest {
        booking: Some(booking),
        update_mask: masked(paths),
        validate_only: false,
    }
}

fn fields<T: std::fmt::Debug>(parsed: Result<T, Violations>) -> Vec<String> {
    let violations = parsed.expect_err("a violation");
    violations.fields().into_iter().map(String::from).collect()
}

/// A way to break a request, and the path it is to be reported under.
type Breakage<R> = (&'static str, fn(&mut R));

/// Breaks a request by those of the ways whose bit is set, and says which paths that makes.
fn break_up<R>(request: &mut R, ways: &[Breakage<R>], bits: u16) -> BTreeSet<String> {
    let chosen = ways
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits & (1 << bit) != 0);
    chosen
        .map(|(_, (path, break_it))| {
            break_it(request);
            (*path).to_owned()
        })
        .collect()
}

fn reported<T, E: Into<Error>>(parsed: Result<T, E>) -> BTreeSet<String> {
    match parsed.map_err(Into::into) {
        Ok(_) => BTreeSet::new(),
        Err(Error::Invalid(found)) => found.fields().into_iter().map(String::from).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

fn booking_of(request: &mut pb::CreateBookingRequest) -> &mut pb::Booking {
    request.booking.as_mut().expect("a booking")
}

const CREATE: [Breakage<pb::CreateBookingRequest>; 7] = [
    ("booking.resource", |it| {
        booking_of(it).resource = " x".into()
    }),
    ("booking.start_time", |it| booking_of(it).start_time = None),
    ("booking.end_time", |it| {
        booking_of(it).end_time = at(i64::MAX)
    }),
    ("booking.booked_by", |it| booking_of(it).booked_by.clear()),
    ("booking.note", |it| booking_of(it).note = "\0".into()),
    ("request_id", |it| it.request_id = "7".into()),
    ("hold_ttl", |it| it.hold_ttl = lasting(-5, 0)),
];

quickcheck! {
    fn a_create_reports_exactly_what_is_broken(bits: u16) -> bool {
        let mut request = creating("room-1", 0, 60);
        let broken = break_up(&mut request, &CREATE, bits);
        reported(create(request)) == broken
    }

    fn a_batch_reports_what_is_broken_in_each_member(bits: Vec<u16>) -> bool {
        let (mut requests, mut broken) = (Vec::new(), BTreeSet::new());
        for (index, bits) in bits.iter().take(20).enumerate() {
            let mut request = creating(&format!("room-{index}"), 0, 60);
            let paths = break_up(&mut request, &CREATE, *bits);
            broken.extend(paths.iter().map(|path| format!("requests[{index}].{path}")));
            requests.push(request);
        }
        if requests.is_empty() {
            broken.insert("requests".to_owned());
        }
        reported(create_batch(pb::BatchCreateBookingsRequest { requests })) == broken
    }

    fn an_update_reports_exactly_what_is_broken(bits: u16, masked: bool) -> bool {
        let mut request = updating(wire("room-1", 0, 60), if masked { &["*"] } else { &[] });
        let broken = break_up(&mut request, &UPDATE, bits);
        reported(update(request)) == broken
    }

    fn a_listing_reports_exactly_what_is_broken(bits: u16) -> bool {
        let mut request = pb::ListBookingsRequest {
            start_time: at(0),
            end_time: at(1),
            ..pb::ListBookingsRequest::default()
        };
        let broken = break_up(&mut request, &LIST, bits);
        reported(listing(request)) == broken
    }

    fn an_availability_query_reports_exactly_what_is_broken(bits: u16) -> bool {
        let mut request = pb::QueryAvailabilityRequest {
            resources: vec!["a".into(), "b".into()],
            start_time: at(0),
            end_time: at(92 * DAY),
            duration: lasting(1, 0),
            step: lasting(0, 1_000),
        };
        let broken = break_up(&mut request, &AVAILABILITY, bits);
        reported(availability(request)) == broken
    }
}

fn updated(request: &mut pb::UpdateBookingRequest) -> &mut pb::Booking {
    request.booking.as_mut().expect("a booking")
}

const UPDATE: [Breakage<pb::UpdateBookingRequest>; 7] = [
    ("booking.name", |it| updated(it).name = NAME.to_uppercase()),
    ("booking.resource", |it| {
        updated(it).resource = "x".repeat(256)
    }),
    ("booking.start_time", |it| {
        updated(it).start_time = at(i64::MIN)
    }),
    ("booking.end_time", |it| {
        updated(it).end_time = Some(prost_types::Timestamp {
            seconds: 60,
            nanos: -1,
        })
    }),
    ("booking.booked_by", |it| {
        updated(it).booked_by = "\t".into()
    }),
    ("booking.note", |it| updated(it).note = "x".repeat(1_025)),
    ("update_mask", |it| {
        it.update_mask = masked(&[
            "resource",
            "start_time",
            "end_time",
            "booked_by",
            "note",
            "etag",
        ])
    }),
];

const LIST: [Breakage<pb::ListBookingsRequest>; 4] = [
    ("page_size", |it| it.page_size = -1),
    ("resource", |it| it.resource = "x ".into()),
    ("booked_by", |it| it.booked_by = "x".repeat(256)),
    ("end_time", |it| it.end_time = it.start_time),
];

const AVAILABILITY: [Breakage<pb::QueryAvailabilityRequest>; 5] = [
    ("resources[1]", |it| it.resources[1] = "a".into()),
    ("resources[2]", |it| it.resources.push(String::new())),
    ("end_time", |it| it.end_time = at(92 * DAY + 1)),
    ("duration", |it| it.duration = lasting(0, 999)),
    ("step", |it| it.step = lasting(1, 1_000_000_000)),
];

#[test]
fn a_request_without_a_booking_says_so() {
    assert_eq!(
        fields(create(pb::CreateBookingRequest::default())),
        ["booking"]
    );
    assert_eq!(
        fields(update(pb::UpdateBookingRequest::default())),
        ["booking"]
    );
    let empty = create(pb::CreateBookingRequest {
        booking: Some(pb::Booking::default()),
        ..pb::CreateBookingRequest::default()
    });
    let required = ["resource", "start_time", "end_time", "booked_by"];
    assert_eq!(
        fields(empty),
        required.map(|field| format!("booking.{field}"))
    );
}

#[test]
fn output_only_fields_of_a_create_are_ignored() {
    let mut request = creating("room-1", 0, 60);
    let booking = booking_of(&mut request);
    booking.name = "whatever".into();
    booking.etag = "whatever".into();
    booking.state = 77;
    booking.create_time = at(i64::MAX);
    assert!(create(request).is_ok());
}

#[test]
fn a_request_id_fixes_the_id_and_its_absence_does_not() {
    let mut request = creating("room-1", 0, 60);
    assert_ne!(id_of(&request), id_of(&request));
    request.request_id = "0A1B2C3D-0000-4000-8000-00000000000F".into();
    assert_eq!(id_of(&request), id_of(&request));
    request.request_id = uuid::Uuid::nil().to_string();
    assert!(create(request).is_ok());
}

fn id_of(request: &pb::CreateBookingRequest) -> BookingId {
    create(request.clone()).expect("valid").new.id()
}

#[test]
fn a_hold_lasts_from_a_second_to_an_hour() {
    let hold = |seconds, nanos| {
        let mut request = creating("room-1", 0, 60);
        request.hold_ttl = lasting(seconds, nanos);
        let made = create(request).ok()?;
        made.new.draft().hold_ttl.map(HoldTtl::micros)
    };
    assert_eq!(hold(1, 0), Some(1_000_000));
    assert_eq!(hold(3_600, 0), Some(3_600_000_000));
    for (seconds, nanos) in [
        (0, 999_999_999),
        (3_600, 1_000),
        (-1, 0),
        (2, -1),
        (i64::MAX, 0),
    ] {
        assert_eq!(hold(seconds, nanos), None, "{seconds} s {nanos} ns");
    }
    assert_eq!(hold(1, 1_000_000_000), None);
}

#[test]
fn a_batch_names_the_members_that_are_in_each_others_way() {
    let mut requests = vec![
        creating("a", 0, 60),
        creating("b", 0, 60),
        creating("a", 60, 120),
        creating("a", 59, 61),
    ];
    for index in [0, 2] {
        requests[index].request_id = NAME[9..].into();
    }
    requests[1].validate_only = true;
    let parsed = create_batch(pb::BatchCreateBookingsRequest { requests });
    let (found, _) = parsed.expect_err("violations").into_answer();
    let found: Vec<_> = found
        .iter()
        .map(|it| (&*it.field, &*it.description))
        .collect();
    assert_eq!(
        found,
        [
            (
                "requests[1].validate_only",
                "must be the same in all requests"
            ),
            ("requests[3].booking", "overlaps requests[0].booking"),
            ("requests[2].request_id", "is that of requests[0] already"),
        ]
    );
}

#[test]
fn a_batch_has_a_size() {
    let batch = |members: i64, days: i64| {
        let member = |index| creating(&format!("room-{index}"), 0, days * DAY);
        let requests = (0..members).map(member).collect();
        create_batch(pb::BatchCreateBookingsRequest { requests })
    };
    assert_eq!(batch(100, 25).expect("valid").len(), 100);
    assert_eq!(fields(batch(100, 26)), ["requests"]);
    assert_eq!(fields(batch(101, 1)), ["requests"]);
    assert_eq!(fields(batch(0, 1)), ["requests"]);
    let names = |count: usize| {
        get_batch(&pb::BatchGetBookingsRequest {
            names: vec![NAME.to_owned(); count],
        })
    };
    assert_eq!(names(100).expect("valid").len(), 100);
    assert_eq!(fields(names(101)), ["names"]);
    assert_eq!(fields(names(0)), ["names"]);
}

#[test]
fn a_batch_of_names_says_which_are_wrong() {
    let names = vec![
        NAME.to_owned(),
        "bookings/1".into(),
        NAME.to_owned(),
        String::new(),
    ];
    let parsed = get_batch(&pb::BatchGetBookingsRequest { names });
    assert_eq!(fields(parsed), ["names[1]", "names[3]"]);
}

#[test]
fn every_valid_request_is_small_enough_to_be_read() {
    use prost::Message;
    let mut member = creating(
        &"r".repeat(NAME_BYTES_MAX),
        -62_135_596_800,
        -62_104_000_000,
    );
    member.request_id = format!("urn:uuid:{}", &NAME[9..]);
    member.validate_only = true;
    member.hold_ttl = lasting(3_599, 999_999_999);
    let finest = Some(prost_types::Timestamp {
        seconds: -62_104_000_000,
        nanos: 999_999_999,
    });
    let booking = booking_of(&mut member);
    booking.booked_by = "b".repeat(NAME_BYTES_MAX);
    booking.note = "n".repeat(NOTE_BYTES_MAX);
    booking.cancel_reason = "c".repeat(CANCEL_REASON_BYTES_MAX);
    booking.etag = Revision::from(-1).to_string();
    booking.state = 4;
    booking.start_time = finest;
    booking.end_time = finest;
    booking.hold_expire_time = finest;
    booking.create_time = finest;
    booking.update_time = finest;
    booking.cancel_time = finest;
    let requests = vec![member; BATCH_MEMBERS_MAX];
    let bytes = pb::BatchCreateBookingsRequest { requests }.encoded_len();
    assert!((200_000..REQUEST_BYTES_MAX).contains(&bytes), "{bytes}");
}

#[test]
fn without_a_mask_the_populated_fields_change() {
    let booking = pb::Booking {
        name: NAME.to_owned(),
        end_time: at(60),
        note: "new".into(),
        ..pb::Booking::default()
    };
    for mask in [None, masked(&[])] {
        let parsed = update(pb::UpdateBookingRequest {
            booking: Some(booking.clone()),
            update_mask: mask,
            validate_only: true,
        });
        let parsed = parsed.expect("valid");
        assert_eq!(parsed.mode, Mode::Validate);
        assert_eq!(parsed.expected, None);
        assert_eq!(parsed.change.note, Some(Note::parse("new").expect("valid")));
        assert_eq!(parsed.change.end_time, Timestamp::from_unix(60, 0).ok());
        assert_eq!(parsed.change.start_time, None);
        assert_eq!(parsed.change.resource, None);
        assert_eq!(parsed.change.booked_by, None);
    }
}

#[test]
fn a_mask_decides_alone() {
    let full = wire("room-2", 0, 60);
    let only = update(updating(full.clone(), &["resource"]))
        .expect("valid")
        .change;
    assert_eq!(
        only.resource,
        Some(Resource::parse("room-2").expect("valid"))
    );
    assert_eq!((only.note, only.start_time), (None, None));
    let empty = pb::Booking {
        name: NAME.to_owned(),
        ..pb::Booking::default()
    };
    let cleared = update(updating(empty.clone(), &["note"]))
        .expect("valid")
        .change;
    assert_eq!(cleared.note, Some(Note::parse("").expect("valid")));
    let required = ["booking.resource", "booking.start_time"];
    let missing = update(updating(empty.clone(), &["resource", "start_time"]));
    assert_eq!(fields(missing), required);
    let all = update(updating(empty, &["*"]));
    assert_eq!(fields(all).len(), 4);
    for path in [
        "name",
        "etag",
        "state",
        "create_time",
        "colour",
        "booking.note",
        "",
        "*",
    ] {
        let refused = update(updating(full.clone(), &["note", path]));
        assert_eq!(fields(refused), ["update_mask"], "{path:?}");
    }
}

#[test]
fn a_new_interval_is_checked_as_far_as_it_is_known() {
    let both = update(updating(wire("a", 60, 60), &["start_time", "end_time"]));
    assert_eq!(fields(both), ["booking.end_time"]);
    assert!(update(updating(wire("a", 60, 60), &["end_time"])).is_ok());
}

#[test]
fn an_etag_that_nobody_made_matches_nothing() {
    let known = Revision::random();
    assert_eq!(revision(""), None);
    assert_eq!(revision(&known.to_string()), Some(known));
    let unknown = revision("W/\"7\"");
    assert!(unknown.is_some());
    assert_ne!(unknown, revision("W/\"7\""));
}

#[test]
fn a_cancellation_may_have_a_reason() {
    let cancelling = |reason: String| pb::CancelBookingRequest {
        name: NAME.to_owned(),
        reason,
        etag: String::new(),
    };
    assert!(cancel(cancelling(String::new())).is_ok());
    assert!(cancel(cancelling("ill\nfrom today".into())).is_ok());
    assert_eq!(fields(cancel(cancelling("x".repeat(256)))), ["reason"]);
}

#[test]
fn a_page_has_a_size() {
    let size = |page_size| {
        let request = pb::ListBookingsRequest {
            page_size,
            ..pb::ListBookingsRequest::default()
        };
        listing(request).expect("valid").page_size
    };
    assert_eq!(
        [0, 1, 1_000, 1_001, i32::MAX].map(size),
        [50, 1, 1_000, 1_000, 1_000]
    );
}

#[test]
fn a_token_must_be_one() {
    let request = pb::ListBookingsRequest {
        page_token: "garbage".into(),
        ..pb::ListBookingsRequest::default()
    };
    assert!(matches!(listing(request), Err(Error::PageToken)));
}

#[test]
fn a_step_comes_with_a_duration_and_defaults_to_it() {
    let query = |duration, step| {
        availability(pb::QueryAvailabilityRequest {
            resources: vec!["a".into()],
            start_time: at(0),
            end_time: at(60),
            duration,
            step,
        })
    };
    assert_eq!(fields(query(None, lasting(1, 0))), ["step"]);
    assert_eq!(query(None, None).expect("valid").search, None);
    let alone = query(lasting(7, 0), None).expect("valid").search;
    assert_eq!(
        alone,
        query(lasting(7, 0), lasting(7, 0)).expect("valid").search
    );
    assert!(alone.is_some());
}
