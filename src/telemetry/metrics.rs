//! What the gateway counts and measures, with every name in this file. Knows no protocol and no session: others call the
//! methods, and what can be asked for at any time is sampled when somebody reads. All of it is of this process, as the
//! help texts say, but for the live sessions, which the book counts for all processes.
//!
//! Label values come from small fixed sets (types, outcomes, routes), never from what clients write: an attacker must not
//! be able to make series.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::text`] (OpenMetrics 1.0, which Prometheus reads).
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the classes of kill times, in seconds.
const KILL_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of a gateway. Cheap to clone; counting is an atomic addition.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    sampled: Sampled,
    sessions_opened: Family<OfType, Counter>,
    sessions_ended: Family<Ended, Counter>,
    denials: Family<Denial, Counter>,
    kill_seconds: Histogram,
    connections_open: Family<AtListener, Gauge>,
    connections_turned_away: Family<AtListener, Counter>,
    reloads: Family<Reloaded, Counter>,
    connections_unidentified: Family<AtListener, Counter>,
    requests: Family<Request, Counter>,
    watchers: Gauge,
    spans_dropped: Counter,
    log_lines_dropped: Counter,
}

/// Why somebody known was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialClass {
    /// A rule denies, or allows less.
    Rule,
    /// No rule is about it.
    NoRule,
    /// There is no such socket.
    UnknownSocket,
    /// Something inside an open session was refused.
    Action,
}

/// What is asked for when somebody reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Sessions of this process that are live now.
    pub sessions_live: u64,
    /// Bytes from clients that were recorded since the start.
    pub recorded_input: u64,
    /// Bytes for clients that were recorded since the start.
    pub recorded_output: u64,
    /// Recordings that are being written.
    pub recordings_live: u64,
    /// Bytes in spools that are not in a container yet.
    pub pending_bytes: u64,
    /// How long the oldest of them has been waiting.
    pub pending_age: Duration,
    /// Free bytes where spools are.
    pub spool_free: u64,
    /// Free bytes where recordings are.
    pub recordings_free: u64,
}

/// Something that is counted for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("gatescribe");
        let inner = Inner {
            sampled: Sampled::default(),
            sessions_opened: Family::default(),
            sessions_ended: Family::default(),
            denials: Family::default(),
            kill_seconds: Histogram::new(KILL_SECONDS),
            connections_open: Family::default(),
            connections_turned_away: Family::default(),
            reloads: Family::default(),
            connections_unidentified: Family::default(),
            requests: Family::default(),
            watchers: Gauge::default(),
            spans_dropped: Counter::default(),
            log_lines_dropped: Counter::default(),
            registry: Registry::default(),
        };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let mut add = Add(&mut registry);
        add.one("sessions_opened", "Sessions that began in this process", &inner.sessions_opened);
        add.one("sessions_ended", "Sessions of this process that ended", &inner.sessions_ended);
        add.one("denials", "Refusals of people who are known, by this process", &inner.denials);
        add.one("connections_open", "Client connections of this process that are open", &inner.connections_open);
        add.one("config_reloads", "How often the configuration file was read again", &inner.reloads);
        add.one("connections_turned_away", "Connections to this process over a limit", &inner.connections_turned_away);
        add.one(
            "connections_unidentified",
            "Connections to this process that ended before anybody was known",
            &inner.connections_unidentified,
        );
        add.one("api_requests", "API requests that this process answered", &inner.requests);
        add.one("watchers", "People who watch a live session at this process", &inner.watchers);
        add.one("trace_spans_dropped", "Trace spans that this process could not send", &inner.spans_dropped);
        add.one("log_lines_dropped", "Lines of the log of this process that nobody took", &inner.log_lines_dropped);
        let help = "From the order to end a session of this process until it was down";
        registry.register_with_unit("kill_latency", help, Unit::Seconds, inner.kill_seconds.clone());
        registry.register_collector(Box::new(inner.sampled.clone()));
        Self(Arc::new(Inner { registry, ..inner }))
    }

    /// Where to ask for what is sampled. The first call counts.
    pub fn sample_from(&self, source: impl Fn() -> Sample + Send + Sync + 'static) {
        let _ = self.0.sampled.0.set(Box::new(source));
    }

    /// Everything, in OpenMetrics' text format, with how many sessions are live in all processes, if that is known. Blocks
    /// for as long as the file systems take to say how full they are.
    pub fn text(&self, live: Option<u64>) -> Result<String, fmt::Error> {
        let mut out = String::new();
        if let Some(live) = live {
            let mut of_all = Registry::with_prefix("gatescribe");
            let help = "Live sessions of the whole gateway, older processes of an upgrade too";
            of_all.register("sessions_live", help, ConstGauge::new(live as f64));
            text::encode_registry(&mut out, &of_all)?;
        }
        text::encode(&mut out, &self.0.registry)?;
        Ok(out)
    }

    /// A session of this type began. Each is followed by one [`Metrics::session_ended`].
    pub fn session_opened(&self, session_type: &'static str) {
        self.0.sessions_opened.get_or_create(&OfType { r#type: session_type }).inc();
    }

    /// A session of this type ended like this.
    pub fn session_ended(&self, session_type: &'static str, outcome: &'static str) {
        self.0.sessions_ended.get_or_create(&Ended { r#type: session_type, outcome }).inc();
    }

    /// Somebody known was refused.
    pub fn denied(&self, session_type: &'static str, class: DenialClass) {
        let reason = match class {
            DenialClass::Rule => "rule",
            DenialClass::NoRule => "no_rule",
            DenialClass::UnknownSocket => "unknown_socket",
            DenialClass::Action => "action",
        };
        self.0.denials.get_or_create(&Denial { r#type: session_type, reason }).inc();
    }

    /// A session was down this long after the order.
    pub fn killed_after(&self, took: Duration) {
        self.0.kill_seconds.observe(took.as_secs_f64());
    }

    /// A connection at this listener is open for as long as the answer lives.
    pub fn connection(&self, listener: &'static str) -> Counted {
        Counted::new(self.0.connections_open.get_or_create(&AtListener { listener }).deref())
    }

    /// A connection at this listener was over a limit.
    pub fn turned_away(&self, listener: &'static str) {
        self.0.connections_turned_away.get_or_create(&AtListener { listener }).inc();
    }

    /// The configuration file was read again, and taken or not.
    pub fn reloaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.0.reloads.get_or_create(&Reloaded { result }).inc();
    }

    /// A connection at this listener ended before anybody was known.
    pub fn unidentified(&self, listener: &'static str) {
        self.0.connections_unidentified.get_or_create(&AtListener { listener }).inc();
    }

    /// An API request was answered. `route` is the pattern, not the path.
    pub fn request(&self, route: &str, method: &'static str, status: u16) {
        self.0.requests.get_or_create(&Request { route: route.to_owned(), method, status }).inc();
    }

    /// Somebody watches for as long as the answer lives.
    pub fn watching(&self) -> Counted {
        Counted::new(&self.0.watchers)
    }

    /// Spans that the exporter had to drop.
    pub fn spans_dropped(&self) -> Counter {
        self.0.spans_dropped.clone()
    }

    /// Lines of the log that had to be dropped.
    pub fn log_lines_dropped(&self) -> Counter {
        self.0.log_lines_dropped.clone()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfType {
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    r#type: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Denial {
    r#type: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reloaded {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AtListener {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: String,
    method: &'static str,
    status: u16,
}

struct Add<'a>(&'a mut Registry);

impl Add<'_> {
    fn one<M: prometheus_client::registry::Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.0.register(name, help, metric.clone());
    }
}

type Source = Box<dyn Fn() -> Sample + Send + Sync>;

/// Writes down a fresh [`Sample`] with each reading.
#[derive(Clone, Default)]
struct Sampled(Arc<OnceLock<Source>>);

impl Collector for Sampled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(source) = self.0.get() else { return Ok(()) };
        let sample = source();
        let mut counter = |name: &str, help: &str, value: u64| {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), metric.metric_type())?)
        };
        counter("recorded_input", "Bytes from clients that this process recorded", sample.recorded_input)?;
        counter("recorded_output", "Bytes for clients that this process recorded", sample.recorded_output)?;
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let bytes = Some(&Unit::Bytes);
        gauge("process_sessions_live", "Live sessions of this process", None, sample.sessions_live as f64)?;
        gauge("recordings_live", "Recordings that this process is writing", None, sample.recordings_live as f64)?;
        gauge(
            "recording_pending",
            "What is in spools of this process and not on disk yet",
            bytes,
            sample.pending_bytes as f64,
        )?;
        let age = sample.pending_age.as_secs_f64();
        gauge("recording_pending_age", "How long the oldest of it has waited", Some(&Unit::Seconds), age)?;
        gauge("spool_free", "Free room where spools are", bytes, sample.spool_free as f64)?;
        gauge("recordings_free", "Free room where recordings are", bytes, sample.recordings_free as f64)
    }
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampled(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::new();
        metrics.sample_from(|| Sample { sessions_live: 3, recorded_output: 7, ..Sample::default() });
        metrics.session_opened("ssh");
        metrics.session_ended("ssh", "killed");
        metrics.denied("ssh", DenialClass::NoRule);
        metrics.killed_after(Duration::from_millis(30));
        metrics.request("/api/v1/sessions", "GET", 200);
        let open = metrics.connection("ssh");
        drop(metrics.connection("ssh"));
        let text = metrics.text(Some(5)).unwrap();
        for line in [
            "gatescribe_sessions_opened_total{type=\"ssh\"} 1",
            "gatescribe_sessions_ended_total{type=\"ssh\",outcome=\"killed\"} 1",
            "gatescribe_denials_total{type=\"ssh\",reason=\"no_rule\"} 1",
            "gatescribe_kill_latency_seconds_bucket{le=\"0.025\"} 0",
            "gatescribe_kill_latency_seconds_bucket{le=\"0.05\"} 1",
            "gatescribe_api_requests_total{route=\"/api/v1/sessions\",method=\"GET\",status=\"200\"} 1",
            "gatescribe_connections_open{listener=\"ssh\"} 1",
            "gatescribe_recorded_output_bytes_total 7",
            "gatescribe_process_sessions_live 3.0",
            "gatescribe_sessions_live 5.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|told| told == line), "no {line:?} in\n{text}");
        }
        drop(open);
        let text = metrics.text(None).unwrap();
        assert!(text.contains("gatescribe_connections_open{listener=\"ssh\"} 0"));
        assert!(!text.contains("gatescribe_sessions_live"), "not known");
    }
}
