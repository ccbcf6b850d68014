//! The gateway's own log: one line per event for standard error, as text or JSON, and its level, which an administrator
//! may change for a while. Knows nothing of what is logged; `lines` is where it waits to be written.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::TelemetryError;
use super::lines::{LastLines, Lines};
use crate::config::{Log, LogFormat};

/// Another layer beside the log's.
pub(super) type Beside = Box<dyn Layer<Registry> + Send + Sync>;

/// Replaces the filter.
type Set = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

/// The longest that a changed level may last.
pub const LONGEST_CHANGE: Duration = Duration::from_secs(24 * 3600);

/// The longest filter that may be set at run time, in bytes.
const LONGEST_FILTER: usize = 500;

/// Crates whose chatter is not ours, and the most they may say where everything may say more, unless a filter names them.
const QUIET: &[(&str, &str)] = &[
    ("russh", "warn"),
    ("hyper", "warn"),
    ("hyper_util", "warn"),
    ("reqwest", "warn"),
    ("rustls", "warn"),
    ("h2", "warn"),
    ("opentelemetry", "error"),
    ("opentelemetry_sdk", "error"),
    ("opentelemetry_otlp", "error"),
    ("opentelemetry_http", "error"),
];

/// What is logged now. Cheap to clone.
#[derive(Clone)]
pub struct LogLevel(Arc<Shared>);

struct Shared {
    set: Set,
    configured: String,
    now: Mutex<Now>,
}

/// A level, and until when it holds where that is not for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// The filter in force.
    pub level: String,
    /// When the configured one comes back.
    pub until: Option<Timestamp>,
    change: u64,
}

/// Why the level was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// It is none, or names other programs' parts: those may log secrets of theirs.
    #[error("write error, warn, info, debug or trace, or a list such as `info,gatescribe::policy=debug`")]
    Level,
    /// It should hold for too long.
    #[error("a level may be changed for one second to one day")]
    Duration,
    /// The log has gone.
    #[error("the log cannot be changed")]
    Gone,
}

/// Starts the log of this process. `RUST_LOG`, where set, counts instead of the configured level.
pub(super) fn start(
    log: &Log,
    beside: Option<Beside>,
    dropped: Counter,
) -> Result<(LogLevel, LastLines), TelemetryError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    let (source_name, directives) = match &environment {
        Some(directives) => (EnvFilter::DEFAULT_ENV, directives.as_str()),
        None => ("[log] level", log.level.as_str()),
    };
    let filter = filter(directives).map_err(|error| TelemetryError::Filter { source_name, error })?;
    // NO_COLOR: see https://no-color.org
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // Not through `io::stderr`, whose lock the thread would hold for as long as nobody reads.
    let to = io::stderr().as_fd().try_clone_to_owned().map_err(TelemetryError::Thread)?;
    let tell =
        |_: &Lines, lines| tracing::warn!(target: TROUBLE, lines, "lines of this log were dropped: nobody took them");
    let (lines, last) = Lines::start(to, dropped, tell).map_err(TelemetryError::Thread)?;
    let (subscriber, set) = subscriber(log.format, filter, colour, move || lines.clone(), beside);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)?;
    let _ = LINES.set(last.lines());
    std::panic::set_hook(Box::new(panicked));
    Ok((LogLevel::new(directives, set), last))
}

/// The target of what no level hides: panics, and that lines were dropped. And what sees to that.
const TROUBLE: &str = "gatescribe::telemetry::trouble";
const ALWAYS: &str = "gatescribe::telemetry::trouble=warn";

/// How long a panic waits for its words to be written.
const PANIC: Duration = Duration::from_millis(100);

/// The queue, for panics.
static LINES: OnceLock<Lines> = OnceLock::new();

/// A panic's words go where all others go: on standard error itself they could wait for good.
fn panicked(info: &PanicHookInfo<'_>) {
    let words = info.payload_as_str().unwrap_or("without words");
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| tracing::field::debug(trace));
    let at = info.location().map(tracing::field::display);
    let thread = std::thread::current();
    tracing::error!(target: TROUBLE, thread = thread.name(), at, trace, "panicked: {words:?}");
    // Some panics end the process as soon as this returns.
    if let Some(lines) = LINES.get() {
        lines.wait(PANIC);
    }
}

impl LogLevel {
    fn new(configured: &str, set: Set) -> Self {
        let now = Mutex::new(Now { level: configured.to_owned(), until: None, change: 0 });
        Self(Arc::new(Shared { set, configured: configured.to_owned(), now }))
    }

    /// A log that is not there, for parts that run alone.
    pub fn none() -> Self {
        Self::new("info", Box::new(|_| Ok(())))
    }

    /// What is in force.
    pub fn now(&self) -> Now {
        self.lock().clone()
    }

    /// The level of the configuration, which comes back.
    pub fn configured(&self) -> &str {
        &self.0.configured
    }

    /// Logs at this level for a while; then the configured one comes back by itself. A later change counts instead.
    /// Must run inside a tokio runtime.
    pub fn change(&self, level: &str, lasting: Duration) -> Result<Now, LevelError> {
        if lasting < Duration::from_secs(1) || lasting > LONGEST_CHANGE {
            return Err(LevelError::Duration);
        }
        let level = level.split(',').map(str::trim).collect::<Vec<_>>().join(",");
        let filter = Some(&level).filter(|level| is_ours(level)).and_then(|level| filter(level).ok());
        let filter = filter.ok_or(LevelError::Level)?;
        let until = Timestamp::now().checked_add(lasting).map_err(|_| LevelError::Duration)?;
        let mut now = self.lock();
        (self.0.set)(filter).map_err(|_| LevelError::Gone)?;
        *now = Now { level, until: Some(until), change: now.change + 1 };
        let (log, change) = (self.clone(), now.change);
        tokio::spawn(async move {
            tokio::time::sleep(lasting).await;
            log.go_back(change);
        });
        Ok(now.clone())
    }

    /// Takes a change back, unless there was another one.
    fn go_back(&self, change: u64) {
        let mut now = self.lock();
        if now.change == change
            && let Ok(filter) = filter(&self.0.configured)
            && (self.0.set)(filter).is_ok()
        {
            *now = Now { level: self.0.configured.clone(), until: None, change };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.now()).finish()
    }
}

/// Whether a filter names levels and the gateway's own parts alone.
fn is_ours(directives: &str) -> bool {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word);
    let is_part = |name: &str| {
        let mut parts = name.split("::");
        parts.next() == Some("gatescribe")
            && parts.all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
            })
    };
    directives.len() <= LONGEST_FILTER
        && directives.split(',').map(str::trim).all(|directive| match directive.split_once('=') {
            Some((name, level)) => is_part(name) && is_level(level),
            None => is_level(directive),
        })
}

/// The directives with the quiet ones before them: of two for one crate the later counts, so what is written wins.
fn filter(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let mut parts = directives.split(',').map(str::trim);
    let chatty = parts.any(|part| matches!(part.to_ascii_lowercase().as_str(), "info" | "debug" | "trace"));
    let quiet = QUIET.iter().filter(|_| chatty).map(|(name, level)| format!("{name}={level}"));
    let all: Vec<String> = quiet.chain([directives.to_owned(), ALWAYS.to_owned()]).collect();
    EnvFilter::builder().parse(all.join(","))
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
    beside: Option<Beside>,
) -> (Box<dyn tracing::Subscriber + Send + Sync>, Set)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The filter is the log's own: what is traced does not depend on what is logged.
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    let registry = tracing_subscriber::registry().with(beside);
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match format {
        LogFormat::Text => Box::new(registry.with(lines.with_filter(filter))),
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true).with_filter(filter))),
    };
    (subscriber, Box::new(move |filter| handle.reload(filter)))
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
        let filter = filter(directives).unwrap();
        let (subscriber, _) = subscriber(format, filter, false, move || writer.clone(), None);
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
    fn json_has_the_fields_of_every_span_around_it() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (subscriber, _) = subscriber(LogFormat::Json, filter("info").unwrap(), false, move || writer.clone(), None);
        tracing::subscriber::with_default(subscriber, || {
            let _connection = tracing::info_span!("connection", client = "192.0.2.1:5").entered();
            let _channel = tracing::info_span!("channel", id = 3).entered();
            tracing::info!(reason = "two\nlines \u{1b}[31m", "refused");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"refused".into()));
        assert_eq!(line["reason"], "two\nlines \u{1b}[31m");
        assert_eq!(
            line["spans"],
            serde_json::json!([
                {"name": "connection", "client": "192.0.2.1:5"}, {"name": "channel", "id": 3}
            ])
        );
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_level_goes_back_by_itself() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (subscriber, set) =
            subscriber(LogFormat::Text, filter("info").unwrap(), false, move || writer.clone(), None);
        let _default = tracing::subscriber::set_default(subscriber);
        let log = LogLevel::new("info", set);
        let logs_debug = || {
            buffer.0.lock().unwrap().clear();
            tracing::debug!("detail");
            !buffer.0.lock().unwrap().is_empty()
        };
        assert!(!logs_debug());
        assert!(log.change("debug", Duration::from_secs(60)).unwrap().until.is_some());
        assert!(logs_debug());
        tokio::time::sleep(Duration::from_secs(50)).await;
        log.change("warn,gatescribe::telemetry=debug", Duration::from_secs(60)).unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(logs_debug(), "the first change's end is not the second one's");
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(!logs_debug());
        assert_eq!((log.now().level.as_str(), log.now().until), ("info", None));
    }

    #[tokio::test]
    async fn only_levels_and_own_parts_can_be_set() {
        let log = LogLevel::none();
        let minute = Duration::from_secs(60);
        let long = "info,".repeat(200) + "info";
        for bad in [
            "",
            "off",
            "loud",
            "hyper=trace",
            "russh=debug",
            "info,h2=trace",
            "gatescribes=debug",
            "gatescribe=off",
            "gatescribe::=info",
            "[connection]=debug",
            "gatescribe[x]=debug",
            "INFO;",
            long.as_str(),
        ] {
            assert!(matches!(log.change(bad, minute), Err(LevelError::Level)), "{bad}");
        }
        for bad in [Duration::ZERO, Duration::from_millis(999), LONGEST_CHANGE + minute] {
            assert!(matches!(log.change("debug", bad), Err(LevelError::Duration)));
        }
        assert_eq!(log.now().level, "info");
        log.change("info, gatescribe::proto::ssh=trace", minute).unwrap();
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
