//! The service's methods: parse, ask the store, encode.

use tonic::{Request, Response, Status};

use crate::booking;
use crate::pb;
use crate::pb::booking_service_server::{BookingService, BookingServiceServer};
use crate::store::{Mode, Store};

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
    /// The service, ready to be put behind its [`EdgeLayer`](super::EdgeLayer).
    #[must_use]
    pub fn server(store: Store) -> BookingServiceServer<Self> {
        BookingServiceServer::new(Self { store }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl BookingService for Service {
    async fn create_booking(
        &self,
        request: Request<pb::CreateBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let deadline = Deadline::given(&request);
        let create = parse::create(request.into_inner())?;
        let context = Context {
            request_id: create.request_id,
            ..Context::default()
        };
        let booking = self.store.create(create.new, create.mode, deadline).await;
        let booking = booking.map_err(|error| Error::Store(error, context))?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn get_booking(
        &self,
        request: Request<pb::GetBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let deadline = Deadline::given(&request);
        let id = parse::get(request.get_ref())?;
        let booking = self.store.get(id, deadline).await?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn list_bookings(
        &self,
        request: Request<pb::ListBookingsRequest>,
    ) -> Result<Response<pb::ListBookingsResponse>, Status> {
        let deadline = Deadline::given(&request);
        let listing = parse::listing(request.into_inner())?;
        let page = self.store.list(listing.clone(), deadline).await?;
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
        let deadline = Deadline::given(&request);
        let parse::Update {
            id,
            change,
            expected,
            mode,
        } = parse::update(request.into_inner())?;
        let context = Context {
            start_given: change.start_time.is_some(),
            ..Context::default()
        };
        let booking = self
            .store
            .update(id, change, expected, mode, deadline)
            .await;
        let booking = booking.map_err(|error| Error::Store(error, context))?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn delete_booking(
        &self,
        request: Request<pb::DeleteBookingRequest>,
    ) -> Result<Response<()>, Status> {
        let deadline = Deadline::given(&request);
        let target = parse::delete(request.get_ref())?;
        self.store
            .delete(target.id, target.expected, deadline)
            .await?;
        Ok(Response::new(()))
    }

    async fn confirm_booking(
        &self,
        request: Request<pb::ConfirmBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let deadline = Deadline::given(&request);
        let target = parse::confirm(request.get_ref())?;
        let booking = self
            .store
            .confirm(target.id, target.expected, deadline)
            .await?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn cancel_booking(
        &self,
        request: Request<pb::CancelBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let deadline = Deadline::given(&request);
        let (target, reason) = parse::cancel(request.into_inner())?;
        let booking = self
            .store
            .cancel(target.id, reason, target.expected, deadline)
            .await?;
        Ok(Response::new(encode::booking(booking)))
    }

    async fn batch_create_bookings(
        &self,
        request: Request<pb::BatchCreateBookingsRequest>,
    ) -> Result<Response<pb::BatchCreateBookingsResponse>, Status> {
        let deadline = Deadline::given(&request);
        let batch = parse::create_batch(request.into_inner())?;
        let mode = batch.first().map_or(Mode::Commit, |first| first.mode);
        let request_ids: Vec<_> = batch.iter().map(|member| member.request_id).collect();
        let new = batch.into_iter().map(|member| member.new).collect();
        let made = self.store.create_batch(new, mode, deadline).await;
        let made = made.map_err(|refusal| Error::of_member(refusal, &request_ids))?;
        let bookings = made.into_iter().map(encode::booking).collect();
        Ok(Response::new(pb::BatchCreateBookingsResponse { bookings }))
    }

    async fn batch_get_bookings(
        &self,
        request: Request<pb::BatchGetBookingsRequest>,
    ) -> Result<Response<pb::BatchGetBookingsResponse>, Status> {
        let deadline = Deadline::given(&request);
        let ids = parse::get_batch(request.get_ref())?;
        let found = self.store.get_batch(ids, deadline).await?;
        let bookings = found.into_iter().map(encode::booking).collect();
        Ok(Response::new(pb::BatchGetBookingsResponse { bookings }))
    }

    async fn query_availability(
        &self,
        request: Request<pb::QueryAvailabilityRequest>,
    ) -> Result<Response<pb::QueryAvailabilityResponse>, Status> {
        let deadline = Deadline::given(&request);
        let parse::Availability {
            resources,
            window,
            search,
        } = parse::availability(request.into_inner())?;
        let taken = self
            .store
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
