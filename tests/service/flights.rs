//! What a call costs on the wire to the database: one round trip, and nothing parsed again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use booking_service::db::PoolOptions;
use booking_service::grpc::{EdgeLayer, GateLayer, Limits, Service, stamp_arrival};
use booking_service::pb;
use booking_service::store::{LaneOptions, STATEMENTS, Store};
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::service::LayerExt;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tower::util::MapRequestLayer;

use crate::harness::{Client, House, block_on, booking, create, fresh, hold, hour, reason_of};
use crate::postgres::Wire;

/// The service without its health check, which would ask the database now and then, on a pool of one
/// connection.
struct Counted {
    wire: Wire,
    client: Client,
    _house: House,
}

impl Counted {
    async fn new() -> Self {
        let house = House::new().await;
        let wire = house.wire().await;
        let pool = wire.database.pool(PoolOptions { size: 1 }, STATEMENTS);
        let store = Store::new(pool, LaneOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = GateLayer::new(None, None).named_layer(Service::server(store));
        let edge = EdgeLayer::new(Limits::default());
        let router = Server::builder()
            .layer(MapRequestLayer::new(stamp_arrival::<Body>))
            .add_service(edge.named_layer(service));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
        let channel = endpoint.connect().await.expect("connected");
        let mut counted = Self {
            wire,
            client: Client::new(channel),
            _house: house,
        };
        counted.warm_up().await;
        counted
    }

    /// The first call opens the connection.
    async fn warm_up(&mut self) {
        let list = pb::ListBookingsRequest::default();
        self.client.list_bookings(list).await.expect("listed");
        // Longer than it takes a client to send what it does not wait to send.
        self.wire.traffic.delay_ms.store(20, Ordering::SeqCst);
    }

    fn flights(&self) -> u32 {
        self.wire.traffic.flights.load(Ordering::SeqCst)
    }

    /// Since the connection was made, on which each statement was parsed once.
    fn nothing_was_parsed_again(&self) {
        let parsed = self.wire.traffic.parsed.load(Ordering::SeqCst);
        assert_eq!(usize::try_from(parsed).expect("fits"), STATEMENTS.len());
    }

    async fn make(&self, booking: pb::Booking) -> pb::Booking {
        let mut client = self.client.clone();
        let made = client.create_booking(create(booking)).await;
        made.expect("made").into_inner()
    }

    /// The answer to this call, which takes one round trip.
    async fn one_flight<T>(
        &self,
        what: &str,
        call: impl AsyncFnOnce(Client) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let before = self.flights();
        let answer = call(self.client.clone()).await;
        assert_eq!(self.flights() - before, 1, "{what}");
        answer.map(tonic::Response::into_inner)
    }
}

#[test]
fn a_create_is_one_round_trip() {
    block_on(async {
        let service = Counted::new().await;
        let room = fresh("counted");
        let made = service.one_flight("create", async |mut client| {
            let request_id = uuid::Uuid::new_v4().to_string();
            let create = create(booking(&room, 0, 60));
            let create = pb::CreateBookingRequest {
                request_id,
                ..create
            };
            client.create_booking(create).await
        });
        made.await.expect("made");
        let refused = service.one_flight("refused create", async |mut client| {
            client.create_booking(create(booking(&room, 30, 90))).await
        });
        let refused = refused.await.expect_err("taken");
        assert_eq!(reason_of(&refused), "SLOT_UNAVAILABLE");
        let tried = service.one_flight("validated create", async |mut client| {
            let create = create(booking(&room, 60, 90));
            let create = pb::CreateBookingRequest {
                validate_only: true,
                ..create
            };
            client.create_booking(create).await
        });
        tried.await.expect("possible");
        let batch = service.one_flight("batch create", async |mut client| {
            let requests = (10..30).map(|at| create(booking(&room, at * 60, at * 60 + 60)));
            let batch = pb::BatchCreateBookingsRequest {
                requests: requests.collect(),
            };
            client.batch_create_bookings(batch).await
        });
        batch.await.expect("made");
        service.nothing_was_parsed_again();
    });
}

#[test]
fn a_read_is_one_round_trip() {
    block_on(async {
        let service = Counted::new().await;
        let room = fresh("counted");
        let made = service.make(booking(&room, 0, 60)).await;
        let name = made.name.clone();
        let got = service.one_flight("get", async |mut client| {
            client.get_booking(pb::GetBookingRequest { name }).await
        });
        assert_eq!(got.await.expect("there"), made);
        let missing = service.one_flight("get what is not there", async |mut client| {
            let name = format!("bookings/{}", uuid::Uuid::new_v4());
            client.get_booking(pb::GetBookingRequest { name }).await
        });
        assert_eq!(missing.await.expect_err("missing").code(), Code::NotFound);

        for (resource, booked_by) in [(&*room, ""), ("", "ada"), ("", "")] {
            let listed = service.one_flight("list", async |mut client| {
                let list = pb::ListBookingsRequest {
                    resource: resource.to_owned(),
                    booked_by: booked_by.to_owned(),
                    ..pb::ListBookingsRequest::default()
                };
                client.list_bookings(list).await
            });
            assert_eq!(
                listed.await.expect("listed").bookings,
                std::slice::from_ref(&made)
            );
        }
        let names = vec![made.name.clone(), made.name.clone()];
        let found = service.one_flight("batch get", async |mut client| {
            client
                .batch_get_bookings(pb::BatchGetBookingsRequest { names })
                .await
        });
        assert_eq!(found.await.expect("found").bookings, [made.clone(), made]);
        let available = service.one_flight("availability", async |mut client| {
            let query = pb::QueryAvailabilityRequest {
                resources: vec![room.clone(), fresh("free")],
                start_time: Some(hour(0)),
                end_time: Some(hour(24)),
                ..pb::QueryAvailabilityRequest::default()
            };
            client.query_availability(query).await
        });
        available.await.expect("answered");
        service.nothing_was_parsed_again();
    });
}

#[test]
fn a_change_is_one_round_trip() {
    block_on(async {
        let service = Counted::new().await;
        let room = fresh("counted");
        let made = service.make(booking(&room, 0, 60)).await;
        let moved = service.one_flight("update", async |mut client| {
            let booking = pb::Booking {
                name: made.name.clone(),
                ..booking(&room, 120, 180)
            };
            let update = pb::UpdateBookingRequest {
                booking: Some(booking),
                ..pb::UpdateBookingRequest::default()
            };
            client.update_booking(update).await
        });
        let moved = moved.await.expect("moved");
        assert_eq!(moved.start_time, Some(hour(2)));

        let held = service.one_flight("hold", async |mut client| {
            client
                .create_booking(hold(booking(&room, 240, 300), 60))
                .await
        });
        let held = held.await.expect("held");
        let confirmed = service.one_flight("confirm", async |mut client| {
            let name = held.name.clone();
            let confirm = pb::ConfirmBookingRequest {
                name,
                ..Default::default()
            };
            client.confirm_booking(confirm).await
        });
        confirmed.await.expect("confirmed");
        let cancelled = service.one_flight("cancel", async |mut client| {
            let name = held.name.clone();
            let cancel = pb::CancelBookingRequest {
                name,
                ..Default::default()
            };
            client.cancel_booking(cancel).await
        });
        cancelled.await.expect("cancelled");
        let deleted = service.one_flight("delete", async |mut client| {
            let name = held.name.clone();
            let delete = pb::DeleteBookingRequest {
                name,
                ..Default::default()
            };
            client.delete_booking(delete).await
        });
        deleted.await.expect("deleted");
        service.nothing_was_parsed_again();
    });
}

/// More than four rounds of the readers would be a statement for each.
#[test]
fn reads_that_wait_at_the_same_time_share_statements() {
    const READS: u32 = 64;
    block_on(async {
        let service = Counted::new().await;
        let room = fresh("crowd");
        let mut made = Vec::new();
        for at in 0..4 {
            made.push(service.make(booking(&room, at * 60, at * 60 + 60)).await);
        }
        let before = service.flights();
        let reads = (0..READS).map(|at| {
            let mut client = service.client.clone();
            let there = made.get(at as usize % 5).cloned();
            async move {
                let nowhere = || format!("bookings/{}", uuid::Uuid::new_v4());
                let name = there
                    .as_ref()
                    .map_or_else(nowhere, |made| made.name.clone());
                let got = client.get_booking(pb::GetBookingRequest { name }).await;
                match there {
                    Some(made) => assert_eq!(got.expect("there").into_inner(), made),
                    None => assert_eq!(got.expect_err("missing").code(), Code::NotFound),
                }
            }
        });
        join_all(reads).await;
        let flights = service.flights() - before;
        assert!(
            flights < READS / 2,
            "{flights} round trips for {READS} reads"
        );
    });
}

/// Its deadline is its own, whoever it shares a statement with.
#[test]
fn a_read_ends_at_its_deadline() {
    block_on(async {
        let service = Counted::new().await;
        let name = service.make(booking(&fresh("slow"), 0, 60)).await.name;
        service.wire.traffic.delay_ms.store(1_000, Ordering::SeqCst);
        let get = |timeout: Duration| {
            let mut get = tonic::Request::new(pb::GetBookingRequest { name: name.clone() });
            get.set_timeout(timeout);
            let mut client = service.client.clone();
            async move { client.get_booking(get).await }
        };
        let hasty = get(Duration::from_millis(200));
        let patient = get(Duration::from_secs(30));
        let (hasty, patient) = tokio::join!(hasty, patient);
        // Whoever notices first: the service, or the client's own timer, which says so.
        let late = hasty.expect_err("late").code();
        assert!(matches!(late, Code::DeadlineExceeded | Code::Cancelled));
        patient.expect("in time");
    });
}
