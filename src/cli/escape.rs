//! What users and recordings say, made safe to print: nothing that moves a cursor, sets a colour, hides or turns
//! around what stands beside it gets through. Knows no terminal.
//!
//! The rule is a list of what is changed: C0, DEL, C1, invalid UTF-8, bidirectional controls, other format characters
//! (Unicode's Cf), line and paragraph separators, and the letters that are blank.

use std::fmt::{self, Display, Write};

use crate::record::export::escape::is_invisible;

/// Text for one line: line feeds and tabs are escaped too.
pub fn line(text: &str) -> Line<'_> {
    Line { bytes: text.as_bytes(), keep: "" }
}

/// Text of several lines: line feeds and tabs stay.
pub fn lines(text: &[u8]) -> Line<'_> {
    Line { bytes: text, keep: "\n\t" }
}

/// Text that is escaped as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    bytes: &'a [u8],
    keep: &'static str,
}

/// Escapes text of several lines that comes in pieces, which may break a character in two.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a character, at most three bytes.
    begun: Vec<u8>,
}

impl Lines {
    /// The next piece, escaped; the beginning of a character waits for the rest.
    pub fn piece(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let whole = all.len() - begun(&all);
        self.begun = all.split_off(whole);
        lines(&all).to_string()
    }

    /// What is left at the end.
    pub fn end(&mut self) -> String {
        lines(&std::mem::take(&mut self.begun)).to_string()
    }
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    c if self.keep.contains(c) => f.write_char(c)?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c if !is_dangerous(c) => f.write_char(c)?,
                    c if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                    c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// JSON for a terminal or a program: the same value, with what is dangerous in strings written as `\uXXXX`.
pub fn json(value: &serde_json::Value) -> String {
    let text = format!("{value:#}");
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Of JSON's own; in strings it is escaped already.
            '\n' => safe.push(c),
            c if is_dangerous(c) => {
                let mut units = [0; 2];
                // Writing to a string does not fail.
                let _ = c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(safe, "\\u{unit:04x}"));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Whether a character may do anything but stand where it is written. Unlike in exports, the two joiners may: they hide
/// in a name.
pub fn is_dangerous(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// How many bytes at the end begin a character without ending it.
fn begun(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len() - error.valid_up_to(),
        Err(_) => {
            // Something before is invalid; only the end matters here.
            let tail = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
            let is_cut = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
            if is_cut { tail.len() } else { 0 }
        }
        Ok(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_says_what_is_in_it() {
        let table = [
            ("plain, with spaces", "plain, with spaces"),
            ("é 漢 🙂 \u{301}", "é 漢 🙂 \u{301}"),
            ("\u{1b}[31mred\u{1b}[0m", "\\x1b[31mred\\x1b[0m"),
            ("\u{1b}]52;c;ZXZpbA==\u{7}", "\\x1b]52;c;ZXZpbA==\\x07"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
            ("\u{7f}\u{8}", "\\x7f\\x08"),
            ("\u{9b}31m \u{85}", "\\u{9b}31m \\u{85}"),
            ("user\u{202e}nimda", "user\\u{202e}nimda"),
            ("\u{2066}a\u{2069}\u{200e}\u{200f}\u{61c}", "\\u{2066}a\\u{2069}\\u{200e}\\u{200f}\\u{61c}"),
            ("ad\u{200b}min\u{ad}\u{feff}", "ad\\u{200b}min\\u{ad}\\u{feff}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("\u{3164}\u{e0041}", "\\u{3164}\\u{e0041}"),
            ("C:\\x", "C:\\x"),
        ];
        for (text, safe) in table {
            assert_eq!(line(text).to_string(), safe);
        }
    }

    #[test]
    fn several_lines_keep_line_feeds_and_tabs_alone() {
        assert_eq!(lines(b"a\tb\nc\r\n\x1bc\x9b\xff\xe2\x82").to_string(), "a\tb\nc\\r\n\\x1bc\\x9b\\xff\\xe2\\x82");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = json!({"a\u{9b}": ["\u{202e}x\u{1b}\u{7f}", "é🙂", "\u{e0041}", "line\n"]});
        let safe = json(&value);
        assert!(!safe.chars().any(|c| c != '\n' && is_dangerous(c)), "{safe:?}");
        assert!(safe.contains("\\u202e") && safe.contains("\\udb40\\udc41") && safe.contains("é🙂"), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn exports_escape_the_same_but_for_the_joiners() {
        let differs = |c: &char| is_dangerous(*c) != (c.is_control() || crate::record::export::escape::is_unsafe(*c));
        assert_eq!(('\0'..=char::MAX).filter(differs).collect::<String>(), "\u{200c}\u{200d}");
    }

    proptest! {
        #[test]
        fn pieces_are_as_the_whole(bytes: Vec<u8>, cuts: Vec<prop::sample::Index>) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut pieces = Lines::default();
            let mut out: String = cuts.windows(2).map(|cut| pieces.piece(&bytes[cut[0]..cut[1]])).collect();
            out += &pieces.end();
            prop_assert_eq!(&out, &lines(&bytes).to_string());
            prop_assert!(!out.chars().any(|c| !matches!(c, '\n' | '\t') && is_dangerous(c)));
        }

        #[test]
        fn broken_characters_too(text: String, tail in "[é漢🙂]{0,3}", cut in 0usize..12) {
            let mut bytes = (text + &tail).into_bytes();
            bytes.truncate(bytes.len().saturating_sub(cut % 4));
            let mut pieces = Lines::default();
            let mut out: String = bytes.chunks(1).map(|byte| pieces.piece(byte)).collect();
            out += &pieces.end();
            prop_assert_eq!(&out, &lines(&bytes).to_string());
        }
    }
}
