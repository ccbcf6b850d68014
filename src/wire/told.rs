//! What copying files tells: the fields that every protocol's facts share.

use serde_json::{Map, Value, json};

use super::{Fact, Outcome};

/// Whether contents are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// How much, and what was done.
    Metadata,
    /// All of it.
    Contents,
}

/// What went through a channel, for its summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files_read: u64,
    pub(super) files_written: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    /// Directories made, links, removals.
    pub(super) changes: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) incomplete: u64,
}

impl Totals {
    /// One more file, or a part of one.
    pub(super) fn count_file(&mut self, written: bool, bytes: u64) {
        let (files, total) = match written {
            true => (&mut self.files_written, &mut self.bytes_written),
            false => (&mut self.files_read, &mut self.bytes_read),
        };
        *files = files.saturating_add(1);
        *total = total.saturating_add(bytes);
    }

    pub(super) fn about(&self) -> Map<String, Value> {
        let about = json!({
            "files_read": self.files_read,
            "files_written": self.files_written,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "changes": self.changes,
            "denied": self.denied,
            "failed": self.failed,
            "incomplete": self.incomplete,
        });
        object(about)
    }
}

/// The fact about one file.
pub(super) fn file(outcome: Outcome, about: Map<String, Value>) -> Fact {
    Fact { kind: "ssh_file", outcome, about: Value::Object(about) }
}

/// The summary of a channel.
pub(super) fn files(about: Map<String, Value>) -> Fact {
    Fact { kind: "ssh_files", outcome: Outcome::Done, about: Value::Object(about) }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Puts a path into a fact: as text, and in hex as well where it is none (`path` becomes `path_hex`).
pub(super) fn put_path(about: &mut Map<String, Value>, key: &str, path: &[u8]) {
    let cut = path.get(..MAX_PATH).unwrap_or(path);
    about.insert(key.to_owned(), Value::String(String::from_utf8_lossy(cut).into_owned()));
    if std::str::from_utf8(cut).is_err() {
        about.insert(format!("{key}_hex"), Value::String(hex(cut)));
    }
}

/// What a program said, cut.
pub(super) fn words(said: &[u8]) -> String {
    String::from_utf8_lossy(said.get(..MAX_WORDS).unwrap_or(said)).into_owned()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A directory and a name in it; a name that begins with a slash is in it too.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let inside = name.iter().position(|byte| *byte != b'/').and_then(|start| name.get(start..)).unwrap_or_default();
    match directory {
        b"" => name.to_vec(),
        b"." => inside.to_vec(),
        _ if directory.ends_with(b"/") => [directory, inside].concat(),
        _ => [directory, b"/", inside].concat(),
    }
}

/// What stands before the last slash; a slash at the end does not count.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let path = path.get(..end).unwrap_or(path);
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => b"/",
        Some(at) => path.get(..at).unwrap_or_default(),
        None => b"",
    }
}

/// Longer paths are cut in facts.
const MAX_PATH: usize = 4096;

/// Longer words of a program are cut in facts.
pub(super) const MAX_WORDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_cut() {
        for (directory, name, path) in [
            ("", "a", "a"),
            ("", "/a", "/a"),
            (".", "a", "a"),
            ("/srv", "a", "/srv/a"),
            ("/srv/", "a/b", "/srv/a/b"),
            ("/srv", "/a", "/srv/a"),
            ("/", "a", "/a"),
        ] {
            assert_eq!(join(directory.as_bytes(), name.as_bytes()), path.as_bytes(), "{directory} {name}");
        }
        for (path, directory) in [("a", ""), ("a/b", "a"), ("a/b//", "a"), ("/a", "/"), ("/", ""), ("", "")] {
            assert_eq!(parent(path.as_bytes()), directory.as_bytes(), "{path}");
        }
    }

    #[test]
    fn what_is_no_text_is_told_in_hex_too() {
        let mut about = Map::new();
        put_path(&mut about, "path", b"a\xff");
        assert_eq!(Value::Object(about), json!({ "path": "a\u{fffd}", "path_hex": "61ff" }));
        let mut about = Map::new();
        put_path(&mut about, "to", &[b'a'; 5000]);
        assert_eq!(about["to"].as_str().map(str::len), Some(MAX_PATH));
    }
}
