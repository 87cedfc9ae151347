//! The gate of the service: who comes in, with which right, and how often.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use super::caller::Caller;
use super::rate::{Key, Limiter, RateLimit};
use super::sign_in::{Right, SignIn};
use super::status::Error;

/// The methods that change nothing. Every other one, be it new, takes the right to write.
const READS: [&str; 4] = [
    "GetBooking",
    "ListBookings",
    "BatchGetBookings",
    "QueryAvailability",
];

/// Puts a [`Gate`] before a service. All the services that it makes share their limits.
#[derive(Clone, Debug)]
pub struct GateLayer {
    sign_in: Option<SignIn>,
    limiter: Option<Arc<Limiter>>,
}

impl GateLayer {
    /// A layer that lets in whoever signs in, or everybody without `sign_in`.
    #[must_use]
    pub fn new(sign_in: Option<SignIn>, rate_limit: Option<RateLimit>) -> Self {
        let limiter = rate_limit.map(|limit| Arc::new(Limiter::new(limit)));
        Self { sign_in, limiter }
    }

    /// Who makes this call, if it may be made, now.
    async fn admit(&self, request: &Parts) -> Result<Caller, Error> {
        let address = request.extensions.get::<TcpConnectInfo>();
        let address = address.and_then(TcpConnectInfo::remote_addr);
        let admitted = match &self.sign_in {
            None => Ok(Caller::Anyone),
            Some(sign_in) => sign_in.caller(request, right(request)).await,
        };
        let subject = admitted.as_ref().ok().and_then(Caller::subject);
        if let Some(limiter) = &self.limiter
            && let Some(key) = Key::of(subject, address)
        {
            limiter.check(&key)?;
        }
        admitted
    }
}

/// What the call is a matter of.
fn right(request: &Parts) -> Right {
    let method = request.uri.path().rsplit('/').next();
    if method.is_some_and(|method| READS.contains(&method)) {
        Right::Read
    } else {
        Right::Write
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind its gate.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    layer: GateLayer,
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let layer = self.layer.clone();
        let another = self.inner.clone();
        // The one that was found ready is the one to call.
        let mut inner = mem::replace(&mut self.inner, another);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match layer.admit(&parts).await {
                Ok(caller) => {
                    parts.extensions.insert(caller);
                    inner.call(http::Request::from_parts(parts, body)).await
                }
                Err(refusal) => Ok(Status::from(refusal).into_http()),
            }
        })
    }
}
