//! What a recording may do to the terminal of whoever looks at it: colours, moving the cursor, erasing and scrolling, the
//! alternate screen. Nothing else gets through, whatever it is, because recordings are written by attackers.
//!
//! A filter is a parser after ECMA-48 and the DEC terminals that knows when a sequence ends even where it throws it away,
//! also when it comes in pieces. What it lets through it writes anew from what it understood, with limits on numbers, and
//! never as it came. Line drawing is put into Unicode here, so that no character set is ever switched.

use super::escape;

/// Filters one recording's output, piece by piece.
#[derive(Debug, Default)]
pub struct Filter {
    state: State,
    /// The parameters of a control sequence, as far as they are kept.
    parameters: String,
    /// Whether G0 to G3 are line drawing.
    drawing: [bool; 4],
    /// Which of them is used.
    active: usize,
    /// The same when the cursor was saved.
    saved: ([bool; 4], usize),
    /// The alternate screen is on.
    alternate: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After `ESC` and an intermediate: the next final ends it. The number of a set that is being designated.
    Intermediate(Option<usize>),
    Sequence,
    /// A control sequence that is thrown away, up to its end.
    Ignored,
    /// A string (OSC, DCS, SOS, PM, APC), thrown away up to its end.
    Text,
}

impl Filter {
    /// A filter for a recording's output from its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` what `text` may do. That is at most some 60 bytes for each of its bytes.
    pub fn push(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.take(c, out);
        }
    }

    /// What makes the terminal usable again after everything that was let through, with the cursor on a line of its own.
    pub fn restore(&self) -> String {
        let leave = if self.alternate { "\x1b[?1049l" } else { "" };
        format!("{leave}{PLAIN}\x1b[r\x1b[9999;1H\r\n")
    }

    fn take(&mut self, c: char, out: &mut String) {
        match c {
            '\x1b' => {
                self.state = State::Escape;
                return;
            }
            // CAN and SUB break off anything.
            '\x18' | '\x1a' => {
                self.state = State::Ground;
                return;
            }
            '\u{80}'..='\u{9f}' => {
                // C1 controls: as `ESC` and a character 0x40 lower. That which ends a string ends it.
                self.state = State::Ground;
                let low = char::from_u32(u32::from(c) - 0x40).unwrap_or('\\');
                self.escape(low, out);
                return;
            }
            '\x07' if self.state == State::Text => self.state = State::Ground,
            // Control characters inside a sequence are carried out at once.
            '\0'..='\x1f' if self.state != State::Text => self.control(c, out),
            _ => {}
        }
        if c < ' ' || c == '\x7f' {
            return;
        }
        match self.state {
            State::Ground => self.print(c, out),
            State::Escape => self.escape(c, out),
            State::Intermediate(set) => self.intermediate(set, c),
            State::Sequence => self.sequence(c, out),
            State::Ignored if ('@'..='~').contains(&c) => self.state = State::Ground,
            State::Ignored | State::Text => {}
        }
    }

    fn print(&self, c: char, out: &mut String) {
        let is_drawn = self.drawing.get(self.active).is_some_and(|drawn| *drawn);
        match c {
            '`'..='~' if is_drawn => out.push(drawn(c)),
            // Reorders or hides what is read.
            c if escape::is_dangerous(c) => {}
            c => out.push(c),
        }
    }

    fn control(&mut self, c: char, out: &mut String) {
        match c {
            '\x08' | '\t' | '\n' | '\r' => out.push(c),
            '\x0b' | '\x0c' => out.push('\n'),
            '\x0e' => self.active = 1,
            '\x0f' => self.active = 0,
            _ => {}
        }
    }

    fn escape(&mut self, c: char, out: &mut String) {
        self.state = State::Ground;
        match c {
            '[' => {
                self.parameters.clear();
                self.state = State::Sequence;
            }
            ']' | 'P' | 'X' | '^' | '_' => self.state = State::Text,
            '(' | ')' | '*' | '+' => self.state = State::Intermediate("()*+".find(c)),
            ' '..='/' => self.state = State::Intermediate(None),
            '7' => {
                self.saved = (self.drawing, self.active);
                out.push_str("\x1b7");
            }
            '8' => {
                (self.drawing, self.active) = self.saved;
                out.push_str("\x1b8");
            }
            'D' | 'E' | 'M' => out.extend(['\x1b', c]),
            'n' => self.active = 2,
            'o' => self.active = 3,
            'c' => self.reset(out),
            _ => {}
        }
    }

    fn intermediate(&mut self, set: Option<usize>, c: char) {
        // More intermediates make it something else.
        if (' '..='/').contains(&c) {
            self.state = State::Intermediate(None);
            return;
        }
        self.state = State::Ground;
        if let Some(drawing) = set.and_then(|set| self.drawing.get_mut(set)) {
            *drawing = c == '0';
        }
    }

    fn sequence(&mut self, c: char, out: &mut String) {
        match c {
            '@'..='~' => {
                self.state = State::Ground;
                let parameters = std::mem::take(&mut self.parameters);
                self.finish(&parameters, c, out);
            }
            ' '..='?' if self.parameters.len() < MAX_PARAMETERS => self.parameters.push(c),
            _ => self.state = State::Ignored,
        }
    }

    fn finish(&mut self, parameters: &str, end: char, out: &mut String) {
        match (parameters, end) {
            ("!", 'p') => {
                (self.drawing, self.active) = Default::default();
                out.push_str(PLAIN);
            }
            // Saved and restored without parameters; with them, `s` sets margins.
            ("", 's' | 'u') => out.extend(["\x1b[", if end == 's' { "s" } else { "u" }]),
            (_, 'm') => style(parameters, out),
            (_, 'h' | 'l') => match parameters.strip_prefix('?') {
                Some(modes) => self.modes(modes, end, out),
                None if parameters == "4" => out.extend(["\x1b[4", if end == 'h' { "h" } else { "l" }]),
                None => {}
            },
            // Erasing what scrolled out (3) would erase what the person did before.
            (_, 'J' | 'K') => numbers(parameters, 1, 2, end, out),
            // With more parameters, `T` tracks the mouse.
            (_, 'A'..='G' | 'I' | 'L' | 'M' | 'P' | 'S' | 'T' | 'X' | 'Z' | '@' | '`' | 'a' | 'b' | 'd' | 'e') => {
                numbers(parameters, 1, MAX_NUMBER, end, out);
            }
            (_, 'H' | 'f' | 'r') => numbers(parameters, 2, MAX_NUMBER, end, out),
            _ => {}
        }
    }

    /// DEC's private modes: origin, autowrap, the cursor's visibility, and the alternate screen.
    fn modes(&mut self, modes: &str, end: char, out: &mut String) {
        for mode in modes.split(';') {
            match mode {
                "6" | "7" | "25" => {}
                "47" | "1047" | "1049" => self.alternate = end == 'h',
                "1048" => {}
                _ => continue,
            }
            out.extend(["\x1b[?", mode, if end == 'h' { "h" } else { "l" }]);
        }
    }

    /// A full reset (RIS), without what it would do to the person's own settings.
    fn reset(&mut self, out: &mut String) {
        let leave = if std::mem::take(self).alternate { "\x1b[?1049l" } else { "" };
        out.extend([leave, PLAIN, CLEAR]);
    }
}

/// Clears the terminal, and lets lines scroll on all of it.
pub const CLEAR: &str = "\x1b[r\x1b[2J\x1b[H";

/// No style, cursor shown, autowrap on, origin at the screen's, characters written over others.
const PLAIN: &str = "\x1b[0m\x1b[?25h\x1b[?7h\x1b[?6l\x1b[4l";

/// Writes a sequence with at most `most` numbers, none above `limit`; nothing where something else stands.
fn numbers(parameters: &str, most: usize, limit: u32, end: char, out: &mut String) {
    let numbers: Vec<&str> = if parameters.is_empty() { Vec::new() } else { parameters.split(';').collect() };
    let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    if numbers.len() > most || !numbers.iter().all(is_number) {
        return;
    }
    // So long a number is over any limit.
    let value = |text: &str| if text.is_empty() { 0 } else { text.parse().unwrap_or(u32::MAX) };
    let over = numbers.iter().any(|text| value(text) > limit);
    match (over, matches!(end, 'J' | 'K')) {
        (true, true) => return,
        _ => out.push_str("\x1b["),
    }
    for (n, text) in numbers.iter().enumerate() {
        if n > 0 {
            out.push(';');
        }
        if !text.is_empty() {
            out.push_str(&value(text).min(limit).to_string());
        }
    }
    out.push(end);
}

/// Writes a style (SGR): digits, `;` and `:`.
fn style(parameters: &str, out: &mut String) {
    if parameters.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')) {
        out.extend(["\x1b[", parameters, "m"]);
    }
}

/// DEC's special graphics.
fn drawn(c: char) -> char {
    let at = (c as usize).saturating_sub('`' as usize);
    DRAWING.chars().nth(at).unwrap_or(c)
}

const DRAWING: &str = "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·";
/// The longest parameters that are looked at.
const MAX_PARAMETERS: usize = 128;
/// The largest number: more than a terminal has columns or lines, and little enough work when it is a count.
const MAX_NUMBER: u32 = 2000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered(text: &str) -> String {
        let mut out = String::new();
        Filter::new().push(text, &mut out);
        out
    }

    #[test]
    fn colours_cursor_and_erase_get_through() {
        for text in [
            "plain grün 界\r\n\t\x08",
            "\x1b[m\x1b[0;1;31m\x1b[38;2;1;2;3m\x1b[4:3m\x1b[48:5:7m",
            "\x1b[A\x1b[12B\x1b[C\x1b[D\x1b[E\x1b[F\x1b[5G\x1b[H\x1b[3;4H\x1b[;4f\x1b[7d\x1b[2Z\x1b[2I",
            "\x1b[J\x1b[0J\x1b[1J\x1b[2J\x1b[K\x1b[1K\x1b[2K\x1b[3X\x1b[P\x1b[2@\x1b[L\x1b[M",
            "\x1b[2;10r\x1b[r\x1b[S\x1b[2T\x1bD\x1bE\x1bM",
            "\x1b[?1049h\x1b[?1049l\x1b[?25l\x1b[?25h\x1b[?7l\x1b[?6h\x1b[4h\x1b[4l",
            "\x1b7\x1b8\x1b[s\x1b[u",
        ] {
            assert_eq!(filtered(text), text);
        }
    }

    #[test]
    fn nothing_else_does() {
        for (text, expected) in [
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]52;c;cm0gLXJmIH4=\x1b\\x", "x"),
            ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\u{9d}0;title\u{9c}x", "x"),
            ("\x1bP$q m\x1b\\x\x1b_Gf=1;AAAA\x1b\\y\x1b^pm\x1b\\z\x1bXsos\x1b\\", "xyz"),
            ("\u{90}+q544e\u{9c}x", "x"),
            ("\x1b[c\x1b[>c\x1b[=c\x1b[5n\x1b[6n\x1b[?6n\x1b[x\x1bZ\u{9a}x", "x"),
            ("\x1b[?1000h\x1b[?1002;1006h\x1b[?2004h\x1b[?1h\x1b=\x1b>\x1b[?1004hx", "x"),
            ("\x1b[?1000;25;2004lx", "\x1b[?25lx"),
            ("\x1b[21t\x1b[8;5;5t\x1b[14t\x1b[>0q\x1b[2 q\x1b[!px", &format!("{PLAIN}x")),
            ("\x1b[3J\x1b[4J\x1b[?Kx", "x"),
            ("\x1b[1;2;3;4;5Tx", "x"),
            ("\x1b[20h\x1b[2h\x1b[12lx", "x"),
            ("\x1b[1;5sx\x1b[>4;2m\x1b[>1u\x1b[?u", "x"),
            ("\x1b#8\x1b#3\x1b%G\x1b G\x1bH\x1b[3gx", "x"),
            ("\x07\x00\x05\x11\x7fx", "x"),
            ("\x1b[5i\x1b[?4iprinted\x1b[4i", "printed"),
            ("a\u{202e}b\u{2066}c", "abc"),
            ("\x1bc", &format!("{PLAIN}{CLEAR}")),
        ] {
            assert_eq!(filtered(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sequences_are_ended_as_terminals_end_them() {
        for (text, expected) in [
            // Broken off, and begun anew.
            ("\x1b[31\x1b[1mx", "\x1b[1mx"),
            ("\x1b[31\x18mx", "mx"),
            ("\x1b]0;ti\x1b[1mx", "\x1b[1mx"),
            ("\x1b]0;ti\x18x", "x"),
            // Carried out in the middle.
            ("\x1b[3\r1mx", "\r\x1b[31mx"),
            // C1 as a character.
            ("\u{9b}31mx\u{85}\u{8d}", "\x1b[31mx\x1bE\x1bM"),
            // Too long.
            (&format!("\x1b[{}mx", "1;".repeat(100)), "x"),
            (&format!("\x1b]{}\x07x", "y".repeat(100_000)), "x"),
            // A string has no end but its own.
            ("\x1b]0;a\r\nb\x07x", "x"),
        ] {
            assert_eq!(filtered(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(
            filtered("a\x1b[4294967299b\x1b[99999999999999999999C\x1b[1;9999H"),
            "a\x1b[2000b\x1b[2000C\x1b[1;2000H"
        );
    }

    #[test]
    fn line_drawing_is_unicode() {
        assert_eq!(filtered("\x1b(0lqk\x1b(Bx\x1b)0\x0eq\x0fq"), "┌─┐x─q");
        assert_eq!(filtered("\x1b(0`~x\x1bcx"), format!("◆·│{PLAIN}{CLEAR}x"));
        assert_eq!(DRAWING.chars().count(), 31);
    }

    #[test]
    fn the_terminal_is_put_back() {
        let mut filter = Filter::new();
        let mut out = String::new();
        assert!(!filter.restore().contains("1049"));
        filter.push("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?6h\x1b[4h\x1b[2;5r\x1b[31mvim", &mut out);
        out.push_str(&filter.restore());
        let mut terminal = avt::Terminal::new(20, 6).unwrap();
        terminal.feed(out.as_str());
        terminal.feed("\x1b[1;1H0123456789012345678901\x1b[1;1HX");
        let screen = terminal.screen();
        assert_eq!(screen.text()[0], "X123456789012345678901");
        assert_eq!(terminal.active_screen_kind(), avt::ScreenKind::Primary);
        assert!(terminal.cursor().position().is_some());
        assert!(screen.line(0).unwrap().cells().iter().all(|cell| cell.pen().is_default()));
        filter.push("\x1b[?1049l", &mut out);
        assert!(!filter.restore().contains("1049"));
    }

    /// Every sequence in a filter's output, as it may be.
    fn assert_safe(out: &str) {
        let mut rest = out;
        while let Some((before, sequence)) = rest.split_once('\x1b') {
            let plain = |c: char| !c.is_control() || matches!(c, '\r' | '\n' | '\t' | '\x08');
            assert!(before.chars().all(plain), "{before:?}");
            let end = match sequence.as_bytes() {
                [b'7' | b'8' | b'D' | b'E' | b'M', ..] => 1,
                [b'[', ..] => sequence[1..].find(|c: char| ('@'..='~').contains(&c)).expect("ends") + 2,
                _ => panic!("{sequence:?}"),
            };
            let (sequence, after) = sequence.split_at(end);
            if let Some(body) = sequence.strip_prefix('[') {
                let (parameters, last) = body.split_at(body.len() - 1);
                match parameters.strip_prefix('?') {
                    Some(mode) => assert!(
                        "hl".contains(last) && ["6", "7", "25", "47", "1047", "1048", "1049"].contains(&mode),
                        "{sequence}"
                    ),
                    None => {
                        assert!(parameters.chars().all(|c| matches!(c, '0'..='9' | ';' | ':')), "{sequence}");
                        assert!("ABCDEFGHIJKLMPSTXZ@`abdefrmsuhl".contains(last), "{sequence}");
                    }
                }
            }
            rest = after;
        }
        assert!(!rest.chars().any(|c| c.is_control() && !matches!(c, '\r' | '\n' | '\t' | '\x08')), "{rest:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_only_harmless_things_go(text in prop::collection::vec(prop_oneof![
            "\\PC{0,4}", "[\\x00-\\x1f\\x7f-\\u{9f}]{1,2}", "\x1b[\\[\\]P_^X(c78DEM#% ]?", "[0-9;:?<=>!$ ]{0,6}", "[@-~]",
            Just("\x1b[".to_owned()), Just("\x1b]".to_owned()), Just("\x1b[?".to_owned()),
        ], 0..40), cut in any::<prop::sample::Index>()) {
            let text = text.concat();
            let whole = filtered(&text);
            assert_safe(&whole);
            prop_assert!(whole.len() <= 60 * text.len());
            let at = text.floor_char_boundary(cut.index(text.len() + 1));
            let (mut filter, mut pieces) = (Filter::new(), String::new());
            filter.push(&text[..at], &mut pieces);
            filter.push(&text[at..], &mut pieces);
            prop_assert_eq!(&pieces, &whole);
            prop_assert!(filter.parameters.len() <= MAX_PARAMETERS);
            // Filtering what was filtered changes nothing.
            prop_assert_eq!(filtered(&whole), whole);
        }
    }
}
