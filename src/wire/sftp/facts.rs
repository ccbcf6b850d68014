//! What is told of files, as `metadata` of events. Paths are bytes: lossily as text, and exactly when that loses something.

use serde_json::{Map, Value, json};

use super::Keep;
use super::change::{Change, Details};
use super::files::{File, Kind};
use super::packet::{Attributes, Name, Status, code, flag};
use crate::wire::{Fact, Outcome};

/// Longest name of an extension that is told, in bytes.
const MAX_EXTENSION: usize = 64;
/// Flags of OPEN in words.
const FLAGS: &[(u32, &str)] = &[
    (flag::READ, "read"),
    (flag::WRITE, "write"),
    (flag::APPEND, "append"),
    (flag::CREATE, "create"),
    (flag::TRUNCATE, "truncate"),
    (flag::EXCLUSIVE, "exclusive"),
];

/// What is counted over all of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files_read: u64,
    pub(super) files_written: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    pub(super) changes: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) lookups: u64,
    pub(super) incomplete: u64,
}

/// What paths are told with.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    pub(super) keep: Keep,
    /// Where relative paths begin, once the server has said so.
    pub(super) working_directory: Option<Name>,
}

impl Telling {
    /// What became of something that was opened, or that could not be.
    pub(super) fn file(&self, file: &File) -> Fact {
        let mut about = self.opening(&file.path, file.kind);
        if file.is_open {
            match file.kind {
                Kind::File { .. } => {
                    about.insert("bytes_read".into(), file.bytes_read.into());
                    about.insert("bytes_written".into(), file.bytes_written.into());
                    about.insert("sha256".into(), file.digest.hex(file.bytes_read, file.bytes_written).into());
                    about.insert("contents_kept".into(), (self.keep == Keep::Contents).into());
                }
                Kind::Directory => {
                    about.insert("entries".into(), file.entries.into());
                }
            }
            about.insert("complete".into(), file.is_closed.into());
        } else if file.status.is_none() {
            about.insert("complete".into(), false.into());
        }
        let is_done = file.is_open && file.status.is_none();
        put_status(&mut about, file.status.as_ref());
        fact(about, if is_done { Outcome::Done } else { Outcome::Failed })
    }

    /// What became of a change. Without an answer nobody knows, so it is not told as done.
    pub(super) fn change(&self, change: &Change, status: Option<&Status>) -> Fact {
        let mut about = self.changing(change);
        let is_done = status.is_some_and(|status| status.code == code::OK);
        match status {
            Some(_) if is_done => {}
            Some(_) => put_status(&mut about, status),
            None => {
                about.insert("complete".into(), false.into());
            }
        }
        fact(about, if is_done { Outcome::Done } else { Outcome::Failed })
    }

    /// Something was to be opened and was refused.
    pub(super) fn denied_opening(&self, path: &[u8], kind: Kind, reason: &str) -> Fact {
        denied(self.opening(&Name::new(path), kind), reason)
    }

    /// A change was refused.
    pub(super) fn denied_change(&self, change: &Change, reason: &str) -> Fact {
        denied(self.changing(change), reason)
    }

    /// Something about what is open, or about a handle that nobody knows, was refused.
    pub(super) fn denied_use(&self, operation: &str, path: Option<&Name>, reason: &str) -> Fact {
        let mut about = object(operation);
        if let Some(path) = path {
            self.put_path(&mut about, "path", "absolute", path);
        }
        denied(about, reason)
    }

    fn opening(&self, path: &Name, kind: Kind) -> Map<String, Value> {
        let operation = match kind {
            Kind::Directory => "list",
            _ if kind.reads() && kind.writes() => "read_write",
            _ if kind.writes() => "write",
            _ => "read",
        };
        let mut about = object(operation);
        self.put_path(&mut about, "path", "absolute", path);
        if let Kind::File { flags, mode } = kind {
            let words: Vec<_> = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
            about.insert("flags".into(), words.into());
            put_mode(&mut about, mode);
        }
        about
    }

    fn changing(&self, change: &Change) -> Map<String, Value> {
        let mut about = object(change.operation);
        match (&change.details, &change.to) {
            (Details::Extension, _) => {
                let name = change.path.bytes.get(..MAX_EXTENSION).unwrap_or(&change.path.bytes);
                about.insert("name".into(), String::from_utf8_lossy(name).into());
                return about;
            }
            (_, Some(to)) if change.operation == "symlink" => put_name(&mut about, "target", to),
            (_, Some(to)) => self.put_path(&mut about, "to", "to_absolute", to),
            (_, None) => {}
        }
        self.put_path(&mut about, "path", "absolute", &change.path);
        match &change.details {
            Details::None | Details::Extension => {}
            Details::Rename { posix } => {
                about.insert("posix".into(), (*posix).into());
            }
            Details::Mode(mode) => put_mode(&mut about, *mode),
            Details::Set { attributes, follow } => {
                about.insert("attributes".into(), attributes_of(attributes));
                about.insert("follow".into(), (*follow).into());
            }
            Details::Copy { offset, length, to_offset } => {
                about.insert("offset".into(), (*offset).into());
                about.insert("length".into(), (*length).into());
                about.insert("to_offset".into(), (*to_offset).into());
            }
        }
        about
    }

    fn put_path(&self, about: &mut Map<String, Value>, key: &str, absolute: &str, path: &Name) {
        put_name(about, key, path);
        let joined = match (&*path.bytes, &self.working_directory) {
            ([b'/', ..], _) => path.bytes.to_vec(),
            (b"" | b".", Some(directory)) => directory.bytes.to_vec(),
            (relative, Some(directory)) if directory.bytes.ends_with(b"/") => [&directory.bytes, relative].concat(),
            (relative, Some(directory)) => [&*directory.bytes, b"/", relative].concat(),
            (_, None) => return,
        };
        about.insert(absolute.into(), String::from_utf8_lossy(&joined).into());
    }
}

/// What was counted.
pub(super) fn summary(totals: &Totals) -> Fact {
    let about = json!({
        "files_read": totals.files_read,
        "files_written": totals.files_written,
        "bytes_read": totals.bytes_read,
        "bytes_written": totals.bytes_written,
        "changes": totals.changes,
        "denied": totals.denied,
        "failed": totals.failed,
        "lookups": totals.lookups,
        "incomplete": totals.incomplete,
    });
    Fact { kind: "ssh_files", outcome: Outcome::Done, about }
}

fn object(operation: &str) -> Map<String, Value> {
    Map::from_iter([("operation".into(), operation.into())])
}

fn fact(about: Map<String, Value>, outcome: Outcome) -> Fact {
    Fact { kind: "ssh_file", outcome, about: about.into() }
}

fn denied(mut about: Map<String, Value>, reason: &str) -> Fact {
    about.insert("reason".into(), reason.into());
    fact(about, Outcome::Denied)
}

fn put_name(about: &mut Map<String, Value>, key: &str, name: &Name) {
    let text = String::from_utf8_lossy(&name.bytes);
    if matches!(text, std::borrow::Cow::Owned(_)) {
        let hex: String = name.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        about.insert(format!("{key}_hex"), hex.into());
    }
    if name.cut {
        about.insert(format!("{key}_cut"), true.into());
    }
    about.insert(key.into(), text.into());
}

fn put_mode(about: &mut Map<String, Value>, mode: Option<u32>) {
    if let Some(mode) = mode {
        about.insert("mode".into(), octal(mode).into());
    }
}

fn put_status(about: &mut Map<String, Value>, status: Option<&Status>) {
    if let Some(Status { code, message }) = status {
        about.insert("status".into(), json!({ "code": code, "message": message }));
    }
}

fn attributes_of(set: &Attributes) -> Value {
    let mut about = Map::new();
    if let Some(size) = set.size {
        about.insert("size".into(), size.into());
    }
    if let Some((user, group)) = set.owner {
        about.insert("uid".into(), user.into());
        about.insert("gid".into(), group.into());
    }
    put_mode(&mut about, set.mode);
    if let Some((accessed, modified)) = set.times {
        about.insert("atime".into(), accessed.into());
        about.insert("mtime".into(), modified.into());
    }
    if set.extended > 0 {
        about.insert("extended".into(), set.extended.into());
    }
    about.into()
}

/// Permissions as `chmod` takes them; clients send the file's type above them.
fn octal(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}
