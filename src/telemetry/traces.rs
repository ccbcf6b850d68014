//! Traces by OTLP over HTTP: the spans of the gateway's own code at `info`, with the fields that its log has too.
//!
//! Ending a span never waits: it goes into a queue with a bound, and one task sends what is in it. What finds the queue
//! full, or a collector that does not answer, is dropped and counted. The library's own batch processor would run its
//! exporter on a thread without a runtime, where this HTTP client cannot work.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;

use super::log::Beside;
use crate::config::Traces;

/// Spans that may wait to be sent.
const QUEUE: usize = 4096;

/// Spans that are sent at once.
const BATCH: usize = 512;

/// How long a batch waits for more.
const GATHER: Duration = Duration::from_secs(1);

/// How long a collector may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How long what is left may take when the gateway stops.
const LAST: Duration = Duration::from_secs(3);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent there: {0}")]
pub struct TracesError(String);

/// Sends spans to the collector.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    to: SpanExporter,
    dropped: Counter,
    failing: bool,
}

/// The layer that makes spans of the process's own, and what sends them.
pub(super) fn start(settings: &Traces, dropped: Counter) -> Result<(Beside, Exporter), TracesError> {
    let to = SpanExporter::builder()
        .with_http()
        .with_endpoint(&settings.otlp)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(ANSWER)
        .build();
    let mut to = to.map_err(|error| TracesError(error.to_string()))?;
    let resource = Resource::builder().with_service_name(settings.service_name.clone()).build();
    to.set_resource(&resource);
    let (queue, spans) = mpsc::channel(QUEUE);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
        .with_span_processor(Queue { spans: queue, dropped: dropped.clone() })
        .build();
    let layer = OpenTelemetryLayer::new(provider.tracer("gatescribe"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target("gatescribe", Level::INFO));
    Ok((layer.boxed(), Exporter { spans, to, dropped, failing: false }))
}

impl Exporter {
    /// Sends until `stop`, then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                received = self.spans.recv_many(&mut batch, BATCH) => if received == 0 { return },
            }
            if batch.len() < BATCH {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(GATHER) => {}
                }
                self.fill(&mut batch);
            }
            let spans = batch.len() as u64;
            let sent = tokio::select! {
                biased;
                sent = timeout(ANSWER, self.to.export(std::mem::take(&mut batch))) => sent.is_ok_and(|sent| sent.is_ok()),
                // What is on its way may arrive.
                () = async { stop.cancelled().await; sleep(LAST).await } => break,
            };
            self.note(sent, spans);
        }
        let end = Instant::now() + LAST;
        loop {
            self.fill(&mut batch);
            if batch.is_empty()
                || !matches!(timeout_at(end, self.to.export(std::mem::take(&mut batch))).await, Ok(Ok(())))
            {
                return;
            }
        }
    }

    /// Tells once when it begins to fail, and once when it works again.
    fn note(&mut self, sent: bool, spans: u64) {
        if !sent {
            self.dropped.inc_by(spans);
        }
        match (self.failing, sent) {
            (false, false) => tracing::warn!("traces cannot be sent; they are dropped until the collector answers"),
            (true, true) => tracing::info!("traces are sent again"),
            _ => {}
        }
        self.failing = !sent;
    }

    fn fill(&mut self, batch: &mut Vec<SpanData>) {
        while batch.len() < BATCH
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
    }
}

/// Where ended spans go.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
