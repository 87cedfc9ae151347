//! The guards of a flight, should its BEGIN fail: then each statement runs by itself, and must not book.

use booking_service::store::STATEMENTS;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::{House, block_on};

const ID: &str = "a0000000-0000-4000-8000-000000000001";
const SLOT: &str = "'2030-01-01 10:00Z'::timestamptz, '2030-01-01 11:00Z'::timestamptz";
const LATER: &str = "'2030-01-05 10:00Z'::timestamptz, '2030-01-05 11:00Z'::timestamptz";

/// Prepares the statement of this name under it.
async fn prepare(client: &Client, name: &str) {
    let sql = STATEMENTS
        .iter()
        .find(|sql| sql.lines().next() == Some(&format!("-- {name}")))
        .expect("there");
    let prepare = format!("PREPARE {name} AS {sql}");
    client.batch_execute(&prepare).await.expect("prepared");
}

/// How many rows it has changed.
async fn execute(client: &Client, call: &str) -> u64 {
    let answers = client.simple_query(&format!("EXECUTE {call}")).await;
    let changed = answers.expect("executed").into_iter().filter_map(|answer| {
        if let SimpleQueryMessage::CommandComplete(rows) = answer {
            Some(rows)
        } else {
            None
        }
    });
    changed.last().expect("complete")
}

async fn in_transaction(client: &Client, guards: &str, change: &str) -> u64 {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    client.batch_execute(begin).await.expect("begun");
    execute(client, guards).await;
    let changed = execute(client, change).await;
    client.batch_execute("COMMIT").await.expect("committed");
    changed
}

#[test]
fn a_create_that_lost_its_transaction_makes_nothing() {
    block_on(async {
        let house = House::new().await;
        let client = house.database().connect().await.expect("connected");
        let [start, end] = SLOT.split(", ").collect::<Vec<_>>()[..] else {
            panic!("two times")
        };
        let slot = format!("ARRAY['room'], ARRAY[{start}], ARRAY[{end}]");
        let day = "ARRAY['2030-01-01'::date]";
        let guards = format!("create_guards({slot}, {day}, {day}, ARRAY[0])");
        prepare(&client, "create_guards").await;
        for name in ["create_insert", "create_insert_all"] {
            prepare(&client, name).await;
            let insert = format!(
                "{name}(ARRAY['{ID}'::uuid], {slot}, ARRAY['ada'], ARRAY[''], ARRAY[NULL::int8], \
                 ARRAY[1::int8], ARRAY['{ID}'::uuid], {day})"
            );
            assert_eq!(
                execute(&client, &insert).await,
                0,
                "{name} without any guard"
            );
            assert_eq!(execute(&client, &guards).await, 1, "the guard of the day");
            let alone = execute(&client, &insert).await;
            assert_eq!(alone, 0, "{name} with the guard of another transaction");
            let together = in_transaction(&client, &guards, &insert).await;
            assert_eq!(together, 1, "{name} in one transaction with its guard");
            house.execute("DELETE FROM bookings").await;
        }
    });
}

#[test]
fn a_reschedule_that_lost_its_transaction_moves_nothing() {
    block_on(async {
        let house = House::new().await;
        house
            .execute(&format!(
                "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
                                       create_time, update_time, revision, fingerprint)
                 VALUES ('{ID}', 'room', {SLOT}, 'ada', '', 2, now(), now(), 1, '{ID}')"
            ))
            .await;
        let client = house.database().connect().await.expect("connected");
        prepare(&client, "update_guards").await;
        prepare(&client, "update_apply").await;
        let target = format!("'{ID}', NULL, {LATER}, 2, NULL, NULL");
        let guards = format!("update_guards({target}, ARRAY[0])");
        let apply = format!("update_apply({target}, NULL, NULL)");
        assert_eq!(execute(&client, &apply).await, 0, "without any guard");
        assert_eq!(execute(&client, &guards).await, 1, "the guard of the day");
        assert_eq!(execute(&client, &apply).await, 0, "with an older guard");
        assert_eq!(in_transaction(&client, &guards, &apply).await, 1);
    });
}
