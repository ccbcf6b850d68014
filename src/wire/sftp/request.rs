//! What a client asks for, read from the packet's head: all of it, but for the payload of WRITE.

use super::change::{Change, Details};
use super::packet::{Attributes, Fields, MAX_HANDLE, Name, Start, kind, start};
use crate::wire::Stop;

/// What came is no packet of a client, or not where it may be.
pub(super) const BAD_REQUEST: Stop =
    Stop { words: "the client sent something that is not sftp version 3; try another sftp client" };

/// A request, without its id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Open {
        path: &'a [u8],
        flags: u32,
        mode: Option<u32>,
    },
    OpenDirectory {
        path: &'a [u8],
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    ReadDirectory {
        handle: &'a [u8],
    },
    /// Changes nothing and opens nothing.
    Lookup,
    LookupByHandle {
        handle: &'a [u8],
    },
    /// REALPATH of ".", whose answer is what relative paths begin with.
    WorkingDirectory,
    Sync {
        handle: &'a [u8],
    },
    Change(Change),
    SetByHandle {
        handle: &'a [u8],
        attributes: Attributes,
    },
    Copy {
        from: &'a [u8],
        offset: u64,
        length: u64,
        to: &'a [u8],
        to_offset: u64,
    },
    /// An extension that nobody here knows.
    Extension {
        name: &'a [u8],
    },
    /// A type that version 3 does not have.
    Unknown,
}

/// How many bytes must be seen together: of a WRITE, what stands before its payload; of others, all.
pub(super) fn head(seen: &[u8]) -> Result<usize, Stop> {
    let (kind, whole) = match start(seen, BAD_REQUEST)? {
        Start::More(wanted) => return Ok(wanted),
        Start::Known { kind, whole } => (kind, whole),
    };
    if kind != kind::WRITE {
        return Ok(whole);
    }
    // Length, type, id, and the handle's length.
    let Some(handle) = seen.get(9..).and_then(|rest| Fields(rest).number()) else { return Ok(13) };
    let handle = usize::try_from(handle).ok().filter(|length| *length <= MAX_HANDLE).ok_or(BAD_REQUEST)?;
    let head = 13 + handle + 12;
    if head <= whole { Ok(head) } else { Err(BAD_REQUEST) }
}

/// The version that INIT asks for.
pub(super) fn init(packet: &[u8]) -> Option<u32> {
    let mut fields = Fields(packet.get(4..)?);
    if fields.byte()? == kind::INIT { fields.number() } else { None }
}

/// Reads a request and its id. What stands behind the last field is ignored, as OpenSSH's server does.
pub(super) fn parse(packet: &[u8]) -> Option<(u32, Request<'_>)> {
    let mut fields = Fields(packet.get(4..)?);
    let kind = fields.byte()?;
    let id = fields.number()?;
    let request = match kind {
        kind::INIT | kind::VERSION | kind::STATUS..=kind::ATTRS | kind::EXTENDED_REPLY => return None,
        kind::EXTENDED => extended(&mut fields)?,
        _ => plain(kind, &mut fields, packet)?,
    };
    Some((id, request))
}

fn plain<'a>(kind: u8, fields: &mut Fields<'a>, packet: &[u8]) -> Option<Request<'a>> {
    Some(match kind {
        kind::OPEN => {
            let (path, flags) = (fields.string()?, fields.number()?);
            Request::Open { path, flags, mode: Attributes::read(fields)?.mode }
        }
        kind::CLOSE => Request::Close { handle: fields.string()? },
        kind::READ => {
            let (handle, offset) = (fields.string()?, fields.long()?);
            fields.number()?;
            Request::Read { handle, offset }
        }
        kind::WRITE => {
            let (handle, offset, length) = (fields.string()?, fields.long()?, fields.number()?);
            // The payload must be what is left of the packet, no more and no less.
            let before = packet.len().checked_sub(4)?;
            let said = usize::try_from(Fields(packet).number()?).ok()?;
            (said.checked_sub(before)? == usize::try_from(length).ok()?).then_some(())?;
            Request::Write { handle, offset, length }
        }
        kind::LSTAT | kind::STAT | kind::READLINK => {
            fields.string()?;
            Request::Lookup
        }
        kind::REALPATH => match fields.string()? {
            b"" | b"." => Request::WorkingDirectory,
            _ => Request::Lookup,
        },
        kind::FSTAT => Request::LookupByHandle { handle: fields.string()? },
        kind::FSETSTAT => Request::SetByHandle { handle: fields.string()?, attributes: Attributes::read(fields)? },
        kind::OPENDIR => Request::OpenDirectory { path: fields.string()? },
        kind::READDIR => Request::ReadDirectory { handle: fields.string()? },
        kind::SETSTAT => set(fields, true)?,
        kind::REMOVE => one("remove", fields, Details::None)?,
        kind::RMDIR => one("rmdir", fields, Details::None)?,
        kind::MKDIR => {
            let path = Name::new(fields.string()?);
            let details = Details::Mode(Attributes::read(fields)?.mode);
            Request::Change(Change { operation: "mkdir", path, to: None, details })
        }
        kind::RENAME => two("rename", fields, Details::Rename { posix: false })?,
        kind::SYMLINK => {
            // OpenSSH's order, which is the draft's reversed: the target, then the link that is made.
            let (target, link) = (Name::new(fields.string()?), Name::new(fields.string()?));
            Request::Change(Change { operation: "symlink", path: link, to: Some(target), details: Details::None })
        }
        _ => Request::Unknown,
    })
}

/// OpenSSH's PROTOCOL, section 4.
fn extended<'a>(fields: &mut Fields<'a>) -> Option<Request<'a>> {
    Some(match fields.string()? {
        b"posix-rename@openssh.com" => two("rename", fields, Details::Rename { posix: true })?,
        b"hardlink@openssh.com" => two("link", fields, Details::None)?,
        b"lsetstat@openssh.com" => set(fields, false)?,
        b"fsync@openssh.com" => Request::Sync { handle: fields.string()? },
        b"fstatvfs@openssh.com" => Request::LookupByHandle { handle: fields.string()? },
        b"statvfs@openssh.com"
        | b"limits@openssh.com"
        | b"expand-path@openssh.com"
        | b"home-directory"
        | b"users-groups-by-id@openssh.com" => Request::Lookup,
        b"copy-data" => {
            let (from, offset, length) = (fields.string()?, fields.long()?, fields.long()?);
            Request::Copy { from, offset, length, to: fields.string()?, to_offset: fields.long()? }
        }
        name => Request::Extension { name },
    })
}

fn one<'a>(operation: &'static str, fields: &mut Fields<'a>, details: Details) -> Option<Request<'a>> {
    Some(Request::Change(Change { operation, path: Name::new(fields.string()?), to: None, details }))
}

fn two<'a>(operation: &'static str, fields: &mut Fields<'a>, details: Details) -> Option<Request<'a>> {
    let (path, to) = (Name::new(fields.string()?), Name::new(fields.string()?));
    Some(Request::Change(Change { operation, path, to: Some(to), details }))
}

fn set<'a>(fields: &mut Fields<'a>, follow: bool) -> Option<Request<'a>> {
    let path = Name::new(fields.string()?);
    let details = Details::Set { attributes: Attributes::read(fields)?, follow };
    Some(Request::Change(Change { operation: "set", path, to: None, details }))
}
