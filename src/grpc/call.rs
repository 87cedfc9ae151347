//! One call in the log: its request id, and one line when it ends, however it ends.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Uri};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use uuid::Uuid;

use super::answer::ForTheLog;
use super::code;
use crate::booking::Booker;
use crate::telemetry::metrics::{self, OneMore};
use crate::telemetry::traces::{CallTrace, Caller};

/// The header with the request id: taken from the client if it sends one, else made; answered.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A call that is being handled. Dropped before its end, it was cancelled by its client.
///
/// Its line in the log is written as a whole when it ends. There is a span, for what else is logged on
/// the way, only where the log is at debug: to keep one for every call would cost more than the line.
pub(super) struct Call {
    begin: Instant,
    method: &'static str,
    uri: Uri,
    peer: Option<SocketAddr>,
    subject: Subject,
    span: tracing::Span,
    trace: CallTrace,
    request_id: HeaderValue,
    ended: bool,
    _in_flight: OneMore,
}

/// Who signed in, once that is known: in the extensions of a request, for its line in the log.
#[derive(Clone, Default)]
pub(super) struct Subject(Arc<OnceLock<Booker>>);

impl Subject {
    /// It is this one.
    pub(super) fn is(&self, subject: &Booker) {
        // The first one counts; there is no second.
        let _ = self.0.set(subject.clone());
    }
}

/// The methods that there are; a client that asks for another is not let to name a metric.
const METHODS: [&str; 10] = [
    "booking.v1.BookingService/CreateBooking",
    "booking.v1.BookingService/GetBooking",
    "booking.v1.BookingService/ListBookings",
    "booking.v1.BookingService/UpdateBooking",
    "booking.v1.BookingService/DeleteBooking",
    "booking.v1.BookingService/ConfirmBooking",
    "booking.v1.BookingService/CancelBooking",
    "booking.v1.BookingService/BatchCreateBookings",
    "booking.v1.BookingService/BatchGetBookings",
    "booking.v1.BookingService/QueryAvailability",
];

/// What OpenTelemetry calls a method that there is not.
const NO_METHOD: &str = "_OTHER";

fn method_of(path: &str) -> &'static str {
    let name = path.strip_prefix('/').unwrap_or(path);
    let known = METHODS.into_iter().find(|method| *method == name);
    known.unwrap_or(NO_METHOD)
}

impl Call {
    /// Begins with a request.
    pub(super) fn begin<B>(request: &mut http::Request<B>) -> Self {
        let request_id = request_id(request.headers().get(REQUEST_ID));
        let peer = request.extensions().get::<TcpConnectInfo>();
        let peer = peer.and_then(TcpConnectInfo::remote_addr);
        let method = method_of(request.uri().path());
        let trace = CallTrace::begin(method, request.headers());
        let span = tracing::debug_span!(
            "call",
            method,
            request_id = request_id.to_str().unwrap_or_default()
        );
        let subject = Subject::default();
        request.extensions_mut().insert(subject.clone());
        Self {
            begin: Instant::now(),
            method,
            uri: request.uri().clone(),
            peer,
            subject,
            span,
            trace,
            request_id,
            ended: false,
            _in_flight: OneMore::call(),
        }
    }

    /// Whom everything that is done for the call is done for.
    pub(super) fn caller(&self) -> Caller {
        self.trace.caller(self.span.clone())
    }

    /// Ends with an answer, which gets the request id.
    ///
    /// That is marked for the compression of headers to leave out of its table, at both ends: no other
    /// answer will have it again, and there it would only push out what does come again, such as the
    /// details of a refusal that many get.
    pub(super) fn end(mut self, mut response: http::Response<Body>) -> http::Response<Body> {
        self.ended = true;
        let status = response.extensions().get::<Status>();
        self.report(status.map_or(Code::Ok, Status::code), status);
        let mut request_id = self.request_id.clone();
        request_id.set_sensitive(true);
        response.headers_mut().insert(REQUEST_ID, request_id);
        response
    }

    /// To the log, the metrics and the trace.
    fn report(&self, code: Code, status: Option<&Status>) {
        let known = status.and_then(ForTheLog::of);
        let reason = known.map(|known| known.reason.as_str_name());
        let time = self.begin.elapsed();
        let name = code::name(code);
        let error = match reason {
            Some(reason) => reason,
            None if code == Code::Ok => "",
            None => name,
        };
        metrics::call_ended(self.method, name, error, time);
        self.trace.end(name, error, is_ours(code));
        // Three events, since the level of one is fixed where it stands.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    method = self.uri.path(),
                    code = name,
                    reason,
                    // To the microsecond.
                    duration_ms = (time.as_secs_f64() * 1e6).round() / 1e3,
                    request_id = self.request_id.to_str().unwrap_or_default(),
                    peer = self.peer.map(tracing::field::display),
                    caller = self.subject.0.get().map(Booker::as_str),
                    trace_id = self.trace.id().map(tracing::field::display),
                    incident = known
                        .and_then(|it| it.incident)
                        .map(tracing::field::display),
                    cause = known.and_then(|it| it.cause.as_deref()),
                    "answered"
                )
            };
        }
        if reason == Some("OVERLOADED") {
            // Under overload, lines would be what most of the time is spent on.
            log!(debug);
        } else if is_ours(code) || reason == Some("CONTENTION") {
            log!(warn);
        } else {
            log!(info);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.report(Code::Cancelled, None);
        }
    }
}

/// Whether a code speaks of trouble on this side.
fn is_ours(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => false,
    }
}

/// The client's id, if it is short and plain; else a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let sane = |id: &&HeaderValue| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(plain)
    };
    given.filter(sane).cloned().unwrap_or_else(|| {
        HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is plain ASCII")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use prost::Message;

    #[test]
    fn every_method_of_the_protos_is_known() {
        let protos = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET);
        let files = protos.expect("descriptors").file;
        let mut methods = 0;
        for file in files.iter().filter(|file| file.package() == "booking.v1") {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("booking.v1.{}/{}", service.name(), method.name());
                    assert_eq!(method_of(&format!("/{name}")), name);
                    methods += 1;
                }
            }
        }
        assert_eq!(methods, METHODS.len());
        assert_eq!(method_of("/booking.v1.BookingService/Made"), NO_METHOD);
    }

    #[test]
    fn only_what_never_comes_again_stays_out_of_the_table_of_headers() {
        let call = Call::begin(&mut http::Request::new(()));
        let refusal = Status::with_details(Code::NotFound, "none", "why".into());
        let answer = call.end(refusal.into_http());
        let names = [(REQUEST_ID, true), ("grpc-status-details-bin", false)];
        for (name, stays_out) in names {
            let value = answer.headers().get(name);
            assert_eq!(value.expect(name).is_sensitive(), stays_out, "{name}");
        }
    }

    #[test]
    fn a_sane_request_id_is_kept() {
        let given = HeaderValue::from_static("01J9-abc:7");
        assert_eq!(request_id(Some(&given)), given);
        let long = HeaderValue::try_from("x".repeat(129)).expect("a header value");
        for bad in [
            HeaderValue::from_static(""),
            HeaderValue::from_static("a b\"c"),
            long,
        ] {
            let made = request_id(Some(&bad));
            assert!(Uuid::try_parse(made.to_str().expect("text")).is_ok());
        }
    }
}
