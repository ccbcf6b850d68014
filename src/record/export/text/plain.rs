//! `view=screen` where no terminal was: the lines as they were, both streams in the order in which they came.
//!
//! What is no text is not made to look like it: it is counted.

use std::time::Duration;

use super::page::Page;
use crate::record::export::escape::push_byte;
use crate::record::export::utf8::{Piece, Utf8Stream};
use crate::record::observation::{Direction, What};

/// Writes output as lines.
#[derive(Default)]
pub struct Plain {
    /// Main output, stderr, and all other streams.
    streams: [Utf8Stream; 3],
    begun: bool,
    /// A carriage return that may belong to a newline.
    after_cr: bool,
    /// Bytes that were no text, since it was last said.
    binary: u64,
}

impl Plain {
    /// Whether nothing was shown.
    pub fn is_empty(&self) -> bool {
        !self.begun
    }

    pub fn observe(&mut self, at: Duration, what: &What, page: &mut Page) {
        match what {
            What::Bytes { direction: Direction::Output, data, .. } if is_binary(data) => {
                self.begun = true;
                self.binary += data.len() as u64;
            }
            What::Bytes { direction: Direction::Output, stream, data } => {
                self.begun = true;
                self.say_binary(at, page);
                let Self { streams: [main, stderr, others], after_cr, .. } = self;
                let stream = match stream {
                    0 => main,
                    1 => stderr,
                    _ => others,
                };
                stream.push_with(data, |piece| show(piece, after_cr, page));
            }
            What::Told { text } => {
                self.begun = true;
                show(Piece::Text(text), &mut self.after_cr, page);
            }
            _ => {}
        }
    }

    pub fn finish(&mut self, at: Duration, page: &mut Page) {
        let Self { streams, after_cr, .. } = self;
        streams.iter_mut().for_each(|stream| stream.finish_with(|piece| show(piece, after_cr, page)));
        page.end_line();
        self.say_binary(at, page);
    }

    fn say_binary(&mut self, at: Duration, page: &mut Page) {
        if self.binary > 0 {
            let bytes = std::mem::take(&mut self.binary);
            page.own(at, &format!("{bytes} bytes that are no text; view=all shows them"));
        }
    }
}

fn show(piece: Piece<'_>, after_cr: &mut bool, page: &mut Page) {
    match piece {
        Piece::Text(text) => {
            for c in text.chars() {
                if std::mem::take(after_cr) && c != '\n' {
                    page.recorded("\\r".chars());
                }
                match c {
                    '\r' => *after_cr = true,
                    c => page.recorded([c]),
                }
            }
        }
        Piece::Invalid(bytes) => {
            let mut shown = String::new();
            bytes.iter().for_each(|byte| push_byte(&mut shown, *byte));
            page.recorded(shown.chars());
        }
    }
}

/// Text has no NUL, and seldom bytes that are not UTF-8. Where a read cut a character in two, up to six bytes look wrong.
fn is_binary(data: &[u8]) -> bool {
    let head = data.get(..LOOKED_AT).unwrap_or(data);
    let invalid: usize = head.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    head.contains(&0) || invalid > 6 + head.len() / 4
}

/// How much of a record is looked at, in bytes.
const LOOKED_AT: usize = 4096;
