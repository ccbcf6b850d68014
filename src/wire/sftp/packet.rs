//! What SFTP's packets are made of (draft-ietf-secsh-filexfer-02 sections 3 to 7; OpenSSH's PROTOCOL section 4). Fields
//! are read from the front, and what is not there is `None`: nothing here panics or allocates by a length that was sent.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::Stop;

/// The only version that is understood.
pub(super) const VERSION: u32 = 3;
/// Longest packet that is held until it is whole: OpenSSH's limit (256 KiB) and room for those who count otherwise.
pub(super) const MAX_HELD: usize = 257 * 1024;
/// Longest packet whose payload streams through (WRITE, DATA, NAME): asyncssh sends 4 MiB to its own kind.
pub(super) const MAX_STREAMED: usize = 4 * 1024 * 1024 + 1024;
/// Longest handle (draft section 6.3).
pub(super) const MAX_HANDLE: usize = 256;
/// Longest path that is kept for a fact, in bytes.
const MAX_NAME: usize = 4096;
/// Longest message of a server that is kept for a fact, in bytes.
const MAX_MESSAGE: usize = 256;

/// Types of packets.
pub(super) mod kind {
    pub(in crate::wire::sftp) const INIT: u8 = 1;
    pub(in crate::wire::sftp) const VERSION: u8 = 2;
    pub(in crate::wire::sftp) const OPEN: u8 = 3;
    pub(in crate::wire::sftp) const CLOSE: u8 = 4;
    pub(in crate::wire::sftp) const READ: u8 = 5;
    pub(in crate::wire::sftp) const WRITE: u8 = 6;
    pub(in crate::wire::sftp) const LSTAT: u8 = 7;
    pub(in crate::wire::sftp) const FSTAT: u8 = 8;
    pub(in crate::wire::sftp) const SETSTAT: u8 = 9;
    pub(in crate::wire::sftp) const FSETSTAT: u8 = 10;
    pub(in crate::wire::sftp) const OPENDIR: u8 = 11;
    pub(in crate::wire::sftp) const READDIR: u8 = 12;
    pub(in crate::wire::sftp) const REMOVE: u8 = 13;
    pub(in crate::wire::sftp) const MKDIR: u8 = 14;
    pub(in crate::wire::sftp) const RMDIR: u8 = 15;
    pub(in crate::wire::sftp) const REALPATH: u8 = 16;
    pub(in crate::wire::sftp) const STAT: u8 = 17;
    pub(in crate::wire::sftp) const RENAME: u8 = 18;
    pub(in crate::wire::sftp) const READLINK: u8 = 19;
    pub(in crate::wire::sftp) const SYMLINK: u8 = 20;
    pub(in crate::wire::sftp) const STATUS: u8 = 101;
    pub(in crate::wire::sftp) const HANDLE: u8 = 102;
    pub(in crate::wire::sftp) const DATA: u8 = 103;
    pub(in crate::wire::sftp) const NAME: u8 = 104;
    pub(in crate::wire::sftp) const ATTRS: u8 = 105;
    pub(in crate::wire::sftp) const EXTENDED: u8 = 200;
    pub(in crate::wire::sftp) const EXTENDED_REPLY: u8 = 201;
}

/// Codes of STATUS.
pub(super) mod code {
    pub(in crate::wire::sftp) const OK: u32 = 0;
    pub(in crate::wire::sftp) const EOF: u32 = 1;
    pub(in crate::wire::sftp) const PERMISSION_DENIED: u32 = 3;
    pub(in crate::wire::sftp) const FAILURE: u32 = 4;
    pub(in crate::wire::sftp) const UNSUPPORTED: u32 = 8;
}

/// Flags of OPEN.
pub(super) mod flag {
    pub(in crate::wire::sftp) const READ: u32 = 1;
    pub(in crate::wire::sftp) const WRITE: u32 = 2;
    pub(in crate::wire::sftp) const APPEND: u32 = 4;
    pub(in crate::wire::sftp) const CREATE: u32 = 8;
    pub(in crate::wire::sftp) const TRUNCATE: u32 = 0x10;
    pub(in crate::wire::sftp) const EXCLUSIVE: u32 = 0x20;
}

/// Reads fields from the front.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    pub(super) fn long(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*first))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}

/// How a packet begins.
pub(super) enum Start {
    /// So many bytes must be there to tell.
    More(usize),
    /// What it is, and how long with its length field.
    Known { kind: u8, whole: usize },
}

/// Reads the length and the type. Longer than anything that is allowed, or empty: `bad`.
pub(super) fn start(seen: &[u8], bad: Stop) -> Result<Start, Stop> {
    let mut fields = Fields(seen);
    let Some(length) = fields.number() else { return Ok(Start::More(4)) };
    let whole = usize::try_from(length).ok().and_then(|length| length.checked_add(4)).unwrap_or(usize::MAX);
    if length == 0 || whole > MAX_STREAMED {
        return Err(bad);
    }
    let Some(kind) = fields.byte() else { return Ok(Start::More(5)) };
    if !matches!(kind, kind::WRITE | kind::DATA | kind::NAME) && whole > MAX_HELD {
        return Err(bad);
    }
    Ok(Start::Known { kind, whole })
}

/// A path as it was sent: bytes, cut when longer than any system takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) bytes: Arc<[u8]>,
    pub(super) cut: bool,
}

impl Name {
    pub(super) fn new(sent: &[u8]) -> Self {
        let kept = sent.get(..MAX_NAME).unwrap_or(sent);
        Self { bytes: kept.into(), cut: kept.len() < sent.len() }
    }
}

/// What STATUS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

impl Status {
    /// From the fields behind the id. Versions before 3 sent no message, and some servers still do not.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let code = fields.number()?;
        let sent = if fields.0.is_empty() { &[] } else { fields.string()? };
        let message = String::from_utf8_lossy(sent.get(..MAX_MESSAGE).unwrap_or(sent)).into_owned();
        Some(Self { code, message })
    }
}

/// ATTRS: what is set of it (draft section 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Last access and last change, in seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
    /// How many that the draft does not name.
    pub(super) extended: u32,
}

impl Attributes {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let flags = fields.number()?;
        let mut read = Self::default();
        if flags & 1 != 0 {
            read.size = Some(fields.long()?);
        }
        if flags & 2 != 0 {
            read.owner = Some((fields.number()?, fields.number()?));
        }
        if flags & 4 != 0 {
            read.mode = Some(fields.number()?);
        }
        if flags & 8 != 0 {
            read.times = Some((fields.number()?, fields.number()?));
        }
        if flags & 0x8000_0000 != 0 {
            read.extended = fields.number()?;
            for _ in 0..read.extended {
                fields.string()?;
                fields.string()?;
            }
        }
        Some(read)
    }
}

/// A STATUS packet.
pub(super) fn status(id: u32, code: u32, message: &str) -> Bytes {
    let mut packet = BytesMut::with_capacity(message.len() + 23);
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
    packet.put_u32(length(message).saturating_add(19));
    packet.put_u8(kind::STATUS);
    packet.put_u32(id);
    packet.put_u32(code);
    packet.put_u32(length(message));
    packet.put_slice(message.as_bytes());
    packet.put_u32(length(LANGUAGE));
    packet.put_slice(LANGUAGE.as_bytes());
    packet.freeze()
}

/// RFC 1766, as the draft asks for.
const LANGUAGE: &str = "en";
