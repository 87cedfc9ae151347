//! How much one caller may ask for.

use std::num::NonZeroU32;

use booking_service::grpc::RateLimit;
use booking_service::pb::GetBookingRequest;
use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::server;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::{House, Instance, block_on, reason_of};
use crate::issuer::{Key, USER, claims, jwks, trusting};
use crate::secured::{Client, assert_unknown, client, written};

const BURST: usize = 5;

fn limit() -> RateLimit {
    let burst = NonZeroU32::new(5).unwrap();
    RateLimit {
        per_second: NonZeroU32::MIN,
        burst,
    }
}

fn nothing() -> GetBookingRequest {
    let name = format!("bookings/{}", uuid::Uuid::new_v4());
    GetBookingRequest { name }
}

fn assert_too_fast(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason_of(status), "OVERLOADED");
    let retry = status.get_details_retry_info().unwrap();
    let delay_ms = retry.retry_delay.unwrap().as_millis();
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback.to_str().unwrap(), delay_ms.to_string());
    assert!((1..=3_100).contains(&delay_ms), "{delay_ms}");
}

/// How many of these calls are let through.
async fn allowed(client: &mut Client, calls: usize) -> usize {
    let mut allowed = 0;
    for _ in 0..calls {
        match client.get_booking(nothing()).await.unwrap_err() {
            status if status.code() == Code::PermissionDenied => allowed += 1,
            status => assert_too_fast(&status),
        }
    }
    allowed
}

#[test]
fn each_person_has_a_limit_of_its_own() {
    block_on(async {
        let key = Key::ed25519("key");
        let (_dir, file) = written(&jwks(&[&key]));
        let options = server::Options {
            rate_limit: Some(limit()),
            ..trusting(&file).await
        };
        let instance = Instance::start(House::shared().await.database(), options).await;
        let user = |who: &str| client(instance.channel(), &key.token(&claims(who, USER)));
        let greedy = allowed(&mut user("greedy"), 3 * BURST).await;
        assert!((BURST..=BURST + 2).contains(&greedy), "{greedy}");
        // Another token of the same person is the same person.
        assert!(allowed(&mut user("greedy"), 3).await <= 1);
        assert!(allowed(&mut user("modest"), BURST).await == BURST);
        // Who fails to sign in is counted by address, and takes nothing from those who do not.
        let mut stranger = client(instance.channel(), "forged");
        for _ in 0..BURST {
            assert_unknown(stranger.get_booking(nothing()).await, "forged");
        }
        assert_too_fast(&stranger.get_booking(nothing()).await.unwrap_err());
        assert!(allowed(&mut user("third"), BURST).await == BURST);
    });
}

#[test]
fn without_sign_in_an_address_has_a_limit_and_health_has_none() {
    block_on(async {
        let options = server::Options {
            rate_limit: Some(limit()),
            ..server::Options::default()
        };
        let instance = Instance::start(House::shared().await.database(), options).await;
        let mut client = BookingServiceClient::new(instance.channel());
        let mut refused = 0;
        for _ in 0..3 * BURST {
            let status = client.get_booking(nothing()).await.unwrap_err();
            if status.code() == Code::ResourceExhausted {
                assert_too_fast(&status);
                refused += 1;
            }
        }
        assert!(refused >= 2 * BURST - 2, "{refused}");
        let mut health = HealthClient::new(instance.channel());
        for _ in 0..3 * BURST {
            let asked = health.check(HealthCheckRequest::default()).await;
            assert!(asked.is_ok());
        }
    });
}
