//! One call in the log: its request id, and one line when it ends, however it ends.

use http::HeaderValue;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::Span;
use uuid::Uuid;

use super::code;
use crate::pb::ErrorReason;
use crate::telemetry::metrics::{self, OneMore};
use crate::telemetry::traces::{CallTrace, Caller};

/// The header with the request id: taken from the client if it sends one, else made; answered.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A call that is being handled. Dropped before its end, it was cancelled by its client.
pub(super) struct Call {
    begin: Instant,
    method: &'static str,
    span: Span,
    trace: CallTrace,
    request_id: HeaderValue,
    ended: bool,
    _in_flight: OneMore,
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
    pub(super) fn begin<B>(request: &http::Request<B>) -> Self {
        let request_id = request_id(request.headers().get(REQUEST_ID));
        let peer = request.extensions().get::<TcpConnectInfo>();
        let peer = peer.and_then(TcpConnectInfo::remote_addr);
        let method = method_of(request.uri().path());
        let trace = CallTrace::begin(method, request.headers());
        // Of the highest level, so that whatever is logged on the way has it, under any filter.
        let span = tracing::error_span!(
            "call",
            method = request.uri().path(),
            request_id = request_id.to_str().unwrap_or_default(),
            peer = peer.map(tracing::field::display),
            trace_id = trace.id().map(tracing::field::display),
            caller = tracing::field::Empty,
        );
        Self {
            begin: Instant::now(),
            method,
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
    pub(super) fn end(mut self, mut response: http::Response<Body>) -> http::Response<Body> {
        self.ended = true;
        let status = response.extensions().get::<Status>();
        self.report(status.map_or(Code::Ok, Status::code), status);
        let request_id = self.request_id.clone();
        response.headers_mut().insert(REQUEST_ID, request_id);
        response
    }

    /// To the log, the metrics and the trace.
    fn report(&self, code: Code, status: Option<&Status>) {
        let reason = status.and_then(|status| Some(status.get_details_error_info()?.reason));
        let time = self.begin.elapsed();
        let name = code::name(code);
        let known = reason.as_deref().and_then(ErrorReason::from_str_name);
        let error = match known {
            Some(reason) => reason.as_str_name(),
            None if code == Code::Ok => "",
            None => name,
        };
        metrics::call_ended(self.method, name, error, time);
        self.trace.end(name, error, is_ours(code));
        // To the microsecond.
        let duration_ms = (time.as_secs_f64() * 1e6).round() / 1e3;
        // Two events, since the level of one is fixed where it stands.
        if is_ours(code) || reason.as_deref() == Some("CONTENTION") {
            tracing::warn!(code = name, reason, duration_ms, "answered");
        } else {
            tracing::info!(code = name, reason, duration_ms, "answered");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let _entered = self.span.clone().entered();
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
