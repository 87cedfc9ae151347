//! Whose bookings a caller sees and touches: its own, unless it may act for others.

use booking_service::pb;
use booking_service::store::{LaneOptions, STATEMENTS, Store};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{House, block_on, booking, create, fresh, hold, reason_of};
use crate::issuer::claims;
use crate::secured::{Client, Office, assert_denied, assert_refused};

fn for_nobody(resource: &str, from: i64, to: i64) -> pb::Booking {
    pb::Booking {
        booked_by: String::new(),
        ..booking(resource, from, to)
    }
}

fn for_somebody(who: &str, resource: &str, from: i64, to: i64) -> pb::Booking {
    pb::Booking {
        booked_by: who.to_owned(),
        ..booking(resource, from, to)
    }
}

async fn made(client: &mut Client, booking: pb::Booking) -> pb::Booking {
    let answer = client.create_booking(create(booking)).await;
    answer.unwrap().into_inner()
}

fn get(name: &str) -> pb::GetBookingRequest {
    let name = name.to_owned();
    pb::GetBookingRequest { name }
}

fn delete(name: &str) -> pb::DeleteBookingRequest {
    let (name, etag) = (name.to_owned(), String::new());
    pb::DeleteBookingRequest { name, etag }
}

fn update(name: &str, booked_by: &str, paths: &[&str]) -> pb::UpdateBookingRequest {
    let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
    pb::UpdateBookingRequest {
        booking: Some(pb::Booking {
            name: name.to_owned(),
            note: "changed".to_owned(),
            booked_by: booked_by.to_owned(),
            ..pb::Booking::default()
        }),
        update_mask: (!paths.is_empty()).then_some(prost_types::FieldMask { paths }),
        validate_only: false,
    }
}

/// What every call that names a booking answers about this one.
async fn touched(client: &mut Client, name: &str) -> Vec<(&'static str, Status)> {
    let confirm = pb::ConfirmBookingRequest {
        name: name.to_owned(),
        etag: String::new(),
    };
    let cancel = pb::CancelBookingRequest {
        name: name.to_owned(),
        ..pb::CancelBookingRequest::default()
    };
    let stale = pb::DeleteBookingRequest {
        name: name.to_owned(),
        etag: "\"0000000000000000\"".to_owned(),
    };
    let batch = pb::BatchGetBookingsRequest {
        names: vec![name.to_owned()],
    };
    let mut validated = update(name, "", &["note"]);
    validated.validate_only = true;
    vec![
        ("get", client.get_booking(get(name)).await.unwrap_err()),
        (
            "update",
            client
                .update_booking(update(name, "", &["note"]))
                .await
                .unwrap_err(),
        ),
        (
            "try an update",
            client.update_booking(validated).await.unwrap_err(),
        ),
        (
            "confirm",
            client.confirm_booking(confirm).await.unwrap_err(),
        ),
        ("cancel", client.cancel_booking(cancel).await.unwrap_err()),
        (
            "delete",
            client.delete_booking(delete(name)).await.unwrap_err(),
        ),
        (
            "delete by an old etag",
            client.delete_booking(stale).await.unwrap_err(),
        ),
        (
            "get many",
            client.batch_get_bookings(batch).await.unwrap_err(),
        ),
    ]
}

#[test]
fn another_s_booking_looks_like_none_and_stays_as_it_is() {
    block_on(async {
        let office = Office::shared().await;
        let (mut ada, mut eve) = (office.user("ada"), office.user("eve"));
        let room = fresh("room");
        let confirmed = made(&mut ada, for_nobody(&room, 0, 60)).await;
        let held = ada
            .create_booking(hold(for_nobody(&room, 60, 120), 600))
            .await;
        let held = held.unwrap().into_inner();
        let cancelled = made(&mut ada, for_nobody(&room, 120, 180)).await;
        let cancel = pb::CancelBookingRequest {
            name: cancelled.name.clone(),
            ..pb::CancelBookingRequest::default()
        };
        let cancelled = ada.cancel_booking(cancel).await.unwrap().into_inner();
        let none = format!("bookings/{}", uuid::Uuid::new_v4());
        let about_none = touched(&mut eve, &none).await;
        for booking in [&confirmed, &held, &cancelled] {
            for (at, (call, status)) in touched(&mut eve, &booking.name).await.iter().enumerate() {
                assert_eq!(status.code(), Code::PermissionDenied, "{call}");
                assert_eq!(reason_of(status), "PERMISSION_DENIED", "{call}");
                let same = &about_none[at].1;
                assert_eq!(
                    (status.code(), status.message(), status.details()),
                    (same.code(), same.message(), same.details()),
                    "{call} tells another's booking from none"
                );
            }
            let after = ada.get_booking(get(&booking.name)).await.unwrap();
            assert_eq!(after.into_inner(), *booking);
        }
        // One of two is another's: neither is shown.
        let own = made(&mut eve, for_nobody(&fresh("room"), 0, 60)).await;
        let names = vec![own.name, confirmed.name];
        let both = eve.batch_get_bookings(pb::BatchGetBookingsRequest { names });
        assert_denied(both.await, "one's own and another's");
    });
}

#[test]
fn a_caller_books_in_its_own_name() {
    block_on(async {
        let office = Office::shared().await;
        let mut ada = office.user("ada");
        let room = fresh("room");
        let filled_in = made(&mut ada, for_nobody(&room, 0, 60)).await;
        assert_eq!(filled_in.booked_by, "ada");
        let named = made(&mut ada, for_somebody("ada", &room, 60, 120)).await;
        assert_eq!(named.booked_by, "ada");
        for validate_only in [false, true] {
            let request = pb::CreateBookingRequest {
                validate_only,
                ..create(for_somebody("eve", &room, 120, 180))
            };
            assert_denied(ada.create_booking(request).await, "for somebody else");
        }
        let requests = vec![
            create(for_nobody(&room, 200, 260)),
            create(for_somebody("eve", &room, 300, 360)),
        ];
        let batch = pb::BatchCreateBookingsRequest { requests };
        let status = assert_denied(ada.batch_create_bookings(batch).await, "one for another");
        assert_eq!(
            status.get_details_error_info().unwrap().metadata["index"],
            "1"
        );
        let requests = vec![create(for_nobody(&room, 200, 260))];
        let batch = pb::BatchCreateBookingsRequest { requests };
        let batch = ada.batch_create_bookings(batch).await.unwrap().into_inner();
        assert_eq!(batch.bookings[0].booked_by, "ada");
        // Handed on to nobody either, by whatever mask; kept by all of them.
        for paths in [&["booked_by"][..], &[], &["booked_by", "note"]] {
            let update = update(&named.name, "eve", paths);
            assert_denied(ada.update_booking(update).await, "handed on");
        }
        for (booked_by, paths) in [
            ("", &["note"][..]),
            ("", &["booked_by", "note"]),
            ("ada", &[]),
            ("eve", &["note"]),
        ] {
            let update = update(&named.name, booked_by, paths);
            let updated = ada.update_booking(update).await.unwrap().into_inner();
            assert_eq!((&*updated.booked_by, &*updated.note), ("ada", "changed"));
        }
    });
}

#[test]
fn an_admin_acts_for_others() {
    block_on(async {
        let office = Office::shared().await;
        let (mut root, mut eve) = (office.admin("root"), office.user("eve"));
        let room = fresh("room");
        let nameless = root.create_booking(create(for_nobody(&room, 0, 60))).await;
        assert_refused(
            nameless,
            Code::InvalidArgument,
            "INVALID_FIELDS",
            "for whom?",
        );
        let booking = made(&mut root, for_somebody("eve", &room, 0, 60)).await;
        assert!(eve.get_booking(get(&booking.name)).await.is_ok());
        let update = update(&booking.name, "ada", &["booked_by"]);
        let updated = root.update_booking(update).await.unwrap().into_inner();
        assert_eq!(updated.booked_by, "ada");
        assert_denied(
            eve.get_booking(get(&booking.name)).await,
            "not hers any more",
        );
        let taken = root.create_booking(create(for_somebody("root", &room, 30, 90)));
        let status = taken.await.unwrap_err();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["conflict"], booking.name);
        let listed = root.list_bookings(pb::ListBookingsRequest {
            resource: room,
            ..pb::ListBookingsRequest::default()
        });
        assert_eq!(listed.await.unwrap().into_inner().bookings.len(), 1);
        root.delete_booking(delete(&booking.name)).await.unwrap();
    });
}

#[test]
fn a_listing_has_one_s_own_bookings_only() {
    block_on(async {
        let office = Office::shared().await;
        let (me, you) = (fresh("me"), fresh("you"));
        let (mut mine, mut yours) = (office.user(&me), office.user(&you));
        let room = fresh("room");
        for at in 0..6 {
            let who = if at % 2 == 0 { &mut mine } else { &mut yours };
            made(who, for_nobody(&room, at * 60, at * 60 + 60)).await;
        }
        for (resource, booked_by) in [("", ""), (&*room, ""), ("", &*me), (&*room, &*me)] {
            let mut request = pb::ListBookingsRequest {
                resource: resource.to_owned(),
                booked_by: booked_by.to_owned(),
                page_size: 2,
                show_cancelled: true,
                ..pb::ListBookingsRequest::default()
            };
            let mut seen = Vec::new();
            loop {
                let page = mine
                    .list_bookings(request.clone())
                    .await
                    .unwrap()
                    .into_inner();
                seen.extend(page.bookings);
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
                // The page of one is not a page of another.
                if booked_by.is_empty() {
                    let theirs = yours.list_bookings(request.clone()).await;
                    assert_refused(
                        theirs,
                        Code::InvalidArgument,
                        "PAGE_TOKEN_INVALID",
                        "a token",
                    );
                }
            }
            assert_eq!(seen.len(), 3, "{resource:?} {booked_by:?}");
            assert!(seen.iter().all(|booking| booking.booked_by == me));
        }
        let asked = mine.list_bookings(pb::ListBookingsRequest {
            booked_by: you,
            ..pb::ListBookingsRequest::default()
        });
        assert_denied(asked.await, "another's bookings");
    });
}

#[test]
fn a_conflict_tells_when_and_not_what() {
    block_on(async {
        let office = Office::shared().await;
        let holder = fresh("holder");
        let (mut ada, mut eve) = (office.user(&holder), office.user("eve"));
        let room = fresh("room");
        let theirs = made(&mut ada, for_nobody(&room, 0, 60)).await;
        let own = made(&mut eve, for_nobody(&room, 60, 120)).await;
        let id = theirs.name.strip_prefix("bookings/").unwrap();
        let moved = pb::UpdateBookingRequest {
            booking: Some(pb::Booking {
                name: own.name,
                start_time: theirs.start_time,
                ..pb::Booking::default()
            }),
            ..pb::UpdateBookingRequest::default()
        };
        let requests = vec![create(for_nobody(&room, 30, 60))];
        let batch = pb::BatchCreateBookingsRequest { requests };
        let tried = pb::CreateBookingRequest {
            validate_only: true,
            ..create(for_nobody(&room, 30, 60))
        };
        for (what, status) in [
            (
                "create",
                eve.create_booking(create(for_nobody(&room, 30, 60)))
                    .await
                    .unwrap_err(),
            ),
            ("try", eve.create_booking(tried).await.unwrap_err()),
            ("batch", eve.batch_create_bookings(batch).await.unwrap_err()),
            ("update", eve.update_booking(moved).await.unwrap_err()),
        ] {
            assert_eq!(reason_of(&status), "SLOT_UNAVAILABLE", "{what}");
            let metadata = status.get_details_error_info().unwrap().metadata;
            assert!(metadata.contains_key("conflict_start_time"), "{what}");
            assert!(metadata.contains_key("conflict_end_time"), "{what}");
            assert!(!metadata.contains_key("conflict"), "{what}");
            let whole = format!("{status:?} {:?}", status.get_error_details());
            assert!(
                !whole.contains(id) && !whole.contains(&holder),
                "{what}: {whole}"
            );
            let bytes = status.details();
            assert!(
                !bytes.windows(id.len()).any(|part| part == id.as_bytes()),
                "{what}"
            );
        }
        // When resources are free is everybody's business, by the scope to read alone.
        let mut reader = office.with(&claims("reader", "bookings.read"));
        let asked = reader.query_availability(pb::QueryAvailabilityRequest {
            resources: vec![room],
            start_time: theirs.start_time,
            end_time: theirs.end_time,
            ..pb::QueryAvailabilityRequest::default()
        });
        let answer = asked.await.unwrap().into_inner();
        assert_eq!(answer.resources[0].busy.len(), 1);
    });
}

#[test]
fn a_request_id_is_its_caller_s_own() {
    block_on(async {
        let office = Office::shared().await;
        let (mut ada, mut eve) = (office.user("ada"), office.user("eve"));
        let mut root = office.admin("ada");
        let (room, other) = (fresh("room"), fresh("room"));
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = |room: &str, who: &str| pb::CreateBookingRequest {
            request_id: request_id.clone(),
            ..create(for_somebody(who, room, 0, 60))
        };
        let first = ada.create_booking(request(&room, "ada")).await.unwrap();
        let again = ada.create_booking(request(&room, "ada")).await.unwrap();
        assert_eq!(first.get_ref(), again.get_ref());
        // Another person's request of the same id is another request.
        let status = eve.create_booking(request(&room, "eve")).await.unwrap_err();
        assert_eq!(reason_of(&status), "SLOT_UNAVAILABLE");
        let theirs = eve.create_booking(request(&other, "eve")).await.unwrap();
        assert_ne!(theirs.get_ref().name, first.get_ref().name);
        let requests = vec![request(&other, "eve")];
        let batch = eve.batch_create_bookings(pb::BatchCreateBookingsRequest { requests });
        let batch = batch.await.unwrap().into_inner();
        assert_eq!(batch.bookings[0].name, theirs.get_ref().name);
        // Handed on, it is no longer for the one to see who once asked for it.
        let update = update(&first.get_ref().name, "eve", &["booked_by"]);
        root.update_booking(update).await.unwrap();
        let repeated = ada.create_booking(request(&room, "ada")).await;
        assert_denied(repeated, "a booking that was handed on");
        let requests = vec![request(&room, "ada")];
        let batch = ada.batch_create_bookings(pb::BatchCreateBookingsRequest { requests });
        assert_denied(batch.await, "the same in a batch");
    });
}

/// The owner is decided on the row, in the transaction: not before, when it may change yet.
#[test]
fn a_booking_handed_on_meanwhile_is_not_touched() {
    block_on(async {
        let office = Office::shared().await;
        let (mut ada, mut root) = (office.user("ada"), office.admin("root"));
        for _ in 0..20 {
            let room = fresh("room");
            let booking = made(&mut ada, for_nobody(&room, 0, 60)).await;
            let mut rival = root.clone();
            let (handed_on, changed) = tokio::join!(
                rival.update_booking(update(&booking.name, "eve", &["booked_by"])),
                ada.update_booking(update(&booking.name, "", &["note"])),
            );
            handed_on.unwrap();
            let after = root
                .get_booking(get(&booking.name))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(after.booked_by, "eve");
            assert_eq!(after.note == "changed", changed.is_ok());
            assert_denied(ada.delete_booking(delete(&booking.name)).await, "not hers");
        }
    });
}

#[test]
fn a_store_confined_to_an_owner_holds_without_the_edge() {
    block_on(async {
        use booking_service::booking::{Booker, BookingId};
        use booking_service::store::{Error, Listing};
        use tokio::time::{Duration, Instant};

        let office = Office::shared().await;
        let theirs = made(&mut office.user("ada"), for_nobody(&fresh("room"), 0, 60)).await;
        let id: BookingId = theirs.name.parse().unwrap();
        let pool = crate::postgres::pool(House::shared().await.database(), STATEMENTS);
        let eve = Booker::parse("eve").unwrap();
        let store = Store::new(pool, LaneOptions::default()).confined_to(Some(eve));
        let soon = Instant::now() + Duration::from_secs(10);
        assert!(matches!(store.get(id, soon).await, Err(Error::NotOwned)));
        assert!(matches!(
            store.delete(id, None, soon).await,
            Err(Error::NotOwned)
        ));
        assert!(matches!(
            store.confirm(id, None, soon).await,
            Err(Error::NotOwned)
        ));
        let everything = Listing {
            page_size: 1_000,
            ..Listing::default()
        };
        let page = store.list(everything, soon).await.unwrap();
        assert!(
            page.bookings
                .iter()
                .all(|it| it.booked_by.as_str() == "eve")
        );
    });
}
