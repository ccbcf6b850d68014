//! Text (`.txt`): what a person saw, or every byte, to read, search and compare. Pure, streaming, bounded.
//!
//! Whatever was recorded, the result can be printed on a terminal: it has no control characters but newline and tab, and
//! no characters that turn the direction of text. In `view=screen`, lines of the gateway's own begin with
//! `[gatescribe hh:mm:ss.mmm]`, the time since the recording's start; a recorded line that begins so gets a backslash.

mod all;
mod page;
mod plain;
mod seen;

use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use self::all::All;
use self::page::Page;
use self::plain::Plain;
use self::seen::Seen;
use super::ExportError;
use super::escape::push_piece;
use super::fact;
use super::utf8::{Piece, Utf8Stream};
use crate::record::observation::{Direction, Observation, What};

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// When the recording began.
    pub started: Timestamp,
    /// What to show.
    pub view: View,
    /// Whether typed input is exported.
    pub input: bool,
    /// Whether the recording holds bytes that nobody saw as text (an inner SSH connection, a forward).
    pub opaque: bool,
}

/// What a text export shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// What a person saw: lines once, as they went out of the terminal, and each screen of a program that paints whole
    /// screens before it was changed beyond recognition. Without a terminal: the lines.
    #[default]
    Screen,
    /// Every byte and every fact in order, with its time; control characters are written out (`\e[31m`), invalid bytes as
    /// `\xff`, a backslash as `\\`.
    All,
}

impl View {
    /// As in the URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::All => "all",
        }
    }
}

/// A word that is no view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a view is `screen` or `all`")]
pub struct UnknownView;

impl FromStr for View {
    type Err = UnknownView;

    fn from_str(text: &str) -> Result<Self, UnknownView> {
        [Self::Screen, Self::All].into_iter().find(|view| view.as_str() == text).ok_or(UnknownView)
    }
}

/// Writes `observations` as text to `out`, piece by piece.
///
/// What the recording asks for beyond some multiple of its own length (a screen for every three bytes) is left out, and
/// the text says so.
pub fn write_text<E>(
    observations: impl IntoIterator<Item = Result<Observation, E>>,
    options: &TextOptions,
    out: &mut dyn Write,
) -> Result<(), ExportError<E>> {
    let mut text = Text::begin(options);
    for observation in observations {
        text.observe(&observation.map_err(ExportError::Read)?);
        text.page.write_to(out)?;
    }
    text.finish();
    text.page.write_to(out)?;
    out.flush()?;
    Ok(())
}

struct Text {
    page: Page,
    form: Form,
    opaque: bool,
    input: bool,
    typed: Typed,
    /// Times of a hostile recording run anywhere.
    at: Duration,
    /// How the program ended; told after what it showed.
    ended: Vec<String>,
}

/// What the bytes are made into.
enum Form {
    All(All),
    /// Until a terminal is asked for; for good without one.
    Plain(Plain),
    Seen(Box<Seen>),
}

impl Text {
    fn begin(options: &TextOptions) -> Self {
        let mut page = Page::new();
        page.own(Duration::ZERO, &format!("began {}", options.started));
        let form = match options.view {
            View::All => Form::All(All::new(options.input)),
            View::Screen => Form::Plain(Plain::default()),
        };
        if options.view == View::All && !options.input {
            page.own(Duration::ZERO, "typed input is not shown");
        }
        let opaque = options.opaque && options.view == View::Screen;
        if opaque {
            page.own(Duration::ZERO, "this recording holds bytes that nobody saw as text; view=all shows them");
        }
        let (typed, at, ended) = (Typed::default(), Duration::ZERO, Vec::new());
        Self { page, form, opaque, input: options.input, typed, at, ended }
    }

    fn observe(&mut self, observation: &Observation) {
        self.at = self.at.max(observation.at);
        self.page.earn(length(&observation.what));
        match &mut self.form {
            Form::All(all) => all.observe(self.at, &observation.what, &mut self.page),
            Form::Plain(_) | Form::Seen(_) => self.show(&observation.what),
        }
    }

    fn show(&mut self, what: &What) {
        if let (What::Pty { .. }, Form::Plain(plain)) = (what, &self.form)
            && plain.is_empty()
            && !self.opaque
        {
            self.form = Form::Seen(Box::default());
        }
        match what {
            What::Bytes { direction: Direction::Input, data, .. } if self.input && !self.opaque => {
                self.typed.push(self.at, data, &mut self.page);
            }
            What::Bytes { .. } if self.opaque => {}
            What::Fact { body } => self.fact("", fact::line(body).as_bytes()),
            What::Exec { command } => self.fact("command: ", command),
            What::Subsystem { name } => self.fact("subsystem: ", name.as_bytes()),
            What::Signal { name } => self.fact("signal: ", name.as_bytes()),
            What::Gap { reason, bytes: 0 } => self.fact("gap: ", reason.as_bytes()),
            What::Gap { reason, bytes } => self.fact(&format!("gap of {bytes} bytes: "), reason.as_bytes()),
            What::ExitStatus { status } => self.end(format!("exit status {status}")),
            What::ExitSignal { name, message } => {
                let mut words = words("ended by signal ", name.as_bytes());
                words.push_str(&self::words(" ", message.as_bytes()));
                self.end(words);
            }
            what => match &mut self.form {
                Form::Seen(seen) => seen.observe(self.at, what, &mut self.page),
                Form::Plain(plain) => plain.observe(self.at, what, &mut self.page),
                Form::All(_) => {}
            },
        }
    }

    fn fact(&mut self, kind: &str, text: &[u8]) {
        self.page.own(self.at, &words(kind, text));
    }

    fn end(&mut self, words: String) {
        if self.ended.len() < MAX_ENDED {
            self.ended.push(words);
        }
    }

    fn finish(&mut self) {
        self.typed.finish(&mut self.page);
        match &mut self.form {
            Form::All(all) => all.finish(self.at, &mut self.page),
            Form::Plain(plain) => plain.finish(self.at, &mut self.page),
            Form::Seen(seen) => seen.finish(&mut self.page),
        }
        for words in std::mem::take(&mut self.ended) {
            self.page.own(self.at, &words);
        }
        self.page.finish(self.at);
    }
}

/// Typed input, gathered into lines, so that not every key has one of its own.
#[derive(Default)]
struct Typed {
    stream: Utf8Stream,
    text: String,
    at: Duration,
}

impl Typed {
    fn push(&mut self, at: Duration, data: &[u8], page: &mut Page) {
        let Self { stream, text, at: first } = self;
        stream.push_with(data, |piece| match piece {
            Piece::Text(mut rest) => {
                while !rest.is_empty() {
                    let end = rest.find(['\r', '\n']).map_or(rest.len(), |end| end + 1).min(MAX_TYPED);
                    let (line, after) = rest.split_at(rest.floor_char_boundary(end));
                    add(text, first, at, Piece::Text(line), page);
                    rest = after;
                }
            }
            invalid => add(text, first, at, invalid, page),
        });
    }

    fn finish(&mut self, page: &mut Page) {
        let Self { stream, text, .. } = self;
        stream.finish_with(|piece| push_piece(text, piece));
        tell(text, self.at, page);
    }
}

fn add(text: &mut String, first: &mut Duration, at: Duration, piece: Piece<'_>, page: &mut Page) {
    if text.is_empty() {
        *first = at;
    }
    push_piece(text, piece);
    if text.len() >= MAX_TYPED || matches!(piece, Piece::Text(line) if line.ends_with(['\r', '\n'])) {
        tell(text, *first, page);
    }
}

fn tell(text: &mut String, at: Duration, page: &mut Page) {
    if !text.is_empty() {
        page.own(at, &format!("typed: {text}"));
        text.clear();
    }
}

/// `kind` and attacker-written text, on one line, cut at a length.
fn words(kind: &str, text: &[u8]) -> String {
    let mut words = kind.to_owned();
    let mut stream = Utf8Stream::default();
    stream.push_with(text.get(..MAX_WORDS).unwrap_or(text), |piece| push_piece(&mut words, piece));
    stream.finish_with(|piece| push_piece(&mut words, piece));
    if text.len() > MAX_WORDS {
        words.push_str(" …");
    }
    words
}

/// How much of a recording an observation is, in bytes.
fn length(what: &What) -> usize {
    let payload = match what {
        What::Bytes { data, .. } => data.len(),
        What::Told { text } => text.len(),
        What::Exec { command } => command.len(),
        _ => 0,
    };
    payload + 16
}

/// The longest fact, in bytes of the recording.
const MAX_WORDS: usize = 16 * 1024;
/// The longest typed line that is told in one.
const MAX_TYPED: usize = 1024;
/// How often a program can end.
const MAX_ENDED: usize = 8;

#[cfg(test)]
mod tests;
