//! One call in the log: its request id, and one line when it ends, however it ends.

use http::HeaderValue;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::Span;
use uuid::Uuid;

/// The header with the request id: taken from the client if it sends one, else made; answered.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A call that is being handled. Dropped before its end, it was cancelled by its client.
pub(super) struct Call {
    begin: Instant,
    span: Span,
    request_id: HeaderValue,
    ended: bool,
}

impl Call {
    /// Begins with a request.
    pub(super) fn begin<B>(request: &http::Request<B>) -> Self {
        let request_id = request_id(request.headers().get(REQUEST_ID));
        let peer = request.extensions().get::<TcpConnectInfo>();
        let peer = peer.and_then(TcpConnectInfo::remote_addr);
        // Of the highest level, so that whatever is logged on the way has it, under any filter.
        let span = tracing::error_span!(
            "call",
            method = request.uri().path(),
            request_id = request_id.to_str().unwrap_or_default(),
            peer = peer.map(tracing::field::display),
            caller = tracing::field::Empty,
        );
        Self {
            begin: Instant::now(),
            span,
            request_id,
            ended: false,
        }
    }

    /// The span that everything that is done for the call belongs in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Ends with an answer, which gets the request id.
    pub(super) fn end(mut self, mut response: http::Response<Body>) -> http::Response<Body> {
        self.ended = true;
        let status = response.extensions().get::<Status>();
        self.log(status.map_or(Code::Ok, Status::code), status);
        let request_id = self.request_id.clone();
        response.headers_mut().insert(REQUEST_ID, request_id);
        response
    }

    fn log(&self, code: Code, status: Option<&Status>) {
        let reason = status.and_then(|status| Some(status.get_details_error_info()?.reason));
        let duration_ms = self.begin.elapsed().as_secs_f64() * 1_000.0;
        // Two events, since the level of one is fixed where it stands.
        if is_ours(code) || reason.as_deref() == Some("CONTENTION") {
            tracing::warn!(?code, reason, duration_ms, "answered");
        } else {
            tracing::info!(?code, reason, duration_ms, "answered");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let _entered = self.span.clone().entered();
            self.log(Code::Cancelled, None);
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
