//! What a recording's terminal shows, by emulating it (`avt`). Pure; what it is fed with is hostile.
//!
//! Memory is bounded by [`MAX_COLS`] and [`MAX_ROWS`], whatever size the recording claims. Time is bounded by work that
//! input has to earn: three bytes can ask for a whole screen of cells, and a few megabytes of such would take hours.
//! It keeps no history: who wants lines that scroll out passes an observer.

use avt::parser::{DecMode, EdScope, Function, State};
use avt::{Observer, Parser, Terminal};

use super::utf8::Utf8Stream;
use crate::record::observation::{Direction, What};

/// The widest screen that is emulated, in columns; wider ones are narrowed.
pub const MAX_COLS: usize = 640;
/// The highest screen that is emulated, in rows.
pub const MAX_ROWS: usize = 240;
/// The size until the recording tells one.
pub const DEFAULT_SIZE: (usize, usize) = (80, 24);

/// A terminal that shows a recording's output. Feed it all observations in order.
pub struct Screen {
    terminal: Terminal,
    parser: Parser,
    /// The control sequence that has begun and not ended.
    unfinished: String,
    /// Main output, stderr, and all other streams.
    streams: [Utf8Stream; 3],
    /// The size that the recording wants; lags only while its cost has not been earned.
    wanted: (usize, usize),
    tty: bool,
    after_cr: bool,
    work: Work,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// An empty screen of [`DEFAULT_SIZE`].
    pub fn new() -> Self {
        Self {
            terminal: terminal(DEFAULT_SIZE),
            parser: Parser::new(),
            unfinished: String::new(),
            streams: Default::default(),
            wanted: DEFAULT_SIZE,
            tty: false,
            after_cr: false,
            work: Work { credit: MAX_CREDIT, left_out: 0 },
        }
    }

    /// Shows what was seen. Typed input shows nothing: its echo is output.
    pub fn observe(&mut self, what: &What) {
        self.observe_with(what, &mut ());
    }

    /// As [`Screen::observe`], while somebody looks on.
    pub fn observe_with<O: Observer<Output = ()>>(&mut self, what: &What, observer: &mut O) {
        self.work.earn(EARNED_BY_RECORD);
        match what {
            What::Bytes { direction: Direction::Output, stream, data } => {
                let mut text = String::with_capacity(data.len());
                let [main, stderr, others] = &mut self.streams;
                match stream {
                    0 => main.push(data, &mut text),
                    1 => stderr.push(data, &mut text),
                    _ => others.push(data, &mut text),
                }
                self.feed(&text, observer);
            }
            What::Told { text } => self.feed(text, observer),
            What::Pty { cols, rows, .. } => {
                self.tty = true;
                self.resize(*cols, *rows, observer);
            }
            What::Resize { cols, rows } => self.resize(*cols, *rows, observer),
            _ => {}
        }
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        self.terminal.size()
    }

    /// What makes an empty terminal of the same size show the same: both screens, cursor, colours, modes, and the control
    /// sequence that has begun. No history. A few bytes per cell, and no longer than some 50 bytes for each.
    pub fn dump(&self) -> String {
        let mut dump = self.terminal.dump();
        match self.unfinished.len() < MAX_UNFINISHED {
            true => dump.push_str(&self.unfinished),
            // Too long to be kept: something of the same kind, so that its rest is taken for its rest.
            false => dump.push_str(match self.parser.state {
                State::OscString => "\x1b]",
                State::SosPmApcString => "\x1b_",
                State::DcsEntry | State::DcsParam | State::DcsIntermediate => "\x1bP:",
                State::DcsPassthrough | State::DcsIgnore => "\x1bPq",
                State::CsiEntry | State::CsiParam | State::CsiIntermediate | State::CsiIgnore => "\x1b[:",
                State::Escape | State::EscapeIntermediate => "\x1b ",
                State::Ground => "",
            }),
        }
        dump
    }

    /// Whether no control sequence has begun and not ended.
    pub fn is_between_sequences(&self) -> bool {
        self.parser.state == State::Ground
    }

    /// The lines that are shown, without spaces at their ends; a line that wrapped is one.
    pub fn text(&self) -> Vec<String> {
        self.terminal.screen().text()
    }

    /// How many control sequences were not carried out, because they ask for too much work. 0 for what people do.
    pub fn left_out(&self) -> u64 {
        self.work.left_out
    }

    /// The emulator, to look at.
    pub(super) fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// Pays for looking at so many rows; false when that was not earned, and it had better be left.
    pub(super) fn pay_for_a_look(&mut self, rows: usize) -> bool {
        let (cols, _) = self.terminal.size();
        self.work.pay(cells((cols, rows)))
    }

    /// Zero means "not known" (RFC 4254 section 6.2).
    fn resize<O: Observer<Output = ()>>(&mut self, cols: u32, rows: u32, observer: &mut O) {
        let clamp = |given: u32, max: usize| usize::try_from(given).map_or(max, |given| given.min(max));
        if cols > 0 && rows > 0 {
            self.wanted = (clamp(cols, MAX_COLS), clamp(rows, MAX_ROWS));
            self.fit(observer);
        }
    }

    fn fit<O: Observer<Output = ()>>(&mut self, observer: &mut O) {
        let size = self.terminal.size();
        // Lines are flowed anew: more work for a cell than writing it.
        if size != self.wanted {
            match self.work.pay(4 * (cells(size) + cells(self.wanted))) {
                true => self.terminal.resize_with(self.wanted.0, self.wanted.1, observer),
                false => self.work.left_out += 1,
            }
        }
    }

    fn feed<O: Observer<Output = ()>>(&mut self, text: &str, observer: &mut O) {
        self.fit(observer);
        let size = self.terminal.size();
        let Self { terminal, parser, unfinished, work, after_cr, tty, .. } = self;
        let functions = text.chars().flat_map(|c| {
            // Where no terminal made carriage returns, lines begin at the left all the same.
            let cr = (c == '\n' && !*tty && !*after_cr).then_some(Function::Cr);
            *after_cr = c == '\r';
            work.earn(EARNED_BY_CHARACTER);
            let function = parser.feed(c).filter(|function| work.pay_for(function, size));
            follow(unfinished, parser.state, c);
            cr.into_iter().chain(function)
        });
        terminal.execute_with(functions, observer);
    }
}

/// What input has earned, in cells that may be touched.
struct Work {
    credit: u64,
    left_out: u64,
}

impl Work {
    fn earn(&mut self, cells: u64) {
        self.credit = (self.credit + cells).min(MAX_CREDIT);
    }

    fn pay(&mut self, cells: u64) -> bool {
        match self.credit.checked_sub(cells) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }

    fn pay_for(&mut self, function: &Function, size: (usize, usize)) -> bool {
        let cost = cost(function, size);
        let paid = cost == 0 || self.pay(cost);
        self.left_out += u64::from(!paid);
        paid
    }
}

/// How many cells a function can touch. What costs a line at most is free: that is what a plain line feed costs.
fn cost(function: &Function, size: (usize, usize)) -> u64 {
    let lines = |n: &u16| (size.0 * size.1.min(usize::from((*n).max(1)))) as u64;
    match function {
        Function::Rep(n) => u64::from(*n),
        Function::Su(n) | Function::Sd(n) | Function::Il(n) | Function::Dl(n) => lines(n),
        Function::Ed(EdScope::SavedLines) => 0,
        Function::Ed(_) | Function::Decaln => cells(size),
        Function::Ris => 2 * cells(size),
        Function::Decset(modes) | Function::Decrst(modes) => {
            let switches =
                |mode: &&DecMode| matches!(mode, DecMode::AltScreenBuffer | DecMode::SaveCursorAltScreenBuffer);
            modes.as_slice().iter().filter(switches).count() as u64 * cells(size)
        }
        _ => 0,
    }
}

/// Keeps what `state` began with, so that a dump can begin with it, too. Control characters inside were carried out already.
fn follow(unfinished: &mut String, state: State, c: char) {
    match c {
        _ if state == State::Ground => unfinished.clear(),
        '\x1b' | '\u{80}'..='\u{9f}' => {
            unfinished.clear();
            unfinished.push(c);
        }
        '\0'..='\x1f' => {}
        _ if unfinished.len() < MAX_UNFINISHED => unfinished.push(c),
        _ => {}
    }
}

fn cells((cols, rows): (usize, usize)) -> u64 {
    (cols * rows) as u64
}

fn terminal((cols, rows): (usize, usize)) -> Terminal {
    // Refused only for a size of zero, which a clamped size is not.
    Terminal::with_scrollback(cols.max(1), rows.max(1), Some(0))
        .unwrap_or_else(|_| unreachable!("the size is not zero"))
}

/// The longest unfinished control sequence that is kept, in bytes.
const MAX_UNFINISHED: usize = 256;
/// The most work that can be saved up, and what there is at first, in cells: some dozen milliseconds.
const MAX_CREDIT: u64 = 8 << 20;
/// What a character earns: a screen of 24 lines is paid by eight.
const EARNED_BY_CHARACTER: u64 = 256;
/// What a record earns.
const EARNED_BY_RECORD: u64 = 16 * EARNED_BY_CHARACTER;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::record::testing::{any_what, output};

    fn pty(cols: u32, rows: u32) -> What {
        What::Pty { term: "xterm".to_owned(), cols, rows }
    }

    fn restored(screen: &Screen) -> Screen {
        let (cols, rows) = screen.size();
        let mut copy = Screen::new();
        copy.observe(&pty(cols as u32, rows as u32));
        copy.observe(&What::Told { text: screen.dump() });
        copy
    }

    #[test]
    fn a_dump_shows_what_was_shown_and_goes_on_where_it_was() {
        let pieces: [&'static [u8]; 7] = [
            b"plain \x1b[1;31mred",
            b"\x1b[?1049h\x1b[2;5Hvim \xe2\x94",
            b"\x82 \x1b[38;2;1",
            b";2;3mtrue\x1b]0;title",
            b" goes on\x07\x1b[5;1H\x1b(0lqk",
            b"\x1bPq#0 sixel",
            b" rest\x1b\\\x1b[?1049lback",
        ];
        let mut screen = Screen::new();
        screen.observe(&pty(40, 10));
        for (n, piece) in pieces.iter().enumerate() {
            screen.observe(&output(*piece));
            let mut copy = restored(&screen);
            assert_eq!(Screen::text(&copy), Screen::text(&screen), "after piece {n}");
            // A character that is cut in two is the stream's business, not the dump's.
            if n != 1 {
                pieces[n + 1..].iter().for_each(|piece| copy.observe(&output(*piece)));
                let mut whole = Screen::new();
                whole.observe(&pty(40, 10));
                pieces.iter().for_each(|piece| whole.observe(&output(*piece)));
                assert_eq!(Screen::text(&copy), Screen::text(&whole), "gone on after piece {n}");
                assert_eq!(copy.dump(), whole.dump());
            }
        }
    }

    #[test]
    fn a_long_unfinished_sequence_is_not_kept_but_its_rest_is_not_shown() {
        for begin in ["\x1b]0;", "\x1b_", "\x1bPq", "\x1b[1;"] {
            let mut screen = Screen::new();
            screen.observe(&pty(40, 10));
            screen.observe(&output(begin));
            screen.observe(&output("1;".repeat(100_000)));
            assert!(screen.dump().len() < 1000);
            let mut copy = restored(&screen);
            copy.observe(&output(if begin == "\x1b[1;" { "1mX" } else { "1\x1b\\X" }));
            assert_eq!(Screen::text(&copy)[0], "X", "{begin:?}");
        }
    }

    #[test]
    fn sizes_are_clamped_and_unknown_ones_ignored() {
        let mut screen = Screen::new();
        for (cols, rows, expected) in [
            (0, 0, DEFAULT_SIZE),
            (0, 40, DEFAULT_SIZE),
            (u32::MAX, u32::MAX, (MAX_COLS, MAX_ROWS)),
            (1, 1, (1, 1)),
            (100, 30, (100, 30)),
        ] {
            screen.observe(&What::Resize { cols, rows });
            assert_eq!(screen.size(), expected);
            screen.observe(&output("wide \u{4f60}\u{597d}\r\n"));
        }
        assert_eq!(screen.left_out(), 0);
    }

    #[test]
    fn work_that_was_not_earned_is_left_out() {
        let largest = pty(u32::MAX, u32::MAX);
        for flood in ["\x1b#8", "\x1b[65535b", "\x1b[2J", "\x1bc", "\x1b[999T", "\x1b[999L", "\x1b[?1049h\x1b[?1049l"] {
            let mut screen = Screen::new();
            screen.observe(&largest);
            screen.observe(&output("x"));
            let times = 4_000;
            (0..10).for_each(|_| screen.observe(&output(flood.repeat(times / 10))));
            let length = (flood.len() * times) as u64;
            let most = MAX_CREDIT + length * EARNED_BY_CHARACTER;
            let cheapest = 60_000;
            assert!(screen.left_out() >= times as u64 - most / cheapest, "{flood:?}: {}", screen.left_out());
        }
        // Sizes that change all the time, too; the last one counts as soon as it is earned.
        let mut screen = Screen::new();
        for n in 0..2_000 {
            screen.observe(&What::Resize { cols: 600 + n % 2, rows: 200 });
        }
        assert!(screen.left_out() > 900);
        screen.observe(&What::Resize { cols: 80, rows: 25 });
        screen.observe(&output("a".repeat(10_000)));
        screen.observe(&output("b"));
        assert_eq!(screen.size(), (80, 25));
    }

    proptest! {
        #[test]
        fn anything_can_be_shown_and_dumped(whats in prop::collection::vec(any_what(), 0..40)) {
            let mut screen = Screen::new();
            for what in &whats {
                screen.observe(what);
                let (cols, rows) = screen.size();
                prop_assert!((1..=MAX_COLS).contains(&cols) && (1..=MAX_ROWS).contains(&rows));
                if cols * rows < 10_000 {
                    screen.dump();
                }
            }
        }

        #[test]
        fn control_sequences_are_dumped_as_they_look(
            cols in 1u32..20,
            rows in 1u32..8,
            pieces in prop::collection::vec(sequence(), 0..40),
        ) {
            let mut screen = Screen::new();
            screen.observe(&pty(cols, rows));
            for piece in pieces {
                screen.observe(&output(Bytes::from(piece)));
            }
            prop_assert_eq!(Screen::text(&restored(&screen)), Screen::text(&screen));
        }
    }

    /// Control sequences with few small and large numbers, plain and wide text.
    fn sequence() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z \u{4f60}\u{301}]{1,6}",
            "\r|\n|\t|\x08|\x1bM|\x1b7|\x1b8|\x1bc|\x1b#8|\x0e|\x0f",
            "\x1b\\[[0-9]{0,5}(;[0-9]{0,2})?[@A-Za-z`]",
            "\x1b\\[\\?(1|6|7|25|1047|1048|1049)[hl]",
        ]
    }
}
