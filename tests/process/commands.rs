//! migrate, maintain and schema drop, on a PostgreSQL by URL; and serve with the role that they make.

use booking_service::pb;

use crate::postgres::{Postgres, assert_done, request};
use crate::program::{Program, run};

/// The schema by migrate, and then with no more rights than migrate granted.
#[tokio::test(flavor = "multi_thread")]
async fn serve_needs_no_more_than_what_migrate_grants() {
    let postgres = Postgres::start().await;
    let (admin, serve) = (postgres.url("postgres"), postgres.url("booking_service"));

    let too_early = run(&["--listen", "127.0.0.1:0", "--database-url", &admin]).await;
    assert_eq!(too_early.code, Some(1));
    assert!(
        too_early.stderr.contains("booking-service migrate"),
        "{}",
        too_early.stderr
    );

    assert_done(&["migrate", "--database-url", &admin]).await;
    assert_done(&["migrate", "--database-url", &admin]).await;
    let mut program = Program::serve(&["--database-url", &serve]).await;
    let mut client = program.client().await;
    let made = client
        .create_booking(request("room"))
        .await
        .expect("free")
        .into_inner();
    let hold = pb::CreateBookingRequest {
        hold_ttl: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..request("held")
    };
    let held = client
        .create_booking(hold)
        .await
        .expect("free")
        .into_inner();
    let confirm = pb::ConfirmBookingRequest {
        name: held.name,
        ..Default::default()
    };
    client.confirm_booking(confirm).await.expect("confirmed");
    let update = pb::UpdateBookingRequest {
        booking: Some(pb::Booking {
            name: made.name.clone(),
            note: "moved".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    client.update_booking(update).await.expect("updated");
    client
        .list_bookings(pb::ListBookingsRequest::default())
        .await
        .expect("listed");
    let cancel = pb::CancelBookingRequest {
        name: made.name.clone(),
        ..Default::default()
    };
    client.cancel_booking(cancel).await.expect("cancelled");
    let delete = pb::DeleteBookingRequest {
        name: made.name,
        ..Default::default()
    };
    client.delete_booking(delete).await.expect("deleted");
    assert_done(&["maintain", "--database-url", &serve]).await;

    for forbidden in [&["migrate"][..], &["schema", "drop", "--yes"]] {
        let refused = run(&[forbidden, &["--database-url", &serve]].concat()).await;
        assert_eq!(refused.code, Some(1), "{forbidden:?}: {}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_at_once_both_succeed() {
    let postgres = Postgres::start().await;
    let admin = postgres.url("postgres");
    let migrate = ["migrate", "--database-url", &admin];
    tokio::join!(
        assert_done(&migrate),
        assert_done(&migrate),
        assert_done(&migrate)
    );
    assert_eq!(postgres.count("booking_schema").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_dropped_on_request_only() {
    let postgres = Postgres::start().await;
    let admin = postgres.url("postgres");
    assert_done(&["migrate", "--database-url", &admin]).await;
    let not_asked = run(&["schema", "drop", "--database-url", &admin]).await;
    assert_eq!(not_asked.code, Some(2));
    assert_eq!(
        postgres.count("bookings").await,
        0,
        "the table is still there"
    );
    assert_done(&["schema", "drop", "--yes", "--database-url", &admin]).await;
    assert_eq!(
        postgres
            .count("pg_tables WHERE tablename LIKE 'booking%'")
            .await,
        0
    );
}

/// What --print shows does the same as migrate, run by another client.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_makes_the_schema() {
    let postgres = Postgres::start().await;
    let script = run(&["migrate", "--print", "postgresql"]).await;
    assert_eq!(script.code, Some(0), "{}", script.stderr);
    postgres
        .client()
        .await
        .batch_execute(&script.stdout)
        .await
        .expect("valid SQL");
    let mut program = Program::serve(&["--database-url", &postgres.url("booking_service")]).await;
    program
        .client()
        .await
        .create_booking(request("room"))
        .await
        .expect("free");
    let dsql = run(&[
        "migrate",
        "--print",
        "dsql",
        "--iam-role",
        "arn:aws:iam::1:role/x",
    ])
    .await;
    assert!(
        dsql.stdout.contains("CREATE UNIQUE INDEX ASYNC"),
        "{}",
        dsql.stdout
    );
    assert!(
        dsql.stdout
            .contains("AWS IAM GRANT \"booking_service\" TO 'arn:aws:iam::1:role/x'")
    );
}

/// Old guards and holds that ran out long ago go, in small steps; all else stays.
#[tokio::test(flavor = "multi_thread")]
async fn maintain_purges_what_nobody_needs_any_more() {
    let postgres = Postgres::start().await;
    let admin = postgres.url("postgres");
    assert_done(&["migrate", "--database-url", &admin]).await;
    let client = postgres.client().await;
    client
        .batch_execute(
            "INSERT INTO booking_guards
             SELECT 'room', '2020-01-01'::date + i, now() - i * interval '1 minute'
             FROM generate_series(0, 3999) i;
             INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
             hold_expire_time, create_time, update_time, revision, fingerprint)
             SELECT gen_random_uuid(), 'room-' || i, now(), now() + interval '1 hour', 'ada', '',
             CASE WHEN i % 2 = 0 THEN 1 ELSE 4 END, now() - (i - 10) * interval '1 minute', now(),
             now(), i, gen_random_uuid() FROM generate_series(0, 2999) i;
             INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
             create_time, update_time, revision, fingerprint)
             SELECT gen_random_uuid(), 'sold-' || i, now(), now() + interval '1 hour', 'ada', '', 2,
             now(), now(), i, gen_random_uuid() FROM generate_series(0, 99) i",
        )
        .await
        .unwrap();
    let maintain = [
        "maintain",
        "--expired-holds-kept",
        "10m",
        "--database-url",
        &admin,
    ];
    tokio::join!(assert_done(&maintain), assert_done(&maintain));
    assert_eq!(
        postgres
            .count("booking_guards WHERE touch_time < now() - interval '61 minutes'")
            .await,
        0
    );
    assert_eq!(
        postgres
            .count("booking_guards WHERE touch_time > now() - interval '59 minutes'")
            .await,
        59
    );
    let long_gone = "bookings WHERE hold_expire_time < now() - interval '11 minutes'";
    assert_eq!(postgres.count(long_gone).await, 0);
    assert!(
        postgres
            .count("bookings WHERE hold_expire_time IS NOT NULL")
            .await
            >= 20
    );
    assert_eq!(postgres.count("bookings WHERE state = 2").await, 100);
}
