//! What may stand in front of a transfer: `sudo`, `env`, `nice`, `ionice`. They start what follows, as somebody else or
//! with another priority.

use super::program_name;
use crate::wire::words::Word;

/// What follows the prefixes, and whether there were any. `None`: one of them does more than start it.
pub(super) fn skip(words: &[Word]) -> Option<(bool, &[Word])> {
    let mut rest = words;
    for depth in 0..=MAX_PREFIXES {
        let (program, arguments) = rest.split_first()?;
        let spec = match program_name(program)? {
            "sudo" => Spec { flags: &["-n", "-H", "--"], values: &["-u", "-g"], assignments: false },
            "env" => Spec { flags: &[], values: &[], assignments: true },
            "nice" => Spec { flags: &[], values: &["-n"], assignments: false },
            "ionice" => Spec { flags: &["-t"], values: &["-c", "-n"], assignments: false },
            _ => return Some((depth > 0, rest)),
        };
        rest = spec.skip(arguments)?;
    }
    None
}

/// What a prefix takes before the command.
struct Spec {
    flags: &'static [&'static str],
    /// Followed by a name or a number, in the same word or the next.
    values: &'static [&'static str],
    /// `NAME=value`: only what tells a language, so that no library and no shell's file comes in.
    assignments: bool,
}

impl Spec {
    fn skip<'a>(&self, words: &'a [Word]) -> Option<&'a [Word]> {
        let mut rest = words;
        loop {
            let (word, after) = rest.split_first()?;
            let text = word.text.as_str();
            let value = self.values.iter().find_map(|option| text.strip_prefix(option));
            rest = match (value, after.split_first()) {
                _ if word.expands => return None,
                _ if self.flags.contains(&text) => after,
                (Some(""), Some((value, after))) if is_simple(value) => after,
                (Some(value), _) if !value.is_empty() && value.bytes().all(is_simple_byte) => after,
                _ if self.assignments && is_language(text) => after,
                // The program, or what is none, and so is not recognised.
                _ => return Some(rest),
            };
        }
    }
}

fn is_simple(word: &Word) -> bool {
    !word.expands && !word.text.is_empty() && !word.text.starts_with('-') && word.text.bytes().all(is_simple_byte)
}

fn is_simple_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_language(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| name == "LANG" || name.starts_with("LC_"))
}

const MAX_PREFIXES: usize = 4;
