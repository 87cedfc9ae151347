//! The service's methods: parse, ask the store, encode.

use tonic::{Request, Response, Status};

use crate::booking;
use crate::pb;
use crate::pb::booking_service_server::{BookingService, BookingServiceServer};
use crate::store::{Mode, Store};

use super::caller::Caller;
use super::deadline::Deadline;
use super::status::{Context, Error};
use super::{encode, page_token, parse};

/// The largest request that is read, in bytes.
///
/// Every valid request fits: a full batch whose members have all fields at their limits is about
/// 220 KiB. A larger one is refused before it is read.
pub const REQUEST_BYTES_MAX: usize = 256 * 1_024;

/// `booking.v1.BookingService` on a store.
#[derive(Clone)]
pub struct Service {
    store: Store,
}

impl Service {
    /// The service, ready to be put behind its [`GateLayer`](super::GateLayer), and that behind its
    /// [`EdgeLayer`](super::EdgeLayer).
    #[must_use]
    pub fn server(store: Store) -> BookingServiceServer<Self> {
        BookingServiceServer::new(Self { store }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// The store as far as the caller may go.
    fn store_for(&self, caller: &Caller) -> Store {
        self.store.confined_to(caller.owner().cloned())
    }
}

#[tonic::async_trait]
impl BookingService for Service {
    async fn create_booking(
        &self,
        request: Request<pb::CreateBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let mut request = request.into_inner();
        caller.fill_in(request.booking.as_mut());
        let create = parse::create(request)?.by(caller.subject());
        let context = Context {
            request_id: create.request_id,
            confined: caller.owner().is_some(),
            ..Context::default()
        };
        let store = self.store_for(&caller);
        let booking = store.create(create.new, create.mode, deadline).await;
        let booking = booking.map_err(|error| Error::Store(error, context))?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn get_booking(
        &self,
        request: Request<pb::GetBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let id = parse::get(request.get_ref())?;
        let booking = self.store_for(&caller).get(id, deadline).await?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn list_bookings(
        &self,
        request: Request<pb::ListBookingsRequest>,
    ) -> Result<Response<pb::ListBookingsResponse>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let mut request = request.into_inner();
        caller.fill_in_name(&mut request.booked_by);
        let listing = parse::listing(request)?;
        let page = self
            .store_for(&caller)
            .list(listing.clone(), deadline)
            .await?;
        let next = page.next.map(|cursor| page_token::encode(cursor, &listing));
        Ok(Response::new(pb::ListBookingsResponse {
            bookings: page.bookings.into_iter().map(encode::booking).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn update_booking(
        &self,
        request: Request<pb::UpdateBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let mut request = request.into_inner();
        caller.fill_in(request.booking.as_mut());
        let parse::Update {
            id,
            change,
            expected,
            mode,
        } = parse::update(request)?;
        let context = Context {
            start_given: change.start_time.is_some(),
            confined: caller.owner().is_some(),
            ..Context::default()
        };
        let store = self.store_for(&caller);
        let booking = store.update(id, change, expected, mode, deadline).await;
        let booking = booking.map_err(|error| Error::Store(error, context))?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn delete_booking(
        &self,
        request: Request<pb::DeleteBookingRequest>,
    ) -> Result<Response<()>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let target = parse::delete(request.get_ref())?;
        self.store_for(&caller)
            .delete(target.id, target.expected, deadline)
            .await?;
        Ok(Response::new(()))
    }

    async fn confirm_booking(
        &self,
        request: Request<pb::ConfirmBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let target = parse::confirm(request.get_ref())?;
        let booking = self
            .store_for(&caller)
            .confirm(target.id, target.expected, deadline)
            .await?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn cancel_booking(
        &self,
        request: Request<pb::CancelBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let (target, reason) = parse::cancel(request.into_inner())?;
        let booking = self
            .store_for(&caller)
            .cancel(target.id, reason, target.expected, deadline)
            .await?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn batch_create_bookings(
        &self,
        request: Request<pb::BatchCreateBookingsRequest>,
    ) -> Result<Response<pb::BatchCreateBookingsResponse>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let mut request = request.into_inner();
        for member in &mut request.requests {
            caller.fill_in(member.booking.as_mut());
        }
        let batch = parse::create_batch(request)?;
        let mode = batch.first().map_or(Mode::Commit, |first| first.mode);
        let request_ids: Vec<_> = batch.iter().map(|member| member.request_id).collect();
        let members = batch.into_iter();
        let new = members.map(|member| member.by(caller.subject()).new);
        let store = self.store_for(&caller);
        let made = store.create_batch(new.collect(), mode, deadline).await;
        let confined = caller.owner().is_some();
        let told = |refusal| Error::of_member(refusal, &request_ids).told(confined);
        let made = made.map_err(told)?;
        let bookings = made.into_iter().map(encode::booking).collect();
        Ok(Response::new(pb::BatchCreateBookingsResponse { bookings }))
    }

    async fn batch_get_bookings(
        &self,
        request: Request<pb::BatchGetBookingsRequest>,
    ) -> Result<Response<pb::BatchGetBookingsResponse>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let ids = parse::get_batch(request.get_ref())?;
        let found = self.store_for(&caller).get_batch(ids, deadline).await?;
        let bookings = found.into_iter().map(encode::booking).collect();
        Ok(Response::new(pb::BatchGetBookingsResponse { bookings }))
    }

    async fn query_availability(
        &self,
        request: Request<pb::QueryAvailabilityRequest>,
    ) -> Result<Response<pb::QueryAvailabilityResponse>, Status> {
        let (deadline, caller) = (Deadline::given(&request), Caller::given(&request)?);
        let parse::Availability {
            resources,
            window,
            search,
        } = parse::availability(request.into_inner())?;
        let taken = self
            .store_for(&caller)
            .taken(resources.clone(), window, deadline)
            .await?;
        let resources = resources.into_iter().zip(taken).map(|(resource, taken)| {
            encode::availability(resource, booking::Availability::new(window, taken, search))
        });
        Ok(Response::new(pb::QueryAvailabilityResponse {
            resources: resources.collect(),
        }))
    }
}
