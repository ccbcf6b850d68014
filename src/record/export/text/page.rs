//! The text as it is written: recorded lines and the gateway's own, told apart, within a length that input earns.

use std::io::{self, Write};
use std::time::Duration;

use crate::record::export::escape::push_char;

/// Text that waits to be written out; emptied after each observation.
pub struct Page {
    text: String,
    /// Characters in the line that is open; `None` between lines.
    open: Option<usize>,
    /// Spaces that are written only if something follows them.
    spaces: usize,
    /// Bytes that may still be written.
    credit: u64,
    /// Lines that were left out since it was last said.
    left_out: u64,
}

impl Page {
    pub fn new() -> Self {
        Self { text: String::new(), open: None, spaces: 0, credit: FREE, left_out: 0 }
    }

    /// Credits what so many recorded bytes earn.
    pub fn earn(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add((bytes as u64).saturating_mul(EARNED_BY_BYTE)).min(MAX_CREDIT);
    }

    /// Writes a line of the gateway's own. `words` must be safe.
    pub fn own(&mut self, at: Duration, words: &str) {
        self.end_line();
        self.say_left_out(at);
        self.put_own(at, words);
    }

    /// Writes a line that begins with its time only; nothing recorded may stand on the same page.
    pub fn timed(&mut self, at: Duration, words: &str) {
        self.text.push_str(&clock(at));
        self.text.push(' ');
        self.text.push_str(words);
        self.text.push('\n');
    }

    /// Whether so many recorded characters in so many lines may be written now. When not, they count as left out.
    pub fn affords(&mut self, at: Duration, characters: usize, lines: usize) -> bool {
        // An escaped character takes up to ten bytes.
        if self.credit < 10 * (characters + lines) as u64 {
            self.left_out += lines as u64;
            return false;
        }
        self.say_left_out(at);
        true
    }

    /// Writes characters of a recorded line; a newline ends it. Spaces at its end are dropped.
    pub fn recorded(&mut self, characters: impl IntoIterator<Item = char>) {
        for c in characters {
            match c {
                '\n' => self.new_line(),
                ' ' => self.spaces += 1,
                c => {
                    let open = self.open.map_or(0, |open| open + self.spaces);
                    if open >= MAX_LINE {
                        self.new_line();
                    }
                    if self.open.is_none() {
                        self.spaces = self.spaces.min(MAX_LINE);
                    }
                    self.put_spaces();
                    let before = self.text.len();
                    push_char(&mut self.text, c);
                    self.spend(before);
                    self.open = Some(self.open.unwrap_or(0) + 1);
                    self.guard_beginning();
                }
            }
        }
    }

    /// Ends the recorded line that is open, if one is.
    pub fn end_line(&mut self) {
        self.spaces = 0;
        if self.open.is_some() {
            self.new_line();
        }
    }

    /// Says at the end what was left out.
    pub fn finish(&mut self, at: Duration) {
        self.end_line();
        self.say_left_out(at);
    }

    /// Hands over what there is.
    pub fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        // A line that may become one of the gateway's waits for its beginning.
        let ready = match self.open {
            Some(open) if open < OWN.len() => self.text.rfind('\n').map_or(0, |end| end + 1),
            _ => self.text.len(),
        };
        out.write_all(self.text.get(..ready).unwrap_or_default().as_bytes())?;
        self.text.drain(..ready);
        Ok(())
    }

    fn new_line(&mut self) {
        self.spaces = 0;
        self.open = None;
        self.text.push('\n');
        self.credit = self.credit.saturating_sub(1);
    }

    fn put_spaces(&mut self) {
        let spaces = std::mem::take(&mut self.spaces);
        let before = self.text.len();
        self.text.extend(std::iter::repeat_n(' ', spaces));
        self.spend(before);
        if spaces > 0 {
            self.open = Some(self.open.unwrap_or(0) + spaces);
        }
    }

    fn spend(&mut self, before: usize) {
        self.credit = self.credit.saturating_sub((self.text.len() - before) as u64);
    }

    /// A recorded line must not look like one of the gateway's own.
    fn guard_beginning(&mut self) {
        if self.open == Some(OWN.len()) && self.text.ends_with(OWN) {
            self.text.insert(self.text.len() - OWN.len(), '\\');
        }
    }

    fn say_left_out(&mut self, at: Duration) {
        if self.left_out > 0 {
            let lines = std::mem::take(&mut self.left_out);
            self.end_line();
            self.put_own(at, &format!("{lines} lines left out: the recording asks for far more text than it holds"));
        }
    }

    fn put_own(&mut self, at: Duration, words: &str) {
        let before = self.text.len();
        self.text.push_str(&format!("{OWN} {}] {words}\n", clock(at)));
        self.spend(before);
    }
}

/// `hh:mm:ss.mmm`.
pub fn clock(at: Duration) -> String {
    let (seconds, millis) = (at.as_secs(), at.subsec_millis());
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// How lines of the gateway's own begin.
const OWN: &str = "[gatescribe";
/// The most characters of a line; what is longer goes on on the next one.
const MAX_LINE: usize = 16 * 1024;
/// Bytes that any recording may be made into.
const FREE: u64 = 1 << 20;
/// The most bytes that can be saved up.
const MAX_CREDIT: u64 = 16 << 20;
/// How many bytes of text a recorded byte may become. What people do needs less than two.
const EARNED_BY_BYTE: u64 = 16;
