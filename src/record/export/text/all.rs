//! `view=all`: every byte and every fact, one line for each record and for each line in it. Newlines are written out, so a
//! line begins nowhere else.

use std::time::Duration;

use super::page::Page;
use super::words;
use crate::record::export::escape::push_piece;
use crate::record::export::fact;
use crate::record::export::utf8::{Piece, Utf8Stream};
use crate::record::observation::{Direction, What};

/// Writes observations as they come. A character cut in two by records is shown where it is whole.
pub struct All {
    input: bool,
    typed: Utf8Stream,
    /// Main output, stderr, and all other streams.
    shown: [Utf8Stream; 3],
}

impl All {
    pub fn new(input: bool) -> Self {
        Self { input, typed: Utf8Stream::default(), shown: Default::default() }
    }

    pub fn observe(&mut self, at: Duration, what: &What, page: &mut Page) {
        let text = |kind: &str, text: &str| words(kind, text.as_bytes());
        let line = match what {
            What::Bytes { direction: Direction::Input, .. } if !self.input => return,
            What::Bytes { direction, stream, data } => return self.bytes(at, *direction, *stream, data, page),
            What::Pty { term, cols, rows } => text(&format!("terminal {cols}x{rows} "), term),
            What::Env { name, value } => text("env ", &format!("{name}={value}")),
            What::Shell => "shell".to_owned(),
            What::Exec { command } => words("command: ", command),
            What::Subsystem { name } => text("subsystem: ", name),
            What::Resize { cols, rows } => format!("resize {cols}x{rows}"),
            What::Signal { name } => text("signal: ", name),
            What::Eof { direction: Direction::Input } => "end of input".to_owned(),
            What::Eof { direction: Direction::Output } => "end of output".to_owned(),
            What::ExitStatus { status } => format!("exit status {status}"),
            What::ExitSignal { name, message } => text("ended by signal ", &format!("{name} {message}")),
            What::Told { text: told } => text("told: ", told),
            What::Gap { reason, bytes: 0 } => text("gap: ", reason),
            What::Gap { reason, bytes } => text(&format!("gap of {bytes} bytes: "), reason),
            What::ClockStep { wall_us } => match jiff::Timestamp::from_microsecond(*wall_us) {
                Ok(wall) => format!("the wall clock was set to {wall}"),
                Err(_) => "the wall clock was set to a time beyond the calendar".to_owned(),
            },
            What::Withheld { direction: Direction::Input, bytes } => format!("in: {bytes} bytes that are not kept"),
            What::Withheld { direction: Direction::Output, bytes } => format!("out: {bytes} bytes that are not kept"),
            What::Fact { body } => text("", &fact::line(body)),
            What::Request { body } => words("request: ", body),
            What::Response { body } => words("response: ", body),
        };
        page.timed(at, &line);
    }

    pub fn finish(&mut self, at: Duration, page: &mut Page) {
        let [main, stderr, others] = &mut self.shown;
        for (kind, stream) in
            [("in: ", &mut self.typed), ("out: ", main), ("err: ", stderr), ("other streams: ", others)]
        {
            stream.finish_with(|piece| {
                let mut line = kind.to_owned();
                push_piece(&mut line, piece);
                page.timed(at, &line);
            });
        }
    }

    fn bytes(&mut self, at: Duration, direction: Direction, number: u32, data: &[u8], page: &mut Page) {
        let [main, stderr, others] = &mut self.shown;
        let named;
        let (kind, stream) = match (direction, number) {
            (Direction::Input, _) => ("in: ", &mut self.typed),
            (Direction::Output, 0) => ("out: ", main),
            (Direction::Output, 1) => ("err: ", stderr),
            (Direction::Output, number) => {
                named = format!("out {number}: ");
                (named.as_str(), others)
            }
        };
        let mut line = kind.to_owned();
        let mut tell = |line: &mut String| {
            page.timed(at, line);
            line.truncate(kind.len());
        };
        stream.push_with(data, |piece| {
            let Piece::Text(text) = piece else { return push_piece(&mut line, piece) };
            for part in text.split_inclusive('\n') {
                push_piece(&mut line, Piece::Text(part));
                if part.ends_with('\n') {
                    tell(&mut line);
                }
            }
        });
        if line.len() > kind.len() {
            tell(&mut line);
        }
    }
}
