//! The gate of the service: who comes in, with which right, and how often.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Extensions;
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

    /// Lets in whoever it is, unless that would be too soon.
    fn admit(
        &self,
        caller: Result<Caller, Error>,
        extensions: &Extensions,
    ) -> Result<Caller, Error> {
        if let Some(limiter) = &self.limiter {
            let address = extensions.get::<TcpConnectInfo>();
            let address = address.and_then(TcpConnectInfo::remote_addr);
            let subject = caller.as_ref().ok().and_then(Caller::subject);
            if let Some(key) = Key::of(subject, address) {
                limiter.check(&key)?;
            }
        }
        caller
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

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(sign_in) = self.layer.sign_in.clone() else {
            let caller = self.layer.admit(Ok(Caller::Anyone), request.extensions());
            return match caller {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    Box::pin(self.inner.call(request))
                }
                Err(refusal) => Box::pin(ready(Ok(refused(refusal)))),
            };
        };
        let layer = self.layer.clone();
        let another = self.inner.clone();
        // The one that was found ready is the one to call.
        let mut inner = mem::replace(&mut self.inner, another);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let caller = sign_in.caller(&parts, right(&parts)).await;
            match layer.admit(caller, &parts.extensions) {
                Ok(caller) => {
                    parts.extensions.insert(caller);
                    inner.call(http::Request::from_parts(parts, body)).await
                }
                Err(refusal) => Ok(refused(refusal)),
            }
        })
    }
}

fn refused(refusal: Error) -> http::Response<Body> {
    Status::from(refusal).into_http()
}
