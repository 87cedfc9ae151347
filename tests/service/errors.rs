//! The table of errors: each case with its code, its reason and its details, as a client gets it.

use std::time::{Duration, Instant};

use booking_service::grpc::Limits;
use booking_service::{pb, server};
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::harness::{House, Instance, block_on, booking, create, fresh, hold, minute, reason_of};

/// What every error has: its code, one `ErrorInfo` with domain and reason, and each other detail once.
fn assert_error(status: &Status, code: Code, reason: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        ("booking.v1", reason)
    );
    let details = status.get_error_details_vec();
    let mut kinds: Vec<_> = details.iter().map(std::mem::discriminant).collect();
    let all = kinds.len();
    kinds.dedup();
    assert_eq!(kinds.len(), all, "a detail twice: {details:?}");
}

fn pushback(status: &Status) -> Option<i64> {
    let value = status.metadata().get("grpc-retry-pushback-ms")?;
    Some(value.to_str().expect("ASCII").parse().expect("a number"))
}

/// To be tried again, and when: told twice, in the detail and in the trailer.
fn assert_retry_advised(status: &Status) {
    let delay = status
        .get_details_retry_info()
        .expect("a RetryInfo")
        .retry_delay
        .expect("a delay");
    assert_eq!(pushback(status), i64::try_from(delay.as_millis()).ok());
    assert!(!delay.is_zero());
}

#[test]
fn invalid_fields_are_named_all_of_them() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let wish = pb::Booking {
            note: "\0".to_owned(),
            booked_by: String::new(),
            ..booking(" room", 60, 0)
        };
        let request = pb::CreateBookingRequest {
            request_id: "17".to_owned(),
            ..hold(wish, 7_200)
        };
        let status = client.create_booking(request).await.expect_err("refused");
        assert_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
        let violations = status
            .get_details_bad_request()
            .expect("a BadRequest")
            .field_violations;
        let mut fields: Vec<_> = violations.iter().map(|one| one.field.as_str()).collect();
        fields.sort_unstable();
        let broken = [
            "booking.booked_by",
            "booking.end_time",
            "booking.note",
            "booking.resource",
            "hold_ttl",
            "request_id",
        ];
        assert_eq!(fields, broken);
        assert!(violations.iter().all(|one| !one.description.is_empty()));
    });
}

#[test]
fn a_taken_slot_names_what_has_it() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let resource = fresh("taken");
        let made = client
            .create_booking(create(booking(&resource, 0, 60)))
            .await;
        let made = made.expect("free").into_inner();
        for validate_only in [true, false] {
            let request = pb::CreateBookingRequest {
                validate_only,
                ..create(booking(&resource, 59, 61))
            };
            let status = client.create_booking(request).await.expect_err("refused");
            assert_error(&status, Code::FailedPrecondition, "SLOT_UNAVAILABLE");
            assert!(status.get_details_precondition_failure().is_some());
            let metadata = status.get_details_error_info().expect("details").metadata;
            assert_eq!(metadata["resource"], resource);
            assert_eq!(metadata["conflict"], made.name);
            assert_eq!(metadata["conflict_start_time"], minute(0).to_string());
            assert_eq!(metadata["conflict_end_time"], minute(60).to_string());
            assert_eq!(pushback(&status), None, "not to be retried as it is");
        }
    });
}

#[test]
fn a_missing_booking_is_not_found_by_any_call() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let name = format!("bookings/{}", uuid::Uuid::new_v4());
        let one = name.clone();
        let update = pb::UpdateBookingRequest {
            booking: Some(pb::Booking {
                name: one.clone(),
                note: "x".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let etag = "\"0123456789abcdef\"".to_owned();
        let answers = [
            client
                .get_booking(pb::GetBookingRequest { name: one.clone() })
                .await
                .map(drop),
            client.update_booking(update).await.map(drop),
            client
                .delete_booking(pb::DeleteBookingRequest {
                    name: one.clone(),
                    etag: etag.clone(),
                })
                .await
                .map(drop),
            client
                .confirm_booking(pb::ConfirmBookingRequest {
                    name: one.clone(),
                    etag: etag.clone(),
                })
                .await
                .map(drop),
            client
                .cancel_booking(pb::CancelBookingRequest {
                    name: one.clone(),
                    etag,
                    ..Default::default()
                })
                .await
                .map(drop),
            client
                .batch_get_bookings(pb::BatchGetBookingsRequest { names: vec![one] })
                .await
                .map(drop),
        ];
        for answer in answers {
            let status = answer.expect_err("missing");
            assert_error(&status, Code::NotFound, "BOOKING_NOT_FOUND");
            let info = status.get_details_resource_info().expect("a ResourceInfo");
            assert_eq!(info.resource_name, name);
        }
    });
}

#[test]
fn wrong_states_and_old_etags_are_told_apart() {
    block_on(async {
        let house = House::shared().await;
        let mut client = house.instance().await.client();
        let resource = fresh("states");
        let made = client
            .create_booking(create(booking(&resource, 0, 60)))
            .await;
        let made = made.expect("free").into_inner();
        let cancel = |name: &str, etag: &str| pb::CancelBookingRequest {
            name: name.to_owned(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        let confirm = |name: &str| pb::ConfirmBookingRequest {
            name: name.to_owned(),
            ..Default::default()
        };

        let cancelled = client.cancel_booking(cancel(&made.name, &made.etag)).await;
        cancelled.expect("the etag is current");
        let status = client.cancel_booking(cancel(&made.name, &made.etag)).await;
        let status = status.expect_err("the etag is out of date");
        assert_error(&status, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(
            pushback(&status),
            Some(-1),
            "stock clients must not retry it"
        );

        let status = client
            .confirm_booking(confirm(&made.name))
            .await
            .expect_err("cancelled");
        assert_error(&status, Code::FailedPrecondition, "INVALID_STATE");
        assert!(status.get_details_precondition_failure().is_some());

        let held = client
            .create_booking(hold(booking(&resource, 0, 60), 60))
            .await;
        let held = held.expect("free again").into_inner();
        house.let_expire(&held.name).await;
        let status = client
            .confirm_booking(confirm(&held.name))
            .await
            .expect_err("expired");
        assert_error(&status, Code::FailedPrecondition, "HOLD_EXPIRED");
        assert!(status.get_details_precondition_failure().is_some());
    });
}

#[test]
fn a_request_id_means_one_request() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let resource = fresh("repeated");
        let request = |to| pb::CreateBookingRequest {
            request_id: "5F0C6D0E-5B7C-4F3B-9C51-0C2D6C1E8A11"
                .replace("5F0C6D0E", &resource[9..17]),
            ..create(booking(&resource, 0, to))
        };
        let made = client
            .create_booking(request(60))
            .await
            .expect("free")
            .into_inner();
        let again = client
            .create_booking(request(60))
            .await
            .expect("the same")
            .into_inner();
        assert_eq!(made, again);
        let status = client
            .create_booking(request(61))
            .await
            .expect_err("another payload");
        assert_error(&status, Code::InvalidArgument, "REQUEST_ID_REUSED");
    });
}

/// A trigger that refuses, as another transaction would that always comes first.
async fn house_that_fails(sqlstate: &str) -> House {
    let house = House::new().await;
    let trigger = format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           IF NEW.note LIKE 'fail%' THEN
             RAISE EXCEPTION 'a secret of the database' USING ERRCODE = '{sqlstate}';
           END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON bookings FOR EACH ROW EXECUTE FUNCTION fail()"
    );
    house.execute(&trigger).await;
    house
}

fn failing(resource: &str) -> pb::CreateBookingRequest {
    create(pb::Booking {
        note: "fail".to_owned(),
        ..booking(resource, 0, 60)
    })
}

#[test]
fn conflicts_that_outlast_the_retries_are_contention() {
    block_on(async {
        let house = house_that_fails("40001").await;
        let mut client = house.instance().await.client();
        let status = client
            .create_booking(failing("room"))
            .await
            .expect_err("always conflicts");
        assert_error(&status, Code::Aborted, "CONTENTION");
        assert_retry_advised(&status);
    });
}

#[test]
fn the_unforeseen_is_internal_and_tells_no_secrets() {
    block_on(async {
        let house = house_that_fails("22012").await;
        let mut client = house.instance().await.client();
        let status = client
            .create_booking(failing("room"))
            .await
            .expect_err("fails");
        assert_error(&status, Code::Internal, "INTERNAL");
        let info = status.get_details_error_info().expect("details");
        assert!(uuid::Uuid::try_parse(&info.metadata["incident"]).is_ok());
        assert!(!format!("{status:?}").contains("secret"), "{status:?}");
    });
}

/// One that the database refuses harms only itself, though it shares a transaction with others.
#[test]
fn a_poisoned_request_harms_only_itself() {
    block_on(async {
        let house = house_that_fails("22012").await;
        one_in_ten_fails(&house, &fresh("poisoned")).await;
    });
}

/// The same in slots that can be had by a second transaction only, since expired holds are in them:
/// neither does it harm what the first one has made.
#[test]
fn a_poisoned_request_in_the_slot_of_an_expired_hold_harms_only_itself() {
    block_on(async {
        let house = house_that_fails("22012").await;
        let resource = fresh("poisoned");
        // Every other one, and so all that fail.
        let requests = (1..40)
            .step_by(2)
            .map(|number| hold(booking(&resource, number * 60, number * 60 + 60), 60))
            .collect();
        let request = pb::BatchCreateBookingsRequest { requests };
        let mut client = house.instance().await.client();
        client.batch_create_bookings(request).await.expect("held");
        house
            .execute("UPDATE bookings SET hold_expire_time = now() - interval '1 second'")
            .await;
        one_in_ten_fails(&house, &resource).await;
    });
}

/// Forty creates at once, of which every tenth is one that the database refuses.
async fn one_in_ten_fails(house: &House, resource: &str) {
    let client = house.instance().await.client();
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let mut client = client.clone();
            let mut request = create(booking(resource, number * 60, number * 60 + 60));
            if number % 10 == 3 {
                let booking = request.booking.as_mut().expect("set");
                booking.note.push_str("fail");
            }
            tokio::spawn(async move { (number, client.create_booking(request).await) })
        })
        .collect();
    for task in tasks {
        match task.await.expect("no panic") {
            (number, Ok(_)) => assert_ne!(number % 10, 3),
            (number, Err(status)) => {
                assert_eq!(reason_of(&status), "INTERNAL");
                assert_eq!(number % 10, 3);
            }
        }
    }
}

#[test]
fn a_passed_deadline_is_told_as_such_and_in_time() {
    block_on(async {
        let house = House::new().await;
        let limits = Limits {
            request_timeout: Duration::from_millis(300),
            ..Limits::default()
        };
        let options = server::Options {
            limits,
            ..server::Options::default()
        };
        let instance = Instance::start(house.database(), options).await;
        let mut client = instance.client();
        let locker = house.database().connect().await.expect("connected");
        locker
            .batch_execute("BEGIN; LOCK TABLE bookings")
            .await
            .expect("locked");
        // By the service's own word: the client here does not count the time.
        let asked = Instant::now();
        let status = client.create_booking(create(booking("room", 0, 60))).await;
        assert_error(
            &status.expect_err("too late"),
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        );
        let status = client
            .list_bookings(pb::ListBookingsRequest::default())
            .await;
        assert_error(
            &status.expect_err("too late"),
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        );
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
    });
}

#[test]
fn a_database_out_of_reach_is_unavailable_and_readiness_tells() {
    block_on(async {
        let house = House::new().await;
        let wire = house.wire().await;
        let instance = Instance::start(&wire.database, server::Options::default()).await;
        wire.cut();
        let mut client = instance.client();
        let status = client.create_booking(create(booking("room", 0, 60))).await;
        let status = status.expect_err("no database");
        assert_error(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
        assert_retry_advised(&status);
        let mut health = tonic_health::pb::health_client::HealthClient::new(instance.channel());
        let mut check = async |service: &str| {
            let request = tonic_health::pb::HealthCheckRequest {
                service: service.to_owned(),
            };
            health
                .check(request)
                .await
                .expect("checked")
                .into_inner()
                .status()
        };
        assert_eq!(check("").await, ServingStatus::Serving);
        assert_eq!(check("liveness").await, ServingStatus::Serving);
        assert_eq!(check("readiness").await, ServingStatus::NotServing);
        assert_eq!(
            check("booking.v1.BookingService").await,
            ServingStatus::NotServing
        );
    });
}
