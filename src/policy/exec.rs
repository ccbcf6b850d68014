//! `exec` patterns: matched word by word after POSIX splitting.
//!
//! `*` stands for one word, `**` (last only) for the rest. A command with an unquoted `; & | < > ( ) $`, back-tick,
//! newline, glob or leading assignment matches no pattern, so that nothing can be smuggled behind an allowed word. What
//! [`split`] does not accept matches nothing.

use std::fmt;

use crate::wire::words::{NotPlain, Unquoted, Word, split};

/// One pattern, such as `systemctl status *`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecPattern {
    text: String,
    words: Vec<Wanted>,
}

/// Why something is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecPatternError {
    /// No words at all.
    #[error("the pattern is empty")]
    Empty,
    /// `**` before the last word.
    #[error("`**` stands for the rest of the words and can only be the last one")]
    RestNotLast,
    /// `*` beside other characters.
    #[error("`*` stands for one whole word and cannot be part of the word `{0}`; quote it to mean the character")]
    PartOfWord(String),
    /// The command such a pattern describes is never accepted.
    #[error("no command can match: {0}")]
    Never(#[from] NotPlain),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Exactly(String),
    One,
    Rest,
}

impl ExecPattern {
    /// Reads a pattern. It is split as commands are, so `echo 'a b'` has two words and `'*'` is a literal star.
    pub fn parse(pattern: &str) -> Result<Self, ExecPatternError> {
        let split = split(pattern.as_bytes(), Unquoted::Stars)?;
        let count = split.len();
        let words = split.into_iter().enumerate().map(|(at, word)| wanted(word, at + 1 == count));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        if words.is_empty() {
            return Err(ExecPatternError::Empty);
        }
        Ok(Self { text: pattern.to_owned(), words })
    }

    /// Whether this command line, as it was sent, is one that the pattern describes.
    pub fn matches(&self, command: &[u8]) -> bool {
        let Ok(command) = split(command, Unquoted::Nothing) else { return false };
        let mut command = command.iter();
        for wanted in &self.words {
            match (wanted, command.next()) {
                (Wanted::Rest, _) => return true,
                (Wanted::One, Some(_)) => {}
                (Wanted::Exactly(text), Some(got)) if *text == got.text => {}
                _ => return false,
            }
        }
        command.next().is_none()
    }
}

impl fmt::Display for ExecPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn wanted(word: Word, last: bool) -> Result<Wanted, ExecPatternError> {
    match (word.expands, word.text.as_str()) {
        (false, _) => Ok(Wanted::Exactly(word.text)),
        (true, "*") => Ok(Wanted::One),
        (true, "**") if last => Ok(Wanted::Rest),
        (true, "**") => Err(ExecPatternError::RestNotLast),
        (true, _) => Err(ExecPatternError::PartOfWord(word.text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::words::MAX_COMMAND;

    fn matches(pattern: &str, command: &str) -> bool {
        ExecPattern::parse(pattern).unwrap().matches(command.as_bytes())
    }

    #[test]
    fn words_are_compared_one_by_one() {
        for (pattern, command, expected) in [
            ("uptime", "uptime", true),
            ("uptime", "  uptime\t ", true),
            ("uptime", "uptime -p", false),
            ("uptime", "", false),
            ("uptime", "/usr/bin/uptime", false),
            ("uptime", "Uptime", false),
            ("systemctl status *", "systemctl status nginx", true),
            ("systemctl status *", "systemctl  status\t'nginx'", true),
            ("systemctl status *", "systemctl status ''", true),
            ("systemctl status *", "systemctl status", false),
            ("systemctl status *", "systemctl status a b", false),
            ("systemctl status *", "systemctl stop nginx", false),
            ("git **", "git log --format=%H -- a.txt", true),
            ("git **", "git", true),
            ("git **", "gitk", false),
            ("tail -n * *", "tail -n 10 /var/log/a,b@c:d+e_f", true),
            ("echo 'a b'", "echo a\\ b", true),
            ("echo 'a b'", "echo \"a b\"", true),
            ("echo 'a b'", "echo a b", false),
            ("echo '*'", "echo '*'", true),
            ("echo '*'", "echo x", false),
            ("echo '**'", "echo a b", false),
            ("cat *", "cat 'Grüße ; | & $HOME `id`'", true),
            ("cat *", "cat \"it's; (fine) ~ # * ?\"", true),
            ("cat *", "cat \\;\\&\\|\\$\\`\\*\\'\\\"", true),
        ] {
            assert_eq!(matches(pattern, command), expected, "{pattern:?} on {command:?}");
        }
    }

    /// Each is allowed by no pattern, though each would pass a check that is one thought shorter.
    #[test]
    fn evasions_match_no_pattern() {
        let evasions: &[&[u8]] = &[
            b"uptime; id",
            b"uptime;id",
            b"uptime & id",
            b"uptime && id",
            b"uptime || id",
            b"uptime | sh",
            b"uptime |& sh",
            b"uptime > /etc/passwd",
            b"uptime < /etc/shadow",
            b"uptime 2>&1",
            b"uptime <(id)",
            b"uptime $(id)",
            b"uptime `id`",
            b"uptime \"$(id)\"",
            b"uptime \"`id`\"",
            b"uptime $HOME",
            b"uptime ${IFS}id",
            b"uptime \"${x:-$(id)}\"",
            b"uptime $'\\x3b'id",
            b"uptime\nid",
            b"uptime\r\nid",
            b"uptime \\\nid",
            b"uptime '\n' id",
            b"(id)",
            b"uptime() { id; }",
            b"LD_PRELOAD=/tmp/x.so uptime",
            b"A+=b uptime",
            b"PATH=. uptime",
            b"'PATH'=. uptime",
            b"uptime *",
            b"uptime ?",
            b"uptime [a-z]",
            b"uptime {a,b}",
            b"uptime ~root/x",
            b"uptime =id",
            b"uptime a # --dry-run",
            b"uptime ^ sh",
            b"uptime !!",
            b"uptime '!#'",
            b"! uptime",
            b"uptime 'a",
            b"uptime \"a",
            b"uptime a\\",
            // fish: `\'` does not end a single-quoted string, so `; id` stands outside.
            b"uptime 'a\\' '; id #'",
            // csh: `\"` ends a double-quoted string.
            b"uptime \"a\\\"; id; \"b\"",
            // fish: `\x3b` and `\u0066` are escapes outside quotes.
            b"uptime \\x3bid",
            // GBK: the last byte of the character takes the back-slash with it, and `;` is live.
            "uptime あ\\; id".as_bytes(),
            // No-break and ideographic spaces are blanks to some.
            "uptime\u{a0}id".as_bytes(),
            "uptime\u{3000}id".as_bytes(),
            b"uptime\x0bid",
            b"uptime\0",
            b"uptime \0; id",
            b"uptime \x1b[2J",
            b"uptime \xff",
            b"uptime '\xc3\x28'",
            b"\xef\xbb\xbfuptime",
            b"",
            b"   ",
        ];
        let patterns = ["uptime", "uptime *", "uptime * *", "uptime * * *", "uptime **", "* **"];
        for pattern in patterns.map(|text| ExecPattern::parse(text).unwrap()) {
            for command in evasions {
                assert!(!pattern.matches(command), "{pattern} on {:?}", String::from_utf8_lossy(command));
            }
        }
        assert!(evasions.len() >= 30);
    }

    #[test]
    fn too_long_matches_nothing() {
        let pattern = ExecPattern::parse("echo *").unwrap();
        let command = |len: usize| format!("echo {}", "a".repeat(len - 5));
        assert!(pattern.matches(command(MAX_COMMAND).as_bytes()));
        assert!(!pattern.matches(command(MAX_COMMAND + 1).as_bytes()));
    }

    #[test]
    fn bad_patterns_are_told() {
        use ExecPatternError as E;
        for (pattern, error) in [
            ("", E::Empty),
            ("  ", E::Empty),
            ("git ** log", E::RestNotLast),
            ("ls /srv/*", E::PartOfWord("/srv/*".into())),
            ("ls *'a'", E::PartOfWord("*a".into())),
            ("ls ***", E::PartOfWord("***".into())),
            ("ls | wc", E::Never(NotPlain::Unquoted('|'))),
            ("ls \"$HOME\"", E::Never(NotPlain::Quoted('$'))),
            ("A=b ls", E::Never(NotPlain::Assignment)),
            ("ls 'a", E::Never(NotPlain::Open)),
            ("ls\nid", E::Never(NotPlain::Control)),
        ] {
            assert_eq!(ExecPattern::parse(pattern).unwrap_err(), error, "{pattern:?}");
        }
    }

    proptest! {
        /// However the words are quoted, they are what comes out.
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[a-zA-Z0-9 ;|&$`*?~#äß漢()<>-]{0,8}", 1..6)) {
            let command = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            let pattern = ExecPattern::parse(&command).unwrap();
            prop_assert!(pattern.matches(command.as_bytes()));
            let longer = [command.as_str(), " more"].concat();
            prop_assert!(!pattern.matches(longer.as_bytes()));
            let got = split(command.as_bytes(), Unquoted::Nothing).unwrap();
            prop_assert_eq!(got.into_iter().map(|word| word.text).collect::<Vec<_>>(), words);
        }

        /// A real sh makes the same words of what is accepted.
        #[test]
        fn sh_splits_what_is_accepted_alike(command in "[a-c ;|&$`*?~#'\"\\\\=!\n]{0,16}") {
            if let Ok(words) = split(command.as_bytes(), Unquoted::Nothing) {
                let script = format!("printf '%s\\0' x {command}");
                let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
                let got = String::from_utf8(out.stdout).unwrap();
                let got = got.split_terminator('\0').skip(1).map(str::to_owned).collect::<Vec<_>>();
                prop_assert_eq!(got, words.into_iter().map(|word| word.text).collect::<Vec<_>>());
            }
        }
    }
}
