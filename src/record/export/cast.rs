//! asciicast v2 (`.cast`): a header line, then `[time, code, data]` lines, times absolute and never decreasing.
//!
//! The `asciicast` crate makes the header and the `o` and `i` lines; it knows no `r` and `m`, which are made here, nor
//! version 3, which is in `cast3.rs` and differs in the `Encoding` only. What
//! a terminal showed is output, stderr and the gateway's own words included, in the order in which it came. Typed input is
//! left out unless asked for: it holds passwords.

use std::io::{self, Write};

use asciicast::{Entry, EventType, Header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use serde_json::ser::{Formatter, Serializer};

use super::ExportError;
use super::escape::is_unsafe;
use super::fact;
use super::utf8::Utf8Stream;
use crate::record::observation::{Direction, Observation, What};

/// Facts that may come before the terminal's size is known; the header waits for no more.
const MAX_PREAMBLE: usize = 64;
/// The longest title, command or marker, in bytes.
const MAX_LABEL: usize = 4096;
const DEFAULT_SIZE: (u32, u32) = (80, 24);
/// The largest size that players are told. They allocate what they are told.
const MAX_SIZE: (u32, u32) = (2000, 1000);
const OPAQUE: &str = "this recording holds bytes that nobody saw as text; format=text&view=all shows them\r\n";

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct CastOptions {
    /// When the recording began.
    pub started: Timestamp,
    /// A title for players.
    pub title: Option<String>,
    /// Whether typed input is exported.
    pub input: bool,
    /// Whether the recording holds bytes that nobody saw as text; the cast says so and shows none of them.
    pub opaque: bool,
}

/// Writes a version 2 cast of `observations` to `out`, piece by piece.
pub fn write_cast<E>(
    observations: impl IntoIterator<Item = Result<Observation, E>>,
    options: &CastOptions,
    out: impl Write,
) -> Result<(), ExportError<E>> {
    write(observations, options, V2 { out })
}

/// Writes a cast of either version.
pub(super) fn write<E>(
    observations: impl IntoIterator<Item = Result<Observation, E>>,
    options: &CastOptions,
    encoding: impl Encoding,
) -> Result<(), ExportError<E>> {
    let mut observations = observations.into_iter();
    let mut preamble = Preamble::default();
    while preamble.waits() {
        let Some(observation) = observations.next() else { break };
        preamble.see(observation.map_err(ExportError::Read)?);
    }
    let mut cast = Cast::begin(encoding, options, &preamble)?;
    for observation in preamble.seen.into_iter().map(Ok).chain(observations) {
        cast.observe(observation.map_err(ExportError::Read)?)?;
    }
    cast.finish()?;
    Ok(())
}

/// What the versions differ in.
pub(super) trait Encoding {
    /// Writes the first line.
    fn header(&mut self, options: &CastOptions, preamble: &Preamble) -> io::Result<()>;
    /// Writes an event that happened `micros` after the start; never earlier than the one before.
    fn event(&mut self, micros: u64, code: &str, data: &str) -> io::Result<()>;
    /// Writes that the program ended.
    fn exit(&mut self, micros: u64, status: u32) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

struct V2<W> {
    out: W,
}

impl<W: Write> Encoding for V2<W> {
    fn header(&mut self, options: &CastOptions, preamble: &Preamble) -> io::Result<()> {
        let (term, width, height) = preamble.terminal();
        // By way of JSON, because the crate's timestamp type is another crate's.
        let header: Header = serde_json::from_value(json!({
            "version": 2,
            "width": width,
            "height": height,
            "timestamp": options.started.as_second(),
            "command": preamble.command(),
            "title": options.title.as_deref().map(label),
            "env": { "TERM": label(term) },
        }))?;
        line(&mut self.out, &header)
    }

    fn event(&mut self, micros: u64, code: &str, data: &str) -> io::Result<()> {
        // Seconds since the start, with six decimals.
        let time = micros as f64 / 1e6;
        let event_type = match code {
            "o" => EventType::Output,
            "i" => EventType::Input,
            code => return line(&mut self.out, &(time, code, data)),
        };
        line(&mut self.out, &Entry { time, event_type, event_data: data.to_owned() })
    }

    fn exit(&mut self, micros: u64, status: u32) -> io::Result<()> {
        self.event(micros, "m", &format!("exit: {status}"))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What comes before the first thing to show, and decides what the header says.
#[derive(Default)]
pub(super) struct Preamble {
    seen: Vec<Observation>,
    terminal: Option<(String, u32, u32)>,
    command: Option<String>,
    started: bool,
}

impl Preamble {
    fn waits(&self) -> bool {
        !self.started && self.seen.len() < MAX_PREAMBLE
    }

    fn see(&mut self, observation: Observation) {
        match &observation.what {
            What::Pty { term, cols, rows } => self.terminal = Some((term.clone(), *cols, *rows)),
            What::Exec { command } => {
                self.command = Some(label(&String::from_utf8_lossy(command)));
                self.started = true;
            }
            What::Env { .. } | What::ClockStep { .. } => {}
            What::Resize { .. } if self.terminal.is_none() => {}
            _ => self.started = true,
        }
        self.seen.push(observation);
    }

    /// Type, columns and rows of the terminal.
    pub(super) fn terminal(&self) -> (&str, u32, u32) {
        let (term, cols, rows) = match &self.terminal {
            Some((term, cols, rows)) => (term.as_str(), *cols, *rows),
            None => ("xterm-256color", DEFAULT_SIZE.0, DEFAULT_SIZE.1),
        };
        // A client may say 0x0, which players cannot show, or billions, for which they would take all memory.
        let size = |given: u32, default: u32, max: u32| if given == 0 { default } else { given.min(max) };
        (term, size(cols, DEFAULT_SIZE.0, MAX_SIZE.0), size(rows, DEFAULT_SIZE.1, MAX_SIZE.1))
    }

    /// The command that was started, if one was.
    pub(super) fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }
}

struct Cast<E> {
    encoding: E,
    input: bool,
    opaque: bool,
    terminal: bool,
    /// Whether the last character of output was a carriage return.
    after_cr: bool,
    micros: u64,
    typed: Utf8Stream,
    /// Main output, stderr, and all other streams.
    shown: [Utf8Stream; 3],
    text: String,
}

impl<E: Encoding> Cast<E> {
    fn begin(mut encoding: E, options: &CastOptions, preamble: &Preamble) -> io::Result<Self> {
        encoding.header(options, preamble)?;
        if options.opaque {
            encoding.event(0, "o", OPAQUE)?;
        }
        Ok(Self {
            encoding,
            input: options.input,
            opaque: options.opaque,
            terminal: preamble.terminal.is_some(),
            after_cr: false,
            micros: 0,
            typed: Utf8Stream::default(),
            shown: Default::default(),
            text: String::new(),
        })
    }

    fn observe(&mut self, observation: Observation) -> io::Result<()> {
        let at = u64::try_from(observation.at.as_micros()).unwrap_or(u64::MAX);
        self.micros = self.micros.max(at);
        match observation.what {
            What::Bytes { .. } if self.opaque => Ok(()),
            What::Bytes { direction: Direction::Output, stream, data } => {
                let mut text = std::mem::take(&mut self.text);
                let [main, stderr, others] = &mut self.shown;
                match stream {
                    0 => main.push(&data, &mut text),
                    1 => stderr.push(&data, &mut text),
                    _ => others.push(&data, &mut text),
                }
                self.show(text)
            }
            What::Bytes { direction: Direction::Input, data, .. } if self.input => {
                let mut text = String::new();
                self.typed.push(&data, &mut text);
                self.entry("i", &text)
            }
            What::Bytes { .. } => Ok(()),
            // The header has the first one; a change is shown either way.
            // Zero means "not known" (RFC 4254 section 6.2), and players take it at its word.
            What::Pty { cols: 0, .. } | What::Pty { rows: 0, .. } => Ok(()),
            What::Resize { cols: 0, .. } | What::Resize { rows: 0, .. } => Ok(()),
            What::Pty { cols, rows, .. } | What::Resize { cols, rows } => {
                self.own("r", &format!("{}x{}", cols.min(MAX_SIZE.0), rows.min(MAX_SIZE.1)))
            }
            What::Told { text } => {
                self.own("m", &format!("gateway: {}", label(&text)))?;
                self.show(text)
            }
            What::Exec { command } => self.own("m", &format!("exec: {}", label(&String::from_utf8_lossy(&command)))),
            What::Subsystem { name } => self.own("m", &format!("subsystem: {}", label(&name))),
            What::Signal { name } => self.own("m", &format!("signal: {}", label(&name))),
            What::ExitStatus { status } => self.encoding.exit(self.micros, status),
            What::ExitSignal { name, message } => {
                self.own("m", &format!("ended by signal {}: {}", label(&name), label(&message)))
            }
            What::Gap { reason, bytes: 0 } => self.own("m", &format!("gap: {}", label(&reason))),
            What::Gap { reason, bytes } => self.own("m", &format!("gap of {bytes} bytes: {}", label(&reason))),
            What::Fact { body } => {
                let line = fact::line(&body);
                self.entry("m", &label(&line))?;
                // Where nothing else is shown, it is what happened.
                if self.opaque { self.show(format!("{}\n", label(&line))) } else { Ok(()) }
            }
            What::Env { .. }
            | What::Shell
            | What::Withheld { .. }
            | What::Eof { .. }
            | What::ClockStep { .. }
            | What::Request { .. }
            | What::Response { .. } => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        let mut text = String::new();
        self.shown.iter_mut().for_each(|stream| stream.finish(&mut text));
        self.show(text)?;
        if self.input {
            let mut text = String::new();
            self.typed.finish(&mut text);
            self.entry("i", &text)?;
        }
        self.encoding.flush()
    }

    /// Writes output. Where no terminal made carriage returns, players need them to begin at the line's left end.
    fn show(&mut self, mut text: String) -> io::Result<()> {
        if self.terminal {
            self.entry("o", &text)?;
            text.clear();
            self.text = text;
            return Ok(());
        }
        let mut shown = String::with_capacity(text.len() + text.len() / 16);
        for c in text.chars() {
            if c == '\n' && !self.after_cr {
                shown.push('\r');
            }
            shown.push(c);
            self.after_cr = c == '\r';
        }
        self.entry("o", &shown)
    }

    /// Writes a line, unless it is empty.
    fn entry(&mut self, code: &str, data: &str) -> io::Result<()> {
        if data.is_empty() { Ok(()) } else { self.own(code, data) }
    }

    fn own(&mut self, code: &str, data: &str) -> io::Result<()> {
        self.encoding.event(self.micros, code, data)
    }
}

pub(super) fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *out, Printable))?;
    out.write_all(b"\n")
}

/// JSON as it is always written, but what a terminal acts on beyond ASCII's control characters is escaped, too: somebody
/// will print a cast. Readers see no difference.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            let (before, from) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}

pub(super) fn label(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_LABEL)).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::record::testing::any_what;

    fn cast(whats: Vec<What>, input: bool) -> String {
        let started = "2026-11-22T10:00:00.75Z".parse().unwrap();
        let options = CastOptions { started, title: Some("web-1".to_owned()), input, opaque: false };
        let observations = whats
            .into_iter()
            .enumerate()
            .map(|(n, what)| Ok::<_, Infallible>(Observation { at: Duration::from_millis(250 * n as u64), what }));
        let mut out = Vec::new();
        write_cast(observations, &options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn bytes(direction: Direction, stream: u32, data: &'static [u8]) -> What {
        What::Bytes { direction, stream, data: Bytes::from_static(data) }
    }

    fn pty() -> What {
        What::Pty { term: "screen".to_owned(), cols: 120, rows: 40 }
    }

    #[test]
    fn a_terminal_session_as_players_read_it() {
        use Direction::{Input, Output};
        let whats = vec![
            What::Env { name: "LANG".to_owned(), value: "C.UTF-8".to_owned() },
            pty(),
            What::Shell,
            bytes(Output, 0, b"caf\xc3"),
            bytes(Input, 0, b"secret\r"),
            bytes(Output, 0, b"\xa9\n\xff\x1b[1m"),
            What::Resize { cols: 100, rows: 30 },
            What::Signal { name: "INT".to_owned() },
            What::Told { text: "ended by an operator\r\n".to_owned() },
            What::Gap { reason: "the disk was full".to_owned(), bytes: 7 },
            bytes(Output, 0, b"\xe2\x82"),
            What::ExitStatus { status: 3 },
        ];
        let hidden = cast(whats.clone(), false);
        assert_eq!(
            hidden,
            concat!(
                r#"{"version":2,"width":120,"height":40,"timestamp":1795341600,"title":"web-1","env":{"TERM":"screen"}}"#,
                "\n",
                r#"[0.25,"r","120x40"]"#,
                "\n",
                r#"[0.75,"o","caf"]"#,
                "\n",
                r#"[1.25,"o","é\n�\u001b[1m"]"#,
                "\n",
                r#"[1.5,"r","100x30"]"#,
                "\n",
                r#"[1.75,"m","signal: INT"]"#,
                "\n",
                r#"[2.0,"m","gateway: ended by an operator\r\n"]"#,
                "\n",
                r#"[2.0,"o","ended by an operator\r\n"]"#,
                "\n",
                r#"[2.25,"m","gap of 7 bytes: the disk was full"]"#,
                "\n",
                r#"[2.75,"m","exit: 3"]"#,
                "\n",
                r#"[2.75,"o","�"]"#,
                "\n",
            )
        );
        let typed = cast(whats, true);
        assert!(typed.contains(r#"[1.0,"i","secret\r"]"#));
        assert_eq!(typed.lines().count(), hidden.lines().count() + 1);
    }

    #[test]
    fn without_a_terminal_lines_begin_at_the_left_and_stderr_is_merged_in_order() {
        let whats = vec![
            What::Exec { command: Bytes::from_static(b"make all") },
            bytes(Direction::Output, 0, b"one\ntwo\r"),
            bytes(Direction::Output, 1, b"\nthree\n"),
            What::ExitSignal { name: "KILL".to_owned(), message: "gone".to_owned() },
        ];
        assert_eq!(
            cast(whats, false),
            concat!(
                r#"{"version":2,"width":80,"height":24,"timestamp":1795341600,"command":"make all","title":"web-1","#,
                r#""env":{"TERM":"xterm-256color"}}"#,
                "\n",
                r#"[0.0,"m","exec: make all"]"#,
                "\n",
                r#"[0.25,"o","one\r\ntwo\r"]"#,
                "\n",
                r#"[0.5,"o","\nthree\r\n"]"#,
                "\n",
                r#"[0.75,"m","ended by signal KILL: gone"]"#,
                "\n",
            )
        );
    }

    #[test]
    fn characters_split_over_both_streams_do_not_mix() {
        let whats = vec![
            pty(),
            bytes(Direction::Output, 0, b"\xf0\x9f"),
            bytes(Direction::Output, 1, b"\xc3"),
            bytes(Direction::Output, 0, b"\x98\x80"),
            bytes(Direction::Output, 1, b"\xa9"),
        ];
        let cast = cast(whats, false);
        assert!(cast.ends_with("[0.75,\"o\",\"😀\"]\n[1.0,\"o\",\"é\"]\n"), "{cast}");
    }

    #[test]
    fn a_reader_that_fails_and_a_writer_that_fails_are_told_apart() {
        let options = CastOptions { started: Timestamp::UNIX_EPOCH, title: None, input: false, opaque: false };
        let failing = [Err::<Observation, _>("gone")];
        assert!(matches!(write_cast(failing, &options, Vec::new()), Err(ExportError::Read("gone"))));
        let nothing: [Result<Observation, Infallible>; 0] = [];
        let mut full: [u8; 5] = [0; 5];
        assert!(matches!(write_cast(nothing, &options, &mut full[..]), Err(ExportError::Write(_))));
    }

    proptest! {
        #[test]
        fn every_line_is_an_event_and_time_never_runs_back(
            whats in prop::collection::vec((any_what(), 0u64..5_000_000), 0..30)
        ) {
            let options = CastOptions { started: Timestamp::UNIX_EPOCH, title: None, input: true, opaque: false };
            let observations = whats.into_iter().map(|(what, at)| {
                Ok::<_, Infallible>(Observation { at: Duration::from_micros(at), what })
            });
            let mut out = Vec::new();
            write_cast(observations, &options, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let mut lines = text.lines();
            prop_assert!(serde_json::from_str::<Header>(lines.next().unwrap()).unwrap().timestamp.is_some());
            let mut last = 0.0;
            for line in lines {
                let event: Value = serde_json::from_str(line).unwrap();
                let time = event[0].as_f64().unwrap();
                prop_assert!(time >= last);
                prop_assert!(["o", "i", "r", "m"].contains(&event[1].as_str().unwrap()));
                last = time;
            }
        }
    }
}
