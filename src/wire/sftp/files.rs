//! Files and directories that are open: by which handle the server knows them, and what has passed of each.
//!
//! A handle is the server's to reuse as soon as it is closed, and answers come in any order. So a file has a key of ours
//! that is never used twice, lets go of its handle when CLOSE is asked for, and is told when that is answered and nothing
//! else about it is outstanding.

use std::collections::{BTreeMap, HashMap};

use super::digest::{Digest, Way};
use super::packet::{Name, Status, code, flag};
use crate::wire::Stop;

/// Most that may be open at a time; OpenSSH's server stops below it.
pub(super) const MAX_OPEN: usize = 20_000;
/// Most memory for their paths.
const MAX_WEIGHT: usize = 64 * 1024 * 1024;
const GIVEN_TWICE: Stop = Stop { words: "the server gave out an sftp handle that is still open" };

/// What was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With OPEN's flags, and the permissions that a new one gets.
    File {
        flags: u32,
        mode: Option<u32>,
    },
    Directory,
}

impl Kind {
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::File { flags, .. } if flags & flag::READ != 0 || !self.writes())
    }

    pub(super) fn writes(self) -> bool {
        matches!(self, Self::File { flags, .. } if flags & (flag::WRITE | flag::APPEND) != 0)
    }
}

/// Something that is open, or is being opened.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: Name,
    pub(super) kind: Kind,
    pub(super) bytes_read: u64,
    /// Of WRITEs that the server took.
    pub(super) bytes_written: u64,
    pub(super) digest: Digest,
    /// Of a directory: how many names were listed.
    pub(super) entries: u64,
    /// What failed first.
    pub(super) status: Option<Status>,
    /// Whether the server has opened it.
    pub(super) is_open: bool,
    /// Whether the server has answered CLOSE.
    pub(super) is_closed: bool,
    /// Whether it was told that writing to it was refused.
    pub(super) was_denied: bool,
    /// Requests about it that are not answered, other than CLOSE.
    outstanding: u32,
}

impl File {
    pub(super) fn new(path: &[u8], kind: Kind) -> Self {
        Self {
            path: Name::new(path),
            kind,
            bytes_read: 0,
            bytes_written: 0,
            digest: Digest::default(),
            entries: 0,
            status: None,
            is_open: false,
            is_closed: false,
            was_denied: false,
            outstanding: 0,
        }
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.path.bytes.len()
    }

    fn failed(&mut self, status: Status) {
        self.status.get_or_insert(status);
    }
}

/// The table.
#[derive(Default)]
pub(super) struct Table {
    files: BTreeMap<u32, File>,
    handles: HashMap<Box<[u8]>, u32>,
    next: u32,
    weight: usize,
}

impl Table {
    pub(super) fn is_full(&self) -> bool {
        self.files.len() >= MAX_OPEN || self.weight >= MAX_WEIGHT
    }

    /// Remembers what is to be opened; returns its key.
    pub(super) fn insert(&mut self, file: File) -> u32 {
        // Comes round after four thousand million files; some of those before may still be open.
        while self.files.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let key = self.next;
        self.next = key.wrapping_add(1);
        self.weight += file.weight();
        self.files.insert(key, file);
        key
    }

    /// What has this handle, unless it is being closed.
    pub(super) fn find(&self, handle: &[u8]) -> Option<u32> {
        self.handles.get(handle).copied()
    }

    pub(super) fn get(&self, key: u32) -> Option<&File> {
        self.files.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut File> {
        self.files.get_mut(&key)
    }

    /// A request about it was sent.
    pub(super) fn asked(&mut self, key: u32) {
        if let Some(file) = self.files.get_mut(&key) {
            file.outstanding += 1;
        }
    }

    /// The server opened it.
    pub(super) fn opened(&mut self, key: u32, handle: &[u8]) -> Result<Option<&File>, Stop> {
        if self.handles.insert(handle.into(), key).is_some() {
            return Err(GIVEN_TWICE);
        }
        let Some(file) = self.files.get_mut(&key) else { return Ok(None) };
        file.is_open = true;
        if let Kind::File { flags, .. } = file.kind {
            file.digest = Digest::opened(flags);
        }
        Ok(Some(file))
    }

    /// The server did not open it.
    pub(super) fn not_opened(&mut self, key: u32, status: Status) -> Option<File> {
        let mut file = self.remove(key)?;
        file.failed(status);
        Some(file)
    }

    /// CLOSE was asked for: from now on the handle may mean something else.
    pub(super) fn close(&mut self, handle: &[u8]) -> Option<u32> {
        self.handles.remove(handle)
    }

    /// CLOSE was answered. Returns the file when that was the last.
    pub(super) fn closed(&mut self, key: u32, status: Status) -> Option<File> {
        let file = self.files.get_mut(&key)?;
        file.is_closed = true;
        if status.code != code::OK {
            file.failed(status);
        }
        self.remove_settled(key)
    }

    /// A request about it was answered. Returns the file when that was the last.
    pub(super) fn answered(&mut self, key: u32) -> Option<File> {
        let file = self.files.get_mut(&key)?;
        file.outstanding = file.outstanding.saturating_sub(1);
        self.remove_settled(key)
    }

    /// READ was answered without contents.
    pub(super) fn not_read(&mut self, key: u32, offset: u64, status: Status) {
        let Some(file) = self.files.get_mut(&key) else { return };
        match status.code {
            // An empty file was read to its end.
            code::EOF if offset == 0 => file.digest.start(Way::Down, 0),
            code::OK | code::EOF => {}
            _ => file.failed(status),
        }
    }

    /// WRITE was answered.
    pub(super) fn written(&mut self, key: u32, length: u32, status: Status) {
        let Some(file) = self.files.get_mut(&key) else { return };
        if status.code == code::OK {
            file.bytes_written += u64::from(length);
        } else {
            file.digest = Digest::Broken;
            file.failed(status);
        }
    }

    /// READDIR was answered without names.
    pub(super) fn not_listed(&mut self, key: u32, status: Status) {
        if let Some(file) = self.files.get_mut(&key)
            && !matches!(status.code, code::OK | code::EOF)
        {
            file.failed(status);
        }
    }

    /// Everything that is left, oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = File> + use<> {
        self.handles.clear();
        self.weight = 0;
        std::mem::take(&mut self.files).into_values()
    }

    fn remove_settled(&mut self, key: u32) -> Option<File> {
        let is_settled = self.files.get(&key).is_some_and(|file| file.is_closed && file.outstanding == 0);
        if is_settled { self.remove(key) } else { None }
    }

    fn remove(&mut self, key: u32) -> Option<File> {
        let file = self.files.remove(&key)?;
        self.weight -= file.weight();
        Some(file)
    }
}
