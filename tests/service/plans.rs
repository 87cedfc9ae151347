//! What a statement costs: each runs along an index, whatever the size of the table.

use booking_service::store::STATEMENTS;
use tokio_postgres::SimpleQueryMessage;

use crate::harness::{House, block_on};

/// A hundred thousand bookings on a hundred resources, a tenth of them cancelled; and one resource
/// whose first slot has been booked and cancelled five thousand times.
const FILL: &str = "
    INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, create_time,
                          update_time, cancel_time, cancel_reason, revision, fingerprint)
    SELECT gen_random_uuid(), 'room-' || i % 100, hour, hour + interval '1 hour',
           'user-' || i % 77, '', CASE WHEN i % 10 = 0 THEN 3 ELSE 2 END, now(), now(), now(), '', i,
           gen_random_uuid()
    FROM (SELECT i, '2027-01-01Z'::timestamptz + i / 100 * interval '1 hour' AS hour
          FROM generate_series(1, 100000) i) AS hours;
    INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, create_time,
                          update_time, cancel_time, cancel_reason, revision, fingerprint)
    SELECT gen_random_uuid(), 'fickle', '2027-01-01Z', '2027-01-01 01:00Z', 'fickle', '', 3, now(),
           now(), now(), '', i, gen_random_uuid()
    FROM generate_series(1, 5000) i;
    INSERT INTO booking_guards (resource, day, touch_time)
    SELECT DISTINCT resource, start_time::date, now() FROM bookings;
    INSERT INTO booking_leases (name, holder, end_time) VALUES ('x', gen_random_uuid(), now());
    ANALYZE";

/// The statements with their names, which are their first lines.
fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
    STATEMENTS.iter().map(|sql| {
        let name = sql.lines().next().and_then(|line| line.strip_prefix("-- "));
        (name.expect("a statement begins with its name"), *sql)
    })
}

/// With the planner as it is out of the box: Aurora DSQL takes no hints.
#[test]
fn no_statement_reads_a_whole_table() {
    block_on(async {
        let house = House::new().await;
        house.execute(FILL).await;
        let client = house.database().connect().await.expect("connected");
        let generic = "RESET ALL; SET plan_cache_mode = force_generic_plan";
        client.batch_execute(generic).await.expect("set");
        for (name, sql) in named() {
            let plan = generic_plan(&client, name, sql).await;
            let reads_all = plan.contains("Seq Scan on bookings")
                || plan.contains("Seq Scan on booking_guards");
            assert!(!reads_all, "{name} reads a whole table:\n{plan}");
            if name != "schema_version" {
                assert!(plan.contains("Index"), "{name} uses no index:\n{plan}");
            }
        }
    });
}

/// A connection plans a statement once, perhaps while there is but one booking, and then runs it for
/// half an hour: it has to go by the keys that it is given even then.
#[test]
fn no_plan_made_for_a_small_table_goes_through_all_of_it() {
    block_on(async {
        let house = House::new().await;
        for rows in [0, 1, 30] {
            house
                .execute(&format!(
                    "TRUNCATE bookings, booking_guards;
                     INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
                                           create_time, update_time, revision, fingerprint)
                     SELECT gen_random_uuid(), 'room-' || i, now(), now() + interval '1 hour', '', '', 2,
                            now(), now(), i, gen_random_uuid() FROM generate_series(1, {rows}) i;
                     ANALYZE"
                ))
                .await;
            // As the service has it, settings and all.
            let client = house.database().connect().await.expect("connected");
            for (name, sql) in named() {
                let plan = generic_plan(&client, name, sql).await;
                assert_right_index(name, &plan);
                let lines: Vec<&str> = plan.lines().collect();
                for (at, line) in lines.iter().enumerate() {
                    let scans = line.contains("Scan") && line.contains(" on booking");
                    let by_key = lines
                        .get(at + 1)
                        .is_some_and(|next| next.contains("Index Cond"));
                    assert!(
                        !scans || by_key || name == "schema_version",
                        "{name}, planned for {rows} rows, goes through a whole index:\n{plan}"
                    );
                }
            }
        }
    });
}

/// The plan for all arguments.
/// A condition on the second column of an index still goes through all of it: what is asked about a
/// slot goes by the index of resources.
fn assert_right_index(name: &str, plan: &str) {
    assert!(
        name.ends_with("_by_booker") || !plan.contains("by_booker"),
        "{name} goes by person:\n{plan}"
    );
    let by_id = ["confirm", "cancel", "delete", "get", "update_apply"].contains(&name);
    assert!(
        !by_id || plan.contains("bookings_pkey"),
        "{name} does not go by the id:\n{plan}"
    );
}

/// As after `migrate`, when nothing is known of the tables: a service that began on them kept such a
/// plan, and its creates took three times as long.
#[test]
fn a_plan_made_before_the_first_booking_goes_by_the_right_index() {
    block_on(async {
        let house = House::new().await;
        let client = house.database().connect().await.expect("connected");
        for (name, sql) in named() {
            assert_right_index(name, &generic_plan(&client, name, sql).await);
        }
    });
}

async fn generic_plan(client: &tokio_postgres::Client, name: &str, sql: &str) -> String {
    let types = client
        .prepare(sql)
        .await
        .expect("prepared")
        .params()
        .to_vec();
    let nulls: Vec<String> = types
        .iter()
        .map(|ty| format!("NULL::{}", ty.name()))
        .collect();
    let arguments = if nulls.is_empty() {
        String::new()
    } else {
        format!("({})", nulls.join(", "))
    };
    let prepare = format!("PREPARE {name}_plan AS {sql}");
    client.batch_execute(&prepare).await.expect("prepared");
    explain(client, &format!("EXPLAIN EXECUTE {name}_plan{arguments}")).await
}

async fn explain(client: &tokio_postgres::Client, sql: &str) -> String {
    let answer = client.simple_query(sql).await.expect("explained");
    let lines: Vec<String> = answer
        .into_iter()
        .filter_map(|message| {
            if let SimpleQueryMessage::Row(row) = message {
                row.get(0).map(str::to_owned)
            } else {
                None
            }
        })
        .collect();
    lines.join("\n")
}

/// How many blocks of 8 KiB the database looks at for this.
async fn blocks(client: &tokio_postgres::Client, sql: &str) -> u64 {
    let plan = explain(
        client,
        &format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"),
    )
    .await;
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let top = &plan[0]["Plan"];
    let count = |key: &str| top[key].as_u64().expect("a number of blocks");
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

/// A slot that has been booked and cancelled thousands of times is as quick to look at as a new one.
#[test]
fn cancelled_bookings_cost_nothing() {
    block_on(async {
        let house = House::new().await;
        house.execute(FILL).await;
        let client = house.database().connect().await.expect("connected");
        for (name, sql) in named() {
            let arguments = match name {
                "create_outcome" => {
                    "(ARRAY[gen_random_uuid()], ARRAY['fickle'], ARRAY['2027-01-01Z'::timestamptz],
                      ARRAY['2027-01-02Z'::timestamptz])"
                }
                "list_by_resource" | "list_by_booker" => "(NULL, NULL, NULL, NULL, 'fickle', 52)",
                "scan_by_resource" => "(NULL, NULL, NULL, NULL, 'fickle', 2000, false, 51, NULL)",
                "scan_by_booker" => "(NULL, NULL, NULL, NULL, 'fickle', 2000, false, 51)",
                "taken" => "(ARRAY['fickle'], ARRAY[0], '2027-01-01Z', '2027-01-02Z', 1000)",
                _ => continue,
            };
            let prepare = format!("PREPARE {name}_cost AS {sql}");
            client.batch_execute(&prepare).await.expect("prepared");
            let cost = blocks(&client, &format!("EXECUTE {name}_cost{arguments}")).await;
            assert!(cost < 40, "{name} looks at {cost} blocks");
        }
    });
}

/// The statements for a page of one resource, and the arguments that make it one of 50.
const PAGES_OF_50: [(&str, &str); 2] = [
    ("list_by_resource", "52"),
    ("scan_by_resource", "2000, false, 51, NULL"),
];

async fn prepare_page(client: &tokio_postgres::Client, name: &str) {
    let (_, sql) = named().find(|(it, _)| *it == name).expect("there");
    let prepare = format!("PREPARE {name}_page AS {sql}");
    client.batch_execute(&prepare).await.expect("prepared");
}

/// A page of the earliest bookings and a page of the latest cost the same.
#[test]
fn a_late_page_costs_no_more_than_the_first() {
    block_on(async {
        let house = House::new().await;
        house.execute(FILL).await;
        let client = house.database().connect().await.expect("connected");
        for (name, rows) in PAGES_OF_50 {
            prepare_page(&client, name).await;
            let page = |window: &str| {
                format!("EXECUTE {name}_page({window}, NULL, NULL, NULL, 'room-7', {rows})")
            };
            let first = blocks(&client, &page("NULL")).await;
            let last = blocks(&client, &page("'2027-02-05Z'")).await;
            assert!(
                last <= first * 2,
                "{name}: {first} blocks for the first page, {last} for the last"
            );
        }
    });
}

/// One resource with nearly all bookings there are, among a thousand with two each: what the planner
/// knows on average is wrong for it.
#[test]
fn a_page_of_a_crowded_resource_costs_no_more() {
    block_on(async {
        let house = House::new().await;
        let fill = |resource: &str, count: u32| {
            format!(
                "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state,
                                       create_time, update_time, revision, fingerprint)
                 SELECT gen_random_uuid(), {resource}, hour, hour + interval '1 hour', 'user-' || i % 7,
                        '', 2, now(), now(), i, gen_random_uuid()
                 FROM (SELECT i, '2015-01-01Z'::timestamptz + i * interval '1 hour' AS hour
                       FROM generate_series(1, {count}) i) AS hours"
            )
        };
        house.execute(&fill("'crowd'", 30_000)).await;
        house.execute(&fill("'room-' || i % 1000", 2_000)).await;
        house.execute("ANALYZE").await;
        let client = house.database().connect().await.expect("connected");
        for (name, rows) in PAGES_OF_50 {
            prepare_page(&client, name).await;
            let page = format!("EXECUTE {name}_page(NULL, NULL, NULL, NULL, 'crowd', {rows})");
            let cost = blocks(&client, &page).await;
            assert!(cost < 100, "{name}: {cost} blocks for a page of 50");
        }
    });
}
