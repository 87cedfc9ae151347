//! Books, meets somebody else's booking, reads why, lists, reschedules, and deletes what it made.
//!
//! ```text
//! cargo run                     # in one terminal
//! cargo run --example book      # in another; an address may follow, after `--`
//! ```

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::pb::{
    Booking, CreateBookingRequest, DeleteBookingRequest, ListBookingsRequest, UpdateBookingRequest,
};
use prost_types::FieldMask;
use tonic_types::StatusExt;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let mut client = BookingServiceClient::connect(address).await?;

    // A resource is whatever name you give it; this one is of this run alone.
    let room = format!("example-room-{}", Uuid::new_v4());

    // Ada books from 10 to 11. The request_id makes the call safe to repeat: choose a new one for
    // each booking that is wanted, and send it again if the answer was lost.
    let request = CreateBookingRequest {
        booking: Some(booking(&room, "ada", "10:00", "11:00")?),
        request_id: Uuid::new_v4().to_string(),
        ..CreateBookingRequest::default()
    };
    let adas = client.create_booking(request.clone()).await?.into_inner();
    println!("ada has {}", adas.name);

    // The same request again, as after a lost answer: the same booking, not a second one.
    let again = client.create_booking(request).await?.into_inner();
    println!("sent again, it is the same: {}", again.name == adas.name);

    // Bob wants 10:30 to 11:30, which overlaps.
    let bobs = CreateBookingRequest {
        booking: Some(booking(&room, "bob", "10:30", "11:30")?),
        ..CreateBookingRequest::default()
    };
    let Err(status) = client.create_booking(bobs.clone()).await else {
        return Err("two bookings overlap".into());
    };
    // Every error carries an ErrorInfo: a reason to decide by, and values to show or act on.
    let info = status.get_details_error_info().ok_or("no ErrorInfo")?;
    let value = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
    println!("bob is refused: {:?}, {}", status.code(), info.reason);
    println!(
        "    in the way is {}, from {} to {}",
        value("conflict"),
        value("conflict_start_time"),
        value("conflict_end_time")
    );

    // Ada moves to 11:30. The mask names what changes; the etag makes it conditional on the booking
    // being as she last saw it.
    let moved = UpdateBookingRequest {
        booking: Some(Booking {
            name: adas.name.clone(),
            etag: adas.etag,
            ..booking(&room, "ada", "11:30", "12:30")?
        }),
        update_mask: Some(FieldMask {
            paths: vec!["start_time".to_owned(), "end_time".to_owned()],
        }),
        validate_only: false,
    };
    let adas = client.update_booking(moved).await?.into_inner();
    println!("ada moved, and has a new etag: {}", adas.etag);

    // Now there is room for bob: up to 11:30, where ada begins, is no overlap.
    let bobs = client.create_booking(bobs).await?.into_inner();
    println!("bob has {}", bobs.name);

    // The bookings of the room, by their start. Where there are more than a page holds, the answer
    // has a next_page_token, to be sent as the page_token of the next request.
    let list = ListBookingsRequest {
        resource: room,
        ..ListBookingsRequest::default()
    };
    for booking in client.list_bookings(list).await?.into_inner().bookings {
        let start = booking.start_time.ok_or("no start")?;
        let end = booking.end_time.ok_or("no end")?;
        println!("listed: {start} to {end}, by {}", booking.booked_by);
    }

    // Deleting removes the record. CancelBooking would free the slot and keep it.
    for name in [adas.name, bobs.name] {
        let delete = DeleteBookingRequest {
            name,
            etag: String::new(), // whatever has changed
        };
        client.delete_booking(delete).await?;
    }
    println!("deleted both");
    Ok(())
}

/// A booking on a Monday some years from now; what is left out, the service fills in.
fn booking(resource: &str, by: &str, from: &str, to: &str) -> Result<Booking, Box<dyn Error>> {
    Ok(Booking {
        resource: resource.to_owned(),
        start_time: Some(format!("2030-01-07T{from}:00Z").parse()?),
        end_time: Some(format!("2030-01-07T{to}:00Z").parse()?),
        booked_by: by.to_owned(),
        ..Booking::default()
    })
}
