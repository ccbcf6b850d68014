//! OSC 52, with which a program writes into its user's clipboard, or asks for what is in it (xterm's `ctlseqs`).
//!
//! Of a command, however long, nothing is held; the data is counted.

use serde_json::{Value, json};

/// An operating system command (OSC), as far as it came.
#[derive(Debug, Default)]
pub(super) struct Command {
    field: Field,
    number: Option<u32>,
    /// Which of [`SELECTIONS`] are named.
    selections: u16,
    /// Of the data.
    first: Option<u8>,
    length: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Field {
    #[default]
    Number,
    Selection,
    Data,
    /// It is another command.
    Other,
}

impl Command {
    /// Takes printable bytes.
    pub(super) fn take(&mut self, data: &[u8]) {
        for (n, byte) in data.iter().enumerate() {
            match self.field {
                Field::Number => self.number(*byte),
                Field::Selection if *byte == b';' => self.field = Field::Data,
                Field::Selection => {
                    let named = SELECTIONS.iter().position(|selection| selection == byte);
                    self.selections |= named.map_or(0, |n| 1 << n);
                }
                Field::Data => {
                    self.first.get_or_insert(*byte);
                    self.length = self.length.saturating_add(data.len() - n);
                    return;
                }
                Field::Other => return,
            }
        }
    }

    fn number(&mut self, byte: u8) {
        match byte {
            b'0'..=b'9' => {
                let number = self.number.unwrap_or(0).saturating_mul(10).saturating_add(u32::from(byte - b'0'));
                self.number = Some(number);
            }
            b';' if self.number == Some(CLIPBOARD) => self.field = Field::Selection,
            _ => self.field = Field::Other,
        }
    }

    /// What it does to the clipboard, if anything: in which selections, and how many bytes of Base64.
    pub(super) fn clipboard(&self) -> Option<Value> {
        let Field::Data = self.field else { return None };
        let named = SELECTIONS.iter().enumerate().filter(|(n, _)| self.selections & (1 << n) != 0);
        let named: String = named.map(|(_, selection)| char::from(*selection)).collect();
        Some(match (self.first, self.length) {
            (Some(b'?'), 1) => json!({"what": "clipboard_asked_for", "selection": named}),
            _ => json!({"what": "clipboard_written", "selection": named, "length": self.length}),
        })
    }
}

const CLIPBOARD: u32 = 52;
/// Clipboard, primary, secondary, select, and the cut buffers.
const SELECTIONS: [u8; 12] = *b"cpqs01234567";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_52_is_the_clipboard() {
        let written = |selection: &str, length: u64| {
            Some(json!({"what": "clipboard_written", "selection": selection, "length": length}))
        };
        let asked = |selection: &str| Some(json!({"what": "clipboard_asked_for", "selection": selection}));
        let long = format!("{}52;{};?", "0".repeat(100), "x".repeat(100));
        for (text, expected) in [
            ("52;c;cm0gLXJmIH4=", written("c", 12)),
            ("52;;QQ==", written("", 4)),
            ("52;7pc<p;!", written("cp7", 1)),
            ("0052;0s;", written("s0", 0)),
            ("52;c;?", asked("c")),
            ("52;;?", asked("")),
            ("52;c;??", written("c", 2)),
            ("52;c;a;?", written("c", 3)),
            (&long, asked("")),
            ("52;c;;", written("c", 1)),
            ("52;c", None),
            ("52", None),
            ("5252;c;x", None),
            ("520;c;x", None),
            ("x52;c;x", None),
            ("0;52;c", None),
            ("8;;https://example.com", None),
            (";;", None),
            ("", None),
        ] {
            let mut whole = Command::default();
            whole.take(text.as_bytes());
            assert_eq!(whole.clipboard(), expected, "{text}");
            let mut pieces = Command::default();
            text.bytes().for_each(|byte| pieces.take(&[byte]));
            assert_eq!(pieces.clipboard(), expected, "{text}, byte by byte");
        }
    }
}
