//! The service's own contract, as far as the comparison calls it, served by one of its peers.

use booking_service::pb;
use booking_service::pb::booking_service_server::BookingService;
use tonic::{Request, Response, Status};

use crate::baseline::Baseline;

/// Who answers.
pub(crate) enum Peer {
    /// The usual way.
    Baseline(Baseline),
    /// Nobody: an answer without any work behind it.
    Empty,
}

fn unanswered() -> Status {
    Status::unimplemented("not a part of the comparison")
}

#[tonic::async_trait]
impl BookingService for Peer {
    async fn create_booking(
        &self,
        request: Request<pb::CreateBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let asked_for = request.into_inner().booking;
        let booking = asked_for.ok_or_else(|| Status::invalid_argument("no booking"))?;
        let made = match self {
            Self::Baseline(baseline) => baseline.create(booking).await?,
            Self::Empty => pb::Booking {
                name: format!("bookings/{}", uuid::Uuid::new_v4()),
                ..booking
            },
        };
        Ok(Response::new(made))
    }

    async fn get_booking(
        &self,
        request: Request<pb::GetBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        let name = request.into_inner().name;
        let found = match self {
            Self::Baseline(baseline) => baseline.get(&name).await?,
            Self::Empty => pb::Booking {
                name,
                resource: "room-101".to_owned(),
                booked_by: "ada".to_owned(),
                ..pb::Booking::default()
            },
        };
        Ok(Response::new(found))
    }

    async fn list_bookings(
        &self,
        _: Request<pb::ListBookingsRequest>,
    ) -> Result<Response<pb::ListBookingsResponse>, Status> {
        let bookings = match self {
            Self::Baseline(baseline) => baseline.list().await?,
            Self::Empty => Vec::new(),
        };
        Ok(Response::new(pb::ListBookingsResponse {
            bookings,
            next_page_token: String::new(),
        }))
    }

    async fn update_booking(
        &self,
        _: Request<pb::UpdateBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        Err(unanswered())
    }

    async fn delete_booking(
        &self,
        _: Request<pb::DeleteBookingRequest>,
    ) -> Result<Response<()>, Status> {
        Err(unanswered())
    }

    async fn confirm_booking(
        &self,
        _: Request<pb::ConfirmBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        Err(unanswered())
    }

    async fn cancel_booking(
        &self,
        _: Request<pb::CancelBookingRequest>,
    ) -> Result<Response<pb::Booking>, Status> {
        Err(unanswered())
    }

    async fn batch_create_bookings(
        &self,
        _: Request<pb::BatchCreateBookingsRequest>,
    ) -> Result<Response<pb::BatchCreateBookingsResponse>, Status> {
        Err(unanswered())
    }

    async fn batch_get_bookings(
        &self,
        _: Request<pb::BatchGetBookingsRequest>,
    ) -> Result<Response<pb::BatchGetBookingsResponse>, Status> {
        Err(unanswered())
    }

    async fn query_availability(
        &self,
        _: Request<pb::QueryAvailabilityRequest>,
    ) -> Result<Response<pb::QueryAvailabilityResponse>, Status> {
        Err(unanswered())
    }
}
