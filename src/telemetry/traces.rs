//! Traces over OTLP: a span for each call, one for each transaction, and who waits for what.
//!
//! Until [`start`] there are no spans, and nothing here costs more than a look at a pointer.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::Either;
use http::HeaderMap;
use opentelemetry::context::{FutureExt, WithContext};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Link, SpanContext, SpanKind, Status, TraceContextExt, TraceId, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
    SpanExporter,
};
use rustls::RootCertStore;
use tonic::transport::ClientTlsConfig;
use tracing::Instrument;
use tracing::instrument::Instrumented;

use crate::files;

/// Most spans that wait for the collector; more are dropped.
const QUEUE_MAX: usize = 8_192;

/// How long a span waits for others to be sent with.
const SEND_INTERVAL: Duration = Duration::from_secs(2);

/// How long the collector gets to take what it is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the collector gets, at the end, to take what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Most callers that the span of a shared transaction is linked to.
pub(crate) const LINKS_MAX: usize = 128;

/// How to trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where the collector takes OTLP over gRPC: `http://host:4317`, or `https://` for TLS.
    pub endpoint: String,
    /// PEM file of the CAs to trust for TLS, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The share of calls that are traced, 0 to 1, among those whose callers did not decide.
    pub ratio: f64,
    /// What this service is called in the traces.
    pub service_name: String,
}

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of CAs cannot be used.
    #[error("{0}")]
    CaFile(String),
    /// The endpoint or one of the `OTEL_EXPORTER_OTLP_` variables is not what it should be.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The spans on their way to the collector.
pub struct Traces(SdkTracerProvider);

/// Begins to trace, for the whole process. Must be called in a Tokio runtime, and once.
///
/// The collector need not be there: spans are sent by a thread of its own from a bounded queue, and
/// dropped while it cannot be reached.
///
/// # Errors
/// [`Error`] where the options cannot be followed.
pub async fn start(options: &Options) -> Result<Traces, Error> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(options.endpoint.clone())
        .with_timeout(SEND_TIMEOUT);
    if options.endpoint.starts_with("https:") {
        let roots = roots(options.ca_file.as_deref()).await;
        let roots = roots.map_err(Error::CaFile)?.roots;
        exporter = exporter.with_tls_config(ClientTlsConfig::new().trust_anchors(roots));
    }
    let exporter = exporter.build()?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_scheduled_delay(SEND_INTERVAL)
        .build();
    let exporter = Forgiving {
        exporter,
        failing: AtomicBool::new(false),
    };
    let resource = Resource::builder()
        .with_service_name(options.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let sampler = Sampler::TraceIdRatioBased(options.ratio);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::new(exporter, config))
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(resource)
        .build();
    // A second one would be without effect: there is one process to trace.
    let _ = TRACER.set(provider.tracer("booking-service"));
    Ok(Traces(provider))
}

/// The CAs to trust: those of the PEM file, or the public ones without it.
async fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    match ca_file {
        Some(path) => files::authorities(&files::read(path).await?)
            .map_err(|error| format!("{}: {error}", path.display())),
        None => Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()),
    }
}

impl Traces {
    /// Sends what is left, and ends tracing: within two seconds, whatever the collector does.
    pub async fn end(self) {
        let end = move || self.0.shutdown_with_timeout(FLUSH_TIMEOUT);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(end).await {
            tracing::warn!(%error, "the last traces did not reach the collector");
        }
    }
}

/// Sends what it can, and says once that it cannot: for the service nothing depends on it.
#[derive(Debug)]
struct Forgiving {
    exporter: opentelemetry_otlp::SpanExporter,
    failing: AtomicBool,
}

impl SpanExporter for Forgiving {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces reach the collector again");
                }
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %error,
                        "traces do not reach the collector, and are dropped until they do: check \
                         that it runs, its address and, for https, its certificate"
                    );
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The trace of one call, begun by its caller or here.
pub(crate) struct CallTrace {
    id: TraceId,
    /// The call's own span, if calls are traced.
    span: Option<Context>,
}

impl CallTrace {
    /// Begins with a call of this method, and goes on with its caller's trace, if there is one.
    pub(crate) fn begin(method: &'static str, headers: &HeaderMap) -> Self {
        let caller = caller_of(headers);
        let span = TRACER.get().map(|tracer| {
            let span = tracer
                .span_builder(method)
                .with_kind(SpanKind::Server)
                .with_attributes([
                    KeyValue::new("rpc.system.name", "grpc"),
                    KeyValue::new("rpc.method", method),
                ])
                .start_with_context(tracer, &caller);
            caller.with_span(span)
        });
        let begun = span.as_ref().unwrap_or(&caller);
        Self {
            id: begun.span().span_context().trace_id(),
            span,
        }
    }

    /// The id that the trace has, here and with the caller.
    pub(crate) fn id(&self) -> Option<TraceId> {
        (self.id != TraceId::INVALID).then_some(self.id)
    }

    /// Ends with this status; `is_ours` if it speaks of trouble on this side.
    pub(crate) fn end(&self, code: &'static str, error: &'static str, is_ours: bool) {
        let Some(context) = &self.span else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("rpc.response.status_code", code));
        end_with(&span, error, is_ours);
    }

    /// The call, as one that work is done for.
    pub(crate) fn caller(&self, log: tracing::Span) -> Caller {
        Caller {
            log,
            trace: self.span.clone(),
        }
    }
}

fn end_with(span: &opentelemetry::trace::SpanRef<'_>, error: &'static str, is_error: bool) {
    if !error.is_empty() {
        span.set_attribute(KeyValue::new("error.type", error));
    }
    if is_error {
        span.set_status(Status::Error {
            description: Cow::Borrowed(""),
        });
    }
    span.end();
}

/// The caller's place in its trace, as the W3C's `traceparent` tells it.
fn caller_of(headers: &HeaderMap) -> Context {
    if headers.contains_key("traceparent") {
        let propagator = TraceContextPropagator::new();
        propagator.extract_with_context(&Context::new(), &Headers(headers))
    } else {
        Context::new()
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// A future that works for a caller.
pub(crate) type For<F> = Instrumented<Either<WithContext<F>, F>>;

/// The call that work is done for: what is logged on the way belongs to it, and so do the spans.
#[derive(Clone)]
pub(crate) struct Caller {
    log: tracing::Span,
    trace: Option<Context>,
}

impl Caller {
    /// The call that the current task works for.
    pub(crate) fn current() -> Self {
        Self {
            log: tracing::Span::current(),
            trace: TRACER.get().map(|_| Context::current()),
        }
    }

    /// Has this work be done for the caller, in whatever task.
    pub(crate) fn carry<F: Future>(&self, work: F) -> For<F> {
        let traced = match &self.trace {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        };
        traced.instrument(self.log.clone())
    }

    /// Its span, if it is one that the collector will see.
    pub(crate) fn sampled(&self) -> Option<SpanContext> {
        let context = self.trace.as_ref()?.span().span_context().clone();
        context.is_sampled().then_some(context)
    }
}

/// The span of a transaction. It counts as abandoned if it is dropped before its end.
pub(crate) struct TransactionSpan(Option<Context>);

impl TransactionSpan {
    /// Begins, for the caller that the current task works for; `others` wait for it, too. Without a
    /// caller there is no span: nobody would look for one.
    pub(crate) fn begin(operation: &'static str, others: &[SpanContext]) -> Self {
        let begin = |tracer: &SdkTracer| {
            let caller = Context::current();
            if !caller.span().span_context().is_valid() {
                return None;
            }
            let link = |other: &SpanContext| Link::with_context(other.clone());
            let span = tracer
                .span_builder(operation)
                .with_kind(SpanKind::Client)
                .with_attributes([
                    KeyValue::new("db.system.name", "postgresql"),
                    KeyValue::new("db.operation.name", operation),
                ])
                .with_links(others.iter().map(link).collect())
                .start_with_context(tracer, &caller);
            Some(caller.with_span(span))
        };
        Self(TRACER.get().and_then(begin))
    }

    /// Ends after so many attempts; `error` is empty if it came to an answer.
    pub(crate) fn end(&self, attempts: u32, error: &'static str) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("booking.attempts", i64::from(attempts)));
        end_with(&span, error, !error.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_trace_is_known_by_its_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(CallTrace::begin("m", &headers).id(), None);
        for (header, id) in [
            (
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                Some("0af7651916cd43dd8448eb211c80319c"),
            ),
            (
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                None,
            ),
            ("none of your business", None),
        ] {
            headers.insert("traceparent", header.parse().expect("a header value"));
            let trace = CallTrace::begin("m", &headers).id();
            assert_eq!(trace.map(|id| id.to_string()).as_deref(), id, "{header}");
        }
    }
}
