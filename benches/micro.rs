//! What a call costs this process, without network and database: `cargo bench --bench micro`.

use booking_service::booking::{
    Booker, Booking, BookingId, Draft, Interval, NewBooking, Note, Resource, Revision, State,
    Timestamp,
};
use booking_service::grpc::bench::{encode, parse_create};
use booking_service::pb;
use booking_service::store::bench::plan_all;
use divan::{Bencher, black_box};
use prost::Message;

/// As the service has it.
const BATCH_MAX: usize = 128;

fn hour(number: i64) -> Timestamp {
    Timestamp::from_micros(number * 3_600_000_000).expect("in range")
}

fn interval(from: i64) -> Interval {
    Interval::new(hour(from), hour(from + 1)).expect("an hour")
}

fn draft(resource: &str, from: i64) -> Draft {
    Draft {
        resource: Resource::parse(resource).expect("valid"),
        interval: interval(from),
        booked_by: Booker::parse("ada@example.com").expect("valid"),
        note: Note::parse("Two chairs, please").expect("valid"),
        hold_ttl: None,
    }
}

fn request() -> pb::CreateBookingRequest {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    pb::CreateBookingRequest {
        booking: Some(pb::Booking {
            resource: "room-101".to_owned(),
            start_time: at(1_893_456_000),
            end_time: at(1_893_459_600),
            booked_by: "ada@example.com".to_owned(),
            note: "Two chairs, please".to_owned(),
            ..pb::Booking::default()
        }),
        request_id: "5f3b6c1e-7b0a-4f6d-9a57-0f6f3f1d2c3b".to_owned(),
        ..pb::CreateBookingRequest::default()
    }
}

fn booking() -> Booking {
    let draft = draft("room-101", 0);
    Booking {
        id: BookingId::random(),
        resource: draft.resource,
        interval: draft.interval,
        booked_by: draft.booked_by,
        note: draft.note,
        state: State::Confirmed,
        create_time: hour(0),
        update_time: hour(0),
        revision: Revision::random(),
    }
}

/// From bytes to a valid booking with its id and fingerprint.
#[divan::bench]
fn parse_a_create_request(bencher: Bencher<'_, '_>) {
    let bytes = request().encode_to_vec();
    bencher.bench(|| {
        let request = pb::CreateBookingRequest::decode(black_box(&*bytes));
        parse_create(request.expect("valid")).expect("valid")
    });
}

/// From a booking to bytes.
#[divan::bench]
fn encode_a_booking(bencher: Bencher<'_, '_>) {
    let booking = booking();
    bencher
        .with_inputs(|| booking.clone())
        .bench_values(|booking| encode(booking).encode_to_vec());
}

/// Creates that do not meet, in batches.
#[divan::bench(args = [1, 64, 1_024])]
fn plan_creates_for_many_slots(bencher: Bencher<'_, '_>, count: i64) {
    let resource = |number: i64| format!("room-{}", number % 100);
    let waiting: Vec<_> = (0..count)
        .map(|number| NewBooking::new(BookingId::random(), draft(&resource(number), number)))
        .collect();
    bencher
        .with_inputs(|| waiting.clone())
        .bench_values(|waiting| plan_all(waiting, BATCH_MAX));
}

/// Creates for one slot: one leads, the others follow.
#[divan::bench(args = [64, 1_024])]
fn plan_creates_for_one_slot(bencher: Bencher<'_, '_>, count: i64) {
    let waiting: Vec<_> = (0..count)
        .map(|_| NewBooking::new(BookingId::random(), draft("room-101", 0)))
        .collect();
    bencher
        .with_inputs(|| waiting.clone())
        .bench_values(|waiting| plan_all(waiting, BATCH_MAX));
}

/// Creates for one resource, none of which meets another.
#[divan::bench(args = [64, 1_024])]
fn plan_creates_for_one_resource(bencher: Bencher<'_, '_>, count: i64) {
    let waiting: Vec<_> = (0..count)
        .map(|number| NewBooking::new(BookingId::random(), draft("room-101", number)))
        .collect();
    bencher
        .with_inputs(|| waiting.clone())
        .bench_values(|waiting| plan_all(waiting, BATCH_MAX));
}

fn main() {
    divan::main();
}
