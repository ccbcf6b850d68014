//! The order of a list (`f_name_cmp()` of flist.c), which both sides make for themselves: indices count in it.

use std::cmp::Ordering;

use super::list::Entry;

/// In a directory files come before directories, since protocol 29.
pub(super) fn order(protocol: u32) -> impl Fn(&Entry, &Entry) -> Ordering {
    move |a, b| compare(Walk::new(a, protocol), Walk::new(b, protocol))
}

fn compare(mut a: Walk<'_>, mut b: Walk<'_>) -> Ordering {
    if a.is_path != b.is_path {
        return a.is_path.cmp(&b.is_path);
    }
    loop {
        if a.rest.is_empty() {
            a.advance();
            if !b.rest.is_empty() && a.is_path != b.is_path {
                return a.is_path.cmp(&b.is_path);
            }
        }
        if b.rest.is_empty() {
            let was_last = b.advance();
            if was_last && a.rest.is_empty() {
                return Ordering::Equal;
            }
            if a.is_path != b.is_path {
                return a.is_path.cmp(&b.is_path);
            }
        }
        match a.step().cmp(&b.step()) {
            Ordering::Equal => {}
            different => return different,
        }
    }
}

/// A name on its way through its parts.
struct Walk<'a> {
    base: &'a [u8],
    is_directory: bool,
    protocol: u32,
    part: Part,
    /// Whether this part counts as one of a directory.
    is_path: bool,
    rest: &'a [u8],
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Directory,
    Slash,
    Base,
    Trailing,
}

impl<'a> Walk<'a> {
    fn new(entry: &'a Entry, protocol: u32) -> Self {
        let at = entry.name.iter().rposition(|byte| *byte == b'/');
        let (directory, base) = match at {
            Some(at) => (Some(entry.name.get(..at).unwrap_or_default()), entry.name.get(at + 1..).unwrap_or_default()),
            None => (None, entry.name.as_slice()),
        };
        let is_directory = entry.is_directory();
        let mut walk = Self { base, is_directory, protocol, part: Part::Directory, is_path: protocol >= 29, rest: b"" };
        match directory {
            Some(directory) => walk.rest = directory,
            None => walk.enter_base(),
        }
        walk
    }

    fn enter_base(&mut self) {
        (self.part, self.rest) = (Part::Base, self.base);
        self.is_path = self.is_directory && self.protocol >= 29;
        if self.is_path && self.base == b"." {
            (self.part, self.rest, self.is_path) = (Part::Trailing, b"", false);
        }
    }

    /// Goes on to the next part. Whether there was none.
    fn advance(&mut self) -> bool {
        match self.part {
            Part::Directory => (self.part, self.rest) = (Part::Slash, b"/"),
            Part::Slash => self.enter_base(),
            Part::Base if self.is_path => (self.part, self.rest) = (Part::Trailing, b"/"),
            Part::Base | Part::Trailing => {
                (self.part, self.is_path) = (Part::Trailing, false);
                return true;
            }
        }
        false
    }

    /// The next byte; zero where there is none, as in C.
    fn step(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(protocol: u32, names: &[&str]) -> Vec<String> {
        let entry = |name: &&str| {
            let mode = if name.ends_with('/') || *name == "." { 0o040_755 } else { 0o100_644 };
            Entry { name: name.trim_end_matches('/').as_bytes().to_vec(), mode, size: 0, link: None }
        };
        let mut entries: Vec<_> = names.iter().map(entry).collect();
        entries.sort_by(order(protocol));
        entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    }

    /// What `rsync -r --list-only` shows, by either protocol.
    #[test]
    fn files_come_before_directories_and_what_is_in_them() {
        let names = ["b/c/q", "a.d/", "b/", "z", "b-c", "a/x", ".", "a/", "a.d/z", "b/c/"];
        assert_eq!(sorted(31, &names), [".", "b-c", "z", "a.d", "a.d/z", "a", "a/x", "b", "b/c", "b/c/q"]);
        assert_eq!(sorted(28, &["b/c", "a.d", "b", "b-c", "a/x", "a"]), ["a", "a.d", "a/x", "b", "b-c", "b/c"]);
    }
}
