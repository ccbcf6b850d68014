//! Cuts what a terminal is shown into characters and the sequences that matter here, as ECMA-48 and the DEC terminals do,
//! also when it comes in pieces.
//!
//! C1 controls are the one doubt: some terminals obey 0x9B as `ESC [`, others do not, and in the middle of a UTF-8
//! character nobody does. What such a control begins is unsure, and its characters count as shown at the same time.

use super::clipboard::Command;

/// What becomes of it.
pub(super) trait Screen {
    /// Whether characters are of interest now. Where they are not, they are stepped over quickly.
    fn is_watching(&self) -> bool;

    /// A character is shown; a byte that is no UTF-8 counts as one of Latin-1.
    fn show(&mut self, c: u32);

    /// `ESC` and this byte.
    fn escape(&mut self, end: u8);

    /// A control sequence: what stands between the introducer and its last byte.
    fn sequence(&mut self, parameters: &[u8], end: u8, is_sure: bool);

    /// An operating system command has ended, or was broken off, which some terminals take for an end.
    fn command(&mut self, command: &Command);
}

/// The parser. It holds [`LONGEST`] bytes at most.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    state: State,
    is_unsure: bool,
    /// Bytes that a UTF-8 character still lacks, and what it has.
    lacking: u8,
    point: u32,
    parameters: Vec<u8>,
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After `ESC`.
    Escape,
    /// After `ESC` and an intermediate: the next final ends it.
    Intermediate,
    Sequence,
    /// A sequence that is too long for terminals too, up to its end.
    Overlong,
    Command,
    /// Any other string (DCS, SOS, PM, APC). What tmux and screen pass on to their terminal is an `ESC` in it, which ends
    /// it here and begins anew, so that it is read like everything else.
    Text,
}

impl Scanner {
    /// Reads the next bytes.
    pub(super) fn push(&mut self, data: &[u8], screen: &mut impl Screen) {
        let mut rest = data;
        while let Some((byte, after)) = rest.split_first() {
            match self.step_over(rest, screen) {
                0 => {
                    self.byte(*byte, screen);
                    rest = after;
                }
                n => rest = rest.get(n..).unwrap_or_default(),
            }
        }
    }

    /// How many bytes mean nothing, seen together.
    fn step_over(&mut self, rest: &[u8], screen: &impl Screen) -> usize {
        if self.lacking > 0 || (screen.is_watching() && (self.state == State::Ground || self.is_unsure)) {
            return 0;
        }
        match self.state {
            State::Ground => run(rest, |byte| byte < 0x80 && byte != ESC),
            State::Text => run(rest, is_printable),
            State::Command => {
                let n = run(rest, is_printable);
                self.command.take(rest.get(..n).unwrap_or_default());
                n
            }
            _ => 0,
        }
    }

    fn byte(&mut self, byte: u8, screen: &mut impl Screen) {
        let lacking = std::mem::take(&mut self.lacking);
        match byte {
            0..=0x7f => self.ascii(byte, screen),
            0x80..=0xbf if lacking > 0 => {
                self.point = self.point << 6 | u32::from(byte & 0x3f);
                match lacking - 1 {
                    0 => self.point(self.point, screen),
                    lacking => self.lacking = lacking,
                }
            }
            0x80..=0xc1 | 0xf5.. => self.point(byte.into(), screen),
            0xc2..=0xf4 => {
                self.lacking = if byte < 0xe0 {
                    1
                } else if byte < 0xf0 {
                    2
                } else {
                    3
                };
                self.point = u32::from(byte & (0x3f >> self.lacking));
            }
        }
    }

    fn ascii(&mut self, byte: u8, screen: &mut impl Screen) {
        let before = self.state;
        match (byte, self.state) {
            (ESC, _) => self.begin(State::Escape, false, screen),
            (CAN | SUB, _) | (BEL, State::Command) => self.begin(State::Ground, false, screen),
            // Some terminals end every string so.
            (BEL, State::Text) => self.is_unsure = true,
            (0..=0x1f | 0x7f, _) => {}
            (_, State::Ground) => screen.show(byte.into()),
            (_, State::Escape) => self.escape(byte, screen),
            (0x20..=0x2f, State::Intermediate) | (_, State::Text) => {}
            (_, State::Intermediate) => self.state = State::Ground,
            (0x40..=0x7e, State::Sequence) => {
                self.state = State::Ground;
                screen.sequence(&self.parameters, byte, !self.is_unsure);
            }
            (0x40..=0x7e, State::Overlong) => self.state = State::Ground,
            (_, State::Sequence) => self.parameter(byte),
            (_, State::Overlong) => {}
            (_, State::Command) => self.command.take(&[byte]),
        }
        if self.is_unsure && before != State::Ground {
            screen.show(byte.into());
        }
    }

    /// A character beyond ASCII, or a byte that is none.
    fn point(&mut self, c: u32, screen: &mut impl Screen) {
        // In the middle of a sequence, terminals pass over it, or break off.
        if matches!(self.state, State::Sequence | State::Overlong) {
            self.is_unsure = true;
            return screen.show(c);
        }
        match c {
            // ASCII written longer than it may be: no terminal obeys it.
            0..=0x7f => {}
            0x90 | 0x98 | 0x9e | 0x9f => self.begin(State::Text, true, screen),
            0x9b => self.begin(State::Sequence, true, screen),
            0x9d => self.begin(State::Command, true, screen),
            0x9c => self.begin(State::Ground, false, screen),
            0x80..=0x9f => {}
            _ if self.state == State::Ground || self.is_unsure => screen.show(c),
            _ => {}
        }
        match self.state {
            State::Command if c > 0x9f => self.command.take(b"\x80"),
            State::Escape | State::Intermediate => self.state = State::Ground,
            _ => {}
        }
    }

    fn escape(&mut self, byte: u8, screen: &mut impl Screen) {
        match byte {
            b'[' => self.begin(State::Sequence, false, screen),
            b']' => self.begin(State::Command, false, screen),
            b'P' | b'X' | b'^' | b'_' => self.begin(State::Text, false, screen),
            0x20..=0x2f => self.state = State::Intermediate,
            _ => {
                self.state = State::Ground;
                screen.escape(byte);
            }
        }
    }

    fn parameter(&mut self, byte: u8) {
        // Zeros in front, as many as there are, mean nothing.
        if byte.is_ascii_digit() && self.parameters.last() == Some(&b'0') {
            let before = self.parameters.len().checked_sub(2).and_then(|at| self.parameters.get(at));
            if !before.is_some_and(u8::is_ascii_digit) {
                self.parameters.pop();
            }
        }
        match self.parameters.len() < LONGEST {
            true => self.parameters.push(byte),
            false => (self.state, self.is_unsure) = (State::Overlong, true),
        }
    }

    /// Ends what was there and begins something else.
    fn begin(&mut self, state: State, is_unsure: bool, screen: &mut impl Screen) {
        if self.state == State::Command {
            screen.command(&std::mem::take(&mut self.command));
        }
        self.parameters.clear();
        (self.state, self.is_unsure) = (state, is_unsure);
    }
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
/// The longest parameters that are looked at, in bytes.
const LONGEST: usize = 256;
/// So many bytes are compared at once, for which the compiler has vectors.
const TOGETHER: usize = 32;

fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

/// How many bytes at the beginning are so.
fn run(data: &[u8], is_so: impl Fn(u8) -> bool) -> usize {
    let are_so = |chunk: &[u8]| chunk.iter().fold(true, |all, byte| all & is_so(*byte));
    let together = TOGETHER * data.chunks_exact(TOGETHER).take_while(|chunk| are_so(chunk)).count();
    let rest = data.get(together..).unwrap_or_default();
    together + rest.iter().take_while(|byte| is_so(**byte)).count()
}
