//! The file list (flist.c): entries, each told by its difference to the one before.

use super::Options;
use super::cursor::{Cursor, MAX_PATH, Result, Trouble};

/// One file of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below what is copied.
    pub(super) name: Vec<u8>,
    pub(super) mode: u32,
    pub(super) size: u64,
    /// Where a symbolic link leads.
    pub(super) link: Option<Vec<u8>>,
}

impl Entry {
    pub(super) fn is_directory(&self) -> bool {
        self.mode & KIND == DIRECTORY
    }

    /// Of its names.
    pub(super) fn length(&self) -> usize {
        self.name.len() + self.link.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn is_link(&self) -> bool {
        self.mode & KIND == LINK
    }
}

/// How lists are written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    pub(super) protocol: u32,
    /// Lists of directories come one by one.
    pub(super) incremental: bool,
    pub(super) wide_flags: bool,
    /// Names of user and group 0 come too.
    pub(super) names_of_root: bool,
    /// Length of a file's checksum in a list.
    pub(super) sum_length: usize,
}

/// A list that is being read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The index of its first file.
    pub(super) start: i32,
    /// The directory that it is about.
    pub(super) parent: Option<Entry>,
    pub(super) entries: Vec<Entry>,
}

/// What the entry before said, over all lists.
#[derive(Debug, Default)]
pub(super) struct Before {
    name: Vec<u8>,
    mode: u32,
}

/// What comes next of a list.
pub(super) enum Next {
    Entry(Entry),
    End,
}

impl Listing {
    /// Reads an entry or the end (`recv_file_list()`). Changes nothing where more is needed.
    pub(super) fn next(
        &self,
        cursor: &mut Cursor<'_>,
        form: Form,
        options: &Options,
        before: &mut Before,
    ) -> Result<Next> {
        let flags = match flags(cursor, form)? {
            Some(flags) => flags,
            None => return Ok(Next::End),
        };
        let shared = if flags & SAME_NAME != 0 { usize::from(cursor.byte()?) } else { 0 };
        let length = match flags & LONG_NAME {
            0 => i32::from(cursor.byte()?),
            _ => cursor.varint30(form.protocol)?,
        };
        let rest = cursor.counted(length, MAX_PATH)?;
        let shared = before.name.get(..shared).ok_or(Trouble::Unclear("a name has no beginning"))?;
        let name = [shared, rest].concat();
        if name.len() > MAX_PATH || name.is_empty() {
            return Err(Trouble::Unclear("a name is empty or too long"));
        }
        let entry = match self.same_file(cursor, form, flags)? {
            Some(first) => Entry { name, ..first.clone() },
            None => attributes(cursor, form, options, flags, before.mode, name)?,
        };
        if options.acls && !entry.is_link() {
            access_list(cursor)?;
            if entry.is_directory() {
                access_list(cursor)?;
            }
        }
        if options.xattrs {
            extended_attributes(cursor)?;
        }
        before.mode = entry.mode;
        before.name.clone_from(&entry.name);
        Ok(Next::Entry(entry))
    }

    /// A hard link to a file of the same list has its attributes, and repeats none.
    fn same_file(&self, cursor: &mut Cursor<'_>, form: Form, flags: u32) -> Result<Option<&Entry>> {
        if form.protocol < 30 || flags & (HARD_LINK | FIRST_LINK) != HARD_LINK {
            return Ok(None);
        }
        let first = cursor.varint()?;
        match first.checked_sub(self.start) {
            Some(place @ 0..) => {
                let entry = usize::try_from(place).ok().and_then(|place| self.entries.get(place));
                entry.map(Some).ok_or(Trouble::Unclear("a hard link leads nowhere"))
            }
            _ => Ok(None),
        }
    }
}

/// The flags of an entry; `None` at the end of the list.
fn flags(cursor: &mut Cursor<'_>, form: Form) -> Result<Option<u32>> {
    if form.wide_flags {
        let flags = cursor.varint()?;
        if flags == 0 {
            cursor.varint()?;
        }
        return Ok(Some(flags as u32).filter(|flags| *flags != 0));
    }
    let mut flags = u32::from(cursor.byte()?);
    if flags != 0 && form.protocol >= 28 && flags & EXTENDED != 0 {
        flags |= u32::from(cursor.byte()?) << 8;
    }
    if form.protocol >= 30 && flags == EXTENDED | END_WITH_ERROR {
        cursor.varint()?;
        return Ok(None);
    }
    Ok(Some(flags).filter(|flags| *flags != 0))
}

/// `recv_file_entry()` behind the name.
fn attributes(
    cursor: &mut Cursor<'_>,
    form: Form,
    options: &Options,
    flags: u32,
    mode_before: u32,
    name: Vec<u8>,
) -> Result<Entry> {
    let protocol = form.protocol;
    let size = cursor.varlong30(protocol, 3)?;
    if flags & SAME_TIME == 0 {
        match protocol < 30 {
            true => i64::from(cursor.int()?),
            false => cursor.varlong(4)?,
        };
    }
    if protocol >= 31 && flags & NANOSECONDS != 0 {
        cursor.varint()?;
    }
    if options.crtimes && flags & CREATED_AS_MODIFIED == 0 {
        cursor.varlong(4)?;
    }
    let mode = if flags & SAME_MODE == 0 { cursor.int()? as u32 } else { mode_before };
    let kind = mode & KIND;
    let is_known = [FILE, DIRECTORY, LINK, CHARACTER, BLOCK, FIFO, SOCKET].contains(&kind) || mode == 0;
    if !is_known {
        return Err(Trouble::Unclear("a file is of no known kind"));
    }
    if options.atimes && kind != DIRECTORY && flags & SAME_ACCESS_TIME == 0 {
        cursor.varlong(4)?;
    }
    if options.uid && flags & SAME_UID == 0 {
        owner(cursor, protocol, flags & USER_NAME != 0)?;
    }
    if options.gid && flags & SAME_GID == 0 {
        owner(cursor, protocol, flags & GROUP_NAME != 0)?;
    }
    let is_device = matches!(kind, CHARACTER | BLOCK);
    let is_special = matches!(kind, FIFO | SOCKET);
    if options.devices && is_device || options.specials && is_special && protocol < 31 {
        device(cursor, protocol, flags)?;
    }
    let link = match options.links && kind == LINK {
        true => {
            let length = cursor.varint30(protocol)?;
            Some(cursor.counted(length, MAX_PATH)?.to_vec())
        }
        false => None,
    };
    if protocol < 30 && options.hard_links && (flags & HARD_LINK != 0 || protocol < 28 && kind == FILE) {
        if protocol < 28 || flags & SAME_DEVICE == 0 {
            cursor.longint()?;
        }
        cursor.longint()?;
    }
    if options.checksum && (kind == FILE || protocol < 28) {
        cursor.take(form.sum_length)?;
    }
    let size = u64::try_from(size).map_err(|_| Trouble::Unclear("a file's size is negative"))?;
    Ok(Entry { name, mode, size, link })
}

fn owner(cursor: &mut Cursor<'_>, protocol: u32, is_named: bool) -> Result<()> {
    cursor.varint30(protocol)?;
    if protocol >= 30 && is_named {
        cursor.short_name()?;
    }
    Ok(())
}

/// `recv_rsync_acl()`: the number of one that was sent before, or one.
fn access_list(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.varint()? != 0 {
        return Ok(());
    }
    let flags = cursor.byte()?;
    for _ in 0..(flags & 0x0f).count_ones() {
        cursor.varint()?;
    }
    if flags & 0x10 != 0 {
        for _ in 0..cursor.varint()? {
            cursor.varint()?;
            let access = cursor.varint()?;
            if access & 1 != 0 {
                cursor.short_name()?;
            }
        }
    }
    Ok(())
}

/// `receive_xattr()`: the number of a set that was sent before, or one. Of a long value only its checksum comes.
fn extended_attributes(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.varint()? != 0 {
        return Ok(());
    }
    for _ in 0..cursor.varint()? {
        let name = cursor.varint()?;
        let value = cursor.varint()?;
        cursor.counted(name, MAX_PATH)?;
        match value {
            0..=32 => cursor.counted(value, MAX_PATH)?,
            _ => cursor.take(16)?,
        };
    }
    Ok(())
}

fn device(cursor: &mut Cursor<'_>, protocol: u32, flags: u32) -> Result<()> {
    if protocol < 28 {
        if flags & EXTENDED == 0 {
            cursor.int()?;
        }
        return Ok(());
    }
    if flags & SAME_MAJOR == 0 {
        cursor.varint30(protocol)?;
    }
    match protocol {
        30.. => cursor.varint().map(|_| ()),
        _ if flags & SMALL_MINOR != 0 => cursor.byte().map(|_| ()),
        _ => cursor.int().map(|_| ()),
    }
}

/// Names of users or groups, behind a list that is whole (`recv_id_list()`): one of them, or `false` at the end.
pub(super) fn owner_name(cursor: &mut Cursor<'_>, form: Form) -> Result<bool> {
    let is_end = cursor.varint30(form.protocol)? == 0;
    if !is_end || form.names_of_root {
        cursor.short_name()?;
    }
    Ok(!is_end)
}

const SAME_MODE: u32 = 1 << 1;
const EXTENDED: u32 = 1 << 2;
const SAME_UID: u32 = 1 << 3;
const SAME_GID: u32 = 1 << 4;
const SAME_NAME: u32 = 1 << 5;
const LONG_NAME: u32 = 1 << 6;
const SAME_TIME: u32 = 1 << 7;
const SAME_MAJOR: u32 = 1 << 8;
const HARD_LINK: u32 = 1 << 9;
/// Before protocol 30.
const SAME_DEVICE: u32 = 1 << 10;
const USER_NAME: u32 = 1 << 10;
/// Before protocol 30.
const SMALL_MINOR: u32 = 1 << 11;
const GROUP_NAME: u32 = 1 << 11;
const FIRST_LINK: u32 = 1 << 12;
const END_WITH_ERROR: u32 = 1 << 12;
const NANOSECONDS: u32 = 1 << 13;
const SAME_ACCESS_TIME: u32 = 1 << 14;
const CREATED_AS_MODIFIED: u32 = 1 << 17;

const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;
const SOCKET: u32 = 0o140_000;
