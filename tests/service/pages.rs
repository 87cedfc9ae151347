//! Walking through a listing, page by page.

use std::collections::HashMap;

use booking_service::pb;
use tonic::Code;

use crate::harness::{Client, House, block_on, booking, create, fresh, minute, reason_of};

async fn walk(client: &mut Client, mut request: pb::ListBookingsRequest) -> Vec<pb::Booking> {
    let mut listed = Vec::new();
    loop {
        let page = client
            .list_bookings(request.clone())
            .await
            .expect("a page")
            .into_inner();
        listed.extend(page.bookings);
        if page.next_page_token.is_empty() {
            return listed;
        }
        request.page_token = page.next_page_token;
    }
}

fn list(resource: &str, page_size: i32) -> pb::ListBookingsRequest {
    pb::ListBookingsRequest {
        resource: resource.to_owned(),
        page_size,
        ..Default::default()
    }
}

async fn make(client: &mut Client, resource: &str, from: i64) -> String {
    let made = client
        .create_booking(create(booking(resource, from, from + 1)))
        .await;
    made.expect("free").into_inner().name
}

#[test]
fn a_walk_returns_what_stays_unchanged_exactly_once() {
    block_on(async {
        let instance = House::shared().await.instance().await;
        let mut client = instance.client();
        let resource = fresh("walked");
        let mut unchanged = Vec::new();
        let mut fickle = Vec::new();
        for number in 0..120 {
            let name = make(&mut client, &resource, number * 10).await;
            if number % 3 == 0 {
                fickle.push(name);
            } else {
                unchanged.push(name);
            }
        }
        // While one walks, another deletes some, moves some, and makes new ones.
        let busy = tokio::spawn({
            let (mut client, resource) = (instance.client(), resource.clone());
            async move {
                for (number, name) in (0..).zip(fickle) {
                    if number % 2 == 0 {
                        let request = pb::DeleteBookingRequest {
                            name,
                            ..Default::default()
                        };
                        client.delete_booking(request).await.expect("deleted");
                    } else {
                        let moved = pb::Booking {
                            name,
                            ..booking(&resource, number * 30 + 5, number * 30 + 6)
                        };
                        let request = pb::UpdateBookingRequest {
                            booking: Some(moved),
                            ..Default::default()
                        };
                        client.update_booking(request).await.expect("moved");
                    }
                    make(&mut client, &resource, number * 10 + 3).await;
                }
            }
        });
        for _ in 0..5 {
            let mut seen: HashMap<String, usize> = HashMap::new();
            let listed = walk(&mut client, list(&resource, 7)).await;
            assert!(listed.is_sorted_by_key(|booking| booking.start_time.unwrap().seconds));
            for booking in listed {
                *seen.entry(booking.name).or_default() += 1;
            }
            for name in &unchanged {
                assert_eq!(seen.get(name), Some(&1), "{name}");
            }
        }
        busy.await.expect("no panic");
    });
}

/// Without a name to go by, the order is that of the names, and a page may come back short.
#[test]
fn a_walk_over_everything_is_in_the_order_of_names() {
    block_on(async {
        let house = House::new().await;
        let mut client = house.instance().await.client();
        let mut made = Vec::new();
        for number in 0..60 {
            made.push(make(&mut client, &fresh("any"), number).await);
        }
        made.sort();
        let names =
            |listed: Vec<pb::Booking>| listed.into_iter().map(|b| b.name).collect::<Vec<_>>();
        assert_eq!(names(walk(&mut client, list("", 7)).await), made);
        // More rows to pass over than one page looks at.
        house
            .execute(
                "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
                 create_time, update_time, cancel_time, cancel_reason, revision, fingerprint)
                 SELECT gen_random_uuid(), 'past', '2027-01-01Z', '2027-01-02Z', 'past', '', 3, now(),
                 now(), now(), '', i, gen_random_uuid() FROM generate_series(1, 7000) i",
            )
            .await;
        assert_eq!(names(walk(&mut client, list("", 7)).await), made);
        let window = pb::ListBookingsRequest {
            start_time: Some(minute(10)),
            end_time: Some(minute(12)),
            ..list("", 1000)
        };
        assert_eq!(walk(&mut client, window).await.len(), 2);
        let everything = pb::ListBookingsRequest {
            show_cancelled: true,
            ..list("", 1000)
        };
        assert_eq!(walk(&mut client, everything).await.len(), 7_060);
    });
}

#[test]
fn page_sizes_are_bounded_and_tokens_bound_to_their_arguments() {
    block_on(async {
        let mut client = House::shared().await.instance().await.client();
        let resource = fresh("paged");
        for number in 0..55 {
            make(&mut client, &resource, number).await;
        }
        let default = client
            .list_bookings(list(&resource, 0))
            .await
            .expect("a page")
            .into_inner();
        assert_eq!(default.bookings.len(), 50);
        let large = client
            .list_bookings(list(&resource, 5_000))
            .await
            .expect("a page")
            .into_inner();
        assert_eq!(
            (large.bookings.len(), large.next_page_token.as_str()),
            (55, "")
        );
        let negative = client
            .list_bookings(list(&resource, -1))
            .await
            .expect_err("refused");
        assert_eq!(reason_of(&negative), "INVALID_FIELDS");

        let page_token = default.next_page_token;
        assert!(
            page_token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        );
        let other_size = pb::ListBookingsRequest {
            page_token: page_token.clone(),
            ..list(&resource, 3)
        };
        let page = client
            .list_bookings(other_size)
            .await
            .expect("a page")
            .into_inner();
        assert_eq!(page.bookings.len(), 3);
        for changed in [
            pb::ListBookingsRequest {
                page_token: page_token.clone(),
                ..list(&fresh("other"), 0)
            },
            pb::ListBookingsRequest {
                page_token: page_token.clone(),
                show_cancelled: true,
                ..list(&resource, 0)
            },
            pb::ListBookingsRequest {
                page_token: "nonsense".to_owned(),
                ..list(&resource, 0)
            },
        ] {
            let refused = client.list_bookings(changed).await.expect_err("refused");
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert_eq!(reason_of(&refused), "PAGE_TOKEN_INVALID");
        }
    });
}

/// Holds that ran out stay where they are until somebody takes their slot. However many of them lie
/// between two bookings, a page is full if there are enough bookings.
#[test]
fn a_page_is_full_whatever_ran_out_in_between() {
    block_on(async {
        let house = House::new().await;
        let instance = house.instance().await;
        let mut client = instance.client();
        for (state, first, step, count) in [(1, 0, 2, 40), (2, 1, 10, 8)] {
            house
                .execute(&format!(
                    "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
                                           hold_expire_time, create_time, update_time, revision, fingerprint)
                     SELECT gen_random_uuid(), 'room', hour, hour + interval '1 hour', 'ada', '', {state},
                            now() - interval '1 s', now(), now(), i, gen_random_uuid()
                     FROM (SELECT i, '2030-01-01Z'::timestamptz
                                     + ({first} + i * {step}) * interval '1 hour' AS hour
                           FROM generate_series(0, {count} - 1) i) AS hours"
                ))
                .await;
        }
        let by_person = |page_size| pb::ListBookingsRequest {
            booked_by: "ada".to_owned(),
            page_size,
            ..Default::default()
        };
        for page_size in [1, 3, 7, 8, 50] {
            for request in [list("room", page_size), by_person(page_size)] {
                let page = client.list_bookings(request.clone()).await.expect("a page");
                let page = page.into_inner();
                let full = usize::try_from(page_size.min(8)).unwrap();
                assert_eq!(page.bookings.len(), full, "{request:?}");
                assert_eq!(page.next_page_token.is_empty(), page_size >= 8);
                assert_eq!(walk(&mut client, request).await.len(), 8);
            }
        }
    });
}
