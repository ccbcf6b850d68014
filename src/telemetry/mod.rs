//! What the gateway tells about itself: its log, its metrics, its traces. Knows nothing of what is told.

mod lines;
pub mod log;
pub mod metrics;
pub mod traces;

pub use self::lines::LastLines;
pub use self::log::LogLevel;
pub use self::metrics::Metrics;

use crate::config::{Log, Traces};

/// What a running gateway holds of its telemetry.
#[derive(Debug)]
pub struct Telemetry {
    /// What is logged, to be changed at run time.
    pub log: LogLevel,
    /// What is counted.
    pub metrics: Metrics,
    /// What sends traces; to be run for as long as the gateway runs.
    pub traces: Option<traces::Exporter>,
    /// To be kept to the end, which then waits for the last lines.
    pub last_lines: LastLines,
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("{source_name}: this is no log filter: {error}")]
    Filter {
        /// Where it came from.
        source_name: &'static str,
        /// Why not.
        error: tracing_subscriber::filter::ParseError,
    },
    /// There is a log already.
    #[error("the log was set up before")]
    Twice,
    /// There is nothing that could write.
    #[error("the log cannot be written: {0}")]
    Thread(#[source] std::io::Error),
    /// Traces cannot be sent to where they should go.
    #[error("[telemetry] otlp: {0}")]
    Traces(#[from] traces::TracesError),
}

/// Starts the log of this process, and traces where they are configured. Once per process.
pub fn init(log: &Log, traces: Option<&Traces>) -> Result<Telemetry, TelemetryError> {
    let metrics = Metrics::new();
    let (layer, exporter) = match traces {
        Some(traces) => {
            traces::start(traces, metrics.spans_dropped()).map(|(layer, exporter)| (Some(layer), Some(exporter)))?
        }
        None => (None, None),
    };
    let (log, last_lines) = log::start(log, layer, metrics.log_lines_dropped())?;
    Ok(Telemetry { log, metrics, traces: exporter, last_lines })
}
