//! Traces, as a collector receives them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use booking_service::pb;
use booking_service::telemetry::traces::{self, Options};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::postgres::support::certificates::Identity;

use crate::harness::{House, block_on, booking, create, fresh};

const NOTE: &str = "the-note-that-nobody-else-reads";
const BOOKER: &str = "somebody-who-books";

/// A collector that keeps all it gets.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        format!("http://{address}")
    }

    /// The same behind TLS, for whoever asks for `localhost`.
    pub(crate) async fn start_tls(&self, identity: &Identity) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let Identity { certificate, key } = identity;
        let identity = tonic::transport::Identity::from_pem(certificate, key);
        let router = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .expect("a certificate and its key")
            .add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        format!("https://localhost:{port}")
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let scopes = self
            .requests()
            .into_iter()
            .flat_map(|request| request.resource_spans);
        let spans = scopes
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        spans.collect()
    }

    /// The spans, once there are so many of this trace.
    async fn of_trace(&self, trace: &Trace, count: usize) -> Vec<Span> {
        let begin = Instant::now();
        loop {
            let mut spans = self.spans();
            spans.retain(|span| span.trace_id == trace.id);
            if spans.len() >= count {
                assert_eq!(spans.len(), count, "{spans:?}");
                return spans;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "only {spans:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A caller's trace, and its span in it.
struct Trace {
    id: Vec<u8>,
    caller: Vec<u8>,
}

impl Trace {
    fn new() -> Self {
        let bytes = uuid::Uuid::new_v4().into_bytes();
        Self {
            id: bytes.to_vec(),
            caller: bytes[..8].to_vec(),
        }
    }

    fn goes_with<T>(&self, message: T, sampled: bool) -> Request<T> {
        let (trace, caller) = (self.id.as_slice(), self.caller.as_slice());
        let trace = u128::from_be_bytes(trace.try_into().unwrap());
        let caller = u64::from_be_bytes(caller.try_into().unwrap());
        let flags = if sampled { "01" } else { "00" };
        let parent = format!("00-{trace:032x}-{caller:016x}-{flags}");
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("traceparent", parent.parse().unwrap());
        request
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value }) => value.as_ref(),
        None => None,
    }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn split(spans: Vec<Span>) -> (Span, Span) {
    let (mut server, mut client): (Vec<_>, Vec<_>) = spans
        .into_iter()
        .partition(|span| span.kind() == SpanKind::Server);
    (server.remove(0), client.remove(0))
}

fn secretive(resource: &str, from: i64) -> pb::CreateBookingRequest {
    create(pb::Booking {
        note: NOTE.to_owned(),
        booked_by: BOOKER.to_owned(),
        ..booking(resource, from, from + 30)
    })
}

#[test]
fn a_collector_receives_the_call_and_its_transaction_in_the_callers_trace() {
    block_on(async {
        let collector = Collector::default();
        let options = Options {
            endpoint: collector.start().await,
            ca_file: None,
            // Only the callers decide.
            ratio: 0.0,
            service_name: "bookings-under-test".to_owned(),
        };
        let exporting = traces::start(&options).await.expect("started");
        let house = House::new().await;
        let instance = house.start().await;
        let resource = fresh("a-resource-with-a-name");

        let trace = Trace::new();
        let request = trace.goes_with(secretive(&resource, 0), true);
        let made = instance
            .client()
            .create_booking(request)
            .await
            .unwrap()
            .into_inner();
        let (call, transaction) = split(collector.of_trace(&trace, 2).await);
        assert_eq!(call.name, "booking.v1.BookingService/CreateBooking");
        assert_eq!(call.parent_span_id, trace.caller);
        for (key, value) in [
            ("rpc.system.name", "grpc"),
            ("rpc.method", "booking.v1.BookingService/CreateBooking"),
            ("rpc.response.status_code", "OK"),
        ] {
            assert_eq!(
                attribute(&call.attributes, key),
                Some(&text(value)),
                "{key}"
            );
        }
        assert_eq!(transaction.name, "create");
        assert_eq!(transaction.parent_span_id, call.span_id);
        assert_eq!(transaction.kind(), SpanKind::Client);
        for (key, value) in [
            ("db.system.name", "postgresql"),
            ("db.operation.name", "create"),
        ] {
            assert_eq!(
                attribute(&transaction.attributes, key),
                Some(&text(value)),
                "{key}"
            );
        }
        let attempts = attribute(&transaction.attributes, "booking.attempts");
        assert_eq!(attempts, Some(&Value::IntValue(1)));

        // A change goes through to its end in a task of its own: still in the trace.
        let trace = Trace::new();
        let cancel = pb::CancelBookingRequest {
            name: made.name,
            ..Default::default()
        };
        instance
            .client()
            .cancel_booking(trace.goes_with(cancel, true))
            .await
            .unwrap();
        let (call, transaction) = split(collector.of_trace(&trace, 2).await);
        assert_eq!(
            (&*transaction.name, &transaction.parent_span_id),
            ("cancel", &call.span_id)
        );

        // A refusal is not trouble, and says what it is.
        let trace = Trace::new();
        let invalid = trace.goes_with(pb::CreateBookingRequest::default(), true);
        instance.client().create_booking(invalid).await.unwrap_err();
        let call = collector.of_trace(&trace, 1).await.remove(0);
        assert_eq!(
            attribute(&call.attributes, "error.type"),
            Some(&text("INVALID_FIELDS"))
        );
        assert_eq!(call.status.unwrap_or_default().code, 0);

        // A caller who does not want to be traced is not, and neither are the checks of readiness.
        let unsampled = Trace::new();
        let request = unsampled.goes_with(secretive(&resource, 100), false);
        instance.client().create_booking(request).await.unwrap();

        shared_transaction(&house, &collector, &resource).await;
        exporting.end().await;

        let requests = collector.requests();
        let all = format!("{requests:?}");
        for private in [NOTE, BOOKER, "a-resource-with-a-name", "bookings/"] {
            assert!(!all.contains(private), "{private}");
        }
        let spans = collector.spans();
        assert!(spans.iter().all(|span| span.trace_id != unsampled.id));
        assert!(spans.iter().all(|span| span.name != "schema_version"));
        for request in requests {
            let resource = request.resource_spans[0].resource.as_ref().unwrap();
            let name = attribute(&resource.attributes, "service.name");
            assert_eq!(name, Some(&text("bookings-under-test")));
        }
    });
}

/// Creates that wait together: one transaction, the child of one caller, linked from the others.
async fn shared_transaction(house: &House, collector: &Collector, resource: &str) {
    let instance = house.start().await;
    let locker = house.database().connect().await.expect("connected");
    let lock = "BEGIN; LOCK TABLE booking_guards IN ACCESS EXCLUSIVE MODE";
    locker.batch_execute(lock).await.expect("locked");
    let traces: Vec<_> = (0..4).map(|_| Trace::new()).collect();
    let mut calls = Vec::new();
    for (number, trace) in (1..).zip(&traces) {
        let mut client = instance.client();
        let request = trace.goes_with(secretive(resource, number * 1_000), true);
        calls.push(tokio::spawn(
            async move { client.create_booking(request).await },
        ));
        // The first is in its transaction before the others come.
        sleep(Duration::from_millis(100)).await;
    }
    locker.batch_execute("ROLLBACK").await.expect("released");
    for call in calls {
        call.await.unwrap().expect("made");
    }
    collector.of_trace(&traces[0], 2).await;
    let (_, shared) = split(collector.of_trace(&traces[1], 2).await);
    let mut linked: Vec<_> = shared.links.iter().map(|link| &link.span_id).collect();
    let mut others = Vec::new();
    for trace in &traces[2..] {
        others.push(collector.of_trace(trace, 1).await.remove(0).span_id);
    }
    let mut others: Vec<_> = others.iter().collect();
    linked.sort();
    others.sort();
    assert_eq!(linked, others);
}
