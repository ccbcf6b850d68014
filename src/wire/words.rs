//! A command line as words (POSIX.1-2024, Shell Command Language, section 2.2), or why that is not safe.
//!
//! The upstream's shell gets the original bytes and splits them again, and nobody here knows which shell that is or
//! under which character set it runs. So [`split`] accepts only what sh, bash, zsh, ksh, csh and fish all read alike,
//! and has no opinion on anything else.

use std::str::Chars;

/// Longer commands are not split.
pub const MAX_COMMAND: usize = 64 * 1024;

/// One word after splitting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Without its quotes.
    pub text: String,
    /// Whether something outside quotes is in it that [`Unquoted`] lets pass and a shell may replace. Where paths are
    /// let pass, a shell may make several words of it.
    pub expands: bool,
    /// Whether it begins with a glob: what comes out may begin with anything, a dash too.
    pub begins_open: bool,
}

/// What may stand outside quotes, beside what is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unquoted {
    /// Nothing.
    Nothing,
    /// `*`, as in a pattern.
    Stars,
    /// What stands in paths: globs, `~`, and characters beyond ASCII.
    Paths,
}

/// Why a command line is not one plain command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPlain {
    /// A character that means something to a shell, or that shells read differently.
    #[error("{0:?} outside quotes means something to a shell")]
    Unquoted(char),
    /// A character that stays special within quotes, in one shell or another.
    #[error("{0:?} within quotes is not read alike by all shells")]
    Quoted(char),
    /// A control character, a newline or NUL.
    #[error("control characters and newlines are never accepted")]
    Control,
    /// `NAME=value` before the command.
    #[error("the first word is an assignment")]
    Assignment,
    /// A quote that is not closed, or a back-slash at the end.
    #[error("a quote is not closed")]
    Open,
    /// Not text, or too long.
    #[error("it is not UTF-8, or longer than 64 KiB")]
    NotText,
}

/// Splits a command line.
pub fn split(command: &[u8], unquoted: Unquoted) -> Result<Vec<Word>, NotPlain> {
    if command.len() > MAX_COMMAND {
        return Err(NotPlain::NotText);
    }
    let text = std::str::from_utf8(command).map_err(|_| NotPlain::NotText)?;
    let mut words = Vec::new();
    let mut open: Option<Word> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if matches!(c, ' ' | '\t') {
            words.extend(open.take());
            continue;
        }
        let starts = open.is_none();
        let word = open.get_or_insert_default();
        match c {
            '\'' | '"' => quoted(c, &mut chars, &mut word.text)?,
            '\\' => word.text.push(escaped(chars.next())?),
            _ if plain(c, starts) => word.text.push(c),
            _ if c.is_control() => return Err(NotPlain::Control),
            _ if expands(c, unquoted, chars.clone().next()) => {
                word.begins_open |= word.text.is_empty() && matches!(c, '*' | '?' | '[');
                word.expands = true;
                word.text.push(c);
            }
            _ => return Err(NotPlain::Unquoted(c)),
        }
    }
    words.extend(open);
    // Any `=` in the first word: zsh and csh know more forms of assignment than `NAME=`, and a command has none.
    match words.first() {
        Some(first) if first.text.contains('=') => Err(NotPlain::Assignment),
        _ => Ok(words),
    }
}

/// Whether these are the same words to every shell: cmd.exe, PowerShell and what else a server that is no POSIX system
/// may have. Nothing is escaped, and quotes hold whole words in which only blanks need them: a single quote is none to
/// cmd.exe, which replaces `%NAME%` everywhere; PowerShell ends a word at a quote that closes, makes several of `a,b`,
/// and takes typographic quotes and dashes for the others. Globs and `~` stay what they are.
pub fn are_bare(command: &[u8]) -> bool {
    let bare = |c: u8| c.is_ascii_alphanumeric() || b"_-./:+*?~".contains(&c);
    let mut rest = command;
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b' ' => after,
            b'"' => {
                let Some(end) = after.iter().position(|&c| c == b'"') else { return false };
                let (inside, after) = (after.get(..end).unwrap_or_default(), after.get(end + 1..).unwrap_or_default());
                if inside.is_empty() || !inside.iter().all(|&c| bare(c) || c == b' ') || !ends_word(after) {
                    return false;
                }
                after
            }
            c if bare(c) => {
                let end = rest.iter().position(|&c| !bare(c)).unwrap_or(rest.len());
                let after = rest.get(end..).unwrap_or_default();
                if !ends_word(after) {
                    return false;
                }
                after
            }
            _ => return false,
        };
    }
    true
}

fn ends_word(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b' '))
}

/// What may stand outside quotes. A list of what is harmless, not of what is dangerous: `#` starts a comment, `~`, `=`
/// (zsh) and `{` expand, `^` was a pipe or a redirection, `!` is history. Characters beyond ASCII need quotes because
/// under a multi-byte character set, which the client may choose by LC_ALL, their last byte can swallow a back-slash.
fn plain(c: char, starts: bool) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | ',' | '@' | '%' | '+') || c == '=' && !starts
}

/// Whether `unquoted` lets it pass, seeing what follows. Programs that copy files send names beyond ASCII as they are:
/// these pass where no back-slash follows, and, as a byte of theirs may be a blank in an older character set (0x85 and
/// 0xA0), no dash.
fn expands(c: char, unquoted: Unquoted, next: Option<char>) -> bool {
    match (unquoted, c) {
        (Unquoted::Stars | Unquoted::Paths, '*') | (Unquoted::Paths, '?' | '[' | ']' | '~') => true,
        (Unquoted::Paths, c) if !c.is_ascii() && !c.is_whitespace() => match next {
            Some('\\') => false,
            Some('-') => !c.encode_utf8(&mut [0; 4]).bytes().any(|byte| matches!(byte, 0x85 | 0xa0)),
            _ => true,
        },
        _ => false,
    }
}

/// The rest of a quoted string. A back-slash in quotes is an escape in fish's single quotes and none in csh's double
/// quotes; `!` is history in all of csh's quotes.
fn quoted(quote: char, chars: &mut Chars<'_>, into: &mut String) -> Result<(), NotPlain> {
    for c in chars {
        match c {
            _ if c == quote => return Ok(()),
            '\\' | '!' => return Err(NotPlain::Quoted(c)),
            '$' | '`' if quote == '"' => return Err(NotPlain::Quoted(c)),
            _ if c.is_control() && c != '\t' => return Err(NotPlain::Control),
            _ => into.push(c),
        }
    }
    Err(NotPlain::Open)
}

/// What a back-slash outside quotes protects. Before letters and digits fish reads `\x3b` and the like.
fn escaped(c: Option<char>) -> Result<char, NotPlain> {
    match c {
        Some(c) if c.is_ascii_punctuation() || c == ' ' => Ok(c),
        Some(c) if c.is_control() => Err(NotPlain::Control),
        Some(_) => Err(NotPlain::Unquoted('\\')),
        None => Err(NotPlain::Open),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(command: &str) -> Result<Vec<Word>, NotPlain> {
        split(command.as_bytes(), Unquoted::Paths)
    }

    #[test]
    fn what_stands_in_paths_is_let_pass_and_told() {
        for (command, text, expands, begins_open) in [
            ("/srv/data", "/srv/data", false, false),
            ("/srv/*.txt", "/srv/*.txt", true, false),
            ("*", "*", true, true),
            ("[a-z]x", "[a-z]x", true, true),
            ("''?", "?", true, true),
            ("'*'", "*", false, false),
            ("\\*", "*", false, false),
            ("~", "~", true, false),
            ("~deploy/x", "~deploy/x", true, false),
            ("old~", "old~", true, false),
            ("Gr\u{fc}\u{df}e", "Gr\u{fc}\u{df}e", true, false),
            ("e\u{301}t\u{e9}-2024", "e\u{301}t\u{e9}-2024", true, false),
        ] {
            let word = Word { text: text.to_owned(), expands, begins_open };
            assert_eq!(paths(command).unwrap(), [word], "{command:?}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for command in [
            "a;id",
            "a|b",
            "a>b",
            "$HOME",
            "`id`",
            "{a,b}",
            "a#b",
            "a\nb",
            "(a)",
            "a&",
            "!x",
            // The last byte of a character may take the back-slash with it.
            "\u{3042}\\;id",
            // 0xA0 is a blank to some: what follows would be a word, an option.
            "\u{e0}--log-file=x",
            "\u{a0}x",
            "\u{3000}x",
            "x\u{85}y",
        ] {
            assert!(paths(command).is_err(), "{command:?}");
        }
        for unquoted in [Unquoted::Nothing, Unquoted::Stars] {
            for command in ["a?", "~", "a[b]", "\u{e9}"] {
                assert!(split(command.as_bytes(), unquoted).is_err(), "{command:?}");
            }
        }
    }

    #[test]
    fn few_commands_are_bare() {
        for command in
            ["scp -t /srv/a.txt", "scp -f C:/a*.txt ~", "scp -t \"a b/c\"", "rsync --server -vre.iLsfx . /srv"]
        {
            assert!(are_bare(command.as_bytes()), "{command:?}");
        }
        for command in [
            "scp -t 'x & calc'",
            "scp -t 'a b'",
            "scp -t x\\&calc",
            "scp -t x\\(calc\\)",
            "scp -t \"x%COMSPEC%\"",
            "scp -t %COMSPEC%",
            "scp -t \"a\"-S",
            "scp -t a\"b\"",
            "scp -t \"\"",
            "scp -t \"a & b\"",
            "scp -t a,-S",
            "scp -t @x",
            "scp -t \u{201c}a",
            "scp -t \u{2013}S",
            "scp -t \"a",
            "scp\t-t a\nb",
            "scp -t a;b",
        ] {
            assert!(!are_bare(command.as_bytes()), "{command:?}");
        }
    }

    proptest! {
        /// A real sh that expands nothing makes the same words of what is accepted.
        #[test]
        fn sh_splits_paths_alike(command in "[a-c \u{e9};|$*?\\[\\]#'\"\\\\={}-]{0,12}") {
            if let Ok(words) = paths(&command) {
                let script = format!("set -f; printf '%s\\0' x {command}");
                let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
                let got = String::from_utf8(out.stdout).unwrap();
                let got = got.split_terminator('\0').skip(1).map(str::to_owned).collect::<Vec<_>>();
                prop_assert_eq!(got, words.into_iter().map(|word| word.text).collect::<Vec<_>>());
            }
        }
    }
}
