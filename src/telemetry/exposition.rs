//! The metrics over HTTP, for Prometheus to fetch: `GET /metrics`, on a port of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics;

/// Scrapes at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// How long a scrape may take, from its connection to its end.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// What this speaks, and Prometheus by preference.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The same text for those who do not know that name: all that differs are comments.
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics, for ever. `refresh` is called before each scrape, for what is not counted as
/// it happens.
pub async fn serve<F>(listener: TcpListener, refresh: F) -> Infallible
where
    F: Fn() + Send + Sync + 'static,
{
    metrics::start();
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics are served at /metrics");
    }
    let refresh = Arc::new(refresh);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a scrape: check the limit on open files");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let refresh = Arc::clone(&refresh);
        tokio::spawn(async move {
            // Whoever hangs up or is too slow asks again.
            let _ = timeout(SCRAPE_TIMEOUT, answer(stream, &*refresh)).await;
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, refresh: &(impl Fn() + Sync)) -> Result<(), hyper::Error> {
    let handler =
        service_fn(
            |request: Request<_>| async move { Ok::<_, Infallible>(respond(&request, refresh)) },
        );
    // A scrape is rare: an open connection would only hold a place.
    let server = http1::Builder::new().keep_alive(false).clone();
    server.serve_connection(TokioIo::new(stream), handler).await
}

fn respond<B>(request: &Request<B>, refresh: &impl Fn()) -> Response<String> {
    let mut response = Response::new(String::new());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let get = HeaderValue::from_static("GET");
        response.headers_mut().insert(ALLOW, get);
    } else {
        refresh();
        *response.body_mut() = metrics::render();
        let format = HeaderValue::from_static(format_for(request.headers()));
        response.headers_mut().insert(CONTENT_TYPE, format);
    }
    response
}

fn format_for(headers: &HeaderMap) -> &'static str {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        OPENMETRICS
    } else {
        PLAIN_TEXT
    }
}
