//! asciicast v3 (`.cast`): as v2, but times are intervals, the terminal is an object, and the exit status an event (`x`).
//!
//! Intervals are whole microseconds, as observations are, so that there is no rounding error to carry from one to the next.

use std::io::{self, Write};

use serde_json::json;

use super::ExportError;
use super::cast::{self, CastOptions, Encoding, Preamble, label, line};
use crate::record::observation::Observation;

/// Writes a version 3 cast of `observations` to `out`, piece by piece.
pub fn write_cast3<E>(
    observations: impl IntoIterator<Item = Result<Observation, E>>,
    options: &CastOptions,
    out: impl Write,
) -> Result<(), ExportError<E>> {
    cast::write(observations, options, V3 { out, micros: 0 })
}

struct V3<W> {
    out: W,
    /// The time of the last event that was written.
    micros: u64,
}

impl<W: Write> Encoding for V3<W> {
    fn header(&mut self, options: &CastOptions, preamble: &Preamble) -> io::Result<()> {
        let (term, cols, rows) = preamble.terminal();
        let mut header = json!({
            "version": 3,
            "term": { "cols": cols, "rows": rows, "type": label(term) },
            "timestamp": options.started.as_second(),
        });
        let optional = [("command", preamble.command()), ("title", options.title.as_deref())];
        for (key, value) in optional {
            if let Some(value) = value {
                header[key] = label(value).into();
            }
        }
        line(&mut self.out, &header)
    }

    fn event(&mut self, micros: u64, code: &str, data: &str) -> io::Result<()> {
        let interval = micros.saturating_sub(self.micros);
        self.micros = micros;
        line(&mut self.out, &(interval as f64 / 1e6, code, data))
    }

    fn exit(&mut self, micros: u64, status: u32) -> io::Result<()> {
        self.event(micros, "x", &status.to_string())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::record::observation::What;
    use crate::record::testing::{any_what, output};

    fn cast3(whats: Vec<(u64, What)>, options: &CastOptions) -> String {
        let observations = whats
            .into_iter()
            .map(|(at, what)| Ok::<_, Infallible>(Observation { at: Duration::from_micros(at), what }));
        let mut out = Vec::new();
        write_cast3(observations, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_session_as_players_read_it() {
        let started = "2026-11-22T10:00:00.75Z".parse().unwrap();
        let options = CastOptions { started, title: Some("web-1".to_owned()), input: true, opaque: false };
        let story = vec![
            (0, What::Pty { term: "screen".to_owned(), cols: 120, rows: 40 }),
            (0, What::Shell),
            (250_001, output("a\r\n")),
            (250_001, output("b")),
            (1_000_000, What::Resize { cols: 100, rows: 30 }),
            (900_000, What::Told { text: "bye".to_owned() }),
            (2_000_000, What::ExitStatus { status: 3 }),
        ];
        assert_eq!(
            cast3(story, &options),
            concat!(
                r#"{"term":{"cols":120,"rows":40,"type":"screen"},"timestamp":1795341600,"title":"web-1","version":3}"#,
                "\n[0.0,\"r\",\"120x40\"]\n[0.250001,\"o\",\"a\\r\\n\"]\n[0.0,\"o\",\"b\"]\n[0.749999,\"r\",\"100x30\"]\n",
                "[0.0,\"m\",\"gateway: bye\"]\n[0.0,\"o\",\"bye\"]\n[1.0,\"x\",\"3\"]\n",
            )
        );
    }

    proptest! {
        #[test]
        fn every_line_is_an_event_and_intervals_add_up(
            whats in prop::collection::vec((0u64..5_000_000, any_what()), 0..30)
        ) {
            let options = CastOptions { started: Timestamp::UNIX_EPOCH, title: None, input: true, opaque: false };
            let last = whats.iter().map(|(at, _)| *at).max().unwrap_or(0);
            let text = cast3(whats, &options);
            let mut lines = text.lines();
            let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
            prop_assert_eq!(&header["version"], 3);
            prop_assert!(header["term"]["cols"].as_u64().unwrap() > 0);
            let mut micros = 0;
            for line in lines {
                let event: Value = serde_json::from_str(line).unwrap();
                micros += (event[0].as_f64().unwrap() * 1e6).round() as u64;
                prop_assert!(["o", "i", "r", "m", "x"].contains(&event[1].as_str().unwrap()));
                prop_assert!(!event[2].as_str().unwrap().is_empty() || event[1] == "x");
            }
            prop_assert!(micros <= last);
        }
    }
}
