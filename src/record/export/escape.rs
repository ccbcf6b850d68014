//! Attacker-written text made safe to print: what a terminal would act on, or would not show, is written out.
//!
//! The marks are those of Rust's and C's strings: `\e`, `\r`, `\x00` for one byte, `\u{202e}` for a character.

use std::fmt::Write;

use super::utf8::Piece;

/// Appends a character, written out when it is not safe. Newline, tab and backslash stay what they are.
pub fn push_char(out: &mut String, c: char) {
    match c {
        '\n' | '\t' => out.push(c),
        '\x1b' => out.push_str("\\e"),
        '\r' => out.push_str("\\r"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\0'..='\x1f' | '\x7f' => push_byte(out, c as u8),
        c if is_unsafe(c) => push_code(out, c),
        c => out.push(c),
    }
}

/// Appends text that must stay on one line and be told from what was written out: newline, tab and backslash, too.
pub fn push_exact(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c => push_char(out, c),
        }
    }
}

/// As [`push_exact`], for a part of a stream that may not be UTF-8.
pub fn push_piece(out: &mut String, piece: Piece<'_>) {
    match piece {
        Piece::Text(text) => push_exact(out, text),
        Piece::Invalid(bytes) => bytes.iter().for_each(|byte| push_byte(out, *byte)),
    }
}

/// Appends a byte as `\x1f`.
pub fn push_byte(out: &mut String, byte: u8) {
    // Writing into a String does not fail.
    let _ = write!(out, "\\x{byte:02x}");
}

fn push_code(out: &mut String, c: char) {
    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
}

/// Whether a terminal acts on a character beyond ASCII's control characters, it turns the direction of text, or nobody sees it.
/// The two joiners (U+200C, U+200D) are the one difference to [`is_invisible`]: scripts and emoji need them.
pub fn is_unsafe(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}') || (is_invisible(c) && !matches!(c, '\u{200c}' | '\u{200d}'))
}

/// Whether nobody sees a character, or only what it does to others.
pub fn is_invisible(c: char) -> bool {
    c >= '\u{ad}' && INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Format characters (Cf), separators of lines and paragraphs, and letters that show nothing.
const INVISIBLE: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_written_out() {
        let table = [
            ("plain ü 你 \\ \t\n", "plain ü 你 \\ \t\n"),
            ("\x1b[31m\r\x07\x08\0\x7f", "\\e[31m\\r\\a\\b\\x00\\x7f"),
            ("\u{9b}1m \u{202e}\u{2066}\u{200f}\u{feff}", "\\u{9b}1m \\u{202e}\\u{2066}\\u{200f}\\u{feff}"),
            ("\u{1f468}\u{200d}\u{1f469}", "\u{1f468}\u{200d}\u{1f469}"),
        ];
        for (text, expected) in table {
            let mut out = String::new();
            text.chars().for_each(|c| push_char(&mut out, c));
            assert_eq!(out, expected);
        }
        let mut exact = String::new();
        push_exact(&mut exact, "a\\n\n\tb");
        push_piece(&mut exact, Piece::Invalid(b"\xff\xc3"));
        assert_eq!(exact, "a\\\\n\\n\\tb\\xff\\xc3");
    }

    proptest! {
        #[test]
        fn exact_text_is_one_line_of_graphic_characters(text in any::<String>()) {
            let mut out = String::new();
            push_exact(&mut out, &text);
            prop_assert!(!out.chars().any(char::is_control));
        }
    }
}
