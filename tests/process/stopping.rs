//! SIGTERM under load loses nothing and cuts nothing off; kill -9 loses nothing acknowledged.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use booking_service::pb;
use prost_types::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::program::{self, Program};

type Client = pb::booking_service_client::BookingServiceClient<Channel>;

fn request(resource: String, hour: i64) -> pb::CreateBookingRequest {
    let at = |hour: i64| Timestamp {
        seconds: 1_798_761_600 + hour * 3_600,
        nanos: 0,
    };
    let booking = pb::Booking {
        resource,
        start_time: Some(at(hour)),
        end_time: Some(at(hour + 1)),
        booked_by: "ada".to_owned(),
        ..pb::Booking::default()
    };
    pb::CreateBookingRequest {
        booking: Some(booking),
        ..pb::CreateBookingRequest::default()
    }
}

/// How many bookings are to be acknowledged before the service is stopped.
const ENOUGH: usize = 120;

/// Waits until enough bookings are acknowledged, however long a busy machine takes.
async fn enough(made: &AtomicUsize) {
    let until = Instant::now() + Duration::from_secs(30);
    while made.load(Ordering::SeqCst) < ENOUGH {
        assert!(Instant::now() < until, "{made:?} bookings in 30 s");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Books without a pause until the service is gone. Returns the names that were acknowledged, and
/// the error that ended it; counts them meanwhile.
async fn book_until_gone(
    mut client: Client,
    number: usize,
    made: Arc<AtomicUsize>,
) -> (Vec<String>, Status) {
    let mut acknowledged = Vec::new();
    for hour in 0.. {
        match client
            .create_booking(request(format!("room-{number}"), hour))
            .await
        {
            Ok(booking) => {
                acknowledged.push(booking.into_inner().name);
                made.fetch_add(1, Ordering::SeqCst);
            }
            Err(status) => return (acknowledged, status),
        }
    }
    unreachable!("the loop above returns")
}

async fn assert_kept(client: &mut Client, names: &[String]) {
    for chunk in names.chunks(100) {
        let request = pb::BatchGetBookingsRequest {
            names: chunk.to_vec(),
        };
        let found = client
            .batch_get_bookings(request)
            .await
            .expect("all are there");
        assert_eq!(found.into_inner().bookings.len(), chunk.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_and_cuts_nothing_off() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let arguments = [
        "--data-dir",
        data_dir.to_str().unwrap(),
        "--drain-delay",
        "500ms",
    ];
    let mut program = Program::serve(&arguments).await;

    // A connection that never says a word, and a watch that never ends by itself.
    let _idle = TcpStream::connect(program.address().await).await.unwrap();
    let watch = HealthCheckRequest {
        service: "readiness".to_owned(),
    };
    let mut health = HealthClient::new(program.channel().await);
    let mut watch = health.watch(watch).await.expect("watched").into_inner();
    let client = program.client().await;
    let made = Arc::new(AtomicUsize::new(0));
    let book = |number| book_until_gone(client.clone(), number, Arc::clone(&made));
    let load: Vec<_> = (0..32).map(|number| tokio::spawn(book(number))).collect();

    enough(&made).await;
    let stopped = Instant::now();
    program.signal("TERM").await;
    let status = program.ended().await;
    assert_eq!(status.code(), Some(0), "{:#?}", program.log());
    assert!(
        stopped.elapsed() < Duration::from_secs(15),
        "{:?}",
        stopped.elapsed()
    );

    let mut acknowledged = Vec::new();
    for one in load {
        let (names, end) = one.await.unwrap();
        // Never sent: the client had no connection any more, or closed it before its turn came. Or
        // sent too late: beyond the last stream that the server said goodbye to, it was not taken.
        let cause = format!("{end:?}");
        let unsent = [
            "ConnectError",
            "Canceled, \"connection closed\"",
            "Canceled, \"connection was not ready\"",
            "GoAway(b\"\", NO_ERROR, Remote)",
        ];
        assert!(unsent.iter().any(|it| cause.contains(it)), "{cause}");
        acknowledged.extend(names);
    }
    assert!(
        acknowledged.len() >= ENOUGH,
        "{} bookings",
        acknowledged.len()
    );
    let log = program.log();
    let answered = log.iter().filter(|line| line["message"] == "answered");
    let mut others = answered.filter(|line| line["code"] != "OK");
    assert_eq!(others.next(), None, "each call that came in was answered");
    while watch.message().await.is_ok_and(|told| told.is_some()) {}

    let mut again = Program::serve(&arguments).await;
    assert_kept(&mut again.client().await, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_acknowledged_and_leaves_no_server_behind() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let arguments = ["--data-dir", data_dir.to_str().unwrap()];
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut program = Program::serve(&arguments).await;
        let client = program.client().await;
        assert_kept(&mut client.clone(), &acknowledged).await;
        let made = Arc::new(AtomicUsize::new(0));
        let book = |number| book_until_gone(client.clone(), number, Arc::clone(&made));
        let load = (0..16).map(|number| tokio::spawn(book(round * 100 + number)));
        let load: Vec<_> = load.collect();
        enough(&made).await;
        program.signal("KILL").await;
        program.ended().await;
        for one in load {
            acknowledged.extend(one.await.unwrap().0);
        }
    }
    assert!(
        acknowledged.len() >= 3 * ENOUGH,
        "{} bookings",
        acknowledged.len()
    );
    let pid_file = data_dir.join("cluster/postmaster.pid");
    let alive = || {
        let pid = std::fs::read_to_string(&pid_file)
            .ok()?
            .lines()
            .next()?
            .to_owned();
        std::path::Path::new("/proc")
            .join(pid)
            .exists()
            .then_some(())
    };
    let until = Instant::now() + Duration::from_secs(20);
    while alive().is_some() {
        assert!(
            Instant::now() < until,
            "PostgreSQL goes on without its owner"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// A database that never answers: the start would go on for seconds.
async fn stopped_at_the_start(command: &str) -> (Option<i32>, Duration) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("postgres://u@{address}/x");
    let mut command = program::command(&[command, "--database-url", &url]);
    command
        .env("BOOKING_LISTEN", "127.0.0.1:0")
        .stderr(Stdio::null());
    let mut program = command.spawn().unwrap();
    // It has connected, so its handlers are in place.
    let _connection = silent.accept().await.unwrap();
    let stopped = Instant::now();
    let pid = program.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.await.unwrap().success());
    let status = program.wait().await.unwrap();
    (status.code(), stopped.elapsed())
}

#[tokio::test]
async fn a_stop_during_the_start_is_handled() {
    for (command, code) in [("serve", 0), ("migrate", 1), ("maintain", 1)] {
        let (ended, took) = stopped_at_the_start(command).await;
        // By an exit of its own: as the first process of a container it gets no other.
        assert_eq!(ended, Some(code), "{command}");
        assert!(took < Duration::from_secs(2), "{command}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let arguments = [
        "--data-dir",
        data_dir.to_str().unwrap(),
        "--drain-delay",
        "1h",
    ];
    let mut program = Program::serve(&arguments).await;
    program.signal("TERM").await;
    program
        .line("stopping: readiness is withdrawn, calls in flight are finished")
        .await;
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(1));
}

/// One that has been begun is made, though its caller has hung up.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_does_not_depend_on_its_caller_listening() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let mut program = Program::serve(&["--data-dir", data_dir.to_str().unwrap()]).await;
    let mut client = program.client().await;
    let sent = Arc::new(AtomicBool::new(false));
    let mut hung_up = 0;
    for hour in 0..200 {
        let mut caller = client.clone();
        let call =
            tokio::spawn(async move { caller.create_booking(request("room".into(), hour)).await });
        sleep(Duration::from_micros(u64::try_from(hour).unwrap() * 20)).await;
        if !call.is_finished() {
            hung_up += 1;
        }
        call.abort();
        sent.store(true, Ordering::Relaxed);
    }
    assert!(hung_up > 10, "{hung_up} callers hung up in time");
    // Each slot is either free or taken whole: whoever tries next gets a clear answer.
    for hour in 0..200 {
        match client.create_booking(request("room".into(), hour)).await {
            Ok(_) => {}
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_leaves_one_line_in_the_log() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let mut program = Program::serve(&["--data-dir", data_dir.to_str().unwrap()]).await;
    let mut client = program.client().await;
    let mut booked = tonic::Request::new(request("room".to_owned(), 0));
    booked
        .metadata_mut()
        .insert("x-request-id", "a-request-of-mine".parse().unwrap());
    client.create_booking(booked).await.expect("free");
    client
        .create_booking(request("room".to_owned(), 0))
        .await
        .expect_err("taken");
    let until = Instant::now() + Duration::from_secs(5);
    let answered = loop {
        let lines = program
            .log()
            .into_iter()
            .filter(|line| line["message"] == "answered");
        let lines: Vec<_> = lines.collect();
        if lines.len() >= 2 || Instant::now() > until {
            break lines;
        }
        sleep(Duration::from_millis(10)).await;
    };
    let [first, second] = answered.as_slice() else {
        panic!("two lines: {answered:#?}")
    };
    assert_eq!(first["request_id"], "a-request-of-mine", "{first:#?}");
    assert_eq!(
        (&first["code"], &second["code"]),
        (&"OK".into(), &"FAILED_PRECONDITION".into())
    );
    assert_eq!(second["reason"], "SLOT_UNAVAILABLE");
    assert!(
        first["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{first:#?}"
    );
    assert!(
        first["method"]
            .as_str()
            .is_some_and(|it| it.contains("CreateBooking"))
    );
}
