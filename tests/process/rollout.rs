//! Old and new programs on one schema: during a rollout, and when a release is taken back.

use std::time::Duration;

use tokio::time::sleep;

use crate::postgres::{Postgres, assert_done, request};
use crate::program::{Program, run};

/// What a program says that cannot serve any more.
const NOT_READY: &str =
    "not ready: check that the database runs, its address, credentials and schema";

/// Readiness is looked at every five seconds.
const LONGER_THAN_A_CHECK: Duration = Duration::from_secs(6);

fn has_said(program: &Program, message: &str) -> bool {
    program.log().iter().any(|line| line["message"] == message)
}

/// As the script says to do where the role exists.
fn without_create_role(script: &str) -> String {
    let lines = script.lines();
    let kept: Vec<&str> = lines
        .filter(|line| !line.starts_with("CREATE ROLE"))
        .collect();
    kept.join("\n")
}

/// As a newer program's `migrate` leaves it: its version, and the oldest that it still serves.
async fn made_by_a_newer_program(postgres: &Postgres, version: i32, compatible_from: &str) {
    let set = format!(
        "UPDATE booking_schema SET version = {version}, compatible_from = {compatible_from}"
    );
    postgres.client().await.batch_execute(&set).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_newer_program_is_refused() {
    let postgres = Postgres::start().await;
    let admin = postgres.url("postgres");
    assert_done(&["migrate", "--database-url", &admin]).await;
    for compatible_from in ["998", "NULL"] {
        made_by_a_newer_program(&postgres, 999, compatible_from).await;
        for command in ["serve", "migrate", "maintain"] {
            let refused = run(&[command, "--database-url", &admin]).await;
            assert_eq!(refused.code, Some(1), "{}", refused.stderr);
            for words in ["version 999", "run a newer program"] {
                assert!(refused.stderr.contains(words), "{}", refused.stderr);
            }
        }
    }
    assert_eq!(
        postgres.count("booking_schema WHERE version = 999").await,
        1
    );
}

/// A rollout: the old replicas go on while the new ones come, also ones that start meanwhile; and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_that_serves_this_program_too_changes_nothing_for_it() {
    let postgres = Postgres::start().await;
    let (admin, serve) = (postgres.url("postgres"), postgres.url("booking_service"));
    assert_done(&["migrate", "--database-url", &admin]).await;
    let mut before = Program::serve(&["--database-url", &serve]).await;
    let newer = "ALTER TABLE bookings ADD COLUMN colour text; DROP INDEX bookings_past_by_booker";
    let client = postgres.client().await;
    client.batch_execute(newer).await.unwrap();
    made_by_a_newer_program(&postgres, 2, "1").await;

    let mut after = Program::serve(&["--database-url", &serve]).await;
    sleep(LONGER_THAN_A_CHECK).await;
    for (program, room) in [(&mut before, "a"), (&mut after, "b")] {
        let mut client = program.client().await;
        client.create_booking(request(room)).await.expect("free");
        assert!(!has_said(program, NOT_READY), "{:#?}", program.log());
    }
    // What belongs to the release that is taken back may run, and leaves the newer schema alone.
    assert_done(&["migrate", "--database-url", &admin]).await;
    let kept = "booking_schema WHERE version = 2 AND compatible_from = 1";
    assert_eq!(postgres.count(kept).await, 1);
    let gone = "pg_indexes WHERE indexname = 'bookings_past_by_booker'";
    assert_eq!(postgres.count(gone).await, 0);
}

/// Readiness goes by the same rule as the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_no_longer_serves_this_program_takes_its_readiness() {
    let postgres = Postgres::start().await;
    let admin = postgres.url("postgres");
    assert_done(&["migrate", "--database-url", &admin]).await;
    let mut program = Program::serve(&["--database-url", &admin]).await;
    made_by_a_newer_program(&postgres, 3, "2").await;
    let line = program.line(NOT_READY).await;
    let source = line["source"].as_str().expect("a text");
    for words in ["version 3", "from version 2", "run a newer program"] {
        assert!(source.contains(words), "{source}");
    }
}

/// Schemas made before they said whom they serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_does_not_say_whom_it_serves_is_served_and_migrated() {
    let postgres = Postgres::start().await;
    let (admin, serve) = (postgres.url("postgres"), postgres.url("booking_service"));
    assert_done(&["migrate", "--database-url", &admin]).await;
    let older = "ALTER TABLE booking_schema DROP COLUMN compatible_from";
    let client = postgres.client().await;
    client.batch_execute(older).await.unwrap();

    let mut program = Program::serve(&["--database-url", &serve]).await;
    assert_done(&["migrate", "--database-url", &admin]).await;
    let said = "booking_schema WHERE version = 1 AND compatible_from = 1";
    assert_eq!(postgres.count(said).await, 1);
    // Its connections prepared their statements while there was no such column.
    sleep(LONGER_THAN_A_CHECK).await;
    assert!(!has_said(&program, NOT_READY), "{:#?}", program.log());
    made_by_a_newer_program(&postgres, 3, "2").await;
    program.line(NOT_READY).await;
}

/// The printed script of an old program, run by hand and too late.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_takes_no_schema_back() {
    let postgres = Postgres::start().await;
    let script = run(&["migrate", "--print", "postgresql"]).await.stdout;
    let (client, no_role) = (postgres.client().await, without_create_role(&script));
    client.batch_execute(&script).await.expect("valid SQL");
    made_by_a_newer_program(&postgres, 2, "1").await;
    client.batch_execute(&no_role).await.expect("repeatable");
    assert_eq!(postgres.count("booking_schema WHERE version = 2").await, 1);
}
