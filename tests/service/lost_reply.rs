//! The reply to COMMIT is lost: the booking is made once, and the client hears of it.

use std::sync::atomic::Ordering;

use booking_service::{pb, server};

use crate::harness::{Client, House, Instance, block_on, booking, create, fresh, reason_of};
use crate::postgres::Wire;

/// A service on a wire that loses answers.
struct Unlucky {
    house: House,
    wire: Wire,
    instance: Instance,
}

impl Unlucky {
    async fn new() -> Self {
        let house = House::new().await;
        let wire = house.wire().await;
        let instance = Instance::start(&wire.database, server::Options::default()).await;
        Self {
            house,
            wire,
            instance,
        }
    }

    fn client(&self) -> Client {
        self.instance.client()
    }

    /// Loses the answers to the next `count` commits while `call` runs.
    async fn lose<T>(&self, count: u32, call: impl Future<Output = T>) -> T {
        self.wire.to_lose.store(count, Ordering::SeqCst);
        let answer = call.await;
        assert_eq!(
            self.wire.to_lose.load(Ordering::SeqCst),
            0,
            "the answers got lost"
        );
        answer
    }

    async fn made(&self, resource: &str) -> i64 {
        self.house
            .count(&format!(
                "SELECT count(*) FROM bookings WHERE resource = '{resource}'"
            ))
            .await
    }
}

#[test]
fn a_create_without_request_id_succeeds_once() {
    block_on(async {
        let service = Unlucky::new().await;
        for lost in [1, 2] {
            let resource = fresh("lost");
            let mut client = service.client();
            let made = service
                .lose(
                    lost,
                    client.create_booking(create(booking(&resource, 0, 60))),
                )
                .await;
            let made = made.expect("its own booking is no rival").into_inner();
            let get = pb::GetBookingRequest {
                name: made.name.clone(),
            };
            assert_eq!(
                client.get_booking(get).await.expect("there").into_inner(),
                made
            );
            assert_eq!(service.made(&resource).await, 1);
        }
    });
}

#[test]
fn a_create_with_request_id_succeeds_once_and_its_repeat_on_another_replica_too() {
    block_on(async {
        let service = Unlucky::new().await;
        let resource = fresh("lost");
        let request = pb::CreateBookingRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            ..create(booking(&resource, 0, 60))
        };
        let made = service
            .lose(1, service.client().create_booking(request.clone()))
            .await;
        let made = made.expect("made").into_inner();
        let replica = service.house.start().await;
        let repeated = replica
            .client()
            .create_booking(request)
            .await
            .expect("the same");
        assert_eq!(repeated.into_inner(), made);
        assert_eq!(service.made(&resource).await, 1);
    });
}

#[test]
fn a_batch_is_made_once() {
    block_on(async {
        let service = Unlucky::new().await;
        let resource = fresh("lost");
        let requests = (0..5)
            .map(|n| create(booking(&resource, n * 60, n * 60 + 60)))
            .collect();
        let request = pb::BatchCreateBookingsRequest { requests };
        let made = service
            .lose(1, service.client().batch_create_bookings(request))
            .await;
        assert_eq!(made.expect("made").into_inner().bookings.len(), 5);
        assert_eq!(service.made(&resource).await, 5);
    });
}

/// Its etag is out of date by its own doing: no reason to refuse it.
#[test]
fn a_conditional_update_is_not_refused_for_its_own_change() {
    block_on(async {
        let service = Unlucky::new().await;
        let mut client = service.client();
        let resource = fresh("lost");
        let made = client
            .create_booking(create(booking(&resource, 0, 60)))
            .await;
        let made = made.expect("free").into_inner();
        let request = pb::UpdateBookingRequest {
            booking: Some(pb::Booking {
                name: made.name.clone(),
                etag: made.etag.clone(),
                ..booking(&resource, 30, 90)
            }),
            ..pb::UpdateBookingRequest::default()
        };
        let moved = service
            .lose(1, client.update_booking(request))
            .await
            .expect("moved")
            .into_inner();
        assert_ne!(moved.etag, made.etag);
        let get = pb::GetBookingRequest { name: made.name };
        assert_eq!(
            client.get_booking(get).await.expect("there").into_inner(),
            moved
        );
    });
}

#[test]
fn a_cancellation_and_a_deletion_succeed() {
    block_on(async {
        let service = Unlucky::new().await;
        let mut client = service.client();
        let made = client
            .create_booking(create(booking(&fresh("lost"), 0, 60)))
            .await;
        let pb::Booking { name, etag, .. } = made.expect("free").into_inner();
        let cancel = pb::CancelBookingRequest {
            name: name.clone(),
            etag,
            reason: String::new(),
        };
        let cancelled = service
            .lose(1, client.cancel_booking(cancel))
            .await
            .expect("cancelled");
        let etag = cancelled.into_inner().etag;
        let delete = pb::DeleteBookingRequest { name, etag };
        service
            .lose(1, client.delete_booking(delete.clone()))
            .await
            .expect("deleted");
        let again = client.delete_booking(delete).await.expect_err("gone");
        assert_eq!(reason_of(&again), "BOOKING_NOT_FOUND");
    });
}
