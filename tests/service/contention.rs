//! No double booking: crowds that want overlapping slots at once, on one replica and on two.
//!
//! After each round the database itself is asked for overlapping pairs, and every refusal has to be
//! explained by a booking that was accepted: a service that refused everybody would not pass.

use booking_service::pb;
use tonic::{Code, Status};

use crate::harness::{Client, House, block_on, booking, create, fresh, reason_of, window};

const RIVALS: i64 = 64;
const ROUNDS: usize = 25;

/// Slots of an hour, three minutes apart: each overlaps the next nineteen.
fn slot(number: i64) -> (i64, i64) {
    (number * 3, number * 3 + 60)
}

/// What became of one rival: the slot it wanted, and the answer.
type Wanted = (std::ops::Range<i64>, Result<pb::Booking, Status>);

/// All at once, each on the client that its number falls on.
async fn scramble<F>(clients: &[Client], attempt: impl Fn(Client, i64) -> F) -> Vec<Wanted>
where
    F: Future<Output = Wanted> + Send + 'static,
{
    let spawn = |number: i64| {
        let client = clients[usize::try_from(number).expect("positive") % clients.len()].clone();
        tokio::spawn(attempt(client, number))
    };
    let tasks: Vec<_> = (0..RIVALS).map(spawn).collect();
    let mut wanted = Vec::new();
    for task in tasks {
        wanted.push(task.await.expect("no panic"));
    }
    wanted
}

/// Each refusal says that the slot is taken, and an accepted booking does overlap it.
fn assert_explained(wanted: &[Wanted]) {
    let accepted: Vec<_> = wanted
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .map(|booking| booking.start_time.unwrap().seconds..booking.end_time.unwrap().seconds)
        .collect();
    assert!(!accepted.is_empty(), "somebody gets a slot");
    for (slot, answer) in wanted {
        let Err(status) = answer else { continue };
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert_eq!(reason_of(status), "SLOT_UNAVAILABLE");
        let explained = accepted
            .iter()
            .any(|other| slot.start < other.end && other.start < slot.end);
        assert!(explained, "{slot:?} was refused, and nobody has it");
    }
}

/// Bookings far from each other, and far from the slots that they will fight for.
async fn parked(client: &Client, resource: &str, count: i64) -> Vec<String> {
    let mut client = client.clone();
    let mut names = Vec::new();
    for number in 0..count {
        let from = 10_000 + number * 100;
        let made = client
            .create_booking(create(booking(resource, from, from + 10)))
            .await;
        names.push(made.expect("a free slot").into_inner().name);
    }
    names
}

async fn creates_at_once(clients: &[Client], house: &House) {
    for _ in 0..ROUNDS {
        let resource = fresh("contended");
        let wanted = scramble(clients, |mut client, number| {
            let (from, to) = slot(number);
            let wish = booking(&resource, from, to);
            async move {
                let slot = wish.start_time.unwrap().seconds..wish.end_time.unwrap().seconds;
                let answer = client.create_booking(create(wish)).await;
                (slot, answer.map(tonic::Response::into_inner))
            }
        })
        .await;
        assert_explained(&wanted);
    }
    assert_eq!(house.overlaps().await, 0, "pairs of bookings that overlap");
}

async fn reschedules_at_once(clients: &[Client], house: &House) {
    for _ in 0..ROUNDS / 2 {
        let resource = fresh("contended");
        let names = parked(&clients[0], &resource, RIVALS).await;
        let wanted = scramble(clients, |mut client, number| {
            let (from, to) = slot(number);
            let name = names[usize::try_from(number).expect("positive")].clone();
            let wish = pb::Booking {
                name,
                ..booking(&resource, from, to)
            };
            async move {
                let slot = wish.start_time.unwrap().seconds..wish.end_time.unwrap().seconds;
                let request = pb::UpdateBookingRequest {
                    booking: Some(wish),
                    ..pb::UpdateBookingRequest::default()
                };
                let answer = client.update_booking(request).await;
                (slot, answer.map(tonic::Response::into_inner))
            }
        })
        .await;
        assert_explained(&wanted);
    }
    assert_eq!(house.overlaps().await, 0, "pairs of bookings that overlap");
}

#[test]
fn creates_at_once_never_overlap() {
    block_on(async {
        let house = House::new().await;
        creates_at_once(&[house.instance().await.client()], &house).await;
    });
}

#[test]
fn creates_at_once_on_two_replicas_never_overlap() {
    block_on(async {
        let house = House::new().await;
        let replicas = [house.start().await, house.start().await];
        creates_at_once(
            &replicas.each_ref().map(super::harness::Instance::client),
            &house,
        )
        .await;
    });
}

#[test]
fn reschedules_at_once_on_two_replicas_never_overlap() {
    block_on(async {
        let house = House::new().await;
        let replicas = [house.start().await, house.start().await];
        reschedules_at_once(
            &replicas.each_ref().map(super::harness::Instance::client),
            &house,
        )
        .await;
    });
}

/// The same with PostgreSQL's own exclusion constraint as a witness: it would turn an overlap into an
/// error that is not a refusal.
#[test]
fn an_independent_witness_sees_no_overlap() {
    block_on(async {
        let house = House::new().await.with_witness().await;
        let replicas = [house.start().await, house.start().await];
        let clients = replicas.each_ref().map(super::harness::Instance::client);
        creates_at_once(&clients, &house).await;
        reschedules_at_once(&clients, &house).await;
    });
}

/// Creates against reschedules, for the same slots.
#[test]
fn creates_and_reschedules_at_once_never_overlap() {
    block_on(async {
        let house = House::new().await.with_witness().await;
        let replicas = [house.start().await, house.start().await];
        let clients = replicas.each_ref().map(super::harness::Instance::client);
        for _ in 0..ROUNDS / 2 {
            let resource = fresh("contended");
            let names = parked(&clients[0], &resource, RIVALS / 2).await;
            let wanted = scramble(&clients, |mut client, number| {
                let (from, to) = slot(number);
                let wish = booking(&resource, from, to);
                let name = names
                    .get(usize::try_from(number / 2).expect("positive"))
                    .cloned();
                async move {
                    let slot = wish.start_time.unwrap().seconds..wish.end_time.unwrap().seconds;
                    let answer = if number % 2 == 0 {
                        client.create_booking(create(wish)).await
                    } else {
                        let name = name.expect("half as many names");
                        let booking = Some(pb::Booking { name, ..wish });
                        let request = pb::UpdateBookingRequest {
                            booking,
                            ..pb::UpdateBookingRequest::default()
                        };
                        client.update_booking(request).await
                    };
                    (slot, answer.map(tonic::Response::into_inner))
                }
            })
            .await;
            assert_explained(&wanted);
        }
        assert_eq!(house.overlaps().await, 0, "pairs of bookings that overlap");
    });
}

/// Batches that want the same resources in opposite order: none waits for another in a circle, and
/// none is made by half.
#[test]
fn batches_at_once_are_made_whole_or_not_at_all() {
    block_on(async {
        let house = House::new().await.with_witness().await;
        let replicas = [house.start().await, house.start().await];
        let clients = replicas.each_ref().map(super::harness::Instance::client);
        for _ in 0..ROUNDS {
            let resources: Vec<String> = (0..4).map(|_| fresh("contended")).collect();
            let tasks: Vec<_> = (0..16_i64)
                .map(|number| {
                    let mut client = clients[usize::from(number % 2 == 0)].clone();
                    let mut requests: Vec<_> = resources
                        .iter()
                        .map(|resource| create(booking(resource, number * 20, number * 20 + 60)))
                        .collect();
                    if number % 2 == 0 {
                        requests.reverse();
                    }
                    tokio::spawn(async move {
                        let request = pb::BatchCreateBookingsRequest { requests };
                        client.batch_create_bookings(request).await
                    })
                })
                .collect();
            let mut accepted = 0;
            for task in tasks {
                match task.await.expect("no panic") {
                    Ok(answer) => {
                        accepted += 1;
                        for made in &answer.get_ref().bookings {
                            let interval = pb::Interval {
                                start_time: made.start_time,
                                end_time: made.end_time,
                            };
                            assert_eq!(window(&interval).count(), 3_600);
                        }
                    }
                    Err(status) => assert_eq!(reason_of(&status), "SLOT_UNAVAILABLE", "{status:?}"),
                }
            }
            assert!(accepted > 0, "some batch is made");
            for resource in &resources {
                let made = format!("SELECT count(*) FROM bookings WHERE resource = '{resource}'");
                assert_eq!(
                    house.count(&made).await,
                    accepted,
                    "batches that were made by half"
                );
            }
        }
        assert_eq!(house.overlaps().await, 0, "pairs of bookings that overlap");
    });
}
