//! OpenTelemetry traces of the programs beside Triton.
//!
//! | type | purpose |
//! |---|---|
//! | [`Traces`] | makes spans and sends recorded ones to a collector, by OTLP over HTTP in its own thread |
//! | [`Span`] | work in progress, with the `traceparent` for the calls that it makes; it ends when it is dropped |
//! | [`Parent`] | a span of another program, read from a `traceparent` |
//!
//! The trace id decides whether a trace is recorded: [`Settings::rate`] of all ids are, and the same ones in every program. If a click, the
//! next request and the updater's work share a trace id, they are recorded together. The sampled flag of a client is used if the client is
//! trusted. A trace that is not recorded costs one random number.

mod export;
mod parent;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan,
};

pub use parent::Parent;

/// Spans that wait for the collector; more are dropped.
const QUEUE: usize = 16_384;
/// Spans of one request to the collector.
const BATCH: usize = 1024;
/// Interval at which spans are sent.
const EVERY: Duration = Duration::from_secs(1);
/// Maximum wait for the collector at the end of a program.
const AT_THE_END: Duration = Duration::from_secs(2);

/// Destination and sampling rate of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The collector's base address, such as `http://localhost:4318`.
    pub endpoint: String,
    /// The part of traces that is recorded, 0 to 1.
    pub rate: f64,
    /// The program's name in the traces.
    pub service: &'static str,
    /// Tells this process from others of the same service, such as a pod's name.
    pub instance: Option<String>,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error(
        "the collector's address '{0}' is not accepted; accepted: http://HOST:PORT, to which /v1/traces is added (OTLP over HTTP, not gRPC; \
         a collector beside Saker can go on by TLS)"
    )]
    Endpoint(String),
    /// The rate is out of range.
    #[error("the rate of traces is {0}; accepted: 0 to 1")]
    Rate(f64),
    /// The exporter cannot be made.
    #[error("traces cannot be exported: {0}")]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Makes spans. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

struct Recorder {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    rate: f64,
    exports: Arc<Exports>,
}

/// Requests to the collector, by outcome.
#[derive(Debug, Default)]
pub struct Exports {
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Exports {
    /// Number of spans that the collector accepted.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Number of exports that the collector refused or that did not reach it; their spans may be lost.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.0.as_ref().map(|recorder| recorder.rate);
        f.debug_struct("Traces").field("rate", &rate).finish()
    }
}

impl Traces {
    /// Passes trace contexts on and records nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Starts the thread that sends spans to the collector, which need not be reachable yet.
    ///
    /// # Errors
    /// Returns an error if the address or the rate is not accepted.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&settings.rate) {
            return Err(Error::Rate(settings.rate));
        }
        let exports = Arc::new(Exports::default());
        let client = export::Client::new(Arc::clone(&exports), settings.service);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(address(&settings.endpoint)?)
            .with_timeout(export::TIMEOUT)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let mut resource = Resource::builder().with_service_name(settings.service);
        if let Some(instance) = &settings.instance {
            resource =
                resource.with_attribute(KeyValue::new("service.instance.id", instance.clone()));
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(processor)
            // The decision to record is made before a span is created.
            .with_sampler(Sampler::AlwaysOn)
            .build();
        Ok(Self(Some(Arc::new(Recorder {
            tracer: provider.tracer("saker"),
            provider,
            rate: settings.rate,
            exports,
        }))))
    }

    /// The counters of exports; `None` if nothing is recorded.
    #[must_use]
    pub fn exports(&self) -> Option<Arc<Exports>> {
        self.0
            .as_ref()
            .map(|recorder| Arc::clone(&recorder.exports))
    }

    /// A request of a client, whose header `traceparent` is given. Its flag counts if the client `is_trusted`: others could have
    /// everything recorded.
    #[must_use]
    pub fn serve(&self, header: Option<&str>, is_trusted: bool) -> Span {
        let parent = header.and_then(Parent::parse);
        let trace = parent.map_or_else(
            || TraceId::from_bytes(rand::random()),
            |parent| parent.trace,
        );
        let passing = Parent::unsampled(trace);
        let Some(recorder) = &self.0 else {
            // This program does not record the trace; a called program may, if the client records it.
            let flags = parent.map_or_else(Default::default, |parent| parent.flags);
            return Span::passing(Parent { flags, ..passing });
        };
        let asked = is_trusted && parent.is_some_and(|parent| parent.is_sampled());
        if !asked && !is_recorded(trace, recorder.rate) {
            return Span::passing(passing);
        }
        // A trace of its own gets its id where its span is made.
        let context = parent.map_or_else(Context::new, Parent::context);
        let builder = SpanBuilder::from_name("request").with_kind(SpanKind::Server);
        recorder.start(builder, &context)
    }

    /// Work of another process that is noted afterwards: from `start` until now, if its trace is recorded.
    pub fn note(
        &self,
        name: &'static str,
        parent: Parent,
        start: SystemTime,
        attributes: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let Some(recorder) = &self.0 else { return };
        if !parent.is_sampled() {
            return;
        }
        let attributes = attributes.into_iter();
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Consumer)
            .with_start_time(start)
            .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)));
        drop(recorder.start(builder, &parent.context()));
    }

    /// Sends what is left, for at most two seconds.
    pub fn close(&self) {
        if let Some(recorder) = &self.0
            && let Err(error) = recorder.provider.shutdown_with_timeout(AT_THE_END)
        {
            tracing::warn!("the last spans are lost: {error}");
        }
    }
}

impl Recorder {
    fn start(self: &Arc<Self>, builder: SpanBuilder, context: &Context) -> Span {
        let span = builder.start_with_context(&self.tracer, context);
        Span {
            link: Link::new(Parent::of(span.span_context()), Some(Arc::clone(self))),
            recorded: Some(span),
        }
    }
}

/// The address of traces below a collector's base address.
///
/// # Errors
/// Returns an error if it is not the base address of OTLP over HTTP.
pub fn address(endpoint: &str) -> Result<String, Error> {
    let refused = || Error::Endpoint(endpoint.to_owned());
    let uri: http::Uri = endpoint.parse().map_err(|_| refused())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(refused());
    }
    if uri.query().is_some()
        || uri
            .authority()
            .is_some_and(|named| named.as_str().contains('@'))
    {
        return Err(refused());
    }
    Ok(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
}

/// Whether a trace is recorded, as OpenTelemetry's sampler by ratio decides it: by the last eight bytes of its id.
fn is_recorded(trace: TraceId, rate: f64) -> bool {
    let [.., a, b, c, d, e, f, g, h] = trace.to_bytes();
    let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    // Rounded towards zero, and so 0 for a rate of 0; a rate of 1 is above all.
    rate >= 1.0 || place < (rate * (1_u64 << 63) as f64) as u64
}

impl Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// Work under way. It ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    link: Link,
    recorded: Option<SdkSpan>,
}

impl Span {
    fn passing(parent: Parent) -> Self {
        Link::new(parent, None).into()
    }

    /// The link that connects other work to this span, also from other threads.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Names the work, once it is known what it is.
    pub fn name(&mut self, name: impl FnOnce() -> String) {
        if let Some(span) = &mut self.recorded {
            span.update_name(name());
        }
    }

    /// Says more of it.
    pub fn set<V: Into<Value>>(&mut self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(span) = &mut self.recorded {
            span.set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Marks it as failed.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(span) = &mut self.recorded {
            span.set_status(Status::error(why()));
        }
    }
}

/// Work that this program does not record.
impl From<Link> for Span {
    fn from(link: Link) -> Self {
        Self {
            link,
            recorded: None,
        }
    }
}

/// A [`Span`] as other work sees it: its `traceparent`, and how to start work that is a part of it.
#[derive(Clone, Debug)]
pub struct Link {
    parent: Parent,
    header: Arc<str>,
    recorder: Option<Arc<Recorder>>,
}

impl Link {
    fn new(parent: Parent, recorder: Option<Arc<Recorder>>) -> Self {
        Self {
            header: parent.to_string().into(),
            parent,
            recorder,
        }
    }

    /// The `traceparent` for what this work calls.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// The `traceparent` if the trace is recorded. Triton would record every trace whose `traceparent` it receives.
    #[must_use]
    pub fn sampled_header(&self) -> Option<&str> {
        self.parent.is_sampled().then_some(&*self.header)
    }

    /// Whether the span is recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// A call of another service.
    #[must_use]
    pub fn call(&self, name: &'static str) -> Span {
        let Some(recorder) = &self.recorder else {
            return self.clone().into();
        };
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
        recorder.start(builder, &self.parent.context())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_recorded_by_its_id() {
        let id = |last: u64| {
            let mut bytes = [7; 16];
            bytes[8..].copy_from_slice(&last.to_be_bytes());
            TraceId::from_bytes(bytes)
        };
        assert!(is_recorded(id(u64::MAX), 1.0));
        assert!(!is_recorded(id(0), 0.0));
        assert!(is_recorded(id(0), f64::MIN_POSITIVE.max(1e-18)));
        assert!(is_recorded(id(u64::MAX / 2), 0.5) && !is_recorded(id(u64::MAX / 2 + 2), 0.5));
        let recorded =
            (0..20_000).filter(|_| is_recorded(TraceId::from_bytes(rand::random()), 0.1));
        // 2,000 ± 42.
        assert!((1800..2200).contains(&recorded.count()));
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        assert_eq!(address("http://a:4318").unwrap(), "http://a:4318/v1/traces");
        assert_eq!(
            address("http://a:4318/x/").unwrap(),
            "http://a:4318/x/v1/traces"
        );
        for wrong in [
            "",
            "a:4318",
            "grpc://a:4317",
            "https://a",
            "http://",
            "http://a/?b",
            "http://u:p@a",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_collector_a_trace_is_passed_on() {
        let traces = Traces::off();
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = traces.serve(Some(given), false);
        let passed = Parent::parse(span.link().header()).unwrap();
        assert!(
            span.link()
                .header()
                .starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-")
        );
        assert!(passed.is_sampled() && span.link().header() != given);
        assert!(!span.link().is_recorded());
        let call = span.link().call("x");
        assert_eq!(call.link().sampled_header(), Some(span.link().header()));
        let new = Parent::parse(traces.serve(Some("nonsense"), true).link().header()).unwrap();
        assert!(!new.is_sampled());
        assert_ne!(
            new.trace,
            Parent::parse(traces.serve(None, true).link().header())
                .unwrap()
                .trace
        );
    }

    #[test]
    fn a_flag_counts_from_those_who_are_trusted() {
        let traces = Traces::open(&Settings {
            endpoint: "http://127.0.0.1:9".into(),
            rate: 0.0,
            service: "test",
            instance: None,
        })
        .unwrap();
        let given = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let unknown = traces.serve(given, false);
        assert!(
            !unknown.link().is_recorded()
                && unknown.link().call("x").link().sampled_header().is_none()
        );
        assert!(!traces.serve(None, true).link().is_recorded());
        let span = traces.serve(given, true);
        assert!(span.link().is_recorded());
        let call = span.link().call("call");
        let (ours, theirs) = (
            Parent::parse(span.link().header()),
            Parent::parse(call.link().header()),
        );
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(ours.trace, theirs.trace);
        assert!(ours.span != theirs.span && theirs.is_sampled());
    }
}
