//! Holds: they block until they run out, and every race around that moment has one winner.

use std::time::Duration;

use booking_service::pb;
use pb::booking::State;
use tokio::time::sleep;
use tonic::{Code, Response, Status};

use crate::harness::{Client, House, block_on, booking, create, fresh, hold, reason_of};

fn confirm(name: &str) -> pb::ConfirmBookingRequest {
    pb::ConfirmBookingRequest {
        name: name.to_owned(),
        ..pb::ConfirmBookingRequest::default()
    }
}

fn cancel(name: &str) -> pb::CancelBookingRequest {
    pb::CancelBookingRequest {
        name: name.to_owned(),
        ..pb::CancelBookingRequest::default()
    }
}

async fn get(client: &mut Client, name: &str) -> pb::Booking {
    let request = pb::GetBookingRequest {
        name: name.to_owned(),
    };
    client
        .get_booking(request)
        .await
        .expect("found")
        .into_inner()
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, reason: &str) {
    let status = answer.expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(reason_of(&status), reason, "{status:?}");
}

/// With a real clock: a hold of one second.
#[test]
fn a_hold_blocks_until_it_runs_out_and_then_nobody() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let resource = fresh("held");
        let request = hold(booking(&resource, 0, 60), 1);
        let held = client
            .create_booking(request)
            .await
            .expect("free")
            .into_inner();
        assert_eq!(held.state(), State::Held);
        let created = held.create_time.unwrap();
        let expires = held.hold_expire_time.unwrap();
        assert_eq!(
            (expires.seconds - created.seconds, expires.nanos),
            (1, created.nanos)
        );
        let rival = client
            .create_booking(create(booking(&resource, 30, 90)))
            .await;
        assert_refused(rival, "SLOT_UNAVAILABLE");
        sleep(Duration::from_millis(1_100)).await;
        let expired = get(&mut client, &held.name).await;
        assert_eq!(expired.state(), State::Expired);
        assert_eq!(expired.hold_expire_time, None);
        assert_refused(
            client.confirm_booking(confirm(&held.name)).await,
            "HOLD_EXPIRED",
        );
        client
            .create_booking(create(booking(&resource, 30, 90)))
            .await
            .expect("free by now");
        // Now its row has been touched: it reads as it did before.
        assert_eq!(get(&mut client, &held.name).await, expired);
    });
}

#[test]
fn a_confirmed_hold_stays() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let resource = fresh("held");
        let held = client
            .create_booking(hold(booking(&resource, 0, 60), 1))
            .await;
        let name = held.expect("free").into_inner().name;
        let first = client
            .confirm_booking(confirm(&name))
            .await
            .expect("in time")
            .into_inner();
        assert_eq!(first.state(), State::Confirmed);
        let second = client
            .confirm_booking(confirm(&name))
            .await
            .expect("again")
            .into_inner();
        assert_eq!(first, second, "confirming twice returns the booking");
        sleep(Duration::from_millis(1_100)).await;
        assert_eq!(get(&mut client, &name).await, first);
    });
}

#[test]
fn a_hold_lasts_a_second_to_an_hour() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        for seconds in [0, -1, 3_601] {
            let resource = fresh("held");
            let refused = client
                .create_booking(hold(booking(&resource, 0, 60), seconds))
                .await;
            assert_eq!(
                reason_of(&refused.expect_err("refused")),
                "INVALID_FIELDS",
                "{seconds}"
            );
        }
    });
}

/// A hold that is about to run out, a confirmation and a rival, all within milliseconds. Many at
/// once, a little earlier and a little later.
#[test]
fn of_confirmation_and_the_taker_of_an_expired_slot_one_wins() {
    block_on(async {
        let house = House::new().await.with_witness().await;
        let replicas = [house.start().await, house.start().await];
        let tasks: Vec<_> = (0..120_u64)
            .map(|number| {
                let [mut holder, mut rival] =
                    replicas.each_ref().map(super::harness::Instance::client);
                tokio::spawn(async move {
                    let resource = fresh("raced");
                    let held = holder
                        .create_booking(hold(booking(&resource, 0, 60), 1))
                        .await;
                    let name = held.expect("free").into_inner().name;
                    sleep(Duration::from_millis(700 + number * 5)).await;
                    let (confirmed, taken) = tokio::join!(
                        holder.confirm_booking(confirm(&name)),
                        rival.create_booking(create(booking(&resource, 30, 90))),
                    );
                    let state = get(&mut holder, &name).await.state();
                    assert_eq!(confirmed.is_ok(), state == State::Confirmed);
                    if let Err(status) = &confirmed {
                        assert_eq!(reason_of(status), "HOLD_EXPIRED", "{status:?}");
                    }
                    if let Err(status) = &taken {
                        assert_eq!(reason_of(status), "SLOT_UNAVAILABLE", "{status:?}");
                    }
                    (confirmed.is_ok(), taken.is_ok())
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.expect("no panic"));
        }
        assert!(!outcomes.contains(&(true, true)), "the slot went to both");
        assert!(
            outcomes.contains(&(true, false)),
            "some were confirmed in time"
        );
        assert!(
            outcomes.contains(&(false, true)),
            "some slots were taken after expiry"
        );
        assert_eq!(house.overlaps().await, 0);
    });
}

/// Two takers of one expired slot, each of a different half of it and a little more.
#[test]
fn of_two_takers_of_an_expired_slot_one_wins() {
    block_on(async {
        let house = House::new().await.with_witness().await;
        let replicas = [house.start().await, house.start().await];
        for _ in 0..40 {
            let [mut one, mut two] = replicas.each_ref().map(super::harness::Instance::client);
            let resource = fresh("raced");
            let held = one
                .create_booking(hold(booking(&resource, 0, 60), 60))
                .await;
            house
                .let_expire(&held.expect("free").into_inner().name)
                .await;
            let (first, second) = tokio::join!(
                one.create_booking(create(booking(&resource, -30, 40))),
                two.create_booking(create(booking(&resource, 20, 90))),
            );
            assert_eq!(
                u8::from(first.is_ok()) + u8::from(second.is_ok()),
                1,
                "{first:?} {second:?}"
            );
        }
        assert_eq!(house.overlaps().await, 0);
    });
}

#[test]
fn a_reschedule_takes_the_slot_of_an_expired_hold() {
    block_on(async {
        let house = House::new().await.with_witness().await;
        let mut client = house.instance().await.client();
        let resource = fresh("raced");
        let held = client
            .create_booking(hold(booking(&resource, 0, 60), 60))
            .await;
        let held = held.expect("free").into_inner().name;
        let moved = client
            .create_booking(create(booking(&resource, 600, 660)))
            .await;
        let moved = moved.expect("free").into_inner().name;
        let to = pb::UpdateBookingRequest {
            booking: Some(pb::Booking {
                name: moved,
                ..booking(&resource, 30, 90)
            }),
            ..pb::UpdateBookingRequest::default()
        };
        assert_refused(client.update_booking(to.clone()).await, "SLOT_UNAVAILABLE");
        house.let_expire(&held).await;
        client.update_booking(to).await.expect("free by now");
        assert_eq!(get(&mut client, &held).await.state(), State::Expired);
        assert_eq!(house.overlaps().await, 0);
    });
}

/// The two can happen in either order, and both are told so; the end is the same.
#[test]
fn cancelling_and_confirming_at_once_ends_cancelled() {
    block_on(async {
        let house = House::new().await;
        let replicas = [house.start().await, house.start().await];
        for _ in 0..40 {
            let [mut one, mut two] = replicas.each_ref().map(super::harness::Instance::client);
            let held = one
                .create_booking(hold(booking(&fresh("raced"), 0, 60), 60))
                .await;
            let name = held.expect("free").into_inner().name;
            let (confirmed, cancelled) = tokio::join!(
                one.confirm_booking(confirm(&name)),
                two.cancel_booking(cancel(&name)),
            );
            assert_eq!(
                cancelled.expect("cancelled").into_inner().state(),
                State::Cancelled
            );
            if let Err(status) = confirmed {
                assert_eq!(reason_of(&status), "INVALID_STATE", "{status:?}");
            }
            assert_eq!(get(&mut one, &name).await.state(), State::Cancelled);
        }
    });
}

/// However many bookings a slot has seen, those that block nobody any more cost nothing.
#[test]
fn a_cancelled_booking_frees_its_slot_and_stays_on_record() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let resource = fresh("cancelled");
        let mut names = Vec::new();
        for _ in 0..20 {
            let made = client
                .create_booking(create(booking(&resource, 0, 60)))
                .await;
            let name = made.expect("free again").into_inner().name;
            client
                .cancel_booking(cancel(&name))
                .await
                .expect("cancelled");
            names.push(name);
        }
        let list = |show_cancelled| pb::ListBookingsRequest {
            resource: resource.clone(),
            show_cancelled,
            ..pb::ListBookingsRequest::default()
        };
        let blocking = client
            .list_bookings(list(false))
            .await
            .expect("listed")
            .into_inner();
        assert_eq!(blocking.bookings, []);
        let all = client
            .list_bookings(list(true))
            .await
            .expect("listed")
            .into_inner();
        assert_eq!(all.bookings.len(), names.len());
    });
}
