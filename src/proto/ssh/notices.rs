//! What the gateway says in a terminal while a shell runs in it: that the session will end, and how it can go on.
//!
//! Only where it does no harm: between whole characters and escape sequences, and not on the alternate screen, which
//! belongs to a program such as an editor; there the window's title says it. So the output is read along, just as far as
//! is needed to know that.

use tokio::sync::watch;
use tokio::time::Instant;

use super::client::harmless;
use crate::session::{Session, Warning};

/// XTWINOPS 23: the title that was put by.
const TITLE_BACK: &str = "\x1b[23;2t";

/// The main screen; cursor and keypad keys as they were; no bracketed paste, no mouse; a cursor; no colours.
const MODES_BACK: &str =
    "\x1b[?1049l\x1b[?1l\x1b>\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?25h\x1b[0m";

/// Notices for one terminal.
pub(super) struct Notices {
    warnings: watch::Receiver<Option<Warning>>,
    renew_url: String,
    screen: Screen,
    /// A warning that waits for a moment in which it does no harm.
    waiting: Option<Warning>,
    /// A warning that only the title told, because a program had the screen.
    owed: Option<Warning>,
    /// Whether our words stand in the window's title.
    titled: bool,
    /// Whether a warning was shown as a line.
    shown: bool,
}

impl Notices {
    pub(super) fn new(session: &Session) -> Self {
        let mut warnings = session.warnings();
        // What was said before the shell began counts for it too.
        warnings.mark_changed();
        let (renew_url, screen) = (session.renew_url(), Screen::default());
        Self { warnings, renew_url, screen, waiting: None, owed: None, titled: false, shown: false }
    }

    /// The upstream said this.
    pub(super) fn pass(&mut self, data: &[u8]) {
        self.screen.pass(data);
    }

    /// What is to be written now, as soon as there is something. Cancel safe.
    pub(super) async fn next(&mut self) -> String {
        loop {
            if let Some(text) = self.text_now() {
                return text;
            }
            if self.warnings.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.waiting.clone_from(&self.warnings.borrow_and_update());
        }
    }

    /// What can be written now of what waits.
    fn text_now(&mut self) -> Option<String> {
        if !self.screen.is_at_rest() {
            return None;
        }
        match self.waiting.take() {
            Some(Warning::GoesOn) => self.goes_on(),
            Some(Warning::Ends { at, reason, renewable }) => Some(self.ends(at, &reason, renewable)),
            // The editor that was in the way has gone.
            None if !self.screen.alternate => match self.owed.take()? {
                Warning::Ends { at, reason, renewable } => Some(self.ends(at, &reason, renewable)),
                Warning::GoesOn => None,
            },
            None => None,
        }
    }

    /// Brings the window's title back, where it is ours.
    pub(super) fn give_title_back(&mut self) -> Option<String> {
        std::mem::take(&mut self.titled).then(|| TITLE_BACK.to_owned())
    }

    /// What a terminal needs that is cut off from its program: its title, and the modes that only the program would have
    /// ended: the alternate screen, key and mouse modes, colours, a hidden cursor.
    pub(super) fn give_back(&mut self) -> Option<String> {
        let title = self.give_title_back().unwrap_or_default();
        let modes = if self.screen.alternate { MODES_BACK } else { "" };
        Some(title + modes).filter(|text| !text.is_empty())
    }

    fn ends(&mut self, at: Instant, reason: &str, renewable: bool) -> String {
        let left = minutes(at);
        // The title is put by before it is changed, so that it can be brought back (XTWINOPS 22 and 23).
        let put_by = if self.titled { "" } else { "\x1b[22;2t" };
        self.titled = true;
        let title = format!("{put_by}\x1b]2;gatescribe: this session ends in {left}\x07");
        if self.screen.alternate {
            self.owed = Some(Warning::Ends { at, reason: reason.to_owned(), renewable });
            return title;
        }
        self.owed = None;
        self.shown = true;
        let how = match renewable {
            true => format!("\r\ngatescribe: to go on, sign in again: {}", self.renew_url),
            false => String::new(),
        };
        format!("{title}\r\ngatescribe: this session ends in {left}: {}{how}\r\n", harmless(reason))
    }

    fn goes_on(&mut self) -> Option<String> {
        self.owed = None;
        let title = self.give_title_back().unwrap_or_default();
        let line = match std::mem::take(&mut self.shown) && !self.screen.alternate {
            true => "\r\ngatescribe: this session goes on\r\n",
            false => "",
        };
        Some(format!("{title}{line}")).filter(|text| !text.is_empty())
    }
}

/// `5 minutes`, rounded to the nearest; under a minute and a half in seconds.
fn minutes(at: Instant) -> String {
    let seconds = at.saturating_duration_since(Instant::now()).as_secs_f64().round();
    match seconds {
        ..1.5 => "a second".into(),
        ..59.0 => format!("{seconds} seconds"),
        ..90.0 => "a minute".into(),
        _ => format!("{} minutes", (seconds / 60.0).round()),
    }
}

/// As much of a terminal as is needed to know where words may be put in: whether a character or an escape sequence
/// (ECMA-48) is open, and which screen is shown.
#[derive(Debug, Default)]
struct Screen {
    state: State,
    alternate: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Rest,
    /// So many more bytes of a UTF-8 character.
    Character(u8),
    Escape,
    /// After ESC and an intermediate byte: one more.
    EscapeIntermediate,
    /// In a control sequence: whether it is private (`?`), the parameter so far, whether one was a screen's.
    Control {
        private: bool,
        parameter: u16,
        screen: bool,
    },
    /// In a string that ST or BEL ends.
    Text,
    /// The same, after ESC.
    TextEscape,
}

impl Screen {
    fn is_at_rest(&self) -> bool {
        self.state == State::Rest
    }

    fn pass(&mut self, data: &[u8]) {
        for byte in data {
            self.state = self.after(*byte);
        }
    }

    fn after(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            // CAN and SUB end whatever is open.
            (_, 0x18 | 0x1a) => State::Rest,
            (State::Text | State::TextEscape, 0x07) | (State::TextEscape, b'\\') => State::Rest,
            (State::Text, 0x1b) => State::TextEscape,
            (State::TextEscape, _) => self.after_escape(byte),
            (State::Text, _) => State::Text,
            (_, 0x1b) => State::Escape,
            (State::Escape, _) => self.after_escape(byte),
            (State::EscapeIntermediate, 0x30..=0x7e) => State::Rest,
            (State::EscapeIntermediate, _) => State::EscapeIntermediate,
            (State::Control { private, parameter, screen }, _) => self.control(byte, private, parameter, screen),
            (State::Character(more), 0x80..=0xbf) => {
                if more > 1 {
                    State::Character(more - 1)
                } else {
                    State::Rest
                }
            }
            (State::Rest | State::Character(_), 0xc2..=0xdf) => State::Character(1),
            (State::Rest | State::Character(_), 0xe0..=0xef) => State::Character(2),
            (State::Rest | State::Character(_), 0xf0..=0xf4) => State::Character(3),
            (State::Rest | State::Character(_), _) => State::Rest,
        }
    }

    fn after_escape(&mut self, byte: u8) -> State {
        match byte {
            b'[' => State::Control { private: false, parameter: 0, screen: false },
            // DCS, SOS, OSC, PM, APC.
            b'P' | b'X' | b']' | b'^' | b'_' => State::Text,
            0x20..=0x2f => State::EscapeIntermediate,
            0x1b => State::Escape,
            // RIS shows the main screen.
            b'c' => {
                self.alternate = false;
                State::Rest
            }
            _ => State::Rest,
        }
    }

    fn control(&mut self, byte: u8, private: bool, parameter: u16, screen: bool) -> State {
        let screen = screen || byte >= b';' && is_screen(parameter);
        match byte {
            b'0'..=b'9' => {
                let parameter = parameter.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                State::Control { private, parameter, screen }
            }
            b';' => State::Control { private, parameter: 0, screen },
            b'?' => State::Control { private: true, parameter, screen },
            0x40..=0x7e => {
                if private && screen && matches!(byte, b'h' | b'l') {
                    self.alternate = byte == b'h';
                }
                State::Rest
            }
            _ => State::Control { private, parameter, screen },
        }
    }
}

/// The modes that show the alternate screen (xterm's 47, 1047 and 1049).
fn is_screen(parameter: u16) -> bool {
    matches!(parameter, 47 | 1047 | 1049)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(data: &[u8]) -> (bool, bool) {
        let mut screen = Screen::default();
        screen.pass(data);
        // However it is cut, it comes to the same.
        for cut in 0..data.len() {
            let mut again = Screen::default();
            again.pass(&data[..cut]);
            again.pass(&data[cut..]);
            assert_eq!((again.is_at_rest(), again.alternate), (screen.is_at_rest(), screen.alternate), "{cut}");
        }
        (screen.is_at_rest(), screen.alternate)
    }

    #[test]
    fn it_knows_where_words_may_be_put_in() {
        for (data, rest, alternate) in [
            (&b""[..], true, false),
            (b"$ ", true, false),
            ("Grüße".as_bytes(), true, false),
            (b"\xc3", false, false),
            (b"\xe2\x82", false, false),
            (b"\xe2\x82\xac", true, false),
            (b"\xf0\x9f\x98", false, false),
            (b"\xc3a", true, false),
            (b"\xff\xfe\x80", true, false),
            (b"\x1b", false, false),
            (b"\x1b[", false, false),
            (b"\x1b[1;31", false, false),
            (b"\x1b[1;31m", true, false),
            (b"\x1b(B", true, false),
            (b"\x1b(", false, false),
            (b"\x1b]2;title", false, false),
            (b"\x1b]2;title\x07", true, false),
            (b"\x1b]2;title\x1b", false, false),
            (b"\x1b]2;title\x1b\\", true, false),
            (b"\x1bP1$r0m\x1b\\x", true, false),
            (b"\x1b]2;title\x18", true, false),
            (b"\x1b[?1049h", true, true),
            (b"\x1b[?1049h\x1b[2Jvim\x1b[?1049l", true, false),
            (b"\x1b[?1;1049h", true, true),
            (b"\x1b[?1049;25h", true, true),
            (b"\x1b[?47h", true, true),
            (b"\x1b[?1047h\x1bc", true, false),
            (b"\x1b[1049h", true, false),
            (b"\x1b[?10490h", true, false),
            (b"\x1b[?25h", true, false),
            (b"\x1b[?1049h\x1b[?1049", false, true),
        ] {
            assert_eq!(after(data), (rest, alternate), "{:?}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn time_is_told_as_people_do() {
        use std::time::Duration;
        for (seconds, expected) in
            [(0, "a second"), (30, "30 seconds"), (60, "a minute"), (299, "5 minutes"), (900, "15 minutes")]
        {
            // Measured a moment later, so a little is added.
            let at = Instant::now() + Duration::from_secs(seconds) + Duration::from_millis(100);
            assert_eq!(minutes(at), expected);
        }
    }

    fn notices() -> (watch::Sender<Option<Warning>>, Notices) {
        let (warn, warnings) = watch::channel(None);
        let (renew_url, screen) = ("https://localhost/renew/1".into(), Screen::default());
        (warn, Notices { warnings, renew_url, screen, waiting: None, owed: None, titled: false, shown: false })
    }

    fn ends() -> Option<Warning> {
        let at = Instant::now() + std::time::Duration::from_secs(300);
        Some(Warning::Ends { at, reason: "r allows 8h at a time\u{1b}[2J".into(), renewable: true })
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_editor_hid_is_told_once_it_has_gone() {
        let (warn, mut notices) = notices();
        notices.pass(b"\x1b[?1049h vim");
        warn.send_replace(ends());
        assert_eq!(notices.next().await, "\x1b[22;2t\x1b]2;gatescribe: this session ends in 5 minutes\x07");
        assert_eq!(notices.text_now(), None);
        notices.pass(b"\x1b[?1049l$ ");
        let text = notices.text_now().unwrap();
        assert!(
            text.contains("\r\ngatescribe: this session ends in 5 minutes: r allows 8h at a time?[2J\r\n"),
            "{text:?}"
        );
        assert!(text.contains("sign in again: https://localhost/renew/1"), "{text:?}");
        assert_eq!((notices.text_now(), notices.give_title_back().as_deref()), (None, Some(TITLE_BACK)));
        warn.send_replace(Some(Warning::GoesOn));
        assert_eq!(notices.next().await, "\r\ngatescribe: this session goes on\r\n");
        assert_eq!(notices.give_back(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn words_wait_until_a_sequence_is_whole_and_modes_are_given_back() {
        let (warn, mut notices) = notices();
        notices.pass(b"\x1b[?1049h\x1b[3");
        warn.send_replace(ends());
        assert!(tokio::time::timeout(std::time::Duration::from_secs(60), notices.next()).await.is_err());
        notices.pass(b"1m");
        assert!(notices.next().await.starts_with("\x1b[22;2t"));
        assert_eq!(notices.give_back().unwrap(), format!("{TITLE_BACK}{MODES_BACK}"));
    }
}
