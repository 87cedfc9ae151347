//! The server over real sockets, with a handler that does as it is told: what it admits, and how it
//! ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

use super::*;
use crate::pb::booking_service_client::BookingServiceClient;

/// Does what the name of the booking asked for says.
struct Obedient;

macro_rules! refuse {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl BookingService for Obedient {
            async fn get_booking(
                &self,
                request: Request<pb::GetBookingRequest>,
            ) -> Result<Response<pb::Booking>, Status> {
                let name = request.into_inner().name;
                match name.as_str() {
                    "panic" => panic!("as told"),
                    "hang" => std::future::pending().await,
                    "slow" => sleep(Duration::from_millis(300)).await,
                    _ => {}
                }
                Ok(Response::new(pb::Booking { name, ..pb::Booking::default() }))
            }

            $(async fn $method(
                &self,
                _: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("not here"))
            })*
        }
    };
}

refuse! {
    create_booking(pb::CreateBookingRequest) -> pb::Booking;
    list_bookings(pb::ListBookingsRequest) -> pb::ListBookingsResponse;
    update_booking(pb::UpdateBookingRequest) -> pb::Booking;
    delete_booking(pb::DeleteBookingRequest) -> ();
    confirm_booking(pb::ConfirmBookingRequest) -> pb::Booking;
    cancel_booking(pb::CancelBookingRequest) -> pb::Booking;
    batch_create_bookings(pb::BatchCreateBookingsRequest) -> pb::BatchCreateBookingsResponse;
    batch_get_bookings(pb::BatchGetBookingsRequest) -> pb::BatchGetBookingsResponse;
    query_availability(pb::QueryAvailabilityRequest) -> pb::QueryAvailabilityResponse;
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<Shutdown>,
    ended: JoinHandle<Result<(), Error>>,
    /// What its checks of readiness find.
    database_up: Arc<AtomicBool>,
}

async fn start(options: Options) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let database_up = Arc::new(AtomicBool::new(true));
    let up = Arc::clone(&database_up);
    let check = move |_| {
        let up = up.load(Ordering::Relaxed);
        async move { up.then_some(()).ok_or(store::Error::Overloaded) }
    };
    let ended = tokio::spawn(async move {
        let service = BookingServiceServer::new(Obedient).max_decoding_message_size(100);
        let shutdown = async { stopped.await.expect("told why") };
        serve(listener, service, check, async {}, options, shutdown).await
    });
    Running {
        address,
        stop,
        ended,
        database_up,
    }
}

impl Running {
    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.expect("an address");
        endpoint.connect().await.expect("connected")
    }

    async fn get(&self, name: &str) -> Result<String, Status> {
        get(self.channel().await, name).await
    }

    /// How long it takes to stop, and what comes of it.
    async fn stop(self, why: Shutdown) -> (Duration, Result<(), Error>) {
        let begin = Instant::now();
        self.stop.send(why).expect("still running");
        let result = self.ended.await.expect("no panic");
        (begin.elapsed(), result)
    }
}

async fn get(channel: Channel, name: &str) -> Result<String, Status> {
    let name = name.to_owned();
    let mut client = BookingServiceClient::new(channel);
    let answer = client.get_booking(pb::GetBookingRequest { name }).await?;
    Ok(answer.into_inner().name)
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().expect("ErrorInfo");
    (status.code(), info.reason)
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel.clone()).check(request).await;
    answer.expect("a registered name").into_inner().status()
}

/// Sends one call over plain HTTP/1.1, without a client that has a mind (and a timer) of its own.
async fn raw_get(address: SocketAddr, name: &str, header: &str) -> String {
    use prost::Message;
    let message = pb::GetBookingRequest {
        name: name.to_owned(),
    }
    .encode_to_vec();
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "POST /booking.v1.BookingService/GetBooking HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\
         content-type: application/grpc\r\nconnection: close\r\n{header}\r\n\
         content-length: {}\r\n\r\n",
        message.len() + 5
    );
    let mut bytes = head.into_bytes();
    bytes.push(0);
    bytes.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    bytes.extend(message);
    stream.write_all(&bytes).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_is_deadline_exceeded_and_never_cancelled() {
    let server = start(Options::default()).await;
    let calls = (0..200).map(|n| {
        let header = format!("grpc-timeout: {}u", 1_000 + n * 97);
        async move { raw_get(server.address, "hang", &header).await }
    });
    for answer in futures_util::future::join_all(calls).await {
        assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
        assert!(answer.contains("grpc-status-details-bin: "), "{answer}");
        assert!(answer.contains("x-request-id: "), "{answer}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_call_and_not_the_connection() {
    let server = start(Options::default()).await;
    let channel = server.channel().await;
    let status = get(channel.clone(), "panic").await.expect_err("an error");
    assert_eq!(reason(&status), (Code::Internal, "INTERNAL".to_owned()));
    assert_eq!(get(channel, "fine").await.expect("an answer"), "fine");
}

#[tokio::test]
async fn overload_sheds_calls_and_spares_health() {
    let mut options = Options::default();
    options.limits.requests_in_flight_max = 1;
    let server = start(options).await;
    let channel = server.channel().await;
    let slow = tokio::spawn(get(channel.clone(), "slow"));
    sleep(Duration::from_millis(100)).await;
    let status = server.get("fine").await.expect_err("shed");
    assert_eq!(
        reason(&status),
        (Code::ResourceExhausted, "OVERLOADED".to_owned())
    );
    assert_eq!(health(&channel, "liveness").await, Serving);
    assert_eq!(slow.await.expect("no panic").expect("an answer"), "slow");
}

#[tokio::test]
async fn a_request_too_large_is_an_invalid_argument() {
    let server = start(Options::default()).await;
    let status = server.get(&"x".repeat(200)).await.expect_err("too large");
    assert_eq!(
        reason(&status),
        (Code::InvalidArgument, "INVALID_FIELDS".to_owned())
    );
}

#[tokio::test]
async fn readiness_follows_the_database_and_liveness_does_not() {
    let server = start(Options::default()).await;
    server.database_up.store(false, Ordering::Relaxed);
    let channel = server.channel().await;
    let request = HealthCheckRequest {
        service: "readiness".into(),
    };
    let watch = HealthClient::new(channel.clone()).watch(request).await;
    let mut watch = watch.expect("a registered name").into_inner();
    // The first check may have come before the database went away.
    let mut seen = Vec::new();
    while seen.last() != Some(&NotServing) {
        seen.push(
            watch
                .message()
                .await
                .expect("no error")
                .expect("not the end")
                .status(),
        );
    }
    assert_eq!(health(&channel, "").await, Serving);
    assert_eq!(health(&channel, "liveness").await, Serving);
    assert_eq!(
        health(&channel, "booking.v1.BookingService").await,
        NotServing
    );
    server.database_up.store(true, Ordering::Relaxed);
    let back = watch
        .message()
        .await
        .expect("no error")
        .expect("not the end");
    assert_eq!(back.status(), Serving);
    assert_eq!(health(&channel, "booking.v1.BookingService").await, Serving);
}

#[tokio::test]
async fn reflection_knows_the_services_and_the_details_of_errors() {
    let server = start(Options::default()).await;
    let ask = |message| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "google.rpc.ErrorInfo".into(),
        )),
        ask(MessageRequest::FileContainingSymbol(
            "booking.v1.ErrorReason".into(),
        )),
    ];
    let mut client = ServerReflectionClient::new(server.channel().await);
    let answers = client
        .server_reflection_info(futures_util::stream::iter(requests))
        .await;
    let mut answers = answers.expect("reflection").into_inner();
    let mut next = async || answers.message().await.expect("no error")?.message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = next().await else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
    assert!(names.contains(&"booking.v1.BookingService"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    for _ in 0..2 {
        let answer = next().await;
        assert!(
            matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_stop_finishes_calls_in_flight_and_waits_for_nobody_else() {
    let server = start(Options::default()).await;
    let channel = server.channel().await;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let watch = HealthClient::new(channel.clone()).watch(request).await;
    let mut watch = watch.expect("a registered name").into_inner();
    assert!(watch.message().await.expect("no error").is_some());
    let endless = futures_util::stream::pending::<ServerReflectionRequest>();
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let reflection = reflection
        .server_reflection_info(endless)
        .await
        .expect("reflection");
    let idle_http2 = server.channel().await;
    assert!(get(idle_http2.clone(), "fine").await.is_ok());
    let idle_raw = TcpStream::connect(server.address).await.expect("connected");
    let mut half_preface = TcpStream::connect(server.address).await.expect("connected");
    half_preface.write_all(b"PRI * HT").await.expect("sent");
    let in_flight = tokio::spawn(get(channel, "slow"));
    sleep(Duration::from_millis(100)).await;

    let address = server.address;
    let (took, result) = server.stop(Shutdown::Interrupted).await;
    result.expect("drained");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        in_flight.await.expect("no panic").expect("an answer"),
        "slow"
    );
    assert!(watch.message().await.expect("no error").is_none());
    assert!(TcpStream::connect(address).await.is_err());
    drop((reflection, idle_http2, idle_raw, half_preface));
}

#[tokio::test]
async fn a_terminated_server_is_not_ready_but_serves_while_load_balancers_notice() {
    let drain_delay = Duration::from_millis(500);
    let server = start(Options {
        drain_delay,
        ..Options::default()
    })
    .await;
    let channel = server.channel().await;
    let (address, begin) = (server.address, Instant::now());
    let stopping = tokio::spawn(server.stop(Shutdown::Terminated));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(health(&channel, "readiness").await, NotServing);
    assert_eq!(health(&channel, "liveness").await, Serving);
    assert!(
        raw_get(address, "fine", "x-a: b")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let (_, result) = stopping.await.expect("no panic");
    result.expect("drained");
    assert!(begin.elapsed() >= drain_delay);
}

#[tokio::test]
async fn a_stop_that_takes_too_long_is_an_error() {
    let drain_timeout = Duration::from_millis(200);
    let server = start(Options {
        drain_timeout,
        ..Options::default()
    })
    .await;
    let hanging = tokio::spawn(get(server.channel().await, "hang"));
    sleep(Duration::from_millis(100)).await;
    let (_, result) = server.stop(Shutdown::Interrupted).await;
    assert!(matches!(result, Err(Error::DrainTimeout(_))), "{result:?}");
    hanging.abort();
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_one_to_close() {
    let server = start(Options {
        connections_max: 1,
        ..Options::default()
    })
    .await;
    let first = server.channel().await;
    assert!(get(first.clone(), "fine").await.is_ok());
    let address = server.address;
    let mut second = tokio::spawn(async move { raw_get(address, "fine", "x-a: b").await });
    let early = timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    let answer = timeout(Duration::from_secs(5), second)
        .await
        .expect("its turn");
    assert!(answer.expect("no panic").starts_with("HTTP/1.1 200"));
}
