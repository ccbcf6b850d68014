//! The gateway's own log: one line per event on standard error, as text or JSON. Knows nothing of what is logged.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Crates whose chatter is not ours, and the most they may say where everything may say more, unless a filter names them.
const QUIET: &[(&str, &str)] = &[
    ("russh", "warn"),
    ("hyper", "warn"),
    ("hyper_util", "warn"),
    ("reqwest", "warn"),
    ("rustls", "warn"),
    ("h2", "warn"),
];

/// Why there is no log.
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
}

/// Starts the log of this process. `RUST_LOG`, where set, counts instead of `level`. Once per process.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    let (source_name, directives) = match &environment {
        Some(directives) => (EnvFilter::DEFAULT_ENV, directives.as_str()),
        None => ("[log] level", level),
    };
    let filter = filter(directives).map_err(|error| TelemetryError::Filter { source_name, error })?;
    // NO_COLOR: see https://no-color.org
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = subscriber(format, filter, colour, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)
}

/// The directives with the quiet ones before them: of two for one crate the later counts, so what is written wins.
fn filter(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let mut parts = directives.split(',').map(str::trim);
    let chatty = parts.any(|part| matches!(part.to_ascii_lowercase().as_str(), "info" | "debug" | "trace"));
    let quiet = QUIET.iter().filter(|_| chatty).map(|(name, level)| format!("{name}={level}"));
    let all: Vec<String> = quiet.chain([directives.to_owned()]).collect();
    EnvFilter::builder().parse(all.join(","))
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let common = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    match format {
        LogFormat::Text => Box::new(common.finish()),
        LogFormat::Json => Box::new(common.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, directives: &str) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(format, filter(directives).unwrap(), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("connection", peer = "192.0.2.1");
            let _in = span.enter();
            tracing::info!(socket = "web-1", "opened");
            tracing::debug!("detail");
            tracing::info!(target: "russh::server", "chatter");
            tracing::warn!(target: "russh::server", "trouble");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_one_line_an_event_without_colour() {
        let text = logged(LogFormat::Text, "info");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("opened socket=\"web-1\"") && text.contains("connection{peer=\"192.0.2.1\"}"), "{text}");
        assert!(text.contains("trouble") && !text.contains("chatter") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, "info");
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["socket"], "web-1");
        assert_eq!(lines[0]["span"]["peer"], "192.0.2.1");
        assert_eq!(lines[1]["level"], "WARN");
    }

    #[test]
    fn what_is_written_wins_over_quiet() {
        for (directives, lines) in
            [("debug", 3), ("info,russh=info", 3), ("russh=info,error", 2), ("error", 0), ("off", 0)]
        {
            let text = logged(LogFormat::Text, directives);
            assert_eq!(text.lines().count(), lines, "{directives}: {text}");
        }
        assert!(filter("a=b=c").is_err());
    }
}
