//! What watchers see of a recording: events as players know them, and the screen as it is for those who join late.
//!
//! Everything goes through a terminal emulator ([`screen`]), so that a screen can be given out at any point. An emulator is slower
//! than a flood: text that only scrolled past is left out before it gets there ([`condense`]), from the watchers' view
//! too. What stands on the screen afterwards is the same, and the recording has all of it.

use avt::operation::Operation;
use avt::parser::Function;
use avt::{Observation, Observer};

use crate::record::export::fact;
use crate::record::export::screen::{self, MAX_COLS, MAX_ROWS};
use crate::record::export::utf8::Utf8Stream;
use crate::record::observation::{self, Direction, What};

/// Something to show, with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Microseconds since the recording's start; never decreases.
    pub(super) at: u64,
    pub(super) shown: Shown,
}

impl Event {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let text = match &self.shown {
            Shown::Output(text) | Shown::Input(text) | Shown::Marker(text) => text.len(),
            Shown::Resize(..) | Shown::Exit(_) => 0,
        };
        size_of::<Self>() + text
    }
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Output(String),
    /// Typed; only for those who may see it.
    Input(String),
    Resize(u16, u16),
    Marker(String),
    Exit(u32),
}

/// The screen as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dump {
    pub(super) cols: u16,
    pub(super) rows: u16,
    /// What makes an empty terminal of this size show the same, and go on in the same way.
    pub(super) text: String,
}

/// Follows a recording's screen.
pub(super) struct Screen {
    emulator: screen::Screen,
    /// Main output, stderr, and all other streams.
    streams: [Utf8Stream; 3],
    typed: Utf8Stream,
    /// Whether a terminal was asked for: then it makes its own carriage returns.
    has_terminal: bool,
    after_cr: bool,
    margins: Margins,
    at: u64,
    /// Bytes left out since the last marker about it, and when that was.
    left_out: (usize, u64),
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            emulator: screen::Screen::new(),
            streams: Default::default(),
            typed: Utf8Stream::default(),
            has_terminal: false,
            after_cr: false,
            margins: Margins(false),
            at: 0,
            left_out: (0, 0),
        }
    }

    /// The screen as it is now.
    pub(super) fn dump(&self) -> Dump {
        let (cols, rows) = self.emulator.size();
        let fits = |size| u16::try_from(size).unwrap_or(u16::MAX);
        Dump { cols: fits(cols), rows: fits(rows), text: self.emulator.dump() }
    }

    /// Takes what was seen next, and gives what to show of it.
    pub(super) fn take(&mut self, observations: Vec<observation::Observation>) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let flood = observations.iter().map(|one| output_len(&one.what)).sum::<usize>() >= FLOOD;
        for observation::Observation { at, what } in observations {
            self.at = self.at.max(u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
            let Some(shown) = self.shown(what) else { continue };
            let joins = |last: &&mut Event| flood || self.at.saturating_sub(last.at) <= TOGETHER;
            match (events.last_mut().filter(joins).map(|last| &mut last.shown), shown) {
                (Some(Shown::Output(text)), Shown::Output(more)) if flood || text.len() < PIECE => text.push_str(&more),
                (_, shown) => events.push(Event { at: self.at, shown }),
            }
        }
        let mut out = Vec::with_capacity(events.len());
        for Event { at, shown } in events {
            match shown {
                Shown::Output(text) if flood => self.show_flood(at, text, &mut out),
                shown => {
                    self.feed(&shown);
                    out.push(Event { at, shown });
                }
            }
        }
        out
    }

    fn shown(&mut self, what: What) -> Option<Shown> {
        Some(match what {
            What::Bytes { direction: Direction::Output, stream, data } => {
                let mut text = String::with_capacity(data.len());
                let [main, stderr, others] = &mut self.streams;
                match stream {
                    0 => main.push(&data, &mut text),
                    1 => stderr.push(&data, &mut text),
                    _ => others.push(&data, &mut text),
                }
                Shown::Output(self.with_returns(text)).some()?
            }
            What::Bytes { direction: Direction::Input, data, .. } => {
                let mut text = String::new();
                self.typed.push(&data, &mut text);
                Shown::Input(text).some()?
            }
            What::Pty { cols, rows, .. } => {
                self.has_terminal = true;
                self.resize(cols, rows)?
            }
            What::Resize { cols, rows } => self.resize(cols, rows)?,
            What::Told { text } => Shown::Output(self.with_returns(text)).some()?,
            What::Exec { command } => Shown::Marker(label("exec: ", &String::from_utf8_lossy(&command))),
            What::Subsystem { name } => Shown::Marker(label("subsystem: ", &name)),
            What::Signal { name } => Shown::Marker(label("signal: ", &name)),
            What::ExitStatus { status } => Shown::Exit(status),
            What::ExitSignal { name, .. } => Shown::Marker(label("ended by signal ", &name)),
            What::Gap { reason, .. } => Shown::Marker(label("gap: ", &reason)),
            What::Fact { body } => Shown::Marker(label("", &fact::line(&body))),
            What::Env { .. }
            | What::Shell
            | What::Withheld { .. }
            | What::Eof { .. }
            | What::ClockStep { .. }
            | What::Request { .. }
            | What::Response { .. } => return None,
        })
    }

    /// Zero means "not known" (RFC 4254 section 6.2). More than a screen can have is a lie that would cost memory.
    fn resize(&self, cols: u32, rows: u32) -> Option<Shown> {
        let side =
            |size: u32, most: usize| u16::try_from(most.min(size.try_into().unwrap_or(most))).unwrap_or(u16::MAX);
        (cols > 0 && rows > 0).then(|| Shown::Resize(side(cols, MAX_COLS), side(rows, MAX_ROWS)))
    }

    /// Where no terminal made carriage returns, players need them to begin at the line's left end.
    fn with_returns(&mut self, text: String) -> String {
        if self.has_terminal {
            return text;
        }
        let mut out = String::with_capacity(text.len() + text.len() / 16);
        for c in text.chars() {
            if c == '\n' && !self.after_cr {
                out.push('\r');
            }
            out.push(c);
            self.after_cr = c == '\r';
        }
        out
    }

    fn feed(&mut self, shown: &Shown) {
        let what = match shown {
            // Decoded already, and with its carriage returns.
            Shown::Output(text) => What::Told { text: text.clone() },
            Shown::Resize(cols, rows) => What::Resize { cols: (*cols).into(), rows: (*rows).into() },
            Shown::Input(_) | Shown::Marker(_) | Shown::Exit(_) => return,
        };
        self.emulator.observe_with(&what, &mut self.margins);
    }

    /// Leaves out what only scrolled past, and says so; cuts the rest into pieces.
    fn show_flood(&mut self, at: u64, mut text: String, out: &mut Vec<Event>) {
        let certain = self.emulator.is_between_sequences() && !self.margins.0;
        if certain && let Some(less) = condense(&text, self.emulator.size().1) {
            self.left_out.0 += text.len() - less.len();
            text = less;
        }
        let (bytes, told) = self.left_out;
        if bytes > 0 && at.saturating_sub(told) >= SECOND {
            let words = format!("{bytes} bytes went by too fast to be shown; the recording has them");
            out.push(Event { at, shown: Shown::Marker(words) });
            self.left_out = (0, at);
        }
        while !text.is_empty() {
            let rest = text.split_off(text.floor_char_boundary(PIECE));
            let shown = Shown::Output(std::mem::replace(&mut text, rest));
            self.feed(&shown);
            out.push(Event { at, shown });
        }
    }
}

/// Whether lines scroll on a part of the screen only.
struct Margins(bool);

impl Observer for Margins {
    type Output = ();

    fn before(&mut self, _: &mut Observation<'_>, operation: &Operation) {
        match operation {
            Operation::Function(Function::Decstbm(top, bottom)) => self.0 = *top > 1 || *bottom > 0,
            Operation::Function(Function::Ris | Function::Decstr) => self.0 = false,
            _ => {}
        }
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

impl Shown {
    /// Itself, unless there is nothing to show.
    fn some(self) -> Option<Self> {
        match &self {
            Shown::Output(text) | Shown::Input(text) if text.is_empty() => None,
            _ => Some(self),
        }
    }
}

/// The end of a text that leaves the same screen of `rows` lines behind as the whole; `None` when that is not certain or
/// not worth it. The text must begin between two sequences.
///
/// Text that moves the cursor by nothing but line ends has scrolled away once as many lines came after it as the screen
/// has, from wherever the cursor was: the same number again, because the first ones may only have moved it down. What
/// goes on behind the lines that are left out is the style, so its sequences stay.
fn condense(text: &str, rows: usize) -> Option<String> {
    let lines = rows.checked_mul(2)?.checked_add(1)?;
    let (end, _) = text.rmatch_indices('\n').nth(lines)?;
    let (gone, kept) = text.split_at_checked(end + 1)?;
    if gone.len() < text.len() / 2
        || !gone.ends_with("\r\n")
        || kept.split('\n').take(lines).any(|l| !l.ends_with('\r'))
    {
        return None;
    }
    let mut styles: Vec<&str> = Vec::new();
    let mut pieces = gone.split('\x1b');
    let plain = |piece: &str| piece.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    if !pieces.next().is_none_or(plain) {
        return None;
    }
    for piece in pieces {
        let parameters = piece.strip_prefix('[')?;
        let length = parameters.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
        let (parameters, rest) = parameters.split_at_checked(length)?;
        if !plain(rest.strip_prefix('m')?) {
            return None;
        }
        // Styles are set, never toggled: what is set again need not be set before.
        match parameters {
            "" | "0" => styles.clear(),
            _ => styles.retain(|style| *style != parameters),
        }
        styles.push(parameters);
        if styles.len() > MAX_STYLES {
            return None;
        }
    }
    let styles: String = styles.into_iter().flat_map(|style| ["\x1b[", style, "m"]).collect();
    Some(styles + kept)
}

fn output_len(what: &What) -> usize {
    match what {
        What::Bytes { direction: Direction::Output, data, .. } => data.len(),
        _ => 0,
    }
}

fn label(what: &str, text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(MAX_LABEL)).unwrap_or_default();
    format!("{what}{text}")
}

/// The longest marker.
const MAX_LABEL: usize = 1024;
/// Outputs closer than this become one event, in microseconds: less than one picture of a film.
const TOGETHER: u64 = 5_000;
/// Bytes of output that one event has at about the most.
const PIECE: usize = 16 << 10;
/// So much output in one look is a flood.
pub(super) const FLOOD: usize = 128 << 10;
/// Different styles that stay when text is left out.
const MAX_STYLES: usize = 64;
/// In microseconds.
const SECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::record::observation::Observation;

    fn output(at: u64, data: impl Into<Bytes>) -> Observation {
        let what = What::Bytes { direction: Direction::Output, stream: 0, data: data.into() };
        Observation { at: Duration::from_micros(at), what }
    }

    fn fact(what: What) -> Observation {
        Observation { at: Duration::ZERO, what }
    }

    fn pty(cols: u32, rows: u32) -> Observation {
        fact(What::Pty { term: "xterm".to_owned(), cols, rows })
    }

    fn text_of(dump: &Dump) -> Vec<String> {
        let mut terminal = avt::Terminal::new(dump.cols.into(), dump.rows.into()).unwrap();
        terminal.feed(dump.text.as_str());
        terminal.screen().text()
    }

    #[test]
    fn who_joins_late_sees_the_screen_as_it_is() {
        let mut screen = Screen::new();
        let vim = b"shell$ vim\r\n\x1b[?1049h\x1b[2;3Hin v\xc3";
        screen.take(vec![pty(20, 4), output(10, &vim[..]), output(20, &b"\xa9m"[..])]);
        let dump = screen.dump();
        assert_eq!((dump.cols, dump.rows), (20, 4));
        let shown = text_of(&dump);
        assert!(shown.iter().any(|line| line.starts_with("  in vém")), "{shown:?}");
        assert!(!shown.iter().any(|line| line.contains("shell")), "{shown:?}");
    }

    #[test]
    fn a_character_cut_in_two_comes_whole() {
        let mut screen = Screen::new();
        let events = screen.take(vec![pty(80, 24), output(1, &b"caf\xc3"[..]), output(9_000_000, &b"\xa9"[..])]);
        let expected = [Shown::Resize(80, 24), Shown::Output("caf".into()), Shown::Output("é".into())];
        assert_eq!(events.into_iter().map(|event| event.shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn sizes_are_believed_within_reason() {
        for (cols, rows, told) in [
            (100, 30, Some(Shown::Resize(100, 30))),
            (0, 30, None),
            (100, 0, None),
            (u32::MAX, u32::MAX, Some(Shown::Resize(MAX_COLS as u16, MAX_ROWS as u16))),
            (1, 1, Some(Shown::Resize(1, 1))),
        ] {
            let events = Screen::new().take(vec![fact(What::Resize { cols, rows })]);
            assert_eq!(events.into_iter().next().map(|event| event.shown), told, "{cols}x{rows}");
        }
    }

    #[test]
    fn lines_without_a_terminal_begin_at_the_left() {
        let mut screen = Screen::new();
        let events = screen.take(vec![output(0, "a\nb\r"), output(0, "\nc")]);
        assert_eq!(events, [Event { at: 0, shown: Shown::Output("a\r\nb\r\nc".into()) }]);
    }

    #[test]
    fn outputs_that_are_apart_keep_their_times() {
        let mut screen = Screen::new();
        let events = screen.take(vec![output(1000, "a"), output(2000, "b"), output(50_000, "c"), output(40_000, "d")]);
        let told: Vec<_> = events.iter().map(|event| (event.at, event.shown.clone())).collect();
        let expected = [(1000, Shown::Output("ab".into())), (50_000, Shown::Output("cd".into()))];
        assert_eq!(told, expected, "times never decrease");
    }

    #[test]
    fn a_flood_is_cut_short_and_says_so() {
        let mut screen = Screen::new();
        screen.take(vec![pty(80, 24), output(0, "\x1b[?2004l\r")]);
        let flood = "\x1b[1my\r\n".repeat(2 * FLOOD / 3);
        let events = screen.take(vec![output(5_000_000, flood.clone())]);
        let shown: usize = events.iter().map(|e| if let Shown::Output(text) = &e.shown { text.len() } else { 0 }).sum();
        assert!(shown < 5000, "{shown}");
        let marked = |event: &Event| matches!(&event.shown, Shown::Marker(words) if words.contains("too fast"));
        assert!(events.iter().any(marked));
        let mut whole = avt::Terminal::new(80, 24).unwrap();
        whole.feed(format!("\x1b[?2004l\r{flood}").as_str());
        assert_eq!(screen.emulator.dump(), whole.dump());
    }

    #[test]
    fn what_may_matter_is_never_left_out() {
        let lines = "y\r\n".repeat(200);
        let table = [
            lines.clone(),
            format!("{lines}\x1b[31mred"),
            format!("\x1b[1;1H{lines}"),
            format!("\x1b]0;title\x07{lines}"),
            format!("\x1b(0{lines}"),
            format!("\u{9b}5A{lines}"),
            format!("\x08{lines}"),
            "y\n".repeat(200),
            "no line end ".repeat(200),
            "y\r\n".repeat(20),
        ];
        let left_out: Vec<_> = table.iter().map(|text| condense(text, 24).is_some()).collect();
        assert_eq!(left_out, [true, true, false, false, false, false, false, false, false, false]);
    }

    #[test]
    fn nothing_is_left_out_of_a_sequence() {
        let mut screen = Screen::new();
        screen.take(vec![pty(80, 24), output(0, "\x1b]0;")]);
        let events = screen.take(vec![output(0, "y\r\n".repeat(FLOOD / 2))]);
        let shown: usize = events.iter().map(|e| if let Shown::Output(text) = &e.shown { text.len() } else { 0 }).sum();
        assert_eq!(shown, FLOOD / 2 * 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Wherever the cursor was and whatever mode was on, the screen comes out the same.
        #[test]
        fn condensed_text_leaves_the_same_screen(
            before in prop::collection::vec(prop_oneof![
                Just("\x1b[5;9H"), Just("\x1b[2;4r"), Just("\x1b[r"), Just("\x1b[?1049h"), Just("\x1b[20h"),
                Just("\x1b[4h"), Just("text\r\n"), Just("\x1b[31m"), Just("\x1b[?7l"), Just("\x1b[?6h"), Just("\x1b[3g"),
            ], 0..6),
            lines in prop::collection::vec("[a-zé界]{0,30}(\x1b\\[[0-9;]{0,4}m)?[ a\t]{0,3}", 40..80),
            rows in 2u32..8,
        ) {
            let text = before.concat();
            let flood = lines.join("\r\n").repeat(FLOOD / 1000);
            prop_assume!(flood.len() >= FLOOD);
            let mut screen = Screen::new();
            screen.take(vec![pty(12, rows), output(0, text.clone())]);
            screen.take(vec![output(0, flood.clone())]);
            let mut whole = avt::Terminal::new(12, rows as usize).unwrap();
            whole.feed(text.as_str());
            whole.feed(flood.as_str());
            prop_assert_eq!(screen.emulator.dump(), whole.dump());
        }
    }
}
