//! The calls of each scenario.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use booking_service::pb;
use booking_service::pb::booking_service_client::BookingServiceClient;
use prost_types::{FieldMask, Timestamp};
use tonic::transport::{self, Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::options::{Options, Scenario};
use crate::record::Kind;

pub(crate) type Client = BookingServiceClient<Channel>;

/// The first slot begins at 2030-01-01T00:00:00Z.
const FIRST_SLOT_SECONDS: i64 = 1_893_456_000;
const SLOT_SECONDS: i64 = 3_600;
/// Slots up to the year 9980; then they begin anew, and are taken.
const SLOTS: usize = 69_000_000;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A page of 1,000 bookings whose fields are at their limits is larger than the usual 4 MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// A slot of an hour on one of the run's resources, both by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) resource: u32,
    pub(crate) slot: u32,
}

/// A booking that the service has acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) id: Uuid,
    pub(crate) place: Place,
}

impl Made {
    pub(crate) fn name(&self) -> String {
        format!("bookings/{}", self.id)
    }
}

/// What every worker of a run shares.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) options: Options,
    /// Slots handed out so far.
    slots: AtomicUsize,
    /// Calls begun so far.
    calls: AtomicUsize,
}

impl Run {
    pub(crate) fn new(options: Options) -> Self {
        let id = Uuid::new_v4().simple().to_string();
        Self {
            id: id[..12].to_owned(),
            options,
            slots: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        }
    }

    pub(crate) fn resources(&self) -> usize {
        match (self.options.scenario, &self.options.resource) {
            (Scenario::Hot, _) | (_, Some(_)) => 1,
            _ => self.options.resources,
        }
    }

    pub(crate) fn resource(&self, number: u32) -> String {
        let own = || format!("load-{}-{number}", self.id);
        self.options.resource.clone().unwrap_or_else(own)
    }

    /// Whose bookings these are.
    pub(crate) fn booked_by(&self) -> String {
        format!("load-{}", self.id)
    }

    /// A slot that nobody was given before.
    pub(crate) fn free_place(&self) -> Place {
        place(self.slots.fetch_add(1, Ordering::Relaxed), self.resources())
    }

    /// The number of the next call, and what kind it is.
    pub(crate) fn next_call(&self) -> (usize, Kind) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let kind = match self.options.scenario {
            Scenario::Spread | Scenario::Hot => Kind::Create,
            Scenario::Reschedule => Kind::Update,
            Scenario::Read => Kind::Get,
            Scenario::List => Kind::List,
            Scenario::Mixed => match call % 20 {
                0 | 5 | 10 | 15 => Kind::Create,
                1 | 6 | 11 | 16 => Kind::List,
                12 => Kind::Update,
                _ => Kind::Get,
            },
        };
        (call, kind)
    }

    /// Where a create of this number is to be.
    pub(crate) fn place_of(&self, call: usize) -> Place {
        if self.options.scenario == Scenario::Hot {
            place(call / self.options.rivals, 1)
        } else {
            self.free_place()
        }
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.options.timeout);
        request
    }

    pub(crate) fn booking(&self, place: Place) -> pb::Booking {
        let (start, end) = interval(place);
        pb::Booking {
            resource: self.resource(place.resource),
            start_time: Some(start),
            end_time: Some(end),
            booked_by: self.booked_by(),
            ..pb::Booking::default()
        }
    }

    pub(crate) async fn create(&self, client: &mut Client, place: Place) -> Result<Made, Status> {
        let create = pb::CreateBookingRequest {
            booking: Some(self.booking(place)),
            ..pb::CreateBookingRequest::default()
        };
        let made = client.create_booking(self.request(create)).await?;
        let id = made.get_ref().name.strip_prefix("bookings/");
        let id = id.and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| Status::data_loss("the booking has no proper name"))?;
        Ok(Made { id, place })
    }

    pub(crate) async fn get(&self, client: &mut Client, made: Made) -> Result<(), Status> {
        let name = made.name();
        let get = pb::GetBookingRequest { name: name.clone() };
        let got = client.get_booking(self.request(get)).await?;
        if got.get_ref().name == name {
            Ok(())
        } else {
            Err(Status::data_loss("another booking than asked for"))
        }
    }

    pub(crate) async fn list(&self, client: &mut Client, call: usize) -> Result<(), Status> {
        let list = pb::ListBookingsRequest {
            resource: self.resource(number(call % self.resources())),
            page_size: i32::try_from(self.options.page_size).unwrap_or(i32::MAX),
            ..pb::ListBookingsRequest::default()
        };
        client.list_bookings(self.request(list)).await.map(drop)
    }

    /// Moves the booking to a slot that is free.
    pub(crate) async fn reschedule(
        &self,
        client: &mut Client,
        made: &mut Made,
    ) -> Result<(), Status> {
        let place = self.free_place();
        let paths = ["resource", "start_time", "end_time"];
        let update = pb::UpdateBookingRequest {
            booking: Some(pb::Booking {
                name: made.name(),
                ..self.booking(place)
            }),
            update_mask: Some(FieldMask {
                paths: paths.map(str::to_owned).to_vec(),
            }),
            validate_only: false,
        };
        client.update_booking(self.request(update)).await?;
        made.place = place;
        Ok(())
    }
}

fn place(at: usize, resources: usize) -> Place {
    Place {
        resource: number(at % resources),
        slot: number(at / resources % SLOTS),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("less than the number of slots")
}

/// When a booking in this place begins and ends.
pub(crate) fn interval(place: Place) -> (Timestamp, Timestamp) {
    let at = |slot: i64| Timestamp {
        seconds: FIRST_SLOT_SECONDS + slot * SLOT_SECONDS,
        nanos: 0,
    };
    let slot = i64::from(place.slot);
    (at(slot), at(slot + 1))
}

/// A connection.
pub(crate) async fn channel(options: &Options) -> Result<Channel, transport::Error> {
    Endpoint::from_shared(options.address.clone())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect()
        .await
}

/// Connections, to be dealt out to workers in turn.
pub(crate) async fn connect(options: &Options) -> Result<Vec<Client>, transport::Error> {
    let mut clients = Vec::with_capacity(options.connections());
    for _ in 0..options.connections() {
        let channel = channel(options).await?;
        clients.push(Client::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX));
    }
    Ok(clients)
}
