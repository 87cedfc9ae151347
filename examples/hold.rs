//! Holds a slot while its customer makes up their mind: once in time, once too late.
//!
//! ```text
//! cargo run                     # in one terminal
//! cargo run --example hold      # in another; an address may follow, after `--`
//! ```

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;
use std::time::Duration;

use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::pb::{
    Booking, ConfirmBookingRequest, CreateBookingRequest, DeleteBookingRequest,
};
use tokio::time::sleep;
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

/// How long a hold lasts here, in seconds: the service takes 1 s to 1 h.
const HOLD_SECONDS: i64 = 2;

/// When it has run out by the database's clock, however the two clocks tick.
const OVER: Duration = Duration::from_millis(2_200);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let mut client = BookingServiceClient::connect(address).await?;
    let seat = format!("example-seat-{}", Uuid::new_v4());

    // In time: the seat is held at checkout, and confirmed when the payment is through.
    let held = client.create_booking(hold(&seat, "ada")?).await?;
    let held = held.into_inner();
    let until = held.hold_expire_time.ok_or("a hold that does not end")?;
    println!("ada: {}, until {until}", held.state().as_str_name());

    // Meanwhile nobody else gets it.
    let refused = client.create_booking(hold(&seat, "bob")?).await;
    println!("bob: {}", reason(refused.err()));

    // Confirming twice would be fine: the second time returns the booking as it is.
    let confirmed = client.confirm_booking(confirm(&held.name)).await?;
    let confirmed = confirmed.into_inner();
    println!("ada: {}", confirmed.state().as_str_name());

    // Confirmed, it outlasts the hold. Ada gives it back, for the second part.
    client.delete_booking(delete(&held.name)).await?;
    println!("ada: gave the seat back");

    // Too late: nobody has to clear an expired hold away. It blocks nobody from that moment on.
    let held = client.create_booking(hold(&seat, "eve")?).await?;
    let eves = held.into_inner().name;
    println!("eve: has it on hold, and dawdles");
    sleep(OVER).await;
    let refused = client.confirm_booking(confirm(&eves)).await;
    println!("eve: {}", reason(refused.err()));

    let bobs = client.create_booking(hold(&seat, "bob")?).await?;
    let bobs = bobs.into_inner();
    println!(
        "bob: {}, since the seat is free",
        bobs.state().as_str_name()
    );

    for name in [eves, bobs.name] {
        client.delete_booking(delete(&name)).await?;
    }
    Ok(())
}

/// A request to hold this seat for an evening some years from now.
fn hold(seat: &str, by: &str) -> Result<CreateBookingRequest, Box<dyn Error>> {
    Ok(CreateBookingRequest {
        booking: Some(Booking {
            resource: seat.to_owned(),
            start_time: Some("2030-01-07T19:00:00Z".parse()?),
            end_time: Some("2030-01-07T22:00:00Z".parse()?),
            booked_by: by.to_owned(),
            ..Booking::default()
        }),
        hold_ttl: Some(prost_types::Duration {
            seconds: HOLD_SECONDS,
            nanos: 0,
        }),
        // Safe to repeat: one request_id for each hold that is wanted.
        request_id: Uuid::new_v4().to_string(),
        ..CreateBookingRequest::default()
    })
}

fn confirm(name: &str) -> ConfirmBookingRequest {
    ConfirmBookingRequest {
        name: name.to_owned(),
        etag: String::new(), // whatever has changed
    }
}

fn delete(name: &str) -> DeleteBookingRequest {
    DeleteBookingRequest {
        name: name.to_owned(),
        etag: String::new(),
    }
}

/// Why a call was refused, in a word for a program to decide by.
fn reason(refusal: Option<Status>) -> String {
    match refusal {
        Some(status) => status
            .get_details_error_info()
            .map_or_else(|| status.to_string(), |info| info.reason),
        None => "was not refused".to_owned(),
    }
}
