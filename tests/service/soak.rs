//! Everything at once: many clients, three replicas, one database, for as long as it is told to run.
//!
//! Each client keeps book of its own bookings, which nobody else touches: so it knows what each of
//! its calls has to answer, but for the slots, over which all of them fight. `SOAK_SECONDS` makes it
//! run longer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use booking_service::pb;
use pb::booking::State;
use rand::RngExt;
use rand::seq::IndexedRandom;
use tonic::Status;
use tonic_types::StatusExt;

use crate::harness::{Client, House, block_on, booking, create, fresh, hold, reason_of};

const CLIENTS: usize = 64;
const RESOURCES: usize = 4;

/// One client, what it knows of its bookings, and what it was told stood in its way.
struct Customer {
    client: Client,
    resources: Vec<String>,
    /// By name, the booking as last acknowledged; `None` once deleted.
    own: HashMap<String, Option<pb::Booking>>,
    /// All that ever stood in its way.
    conflicts: HashSet<String>,
    calls: usize,
    contended: usize,
}

/// A resource, and a span of minutes.
type Slot = (String, i64, i64);

impl Customer {
    fn slot(&self) -> Slot {
        let mut rng = rand::rng();
        let from = rng.random_range(0..400);
        let resource = self.resources.choose(&mut rng).expect("some").clone();
        (resource, from, from + rng.random_range(5..60))
    }

    /// One of its bookings that it has not deleted.
    fn any(&self) -> Option<pb::Booking> {
        let there: Vec<_> = self.own.values().flatten().collect();
        there
            .choose(&mut rand::rng())
            .map(|booking| (*booking).clone())
    }

    fn keep(&mut self, booking: pb::Booking) {
        self.own.insert(booking.name.clone(), Some(booking));
    }

    async fn act(&mut self) {
        self.calls += 1;
        let choice = rand::random_range(0..100);
        match (choice, self.any()) {
            (0..40, _) | (_, None) => self.create(choice % 2 == 0).await,
            (40..45, _) => self.batch().await,
            (45..60, Some(own)) => self.reschedule(own).await,
            (60..70, Some(own)) => self.confirm(own).await,
            (70..88, Some(own)) => self.cancel(own).await,
            (88..94, Some(own)) => self.delete(own).await,
            (_, Some(own)) => self.look(&own).await,
        }
    }

    async fn create(&mut self, as_hold: bool) {
        let slot = self.slot();
        let wish = booking(&slot.0, slot.1, slot.2);
        // A repeat of each second one, at once: as a client does whose first reply got lost.
        let request_id = if rand::random() {
            uuid::Uuid::new_v4().to_string()
        } else {
            String::new()
        };
        let request = if as_hold { hold(wish, 1) } else { create(wish) };
        let request = pb::CreateBookingRequest {
            request_id,
            ..request
        };
        match self.client.create_booking(request.clone()).await {
            Ok(made) => {
                let made = made.into_inner();
                if !request.request_id.is_empty() {
                    let again = self.client.create_booking(request).await.expect("a repeat");
                    assert_eq!(again.into_inner().name, made.name);
                }
                self.keep(made);
            }
            Err(status) => self.refused(&status, &[slot], &["SLOT_UNAVAILABLE"]),
        }
    }

    async fn batch(&mut self) {
        let slots: Vec<Slot> = self
            .resources
            .clone()
            .into_iter()
            .map(|resource| {
                let (_, from, to) = self.slot();
                (resource, from, to)
            })
            .collect();
        let requests = slots
            .iter()
            .map(|(resource, from, to)| create(booking(resource, *from, *to)));
        let request = pb::BatchCreateBookingsRequest {
            requests: requests.collect(),
        };
        match self.client.batch_create_bookings(request).await {
            Ok(made) => made
                .into_inner()
                .bookings
                .into_iter()
                .for_each(|made| self.keep(made)),
            Err(status) => self.refused(&status, &slots, &["SLOT_UNAVAILABLE"]),
        }
    }

    async fn reschedule(&mut self, own: pb::Booking) {
        let slot = self.slot();
        let moved = pb::Booking {
            name: own.name.clone(),
            etag: own.etag.clone(),
            ..booking(&slot.0, slot.1, slot.2)
        };
        let request = pb::UpdateBookingRequest {
            booking: Some(moved),
            ..pb::UpdateBookingRequest::default()
        };
        match (self.client.update_booking(request).await, own.state()) {
            (Ok(moved), State::Held | State::Confirmed) => self.keep(moved.into_inner()),
            (Ok(moved), state) => panic!("moved {moved:?}, which was {state:?}"),
            (Err(status), State::Cancelled) => self.refused(&status, &[], &["INVALID_STATE"]),
            (Err(status), State::Held) => {
                self.refused(&status, &[slot], &["SLOT_UNAVAILABLE", "HOLD_EXPIRED"]);
            }
            (Err(status), _) => self.refused(&status, &[slot], &["SLOT_UNAVAILABLE"]),
        }
    }

    async fn confirm(&mut self, own: pb::Booking) {
        let request = pb::ConfirmBookingRequest {
            name: own.name.clone(),
            ..Default::default()
        };
        match (self.client.confirm_booking(request).await, own.state()) {
            (Ok(confirmed), State::Held | State::Confirmed) => self.keep(confirmed.into_inner()),
            (Ok(confirmed), state) => panic!("confirmed {confirmed:?}, which was {state:?}"),
            (Err(status), State::Held) => self.refused(&status, &[], &["HOLD_EXPIRED"]),
            (Err(status), _) => self.refused(&status, &[], &["INVALID_STATE"]),
        }
    }

    async fn cancel(&mut self, own: pb::Booking) {
        let request = pb::CancelBookingRequest {
            name: own.name.clone(),
            etag: own.etag.clone(),
            ..pb::CancelBookingRequest::default()
        };
        match (self.client.cancel_booking(request).await, own.state()) {
            (Ok(cancelled), _) => self.keep(cancelled.into_inner()),
            (Err(status), State::Held) => self.refused(&status, &[], &["HOLD_EXPIRED"]),
            (Err(status), state) => panic!("not cancelled, which was {state:?}: {status:?}"),
        }
    }

    async fn delete(&mut self, own: pb::Booking) {
        let request = pb::DeleteBookingRequest {
            name: own.name.clone(),
            etag: own.etag,
        };
        match self.client.delete_booking(request).await {
            Ok(_) => drop(self.own.insert(own.name, None)),
            Err(status) => self.refused(&status, &[], &[]),
        }
    }

    /// What is there is what was last acknowledged, but that a hold may have run out.
    async fn look(&mut self, own: &pb::Booking) {
        let request = pb::GetBookingRequest {
            name: own.name.clone(),
        };
        let mut found = self
            .client
            .get_booking(request)
            .await
            .expect("found")
            .into_inner();
        if own.state() == State::Held && found.state() == State::Expired {
            found.set_state(State::Held);
            found.hold_expire_time = own.hold_expire_time;
        }
        assert_eq!(&found, own, "what was acknowledged is there");
    }

    /// Refused for one of these reasons; and if for a slot, by a booking that does overlap one asked for.
    fn refused(&mut self, status: &Status, slots: &[Slot], reasons: &[&str]) {
        let reason = reason_of(status);
        if reason == "CONTENTION" {
            self.contended += 1;
            return;
        }
        assert!(reasons.contains(&reason.as_str()), "{status:?}");
        if reason == "SLOT_UNAVAILABLE" {
            let metadata = status.get_details_error_info().expect("details").metadata;
            let at = |key: &str| {
                metadata[key]
                    .parse::<prost_types::Timestamp>()
                    .expect("a time")
                    .seconds
            };
            let overlaps = |(resource, from, to): &Slot| {
                let wish = booking(resource, *from, *to);
                metadata["resource"] == *resource
                    && at("conflict_start_time") < wish.end_time.unwrap().seconds
                    && wish.start_time.unwrap().seconds < at("conflict_end_time")
            };
            assert!(
                slots.iter().any(overlaps),
                "{metadata:?} does not overlap {slots:?}"
            );
            self.conflicts.insert(metadata["conflict"].clone());
        }
    }

    /// After the end: nothing acknowledged is lost, nothing deleted has come back.
    async fn settle(&mut self) {
        let own: Vec<_> = self.own.clone().into_iter().collect();
        for (name, last) in own {
            if let Some(booking) = last {
                self.look(&booking).await;
            } else {
                let gone = self
                    .client
                    .get_booking(pb::GetBookingRequest { name })
                    .await;
                assert_eq!(reason_of(&gone.expect_err("deleted")), "BOOKING_NOT_FOUND");
            }
        }
    }
}

#[test]
fn whatever_runs_at_once_nothing_overlaps_and_nothing_is_lost() {
    let seconds = std::env::var("SOAK_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    let end = Instant::now() + Duration::from_secs(seconds);
    block_on(async {
        let house = House::new().await;
        let replicas = [
            house.start().await,
            house.start().await,
            house.start().await,
        ];
        let resources: Vec<String> = (0..RESOURCES).map(|_| fresh("fought-over")).collect();
        let customers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut customer = Customer {
                    client: replicas[number % replicas.len()].client(),
                    resources: resources.clone(),
                    own: HashMap::new(),
                    conflicts: HashSet::new(),
                    calls: 0,
                    contended: 0,
                };
                tokio::spawn(async move {
                    while Instant::now() < end {
                        customer.act().await;
                    }
                    customer
                })
            })
            .collect();
        while Instant::now() < end {
            assert_eq!(house.overlaps().await, 0, "pairs of bookings that overlap");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut settled = Vec::new();
        for customer in customers {
            let mut customer = customer.await.expect("no panic");
            customer.settle().await;
            settled.push(customer);
        }
        assert_eq!(house.overlaps().await, 0, "pairs of bookings that overlap");
        let made: HashSet<&String> = settled
            .iter()
            .flat_map(|customer| customer.own.keys())
            .collect();
        for conflict in settled.iter().flat_map(|customer| &customer.conflicts) {
            assert!(
                made.contains(conflict),
                "{conflict} stood in the way, and nobody had made it"
            );
        }
        let sum = |count: fn(&Customer) -> usize| settled.iter().map(count).sum::<usize>();
        let (calls, contended) = (
            sum(|customer| customer.calls),
            sum(|customer| customer.contended),
        );
        println!(
            "{calls} calls, {} bookings made, {contended} given up for contention",
            made.len()
        );
        assert!(
            contended * 100 <= calls,
            "{contended} of {calls} calls gave up"
        );
    });
}
