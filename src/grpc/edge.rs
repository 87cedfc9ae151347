//! What every call of the service passes through: admission, deadline, panics, one line in the log.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::store;

use super::call::Call;
use super::deadline::Deadline;
use super::status::Error;

/// How much the service takes on, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a call may take whose client set no deadline.
    pub request_timeout: Duration,
    /// How long a call may take, whatever its client says.
    pub request_timeout_max: Duration,
    /// How many calls may be in the works at once; those above are answered OVERLOADED.
    pub requests_in_flight_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            request_timeout_max: Duration::from_mins(1),
            requests_in_flight_max: 4_096,
        }
    }
}

/// Puts an [`Edge`] around a service. All the services that it makes share their limits.
#[derive(Clone, Debug)]
pub struct EdgeLayer {
    limits: Limits,
    in_flight: Arc<Semaphore>,
}

impl EdgeLayer {
    /// A layer with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let permits = limits.requests_in_flight_max.min(Semaphore::MAX_PERMITS);
        Self {
            limits,
            in_flight: Arc::new(Semaphore::new(permits)),
        }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind its edge.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    inner: S,
    layer: EdgeLayer,
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Edge<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let call = Call::begin(&mut request);
        let caller = call.caller();
        let deadline = Deadline::of(&request, &self.layer.limits);
        request.extensions_mut().insert(deadline);
        let Ok(permit) = Arc::clone(&self.layer.in_flight).try_acquire_owned() else {
            let refusal = async { Ok(call.end(refused(store::Error::Overloaded))) };
            return Box::pin(caller.carry(refusal));
        };
        let handled = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let answered = async move {
            let response = match deadline.bound(handled).await {
                Some(Ok(Ok(response))) => in_our_words(response),
                Some(Err(panic)) => refused(panicked(&*panic)),
                None => refused(store::Error::DeadlineExceeded),
            };
            drop(permit);
            Ok(call.end(response))
        };
        Box::pin(caller.carry(answered))
    }
}

fn refused(error: store::Error) -> http::Response<Body> {
    Status::from(error).into_http()
}

/// The panic itself has been reported by the panic hook; this ties it to a call.
fn panicked(panic: &(dyn std::any::Any + Send)) -> store::Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    store::Error::Internal {
        source: format!("panicked: {}", text.unwrap_or("for no stated reason")).into(),
    }
}

/// Gives details to the statuses that tonic makes of requests it cannot read.
///
/// A message above the size limit is `OUT_OF_RANGE` to tonic, a malformed one INTERNAL; to a client
/// both are `INVALID_ARGUMENT`.
fn in_our_words(response: http::Response<Body>) -> http::Response<Body> {
    let foreign = response.extensions().get::<Status>().filter(|status| {
        status.details().is_empty() && matches!(status.code(), Code::OutOfRange | Code::Internal)
    });
    match foreign {
        Some(status) => {
            let why = format!("cannot be read: {}", status.message());
            Status::from(Error::Unreadable(why)).into_http()
        }
        None => response,
    }
}

#[cfg(test)]
mod tests;
