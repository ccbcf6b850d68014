//! The arguments of `rsync --server`: whether each is known to be harmless, and what the stream looks like for it.
//!
//! Source: `server_options()` and `long_options[]` of rsync's options.c, 2.6.9 to 3.5.0. popt takes options anywhere
//! before `--`, after paths too, so every word with a dash in front is judged. What is not listed here makes the
//! command one that is not recognised.

use crate::wire::words::Word;

/// What the arguments say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The upstream sends (`--sender`): a download.
    pub sender: bool,
    /// A sender that removes what it has sent: it writes.
    pub removes_sources: bool,
    /// More arguments come in the stream (`-s`), where paths are.
    pub secluded: bool,
    /// Where to, or where from, as they are written.
    pub paths: Vec<String>,
    pub(super) acls: bool,
    pub(super) xattrs: bool,
    pub(super) uid: bool,
    pub(super) gid: bool,
    pub(super) devices: bool,
    pub(super) specials: bool,
    pub(super) links: bool,
    pub(super) hard_links: bool,
    pub(super) atimes: bool,
    pub(super) crtimes: bool,
    pub(super) checksum: bool,
    pub(super) dry_run: bool,
    pub(super) relative: bool,
    pub(super) prune_empty_dirs: bool,
    pub(super) delete: bool,
    pub(super) delete_excluded: bool,
    pub(super) numeric_ids: bool,
    pub(super) converts_names: bool,
    pub(super) files_from: bool,
    pub(super) compress: bool,
    pub(super) compress_choice: Option<String>,
    pub(super) checksum_choice: Option<String>,
    /// What the client can do, as it says after `-e`.
    pub(super) capabilities: String,
    ended: bool,
    dotted: bool,
}

impl Options {
    /// Reads what stands after `rsync --server`, or what `-s` sends in the stream. `None`: something in it is not known
    /// to be harmless.
    pub fn read(&mut self, words: &[Word]) -> Option<()> {
        (self.ended, self.dotted) = (false, false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let is_option = !self.ended && word.text.len() > 1 && word.text.starts_with('-');
            match word.text.as_str() {
                // What a glob in front expands to may begin with a dash.
                _ if word.begins_open && !self.ended => return None,
                _ if !is_option => self.path(&word.text),
                _ if word.expands => return None,
                "--" => self.ended = true,
                text => match text.strip_prefix("--") {
                    Some(long) => self.long(long, &mut words)?,
                    None => self.short(text.get(1..)?)?,
                },
            }
        }
        Some(())
    }

    /// Whether the upstream's files may be changed.
    pub fn writes(&self) -> bool {
        !self.sender || self.removes_sources
    }

    /// The first `.` stands between options and paths.
    fn path(&mut self, text: &str) {
        match text == "." && !self.dotted {
            true => self.dotted = true,
            false => self.paths.push(text.to_owned()),
        }
    }

    fn short(&mut self, letters: &str) -> Option<()> {
        for (at, letter) in letters.char_indices() {
            let rest = letters.get(at + 1..).unwrap_or_default();
            match letter {
                // In a server the "remote shell" is only what the client can do; nothing starts it.
                'e' => return self.capabilities(rest),
                'B' | '@' => return is_number(rest).then_some(()),
                _ => self.letter(letter)?,
            }
        }
        Some(())
    }

    fn letter(&mut self, letter: char) -> Option<()> {
        match letter {
            'A' => self.acls = true,
            'D' => (self.devices, self.specials) = (true, true),
            'H' => self.hard_links = true,
            'N' => self.crtimes = true,
            'R' => self.relative = true,
            'U' => self.atimes = true,
            'X' => self.xattrs = true,
            'a' => {
                (self.uid, self.gid, self.links) = (true, true, true);
                (self.devices, self.specials) = (true, true);
            }
            'c' => self.checksum = true,
            'g' => self.gid = true,
            'l' => self.links = true,
            'm' => self.prune_empty_dirs = true,
            'n' => self.dry_run = true,
            'o' => self.uid = true,
            's' => self.secluded = true,
            'z' => self.compress = true,
            _ if HARMLESS_LETTERS.contains(letter) => {}
            _ => return None,
        }
        Some(())
    }

    fn capabilities(&mut self, text: &str) -> Option<()> {
        let known = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        self.capabilities = text.to_owned();
        known.then_some(())
    }

    fn long<'a>(&mut self, option: &str, words: &mut impl Iterator<Item = &'a Word>) -> Option<()> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if HARMLESS_VALUES.contains(&name) {
            let value = match value {
                Some(value) => value,
                None => word_of_a_path(words.next()?)?,
            };
            self.value(name, value);
            return Some(());
        }
        match name {
            _ if value.is_some() => return None,
            "sender" => self.sender = true,
            "remove-source-files" | "remove-sent-files" => self.removes_sources = true,
            "secluded-args" | "protect-args" => self.secluded = true,
            "del" | "delete" | "delete-before" | "delete-during" | "delete-delay" | "delete-after" => {
                self.delete = true;
            }
            "delete-excluded" => (self.delete, self.delete_excluded) = (true, true),
            "devices" => self.devices = true,
            "specials" => self.specials = true,
            "no-specials" => self.specials = false,
            "no-relative" => self.relative = false,
            "numeric-ids" => self.numeric_ids = true,
            "dry-run" => self.dry_run = true,
            "old-compress" => (self.compress, self.compress_choice) = (true, Some("zlib".to_owned())),
            "new-compress" => (self.compress, self.compress_choice) = (true, Some("zlibx".to_owned())),
            _ if HARMLESS.contains(&name) => {}
            _ => return None,
        }
        Some(())
    }

    fn value(&mut self, name: &str, value: &str) {
        match name {
            "iconv" => self.converts_names = true,
            "files-from" => self.files_from = true,
            "compress-choice" | "zc" => {
                (self.compress, self.compress_choice) = (value != "none", Some(value.to_owned()));
            }
            "checksum-choice" | "cc" => self.checksum_choice = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// A value in a word of its own: a glob might make two words of it.
fn word_of_a_path(word: &Word) -> Option<&str> {
    (!word.expands || !word.text.contains(['*', '?', '['])).then_some(word.text.as_str())
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What to compare, keep, print and skip. Not: `M` (more options), `T` and `f` (values of their own), `V`, `P`.
const HARMLESS_LETTERS: &str = "CEIJKLOSWbdhikpqrtuvxy08F";

/// No values, and no harm. Some are for a receiver, which writes anyhow; a sender does nothing with them.
const HARMLESS: &[&str] = &[
    "append",
    "append-verify",
    "copy-devices", // a device's bytes are read, as any file's
    "copy-unsafe-links",
    "delay-updates",
    "delete-missing-args",
    "existing",
    "fake-super",
    "force",
    "from0",
    "fsync",
    "fuzzy",
    "ignore-errors",
    "ignore-existing",
    "ignore-missing-args",
    "ignore-non-existing",
    "inplace",
    "list-only",
    "mkpath",
    "msgs2stderr",
    "munge-links",
    "no-W",
    "no-implied-dirs",
    "no-msgs2stderr",
    "no-r",
    "open-noatime",
    "partial",
    "preallocate",
    "qsort",
    "safe-links",
    "size-only",
    "sparse",
    "stats",
    "super",
    "trust-sender",
    "use-qsort",
    "write-devices", // for a receiver
];

/// With a value, and no harm. `files-from` is `-` (the stream) or a file of the upstream, whose lines are names that it
/// then sends: reading, which whoever may send or receive may do. `log-format` is only told for what it contains.
///
/// Not here, and so not recognised: what opens a file to write (`log-file`, `write-batch`, `only-write-batch`), takes
/// the transfer from elsewhere (`read-batch`, `early-input`, `exclude-from`, `include-from`, `password-file`), starts
/// something (`rsh`, `rsync-path`, `remote-option`, `copy-as`), or makes a daemon of it (`daemon`, `config`, `dparam`).
const HARMLESS_VALUES: &[&str] = &[
    "backup-dir",
    "block-size",
    "bwlimit",
    "cc",
    "checksum-choice",
    "checksum-seed",
    "chmod",
    "chown",
    "compare-dest",
    "compress-choice",
    "compress-level",
    "compress-threads",
    "copy-dest",
    "debug",
    "exclude",
    "files-from",
    "filter",
    "groupmap",
    "iconv",
    "include",
    "info",
    "link-dest",
    "log-format",
    "max-alloc",
    "max-delete",
    "max-size",
    "min-size",
    "modify-window",
    "partial-dir",
    "skip-compress",
    "stop-after",
    "stop-at",
    "suffix",
    "temp-dir",
    "time-limit",
    "timeout",
    "usermap",
    "zc",
    "zl",
    "zt",
];
