//! What a call meets at the edge, with handlers that misbehave.

use super::*;
use crate::grpc::call::REQUEST_ID;
use tokio::time::Instant;
use tonic_types::StatusExt;
use tower::ServiceExt;
use tower::util::service_fn;

/// Sends a request through an edge to a handler.
async fn call<H, F>(limits: Limits, handler: H) -> http::Response<Body>
where
    H: FnMut(http::Request<Body>) -> F,
    F: Future<Output = Answer> + Send + 'static,
{
    let edge = EdgeLayer::new(limits).layer(service_fn(handler));
    edge.oneshot(http::Request::new(Body::empty()))
        .await
        .expect("an answer")
}

fn reason(response: &http::Response<Body>) -> (Code, String) {
    let status = Status::from_header_map(response.headers()).expect("a status");
    let info = status.get_details_error_info().expect("ErrorInfo");
    (status.code(), info.reason)
}

#[expect(clippy::unnecessary_wraps, reason = "what a handler answers")]
fn fine() -> Answer {
    Ok(http::Response::new(Body::empty()))
}

#[tokio::test]
async fn a_panic_is_an_internal_error_with_an_incident() {
    let response = call(Limits::default(), |_| async { panic!("a secret") }).await;
    assert_eq!(reason(&response), (Code::Internal, "INTERNAL".to_owned()));
    assert!(!format!("{:?}", response.headers()).contains("secret"));
    assert!(response.headers().contains_key(REQUEST_ID));
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_is_known_to_the_handler() {
    let request_timeout = Duration::from_millis(30);
    let limits = Limits {
        request_timeout,
        ..Limits::default()
    };
    let begin = Instant::now();
    let response = call(limits, move |request| {
        let deadline = request
            .extensions()
            .get::<Deadline>()
            .expect("a deadline")
            .0;
        assert!(deadline - begin >= request_timeout);
        std::future::pending()
    });
    let (code, reason) = reason(&response.await);
    assert_eq!(
        (code, &*reason),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    assert!(begin.elapsed() >= request_timeout);
}

#[tokio::test]
async fn a_call_above_the_limit_is_refused_and_one_within_it_is_not() {
    let limits = Limits {
        requests_in_flight_max: 1,
        ..Limits::default()
    };
    let edge = EdgeLayer::new(limits);
    let mut slow = edge.layer(service_fn(|_| std::future::pending::<Answer>()));
    let mut quick = edge.layer(service_fn(|_| async { fine() }));
    let in_flight = slow.call(http::Request::new(Body::empty()));
    let refused = quick
        .call(http::Request::new(Body::empty()))
        .await
        .expect("an answer");
    assert_eq!(
        reason(&refused),
        (Code::ResourceExhausted, "OVERLOADED".to_owned())
    );
    assert!(refused.headers().contains_key("grpc-retry-pushback-ms"));
    // A client that goes away gives its place to the next.
    drop(in_flight);
    let admitted = quick
        .call(http::Request::new(Body::empty()))
        .await
        .expect("an answer");
    assert!(Status::from_header_map(admitted.headers()).is_none());
}

#[tokio::test]
async fn what_tonic_cannot_read_is_an_invalid_argument() {
    for foreign in [
        Status::out_of_range("too large"),
        Status::internal("malformed"),
    ] {
        let foreign = Arc::new(foreign);
        let response = call(Limits::default(), move |_| {
            let foreign = Status::clone(&foreign);
            async { Ok(foreign.into_http()) }
        });
        let (code, reason) = reason(&response.await);
        assert_eq!((code, &*reason), (Code::InvalidArgument, "INVALID_FIELDS"));
    }
}

#[tokio::test]
async fn the_request_id_of_the_client_is_answered() {
    let edge = EdgeLayer::new(Limits::default()).layer(service_fn(|_| async { fine() }));
    let mut request = http::Request::new(Body::empty());
    request
        .headers_mut()
        .insert(REQUEST_ID, http::HeaderValue::from_static("mine-7"));
    let response = edge.oneshot(request).await.expect("an answer");
    assert_eq!(response.headers()[REQUEST_ID], "mine-7");
}

/// What is logged, by whichever test.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_call_is_one_line_in_the_log_however_it_ends() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process: with one for this thread alone, tests on other threads would decide
    // which spans are enabled.
    tracing::subscriber::set_global_default(subscriber).expect("no other test logs");

    let request = |id| {
        let mut request = http::Request::new(Body::empty());
        let id = http::HeaderValue::from_static(id);
        request.headers_mut().insert(REQUEST_ID, id);
        request
    };
    let layer = EdgeLayer::new(Limits::default());
    let mut fine_one = layer.layer(service_fn(|_| async { fine() }));
    let _ = fine_one.call(request("logged-1")).await;
    let mut failing = layer.layer(service_fn(|_| async {
        Ok(refused(store::Error::DeadlineExceeded))
    }));
    let _ = failing.call(request("logged-2")).await;
    let mut abandoned = layer.layer(service_fn(|_| std::future::pending::<Answer>()));
    drop(abandoned.call(request("logged-3")));

    let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    let logged: Vec<_> = text
        .lines()
        .filter(|line| line.contains("logged-"))
        .collect();
    let expected = [
        (" INFO ", "logged-1", "code=\"OK\""),
        (
            " WARN ",
            "logged-2",
            "code=\"DEADLINE_EXCEEDED\" reason=\"DEADLINE_EXCEEDED\"",
        ),
        (" INFO ", "logged-3", "code=\"CANCELLED\""),
    ];
    assert_eq!(logged.len(), expected.len(), "{logged:?}");
    for (line, (level, id, what)) in logged.into_iter().zip(expected) {
        let parts = [level, id, what, "method=", "duration_ms="];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}
